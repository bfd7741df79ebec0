"""The past of the pictures' company: a real exporter polls it through days of its life, and each page is kept as samples.

A process of its own, `python -m grafana.pictures.past FOLDER`, because its clock leaps: time runs on while a poll works, and
leaps from one poll to the next.  The simulated API goes by the same clock, so the exporter sees nothing odd.
The state file that it leaves is the one with which the exporter then goes on in the present.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

_FAR_STEP = 240.0
"""Prometheus bridges five minutes."""
_NEAR = timedelta(hours=27)
_NEAR_STEP = 60.0


class LeapingClock:
    """The machine's time and steady time, as many seconds behind as `behind`; what imports `time` later goes by it."""

    def __init__(self, behind: float) -> None:
        self.behind = behind
        self._time, self._time_ns, self._monotonic = time.time, time.time_ns, time.monotonic

    def install(self) -> None:
        """Puts it in place of the machine's."""
        time.time = lambda: self._time() - self.behind
        time.time_ns = lambda: self._time_ns() - round(self.behind * 1e9)
        time.monotonic = lambda: self._monotonic() - self.behind

    def beats(self) -> Iterator[float]:
        """The moments of the polls, each in time: coarse at first, then fine, up to the present."""
        moment = time.time()
        while self.behind > 0:
            yield moment
            moment += _NEAR_STEP if self.behind < _NEAR.total_seconds() else _FAR_STEP
            self.behind = max(0.0, self.behind - max(0.0, moment - time.time()))


if __name__ == "__main__":
    leaping = LeapingClock(float(sys.argv[5]) * 86400)
    leaping.install()
    # Only now: much of it takes `time.monotonic` as it finds it when it is imported.
    from grafana.pictures.simulation import simulate

    simulate(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], leaping.beats())
