"""The kinds of families that a collector may have: counters of accounts, gauges of open items, distributions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from exporter.counting.holdings import Holding
from exporter.publish.family import Family

COLLECTOR_UP = Family("hms_collector_up", "gauge", "Whether the collector's last read was complete (1) or not (0).")


@dataclass(frozen=True, kw_only=True)
class CollectedCounter(Family):
    """A counter of each account: the value at `index` in the result of `Kind.count`, in microseconds if `time`.

    `labels` are the names of the kind's own labels: the family shows the counters that have this many labels.
    """

    index: int
    labels: tuple[str, ...] = ()
    time: bool = False


@dataclass(frozen=True, kw_only=True)
class CollectedGauge(Family):
    """A gauge of each account: pairs of its own labels, as written, and a value."""

    values: Callable[[Holding[Any]], Iterable[tuple[str, str]]]


@dataclass(frozen=True, kw_only=True)
class CollectedDistribution(Family):
    """A distribution of the workspace, in seconds; `counted_as` is its name in `Kind.distributions`."""

    counted_as: str
