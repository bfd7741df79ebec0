"""When a collector is read next, and how long what it told is shown: decided from times alone."""

from __future__ import annotations

from typing import Literal

from exporter.times import HOUR

RARELY = 10
"""How many times more rarely a collector is read that has nothing open and no news."""
QUIET_AFTER = HOUR
"""How old the newest change must be for that (µs)."""
SILENT_SECONDS = 86_400.0
"""How long a collector is left alone that the workspace may not read."""
_SHOWN_INTERVALS = 3
_LONGEST_BACKOFF = 8
"""Intervals that pass at most until a collector which fails is tried again."""
_MOST_CUTS = 3
"""Reads in a row that the end of a poll's time may cut short, though they had time enough, until that is a fault."""
_LATE_INTERVALS = 3
"""Intervals for which one that is due may go without its turn until it is late."""
NO_TIME = "polls of sessions leave it too little time"
_SLACK = 0.05
"""The part of a poll's interval by which its beginning may be late."""

State = Literal["waiting", "ok", "failing", "silent"]


class Turn:
    """One collector's turns.  All moments are monotonic seconds; `started` is when the poll began that reads it."""

    def __init__(self, interval: float, poll_interval: float) -> None:
        self._interval = max(interval, poll_interval)
        self._slack = _SLACK * min(interval, poll_interval)
        self.due = float("-inf")
        self.good_until = float("-inf")
        """Until when its last good read is fresh enough to be shown."""
        self.state: State = "waiting"
        self.reason: str | None = None
        self.read_at: float | None = None
        """When it was last read whole, in seconds since the epoch."""
        self._failures = 0
        self._cuts = 0
        self._without_time_since: float | None = None

    def carry_on(self, before: Turn) -> None:
        """A reload: what was read is as good as it was, what failed is tried again at once."""
        self.good_until, self.read_at = before.good_until, before.read_at
        if before.state == "ok":
            self.state = "ok"

    def is_due(self, started: float) -> bool:
        """Whether a poll that began then should read it."""
        return started >= self.due - self._slack

    def is_late(self, started: float) -> bool:
        """Whether polls have left it no time for long: then it takes what little there is."""
        since = self._without_time_since
        return since is not None and started - since >= _LATE_INTERVALS * self._interval

    def waited(self, started: float) -> None:
        """It was due, and that poll left it too little time: it stays due, so its turn comes before those of others."""
        if self._without_time_since is None:
            self._without_time_since = started
        if self.is_late(started) and self.state != "failing":
            self.state, self.reason = "waiting", NO_TIME

    def was_cut_short(self, *, enough: bool) -> bool:
        """The end of a poll's time has cut it short, which says nothing about 100ms; `False` where that has gone on for too long.

        `enough`: it had much of an interval.  With less it waits, however often that happens.
        """
        self._cuts += enough
        return self._cuts < _MOST_CUTS

    def succeeded(self, started: float, now: float, wall: float, *, quiet: bool) -> None:
        """It was read whole.  `quiet`: it has nothing open, and its newest change is long ago."""
        interval = self._interval * (RARELY if quiet else 1)
        self.due, self.good_until, self.read_at = started + interval, now + _SHOWN_INTERVALS * interval, wall
        self.state, self.reason, self._failures = "ok", None, 0
        self._ended()

    def failed(self, started: float, reason: str) -> None:
        """It was not: it is tried again after its interval, then after twice as long, and so on up to eight."""
        self.due = started + self._interval * min(_LONGEST_BACKOFF, 2**self._failures)
        self.state, self.reason, self._failures = "failing", reason, self._failures + 1
        self._ended()

    def silenced(self, started: float, reason: str) -> None:
        """The workspace may not read it."""
        self.due = started + SILENT_SECONDS
        self.state, self.reason = "silent", reason
        self._ended()

    def _ended(self) -> None:
        self._cuts, self._without_time_since = 0, None
