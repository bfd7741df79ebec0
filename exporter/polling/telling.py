"""The log lines of a workspace's polls: one when a fault begins, changes or ends, not one for each poll."""

from __future__ import annotations

from collections.abc import Callable

from exporter.hms.records import Rejection
from exporter.logs import event

_REJECTIONS_A_POLL = 20
"""Maximum log lines for rejected records between two polls: an answer can hold a thousand of them."""
_CHANGES_APART = 60.0
"""Minimum seconds between two log lines of a fault that keeps changing."""


class Telling:
    """The log of one workspace."""

    def __init__(self, workspace: str, monotonic: Callable[[], float]) -> None:
        self._workspace = workspace
        self._monotonic = monotonic
        self._fault: str | None = None
        self._told: str | None = None
        self._changed_at = -_CHANGES_APART
        self._rejected = 0
        self._progress: float | None = None

    def poll_ended(self, fault: str | None) -> None:
        """A poll has ended: completely, or with this fault.

        A fault is logged when it begins, changes and ends; changes at most once a minute.
        """
        now = self._monotonic()
        if fault is None:
            if self._fault is not None:
                event("info", "polls succeed again", workspace=self._workspace)
            self._told = None
        elif fault != self._told and (self._fault is None or now - self._changed_at >= _CHANGES_APART):
            event("warn", "poll failed", workspace=self._workspace, reason=fault)
            self._changed_at = now if self._fault is not None else now - _CHANGES_APART
            self._told = fault
        self._fault = fault
        untold, self._rejected = self._rejected - _REJECTIONS_A_POLL, 0
        if untold > 0:
            event("warn", "more records rejected", workspace=self._workspace, records=untold)

    def rejected(self, rejection: Rejection) -> None:
        """Logs a rejected record; of many at once only the first are logged one by one."""
        self._rejected += 1
        if self._rejected <= _REJECTIONS_A_POLL:
            told = {"kind": rejection.kind, "record": rejection.subject, "reason": rejection.reason}
            event("warn", "record rejected", workspace=self._workspace, **told)

    def past(self, progress: float | None) -> None:
        """Logs the progress of a catch-up: its beginning, its end, and every tenth."""
        before, self._progress = self._progress, progress
        if progress is not None and (before is None or int(progress * 10) > int(before * 10)):
            event("info", "reading the past", workspace=self._workspace, done=f"{progress:.0%}")
        elif progress is None and before is not None:
            event("info", "the past has been read", workspace=self._workspace)
