"""The windows of time for which 100ms is asked about webhook deliveries.  Pure; times are the API's, in integer microseconds.

The answer for a window is two numbers, not records: a delivery in two windows would count twice, and one between two windows
would be lost.  So a window ends a microsecond before the next one begins.  Borders are whole seconds, so that filters with a
resolution of milliseconds see the same windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from exporter.counting.sums import Series, Sums
from exporter.counting.webhooks import WORKSPACE
from exporter.times import DAY, MINUTE, SECOND, rfc3339

DELIVERIES = "deliveries"
OUTCOMES = ("success", "failed")
SETTLED_AFTER = MINUTE
"""100ms retries a webhook for 14 s: after a minute a delivery has succeeded or failed for good."""
REACH_BACK = 30 * DAY - 5 * MINUTE
"""How far back 100ms answers, less some minutes for the request to arrive."""
LONGEST = 14 * DAY
SHORTEST = MINUTE
"""A window this short is not cut further when 100ms takes too long to answer."""


class Window(NamedTuple):
    """The time from `begin` (inclusive) to `end` (exclusive); `lost` is how much time before it can no longer be requested."""

    begin: int
    end: int
    lost: int = 0

    @property
    def parameters(self) -> dict[str, str]:
        """The window as query parameters of the API, which includes both ends."""
        return {"start_time": rfc3339(self.begin), "end_time": rfc3339(self.end - 1)}


def next_window(read_until: int, now: int, longest: int = LONGEST) -> Window | None:
    """The next window to request, after everything before `read_until` has been counted; `None` while it is too early.

    A long pause is read in several windows.
    """
    begin = max(read_until, -(-(now - REACH_BACK) // SECOND) * SECOND)
    end = min((now - SETTLED_AFTER) // SECOND * SECOND, (begin + longest) // SECOND * SECOND)
    return Window(begin, end, begin - read_until) if begin < end else None


def count(sums: Sums, window: Window, found: Mapping[str, int]) -> None:
    """Counts the webhooks of a window by outcome: one number for each of `OUTCOMES`."""
    for outcome in OUTCOMES:
        sums.add(WORKSPACE, Series(DELIVERIES, (outcome,)), found[outcome], window.begin)
