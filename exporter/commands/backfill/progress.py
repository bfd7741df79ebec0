"""The progress of long work: a bar on a terminal, otherwise a line in the log now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from exporter.logs import event

_BAR = 30
_REDRAW_SECONDS = 0.1
_LOG_SECONDS = 15.0


class Progress:
    """Shows the progress of one task after another on `out`."""

    def __init__(self, out: TextIO, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._monotonic = monotonic
        self._what = ""
        self._began = self._shown = 0.0
        self._from = 0

    def begin(self, what: str, done: int = 0) -> None:
        """Begins a task; an earlier run has done this much of it."""
        self._what, self._from = what, done
        self._began = self._shown = self._monotonic()
        if not self._terminal:
            event("info", what)

    def tell(self, done: int, total: int) -> None:
        """Shows how much is done."""
        now = self._monotonic()
        if now - self._shown < (_REDRAW_SECONDS if self._terminal else _LOG_SECONDS):
            return
        self._shown = now
        share = min(1.0, done / total) if total else 1.0
        # The work of an earlier run does not count for the speed of this one.
        advance = (done - self._from) / (total - self._from) if total > self._from else 1.0
        left = (now - self._began) * (1 - advance) / advance if advance > 0 else None
        if self._terminal:
            bar = "#" * round(_BAR * share)
            self._out.write(f"\r\x1b[K{self._what:<28} [{bar:<{_BAR}}] {share:4.0%}  {_left(left)}")
            self._out.flush()
        else:
            event("info", self._what, done=f"{share:.0%}", left=_left(left))

    def end(self) -> None:
        """Ends a task, finished or not, and frees the terminal's line."""
        if self._terminal:
            self._out.write("\r\x1b[K")
            self._out.flush()


def _left(seconds: float | None) -> str | None:
    return None if seconds is None else f"{spell(seconds)} left"


def spell(seconds: float) -> str:
    """A rough length of time in words."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60):,} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
