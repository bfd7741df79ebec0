"""Counts the items of collectors, by the same rules as sessions.  No socket, no file, no clock.

A `Kind` says what one record adds to which counters, as a pure function of the record and of now; everything else is the same
for all kinds, and is here.  A counter's *truth* is the sum of what settled items left and of what the others add; *published*
is the highest truth so far.  There are no increments: a record read twice, a read that failed half-way, a restart or a kill
cannot count anything twice or lose it.  All times are the API's, in integer microseconds.

An item is kept while it is *open* (`Item.ended` is `None`).  After its end it is kept for at least an hour, and until it has
been read once more at least two minutes later, because the last reading counts.  Its id is kept as long as a list may show it
again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic

from exporter.counting.accounts import Histogram, PeriodSums
from exporter.counting.changes import Settled
from exporter.counting.contribution import Account
from exporter.counting.coverage import MARGIN, Coverage
from exporter.counting.holdings import UNKNOWN_READS, Changes, Holding, Kept, Kind, Labels, Tally, by_day, within
from exporter.counting.scope import Names
from exporter.hms.items import I
from exporter.times import DAY, HOUR, SECOND, Calendar, calendar

__all__ = ["Collected", "Holding", "Kept", "Kind", "Labels", "Tally", "by_day"]

FOLLOWED_ON = HOUR
"""How long an item is kept after its end: later changes of its record are not read."""
_LOOKED_FOR = DAY
"""An item that cannot be read again within this time after its end is settled as it was last seen."""
_MISSED_FOR = 2 * DAY
"""An item that has vanished is followed again if it comes back within this time."""


class Collected(Generic[I]):
    """One workspace's counters of one kind.  A read calls `begin`, `see` for each record, `absent`, `assign` for new rooms, `finish`."""

    def __init__(self, kind: Kind[I]) -> None:
        self.kind = kind
        self.coverage = Coverage(kind.reach_back)
        self.kept: dict[str, Kept[I]] = {}
        self.settled: dict[str, Settled] = {}
        self.holdings: dict[Account, Holding[I]] = {}
        self.histograms: dict[str, Histogram] = {}
        self.settled_time = PeriodSums()
        """The settled time of all accounts, in memory and not."""
        self.now: int | None = None
        """The API's time at the last read."""
        self.before: int | None = None
        self.newest = 0
        """When any item that was read last changed."""
        self.changes = Changes()
        self._unassigned: set[str] = set()
        self._waiting: dict[Account, dict[str, Kept[I]]] = {}
        """Items that came back from the store before their account."""
        self._seen: set[str] = set()
        self._calendar: Calendar | None = None

    def committed(self) -> None:
        """The changes have been stored."""
        self.changes = Changes()
        self.coverage.committed()

    # -- a read ---------------------------------------------------------------------------------------------------

    def begin(self, now: int) -> None:
        """Begins a read at this API time."""
        self.before, self.now = self.now, now
        self._seen = set()

    def see(self, item: I, name: str | None) -> None:
        """Counts a record; `name` is its room's name, `None` while it is unknown."""
        now = self._now
        self._seen.add(item.id)
        self.newest = max(self.newest, min(item.changed, now))
        kept = self.kept.get(item.id)
        if item.id in self.settled:
            return
        overdue = item.ended is None and item.created < now - self.kind.reach_back
        if kept is None:
            if overdue or not (kept := self._new(item, name)):
                return
        elif min(item.changed, now) < kept.changed or (kept.item.ended is not None and item.ended is None and item.changed <= kept.changed):
            return  # an older answer
        elif overdue:
            self._give_up(kept)
            return
        kept.item, kept.changed, kept.unknown = item, min(item.changed, now), 0
        kept.observed = now if item.ended is None else item.ended
        if item.ended is None:
            kept.seen_ended, kept.looked = None, False
        elif kept.seen_ended is None:
            kept.seen_ended, kept.looked = now, now - item.ended > FOLLOWED_ON
        elif now > kept.seen_ended and now >= item.ended + MARGIN:
            kept.looked = True
        self._touch(kept)

    def _new(self, item: I, name: str | None) -> Kept[I] | None:
        """Begins to follow a new item; returns `None` if it does not count."""
        read = None
        if item.ended is not None:
            if self.coverage.is_undecided(item.room_id, name):
                read = self.coverage.read_already(item.room_id, item.created)
            elif not self.coverage.counts(item.room_id, name, item.created, item.ended):
                return None
        kept = self.kept[item.id] = Kept(item, self._now, 0, read=read)
        self._unassigned.add(item.id)
        return kept

    def unread(self, item_id: str | None) -> None:
        """The item exists, but its record is invalid: it keeps its last contribution."""
        if item_id is not None:
            self._seen.add(item_id)

    def unseen(self, since: int = 0) -> list[Kept[I]]:
        """Items that this read should show, but has not yet: open ones, and ended ones that are due for a second look.

        Only those created from `since` on.
        """
        now = self._now
        return [
            kept
            for kept in self.kept.values()
            if kept.item.id not in self._seen
            and kept.item.created >= since
            and (kept.open or (kept.item.ended is not None and not kept.looked and now >= kept.item.ended + MARGIN))
        ]

    def absent(self, kept: Kept[I]) -> None:
        """The list does not show the item in its place; after three such reads in a row it has vanished."""
        if kept.item.id in self._seen:
            return
        self._seen.add(kept.item.id)
        if kept.item.ended is not None:
            kept.looked = True
        else:
            kept.unknown += 1
            if kept.unknown >= UNKNOWN_READS:
                kept.seen_ended = self._now
        self._touch(kept)

    def _give_up(self, kept: Kept[I]) -> None:
        """Ends an item that has been open for longer than possible."""
        if not kept.vanished:
            kept.unknown, kept.seen_ended = UNKNOWN_READS, self._now
            self._touch(kept)

    def _touch(self, kept: Kept[I]) -> None:
        self.changes.kept.add(kept.item.id)
        holding = self.holdings.get(kept.account) if kept.account is not None else None
        if holding is not None:
            holding.touched = True
            holding.last_active = max(holding.last_active, min(kept.observed, self._now))

    # -- accounts -------------------------------------------------------------------------------------------------

    def unassigned_rooms(self) -> list[str]:
        """The rooms of items that have no account yet."""
        return list(dict.fromkeys(self.kept[i].item.room_id for i in self._unassigned))

    def assign(self, room_id: str, name: str | None, account: Account | None) -> None:
        """Assigns the room's new items to this account, which is open, for good; with `None` they do not count.

        `name` is what 100ms has said; without it, items that may only count by the name wait for it.
        """
        for kept in [self.kept[i] for i in self._unassigned if self.kept[i].item.room_id == room_id]:
            item = kept.item
            late = kept.read is not None and item.ended is not None
            if account is None or (late and not self.coverage.counts(room_id, name, item.created, item.ended or 0, kept.read)):
                if not self.coverage.is_undecided(room_id, name):
                    self._unassigned.discard(item.id)
                    self._drop(item.id)
                continue
            self._unassigned.discard(item.id)
            kept.account = account
            self.holdings[account].kept[item.id] = kept
            self._touch(kept)

    def open(self, account: Account, tallies: Mapping[Labels, Tally], periods: PeriodSums) -> None:
        """An account is loaded from the store."""
        holding = self.holdings[account] = Holding(account)
        holding.tallies.update(tallies)
        holding.periods = periods
        holding.kept = self._waiting.pop(account, {})
        holding.last_active = max((kept.observed for kept in holding.kept.values()), default=0)
        self._use(holding)

    def close(self, account: Account) -> None:
        """An account without kept items leaves memory; its counters stay in the store."""
        holding = self.holdings.pop(account, None)
        assert holding is None or not holding.kept
        assert account not in self.changes.holdings

    def restore(self, kept: Kept[I]) -> None:
        """An item is loaded from the store, before its account."""
        self.kept[kept.item.id] = kept
        if kept.account is None:
            self._unassigned.add(kept.item.id)
        else:
            self._waiting.setdefault(kept.account, {})[kept.item.id] = kept

    def _drop(self, item_id: str) -> None:
        del self.kept[item_id]
        self.changes.kept.discard(item_id)
        self.changes.gone.add(item_id)

    # -- the end of a read ----------------------------------------------------------------------------------------

    def finish(self, name_of: Names) -> None:
        """Ends a read: settles items that are over, and works out the published values."""
        now = self._now
        for name, bounds in self.kind.distributions.items():
            if name not in self.histograms:
                self.histograms[name] = Histogram(bounds, born=self._beginning(self.kept.values()))
        for kept in list(self.kept.values()):
            if kept.account is None:
                if kept.item.created < now - self.kind.reach_back - _MISSED_FOR:  # its room's name will never be known
                    self._unassigned.discard(kept.item.id)
                    self._drop(kept.item.id)
                continue
            if kept.open and kept.item.id not in self._seen and kept.item.created < now - self.kind.reach_back:
                self._give_up(kept)
            self._measure(kept)
            if self._is_over(kept, now):
                self._settle(kept)
        today = calendar(now)
        for holding in self.holdings.values():
            if holding.touched or today != self._calendar:
                self._publish(holding)
        self._calendar = today
        horizon, may_show_again = self.coverage.horizon, self.coverage.may_show_again
        old = [(i, of) for i, of in self.settled.items() if horizon is not None and of.started < horizon - self.kind.reach_back]
        gone = [i for i, of in old if not may_show_again(of.room_id, name_of(of.room_id), of.started)]
        for item_id in gone:
            del self.settled[item_id]
            self.changes.settled.discard(item_id)
            self.changes.forgotten.add(item_id)

    def _is_over(self, kept: Kept[I], now: int) -> bool:
        if kept.seen_ended is None:
            return False
        if kept.vanished:
            return now - kept.seen_ended > _MISSED_FOR
        return (kept.looked and now - kept.observed > FOLLOWED_ON) or now - kept.seen_ended > _LOOKED_FOR

    def _measure(self, kept: Kept[I]) -> None:
        new = {name: value for name, value in self.kind.observe(kept.item).items() if name not in kept.measured}
        for name, value in new.items():
            self.histograms[name].observe(max(0, value), SECOND)
        if new:
            kept.measured |= new.keys()
            self.changes.kept.add(kept.item.id)

    def _settle(self, kept: Kept[I]) -> None:
        account, item = kept.account, kept.item
        assert account is not None
        holding = self.holdings[account]
        for labels, values in self.kind.count(item, kept.observed).items():
            tally = self._tally(holding, labels, len(values))
            tally.settled = [a + b for a, b in zip(tally.settled, values, strict=True)]
        billed = self.kind.billed(item, kept.observed)
        for day, micros in by_day(billed).items() if billed is not None else ():
            self.changes.days[account, item.room_id, day] += micros
            holding.periods.add(day, micros)
            self.settled_time.add(day, micros)
        del holding.kept[item.id]
        holding.touched = True
        self._drop(item.id)
        self.settled[item.id] = Settled(item.room_id, item.created)
        self.changes.settled.add(item.id)

    def _publish(self, holding: Holding[I]) -> None:
        """Published = the highest truth so far; an over-estimate is held until the truth reaches it."""
        truth = {labels: list(tally.settled) for labels, tally in holding.tallies.items()}
        for kept in holding.kept.values():
            for labels, values in self.kind.count(kept.item, kept.observed).items():
                sums = truth.get(labels)
                truth[labels] = list(values) if sums is None else [a + b for a, b in zip(sums, values, strict=True)]
        for labels, sums in truth.items():
            tally = self._tally(holding, labels, len(sums))
            tally.published = list(map(max, tally.published, sums))
        self._use(holding)
        holding.touched = bool(holding.open)
        holding.version += 1
        self.changes.holdings.add(holding.account)

    def _tally(self, holding: Holding[I], labels: Labels, size: int) -> Tally:
        tally = holding.tallies.get(labels)
        if tally is None:
            tally = holding.tallies[labels] = Tally([0] * size, [0] * size, self._beginning(holding.kept.values()))
        return tally

    def _beginning(self, kept: Iterable[Kept[I]]) -> int:
        """A time before everything new in these items: the previous read, `since`, or the creation of the earliest one."""
        floor = self.before
        if floor is None:
            floor = min((entry.since for entry in self.coverage.entries.values()), default=self.now or 0)
        return min([floor, *(of.item.created for of in kept)])

    # -- usage ----------------------------------------------------------------------------------------------------

    def _use(self, holding: Holding[I]) -> None:
        """Updates the time of this day and this month: the settled time, and that of the other items."""
        if self.kind.meter is None or self.now is None:
            return
        today = calendar(self.now)
        holding.usage_day, holding.usage_month = holding.periods.at(today)
        for kept in holding.kept.values():
            billed = self.kind.billed(kept.item, kept.observed)
            if billed is not None:
                holding.usage_day += within(billed, today.day_start, today.day_end)
                holding.usage_month += within(billed, today.month_start, today.month_end)

    def usage(self) -> tuple[dict[Account, tuple[int, int]], tuple[int, int]]:
        """The time of this day and this month (µs), by account in memory, and in sum for all accounts that have left it."""
        if self.now is None:
            return {}, (0, 0)
        today = calendar(self.now)
        day, month = self.settled_time.at(today)
        for holding in self.holdings.values():
            of_day, of_month = holding.periods.at(today)
            day, month = day - of_day, month - of_month
        return {account: (of.usage_day, of.usage_month) for account, of in self.holdings.items()}, (day, month)

    @property
    def _now(self) -> int:
        assert self.now is not None, "no read has begun"
        return self.now
