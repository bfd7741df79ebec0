"""What a kind of data beside sessions is, and what is kept of it: plain values; `collected` decides about them.

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
"""Reads in a row that must not show an open item before it counts as vanished."""

Labels = tuple[str, ...]
"""The values of the labels that a kind has of its own."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[I]):
    """One kind of data: where it is listed, and what a record of it counts for.

    `count` gives the counters that an item adds to up to a moment, by labels; `observe` what it adds to which of the
    `distributions` (name and bounds, observed once for each item), as far as the record tells; `billed` the time that `meter`
    counts, if it is billed by the minute.  Nothing stays open for longer than `reach_back`.
    `by_id` tells whether the API answers for a single record too.
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

    `observed` is the moment up to which it counts; `changed` is when its record last changed.  `unknown` reads in a row have not
    shown it.  `seen_ended` is the read that first saw its end, `looked` whether it was seen again after that.  `measured` are the
    distributions that hold it; `read` is as `Tracked` has it.
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
        """Whether it counts as over when it was last seen, for no list shows it any more, or it has been open for too long."""
        return self.item.ended is None and self.unknown >= UNKNOWN_READS

    @property
    def open(self) -> bool:
        """Whether it goes on."""
        return self.item.ended is None and self.unknown < UNKNOWN_READS


class Tally(msgspec.Struct):
    """The counters of one account and one set of labels: what is settled, and what is published; `born` as in `AccountState`."""

    settled: list[int]
    published: list[int]
    born: int


class Holding(Generic[I]):
    """What one account has of a kind.  `periods` are its settled time of the latest day and month, `usage_*` that of now."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.tallies: dict[Labels, Tally] = {}
        self.kept: dict[str, Kept[I]] = {}
        self.periods = PeriodSums()
        self.usage_day = self.usage_month = 0
        self.last_active = 0
        self.touched = True
        self.version = 0
        """Rises when anything that is published may have changed."""

    @property
    def open(self) -> list[I]:
        """The items that go on."""
        return [kept.item for kept in self.kept.values() if kept.open]


class Changes:
    """What must be durable before any of it is published; it gathers until `Collected.committed`."""

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
    """How much of the time from its first to its second moment lies between two others (µs)."""
    return max(0, min(span[1], end) - max(span[0], begin))


def by_day(span: Span) -> dict[int, int]:
    """The time from its first to its second moment by UTC day (days since the epoch), split at midnight."""
    days: dict[int, int] = {}
    start, end = span
    while start < end:
        day = start // DAY
        until = min(end, (day + 1) * DAY)
        days[day] = until - start
        start = until
    return days
