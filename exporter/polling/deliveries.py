"""Asks 100ms for the results of its webhooks: two numbers for each window of time."""

from __future__ import annotations

from exporter.counting.deliveries import DELIVERIES, LONGEST, OUTCOMES, SHORTEST, Window, count, next_window
from exporter.counting.sums import Series
from exporter.hms import pages
from exporter.hms.errors import ApiError
from exporter.logs import event
from exporter.polling.listed import Asking
from exporter.publish.added import DELIVERY_FAMILIES
from exporter.state.sums import Additions
from exporter.times import DAY, HOUR

_ROUTE = "/analytics/webhooks"
_READ_UNTIL = "webhook_deliveries.read_until"
_NEWEST = "webhook_deliveries.newest"
"""The mark of the end of the last window in which webhooks were sent."""


class Deliveries:
    """Reads adjacent windows that do not overlap, from the end of the last one up to a minute ago."""

    name = "webhook_deliveries"
    families = DELIVERY_FAMILIES

    def __init__(self, workspace: str) -> None:
        self._workspace = workspace
        self.behind = False
        self._longest = LONGEST
        """The maximum length of a window, which is reduced for a while when an answer takes too long."""

    def beginning(self, additions: Additions, since: int) -> dict[str, int]:
        """The marks to remember at the first poll."""
        return {} if _READ_UNTIL in additions.marks else {_READ_UNTIL: since}

    def read(self, asking: Asking, additions: Additions, now: int) -> ApiError | None:
        """Reads every due window, and stores each before the next.  Raises `ApiError` and `StoreError`."""
        self.behind, windows = False, 0
        while (window := next_window(additions.marks[_READ_UNTIL], now, self._longest)) is not None:
            if asking.is_over:
                self.behind = True
                break
            if window.lost:
                text = "webhook deliveries that are older than 30 days cannot be counted any more"
                event("warn", text, workspace=self._workspace, days=round(window.lost / DAY, 1))
            try:
                found = {outcome: _number(asking, window, outcome) for outcome in OUTCOMES}
            except ApiError as error:
                if error.transport:
                    self._longest = max(SHORTEST, (window.end - window.begin) // 8)
                if windows and asking.is_over:  # the poll's time has cut it short
                    self.behind = True
                    break
                raise
            windows, self._longest = windows + 1, min(LONGEST, 2 * self._longest)
            count(additions.sums, window, found)
            additions.commit({_READ_UNTIL: window.end} | ({_NEWEST: window.end} if any(found.values()) else {}))
            asking.pause()
        return None

    def quiet(self, additions: Additions, now: int) -> bool:
        """Whether no webhook was sent for an hour, as far as 100ms was asked; `False` before the first window."""
        asked = Series(DELIVERIES, OUTCOMES[:1]) in additions.sums.of_workspace
        return asked and now - additions.marks.get(_NEWEST, 0) > HOUR


def _number(asking: Asking, window: Window, outcome: str) -> int:
    """How many deliveries of a window had this outcome: the answer's total, requested with a page of one."""
    parameters = {**window.parameters, "status": outcome, "limit": "1"}
    first = next(asking.client.pages(_ROUTE, parameters, asking.patience, pages.DELIVERIES, optional=True))
    if first.total is None or first.total < 0:
        raise ApiError(f"{_ROUTE}: the answer does not say how many deliveries there are")
    return first.total
