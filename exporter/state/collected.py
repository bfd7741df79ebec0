"""Stores and loads the collectors' data.  The tables fit every kind of data, so that a new kind needs no table of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from exporter.counting.accounts import Histogram, PeriodSums
from exporter.counting.changes import Settled
from exporter.counting.collected import Collected
from exporter.counting.contribution import Account
from exporter.counting.coverage import Coverage
from exporter.counting.followed import CatchUp, Followed
from exporter.counting.holdings import Holding, Kept, Kind, Labels, Tally, by_day
from exporter.hms.items import I, Item
from exporter.state.store import Store
from exporter.state.tables import (
    COLLECTED,
    COLLECTED_SETTLED,
    COLLECTOR,
    HOLDING,
    METER_DAY,
    CollectedRow,
    CollectedSettledRow,
    CollectorRow,
    HoldingRow,
    MeterDayRow,
)
from exporter.state.view import StateView
from exporter.times import calendar

_OF = "workspace = ? AND collector = ?"
_ITEM = f"{_OF} AND id = ?"
_ACCOUNT = f"{_OF} AND kind = ? AND id = ?"
_COVERAGE = ".followed"
"""The suffix of the separate row of entries and rooms, which is large if there are many rooms, and rarely changes."""
_MANY = 100
"""From this many accounts, all accounts of a collector are read with one query."""

Use = dict[tuple[Account, str, int], int]
"""Time of one meter (µs) by account, room id and UTC day."""


class _Followed(msgspec.Struct):
    entries: dict[str, Followed]
    rooms: dict[str, Followed]


class _Stock(msgspec.Struct):
    tallies: list[tuple[Labels, Tally]]
    periods: PeriodSums


class _Distribution(msgspec.Struct):
    counts: list[int]
    total: int
    born: int


_decode_followed = msgspec.json.Decoder(_Followed).decode
_decode_catch_ups = msgspec.json.Decoder(list[CatchUp]).decode
_decode_stock = msgspec.msgpack.Decoder(_Stock).decode
_decode_histograms = msgspec.json.Decoder(dict[str, _Distribution]).decode


def restore(store: Store, workspace: str, collected: Collected[I]) -> None:
    """Loads a collector except its accounts, which are loaded one by one.  Raises `StoreError`."""
    kind, coverage = collected.kind, collected.coverage
    of = (workspace, kind.name)
    decode = _decoder(kind)
    with store.reading() as db:
        row = next(iter(db.select(COLLECTOR, _OF, of)), None)
        if row is None:
            return
        collected.now, collected.newest = row.now, row.newest
        _restore_coverage(row, next(iter(db.select(COLLECTOR, _OF, (workspace, kind.name + _COVERAGE))), None), coverage)
        for name, of_name in _decode_histograms(row.histograms).items():
            if name in kind.distributions:
                collected.histograms[name] = Histogram(kind.distributions[name], of_name.counts, of_name.total, of_name.born)
        for found in db.select(COLLECTED, _OF, of):
            collected.restore(decode(found.memory))
        rows = db.select(COLLECTED_SETTLED, _OF, of)
        collected.settled = {settled.id: Settled(settled.room_id, settled.created) for settled in rows}
        if kind.meter is not None and row.now is not None:
            today = calendar(row.now)
            first = today.day - (today.day_start - today.month_start) // (today.day_end - today.day_start)
            sql = "SELECT day, CAST(SUM(us) AS BIGINT) FROM meter_day WHERE workspace = ? AND day >= ? AND meter = ? GROUP BY day"
            for day, micros in sorted(db.query(sql, (workspace, first, kind.meter))):
                collected.settled_time.add(day, micros)


def _restore_coverage(row: CollectorRow, beside: CollectorRow | None, coverage: Coverage) -> None:
    coverage.read_until = row.read_until
    followed = _decode_followed((row.followed or b'{"entries":{},"rooms":{}}') if beside is None else beside.followed)
    coverage.entries, coverage.rooms = followed.entries, followed.rooms
    if beside is None:  # an earlier version stored it with the rest: it must be written again
        coverage.changed = {("entry", key) for key in followed.entries} | {("room", key) for key in followed.rooms}
    coverage.tasks = {task.number: task for task in _decode_catch_ups(row.catch_ups)}


def open_accounts(store: Store, workspace: str, collected: Collected[I], accounts: Iterable[Account]) -> None:
    """Loads accounts from the store, or creates new ones.  Raises `StoreError`."""
    wanted = [account for account in accounts if account not in collected.holdings]
    if not wanted:
        return
    of = (workspace, collected.kind.name)
    with store.reading() as db:
        if len(wanted) < _MANY:
            rows = [row for account in wanted for row in db.select(HOLDING, _ACCOUNT, (*of, *account))]
        else:
            names = set(wanted)
            rows = [row for row in db.select(HOLDING, _OF, of) if Account(row.kind, row.id) in names]
    stocks = {Account(row.kind, row.id): _decode_stock(row.memory) for row in rows}
    for account in wanted:
        stock = stocks.get(account)
        collected.open(account, {} if stock is None else dict(stock.tallies), PeriodSums() if stock is None else stock.periods)


def commit(store: Store, workspace: str, collected: Collected[I]) -> None:
    """Stores a read, completely or not at all; only then may it be published.  Raises `StoreError`."""
    changes, coverage, kind = collected.changes, collected.coverage, collected.kind
    of = (workspace, kind.name)
    with store.writing() as db:
        db.put(COLLECTOR, [_row(of, collected)])
        if coverage.changed:
            db.put(COLLECTOR, [_coverage_row(workspace, kind.name, coverage)])
        db.delete(COLLECTED, _ITEM, ((*of, item_id) for item_id in changes.gone))
        kept = (collected.kept[item_id] for item_id in changes.kept if item_id in collected.kept)
        db.put(COLLECTED, (CollectedRow(*of, found.item.id, msgspec.msgpack.encode(found)) for found in kept))
        db.put(COLLECTED_SETTLED, (CollectedSettledRow(*of, i, *collected.settled[i]) for i in changes.settled))
        db.delete(COLLECTED_SETTLED, _ITEM, ((*of, item_id) for item_id in changes.forgotten))
        db.put(HOLDING, (HoldingRow(*of, *account, _stock(collected.holdings[account])) for account in changes.holdings))
        if kind.meter is not None:
            days = changes.days.items()
            db.add(METER_DAY, (MeterDayRow(workspace, day, kind.meter, *account, room_id, us) for (account, room_id, day), us in days))
    collected.committed()


def _row(of: tuple[str, str], collected: Collected[Any]) -> CollectorRow:
    histograms = {name: _Distribution(h.counts, h.total, h.born or 0) for name, h in collected.histograms.items()}
    tasks = list(collected.coverage.tasks.values())
    read_until = collected.coverage.read_until
    return CollectorRow(
        *of,
        collected.now,
        collected.newest,
        read_until,
        b"",
        catch_ups=msgspec.json.encode(tasks),
        histograms=msgspec.json.encode(histograms),
    )


def _coverage_row(workspace: str, name: str, coverage: Coverage) -> CollectorRow:
    followed = msgspec.json.encode(_Followed(coverage.entries, coverage.rooms))
    return CollectorRow(workspace, name + _COVERAGE, None, 0, None, followed, catch_ups=b"[]", histograms=b"{}")


def _stock(holding: Holding[Any]) -> bytes:
    return msgspec.msgpack.encode(_Stock(list(holding.tallies.items()), holding.periods))


def _decoder(kind: Kind[I]) -> Any:
    return msgspec.msgpack.Decoder(Kept[kind.item]).decode  # type: ignore[name-defined]  # a type that is known only at run time


def meter_use(view: StateView, workspace: str, kind: Kind[I], first: int, last: int) -> Use:
    """The time on these days of a kind's meter: the settled time, and that of the other jobs as of their last read."""
    found: Use = {}
    for row in view.rows(METER_DAY, "workspace = ? AND day BETWEEN ? AND ? AND meter = ?", (workspace, first, last, kind.meter)):
        found[Account(row.kind, row.id), row.room_id, row.day] = row.us
    for kept in _kept(view, workspace, kind):
        billed = None if kept.account is None else kind.billed(kept.item, kept.observed)
        for day, micros in by_day(billed).items() if billed is not None else ():
            assert kept.account is not None
            key = kept.account, kept.item.room_id, day
            if first <= day <= last:
                found[key] = found.get(key, 0) + micros
    return found


def reach(view: StateView, workspace: str, kind: Kind[I]) -> tuple[int | None, Coverage]:
    """When a kind was last read (`None`: never), and how far its past has been read."""
    coverage = Coverage(kind.reach_back)
    row = next(iter(view.rows(COLLECTOR, _OF, (workspace, kind.name))), None)
    if row is None:
        return None, coverage
    beside = next(iter(view.rows(COLLECTOR, _OF, (workspace, kind.name + _COVERAGE))), None)
    _restore_coverage(row, beside, coverage)
    return row.now, coverage


class Remembered(NamedTuple):
    """The ids of the counted items in a state: complete from `since` on (µs)."""

    ids: frozenset[str]
    since: int

    def has(self, item: Item) -> bool | None:
        """Whether the item has been counted; `None` if the state no longer knows."""
        return item.id in self.ids if item.created >= self.since else None


def remembered(view: StateView, workspace: str, kind: Kind[I]) -> Remembered | None:
    """The items of a kind whose ids the state still has; `None` if the kind was never read."""
    _, coverage = reach(view, workspace, kind)
    if coverage.horizon is None:
        return None
    of = (workspace, kind.name)
    ids = {row.id for row in view.rows(COLLECTED, _OF, of)} | {row.id for row in view.rows(COLLECTED_SETTLED, _OF, of)}
    return Remembered(frozenset(ids), coverage.horizon - kind.reach_back)


def _kept(view: StateView, workspace: str, kind: Kind[I]) -> Iterator[Kept[I]]:
    decode = _decoder(kind)
    return (decode(row.memory) for row in view.rows(COLLECTED, _OF, (workspace, kind.name)))
