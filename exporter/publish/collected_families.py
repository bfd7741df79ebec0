"""The kinds of families that a collector may have: of what accounts have counted, of what is open, of distributions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from exporter.counting.holdings import Holding
from exporter.publish.family import Family

COLLECTOR_UP = Family("hms_collector_up", "gauge", "Whether the last read of what is collected beside sessions was whole (1) or not (0).")


@dataclass(frozen=True, kw_only=True)
class CollectedCounter(Family):
    """A counter of each account: the value at `index` of what `Kind.count` gives, microseconds if `time`.

    `labels` are what the kind's own labels are called: it shows those of the counters that have as many.
    """

    index: int
    labels: tuple[str, ...] = ()
    time: bool = False


@dataclass(frozen=True, kw_only=True)
class CollectedGauge(Family):
    """A gauge of each account: pairs of labels of its own, as they are written, and a value."""

    values: Callable[[Holding[Any]], Iterable[tuple[str, str]]]


@dataclass(frozen=True, kw_only=True)
class CollectedDistribution(Family):
    """A distribution of the workspace, in seconds; `counted_as` is what `Kind.distributions` calls it."""

    counted_as: str
