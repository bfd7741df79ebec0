"""The kinds of collected data and their records: plain values; `collected` decides about them.

All times are the API's, in integer microseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic

import msgspec

from exporter.config.money import Meter
from exporter.counting.accounts import PeriodSums
from exporter.counting.contribution import Account
from exporter.counting.spans import Span
from exporter.hms.items import I
from exporter.hms.records import Rejection
from exporter.times import DAY

UNKNOWN_READS = 3
"""An open item that this many reads in a row do not show counts as vanished."""

Labels = tuple[str, ...]
"""The values of a kind's own labels."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[I]):
    """One kind of data: where it is listed, and what a record adds to the counters.

    `count` returns an item's additions to the counters up to a moment, by labels; `observe` returns its values for the
    `distributions` (name and bounds, each observed once per item), as far as the record shows them; `billed` returns the time
    that `meter` counts, if it is billed by the minute.  No item stays open for longer than `reach_back`.  `by_id` says whether
    the API also answers for a single record.
    """

    name: str
    route: str
    item: type[I]
    decode: Callable[[bytes | msgspec.Raw, int], I | Rejection]
    count: Callable[[I, int], Mapping[Labels, tuple[int, ...]]]
    reach_back: int = 0
    distributions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    observe: Callable[[I], Mapping[str, int]] = lambda _: {}
    meter: Meter | None = None
    billed: Callable[[I, int], Span | None] = lambda _, __: None
    by_id: bool = True


class Kept(msgspec.Struct, Generic[I]):
    """An item that has not been settled.

    `observed` is the time up to which it counts; `changed` is when its record last changed.  `unknown` is how many reads in a row
    did not show it.  `seen_ended` is the read that first saw its end, `looked` says whether it was seen again after that.
    `measured` are the distributions that include it; `read` is as in `Tracked`.
    """

    item: I
    observed: int
    changed: int
    account: Account | None = None
    unknown: int = 0
    seen_ended: int | None = None
    looked: bool = False
    measured: frozenset[str] = frozenset()
    read: frozenset[str] | None = None

    @property
    def vanished(self) -> bool:
        """Whether it counts as over since it was last seen, because no list shows it any more, or it was open for too long."""
        return self.item.ended is None and self.unknown >= UNKNOWN_READS

    @property
    def open(self) -> bool:
        """Whether it is still running."""
        return self.item.ended is None and self.unknown < UNKNOWN_READS


class Tally(msgspec.Struct):
    """The settled and the published counters of one account and one set of labels; `born` is as in `AccountState`."""

    settled: list[int]
    published: list[int]
    born: int


class Holding(Generic[I]):
    """One account's items and counters of a kind.

    `periods` are its settled times of the latest day and month, `usage_*` the times of the current ones.
    """

    def __init__(self, account: Account) -> None:
        self.account = account
        self.tallies: dict[Labels, Tally] = {}
        self.kept: dict[str, Kept[I]] = {}
        self.periods = PeriodSums()
        self.usage_day = self.usage_month = 0
        self.last_active = 0
        self.touched = True
        self.version = 0
        """Increases when a published value may have changed."""

    @property
    def open(self) -> list[I]:
        """The items that are still running."""
        return [kept.item for kept in self.kept.values() if kept.open]


class Changes:
    """Changes that must be stored before they are published; they accumulate until `Collected.committed`."""

    def __init__(self) -> None:
        self.kept: set[str] = set()
        self.gone: set[str] = set()
        """Ids that are no longer kept."""
        self.settled: set[str] = set()
        self.forgotten: set[str] = set()
        self.holdings: set[Account] = set()
        self.days: defaultdict[tuple[Account, str, int], int] = defaultdict(int)
        """Microseconds to add, by account, room id and UTC day."""


def within(span: Span, begin: int, end: int) -> int:
    """How much of a span lies between two moments (µs)."""
    return max(0, min(span[1], end) - max(span[0], begin))


def by_day(span: Span) -> dict[int, int]:
    """A span's time by UTC day (days since the epoch), split at midnight."""
    days: dict[int, int] = {}
    start, end = span
    while start < end:
        day = start // DAY
        until = min(end, (day + 1) * DAY)
        days[day] = until - start
        start = until
    return days
