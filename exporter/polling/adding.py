"""A workspace's poller that also adds up data that is counted once and never changes: webhook deliveries, client errors.

They are collectors like the others, and each fails alone; they are read after those, in the time that a poll has left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from exporter.config.config import Config
from exporter.counting.contribution import Account
from exporter.counting.poll import Poll
from exporter.hms.client import Api
from exporter.hms.errors import ApiError
from exporter.polling.client_errors import SINCE, ClientErrors
from exporter.polling.collecting import CollectingPoller
from exporter.polling.deliveries import Deliveries
from exporter.polling.listed import Asking
from exporter.polling.site import AtWork, TimeLeft
from exporter.polling.turns import Turn
from exporter.publish.added import SumFamily
from exporter.publish.collected import up_sections
from exporter.publish.collected_families import COLLECTOR_UP
from exporter.publish.exposition import Section
from exporter.publish.sums import SumsText
from exporter.state.sums import Additions


class Adder(Protocol):
    """How one kind of data is read and added up."""

    @property
    def name(self) -> str:
        """Its key in `collect`."""

    @property
    def families(self) -> Sequence[SumFamily]:
        """The families published for it."""

    @property
    def behind(self) -> bool:
        """Whether there is more to read at once."""

    def beginning(self, additions: Additions, since: int) -> dict[str, int]:
        """The marks to remember at the first poll, where counting begins at `since` (µs)."""

    def read(self, asking: Asking, additions: Additions, now: int) -> ApiError | None:
        """Reads and stores the due data.  Returns the error of a part that failed; raises `ApiError` and `StoreError`."""

    def quiet(self, additions: Additions, now: int) -> bool:
        """Whether it can be read less often."""


_ADDERS: Mapping[str, Callable[[AddingPoller], Adder]] = {
    Deliveries.name: lambda poller: Deliveries(poller.name),
    ClientErrors.name: lambda poller: ClientErrors(poller.rejected),
}
"""The data that is added up, by its key in `collect`."""


class Adding(AtWork):
    """One adder at work in a workspace."""

    def __init__(self, workspace: str, adder: Adder, turn: Turn) -> None:
        super().__init__(adder.name, turn)
        self.adder = adder
        self.text = SumsText(workspace, adder.families)
        self.shown: Mapping[str, Sequence[Section]] = {}


class _Outcome(NamedTuple):
    """The error of a read, if any; `whole` says that it concerns everything the adder reads."""

    error: ApiError | None
    whole: bool = True


class AddingPoller(CollectingPoller):
    """A `CollectingPoller` that also reads the data of the adders."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        """The arguments are those of `WorkspacePoller`."""
        self._adding: dict[str, Adding] = {}
        self._additions: Additions | None = None
        super().__init__(*arguments, **more)

    @property
    def _added(self) -> Additions:
        if self._additions is None:
            self._additions = Additions(self._store, self.name)
        return self._additions

    # -- its configuration ----------------------------------------------------------------------------------------

    def _use(self, config: Config, api: Api) -> None:
        super()._use(config, api)
        before, self._adding = self._adding, {}
        for name, make in _ADDERS.items():
            if getattr(config.collect, name):
                turn = Turn(config.collect.interval, config.poll.interval)
                known = before.get(name)
                if known is not None:
                    turn.carry_on(known.turn)
                self._adding[name] = Adding(self.name, make(self) if known is None else known.adder, turn)

    def _restore_beside(self) -> None:
        super()._restore_beside()
        if self._adding:
            self._added.begin()

    def _enter_accounts(self) -> None:
        self._follow()
        super()._enter_accounts()

    def _follow(self) -> None:
        """Keeps the sums of the rooms and groups in use in memory."""
        if ClientErrors.name in self._adding:
            self._added.begin()
            self._added.follow(self.ledger.accounts)

    # -- a poll ---------------------------------------------------------------------------------------------------

    def _begin(self, now: int) -> Poll:
        poll = super()._begin(now)
        marks: dict[str, int] = {}
        if self._adding:
            self._added.begin()
            for adding in self._adding.values():
                marks |= adding.adder.beginning(self._added, self._since(now))
        if marks:
            self._added.commit(marks)
        self.ledger.notes_ends_after = self._added.marks[SINCE] if ClientErrors.name in self._adding else None
        return poll

    def _end(self, poll: Poll) -> None:
        super()._end(poll)
        self._follow()

    def _at_work(self) -> list[AtWork]:
        return [*super()._at_work(), *self._adding.values()]

    def _turn(self, work: AtWork, left: TimeLeft) -> None:
        if not isinstance(work, Adding):
            return super()._turn(work, left)
        self._show_read()
        return self._add(work, left)

    def _add(self, adding: Adding, left: TimeLeft) -> None:
        """Reads one adder; an error concerns it alone."""
        adder, turn = adding.adder, adding.turn
        begun = self._monotonic()
        outcome: list[_Outcome] = []
        fault = self._guarded(lambda: outcome.append(self._read(adder, left.asking)))
        if self.api.stopped.is_set():
            return
        error, whole = outcome[0] if outcome else _Outcome(None)
        if error is None and fault is None:
            turn.succeeded(left.started, self._monotonic(), time.time(), quiet=adder.quiet(self._added, self.api.now()))
        else:
            left.failed(turn, error if fault is None else fault, begun)
            if not whole:  # the parts that work must not wait for the one that fails
                turn.due = min(turn.due, left.started + self._config.collect.interval)
        self._tell_of(adding)

    def _read_rest(self, left: TimeLeft) -> None:
        super()._read_rest(left)
        for adding in self._adding.values():
            while adding.adder.behind and adding.turn.state == "ok" and not left.asking.is_over and not self.api.stopped.is_set():
                self._show_read()
                self._add(adding, left)
                self._unshown = True

    def _read(self, adder: Adder, asking: Asking) -> _Outcome:
        """Raises `StoreError`."""
        self._added.begin()
        try:
            partly = adder.read(asking, self._added, self.api.now())
        except ApiError as error:
            return _Outcome(error)
        return _Outcome(partly, whole=partly is None)

    # -- telling --------------------------------------------------------------------------------------------------

    def _sections_beside(self, labels: Mapping[Account, str]) -> Mapping[str, Sequence[Section]]:
        found = super()._sections_beside(labels)
        sections, up = dict(found), list(found[COLLECTOR_UP.name])
        for adding in self._adding.values():
            if self._added.whole:
                adding.shown = adding.text.sections(self._added.sums, labels, created=self._config.web.created_timestamps)
            sections |= adding.shown
            up += up_sections(self.name, adding.name, adding.turn.good_until if adding.turn.state == "ok" else float("-inf"))
        return {**sections, COLLECTOR_UP.name: up}
