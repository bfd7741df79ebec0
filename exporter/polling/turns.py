"""Decides when a collector is read next, and how long its data is shown, from times alone."""

from __future__ import annotations

from typing import Literal

from exporter.times import HOUR

RARELY = 10
"""A collector that is quiet is read this many times less often."""
QUIET_AFTER = HOUR
"""A collector is quiet when nothing is open and its newest change is this old (µs)."""
SILENT_SECONDS = 86_400.0
"""Seconds until a collector that the workspace may not read is tried again."""
_SHOWN_INTERVALS = 3
_LONGEST_BACKOFF = 8
"""A failing collector is tried again after at most this many intervals."""
_MOST_CUTS = 3
"""After this many reads in a row that had enough time and were still cut short, it is a fault."""
_LATE_INTERVALS = 3
"""A due collector is late after this many intervals without a turn."""
NO_TIME = "polls of sessions leave it too little time"
_SLACK = 0.05
"""The tolerance for a late poll, as a part of the poll's interval."""

State = Literal["waiting", "ok", "failing", "silent"]


class Turn:
    """One collector's turns.  All times are monotonic seconds; `started` is the beginning of the poll that reads it."""

    def __init__(self, interval: float, poll_interval: float) -> None:
        self._interval = max(interval, poll_interval)
        self._slack = _SLACK * min(interval, poll_interval)
        self.due = float("-inf")
        self.good_until = float("-inf")
        """Until when its last good read may be shown."""
        self.state: State = "waiting"
        self.reason: str | None = None
        self.read_at: float | None = None
        """When it was last read completely, in seconds since the epoch."""
        self._failures = 0
        self._cuts = 0
        self._without_time_since: float | None = None

    def carry_on(self, before: Turn) -> None:
        """After a reload: data that was read stays valid as before, a failed read is tried again at once."""
        self.good_until, self.read_at = before.good_until, before.read_at
        if before.state == "ok":
            self.state = "ok"

    def is_due(self, started: float) -> bool:
        """Whether a poll that began at `started` should read it."""
        return started >= self.due - self._slack

    def is_late(self, started: float) -> bool:
        """Whether polls have left it no time for long: then it uses whatever time is left."""
        since = self._without_time_since
        return since is not None and started - since >= _LATE_INTERVALS * self._interval

    def waited(self, started: float) -> None:
        """It was due, but the poll left it too little time: it stays due, and goes before the others at the next poll."""
        if self._without_time_since is None:
            self._without_time_since = started
        if self.is_late(started) and self.state != "failing":
            self.state, self.reason = "waiting", NO_TIME

    def was_cut_short(self, *, enough: bool) -> bool:
        """Notes that the end of a poll's time cut it short; returns whether that may still be chance, and not a fault.

        `enough` says that it had a large part of an interval.  With less it just waits, and that never becomes a fault.
        """
        self._cuts += enough
        return self._cuts < _MOST_CUTS

    def succeeded(self, started: float, now: float, wall: float, *, quiet: bool) -> None:
        """It was read completely.  `quiet` says that nothing is open and nothing has changed for long."""
        interval = self._interval * (RARELY if quiet else 1)
        self.due, self.good_until, self.read_at = started + interval, now + _SHOWN_INTERVALS * interval, wall
        self.state, self.reason, self._failures = "ok", None, 0
        self._ended()

    def failed(self, started: float, reason: str) -> None:
        """The read failed: it is tried again after one interval, then two, then four, and then every eight."""
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
