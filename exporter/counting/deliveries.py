"""Which windows of time 100ms is asked about its deliveries of webhooks.  Pure; times are the API's, in integer microseconds.

The answer to a window is two numbers, not records: what lies in two windows would count twice, and what lies between two
would be lost.  So a window ends a microsecond before the next one begins, and borders are whole seconds: filters that go by
milliseconds see the same windows.
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
"""100ms tries a webhook for 14 s: after a minute a delivery has succeeded or failed for good."""
REACH_BACK = 30 * DAY - 5 * MINUTE
"""How far back 100ms tells, with some minutes for the request to arrive."""
LONGEST = 14 * DAY
SHORTEST = MINUTE
"""A window that is not cut further when it takes 100ms too long to answer for it."""


class Window(NamedTuple):
    """A stretch of time from `begin` on, up to `end` without it; `lost` tells how much before it cannot be asked about any more."""

    begin: int
    end: int
    lost: int = 0

    @property
    def parameters(self) -> dict[str, str]:
        """The window as the API is asked for it: its filters include both moments."""
        return {"start_time": rfc3339(self.begin), "end_time": rfc3339(self.end - 1)}


def next_window(read_until: int, now: int, longest: int = LONGEST) -> Window | None:
    """The next window to ask about, everything before `read_until` being counted; `None` while it is too early.

    A longer pause is read in several windows.
    """
    begin = max(read_until, -(-(now - REACH_BACK) // SECOND) * SECOND)
    end = min((now - SETTLED_AFTER) // SECOND * SECOND, (begin + longest) // SECOND * SECOND)
    return Window(begin, end, begin - read_until) if begin < end else None


def count(sums: Sums, window: Window, found: Mapping[str, int]) -> None:
    """Counts what became of the webhooks of a window: how many for each of `OUTCOMES`."""
    for outcome in OUTCOMES:
        sums.add(WORKSPACE, Series(DELIVERIES, (outcome,)), found[outcome], window.begin)
