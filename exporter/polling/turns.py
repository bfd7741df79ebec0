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

    def carry_on(self, before: Turn) -> None:
        """After a reload: data that was read stays valid as before, a failed read is tried again at once."""
        self.good_until, self.read_at = before.good_until, before.read_at
        if before.state == "ok":
            self.state = "ok"

    def is_due(self, started: float) -> bool:
        """Whether a poll that began at `started` should read it."""
        return started >= self.due - self._slack

    def succeeded(self, started: float, now: float, wall: float, *, quiet: bool) -> None:
        """It was read completely.  `quiet` says that nothing is open and nothing has changed for long."""
        interval = self._interval * (RARELY if quiet else 1)
        self.due, self.good_until, self.read_at = started + interval, now + _SHOWN_INTERVALS * interval, wall
        self.state, self.reason, self._failures = "ok", None, 0

    def failed(self, started: float, reason: str) -> None:
        """The read failed: it is tried again after one interval, then two, then four, and then every eight."""
        self.due = started + self._interval * min(_LONGEST_BACKOFF, 2**self._failures)
        self.state, self.reason, self._failures = "failing", reason, self._failures + 1

    def silenced(self, started: float, reason: str) -> None:
        """The workspace may not read it."""
        self.due = started + SILENT_SECONDS
        self.state, self.reason = "silent", reason
