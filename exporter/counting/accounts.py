"""Accounts, the owners of series, with their totals, gauges and distributions. Plain values; `ledger` decides about them.

All times are the API's, in integer microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import add, lt
from typing import Generic, NamedTuple, TypeVar

import msgspec

from exporter.counting.contribution import Account, SessionCounts, Tracked
from exporter.counting.peaks import Window
from exporter.counting.stays import PeerCounts
from exporter.times import Calendar, month_of

SESSION_SECONDS_BUCKETS = (60, 300, 600, 900, 1800, 2700, 3600, 5400, 7200, 10800, 14400, 21600, 28800, 43200)
PEER_SECONDS_BUCKETS = (10, 30, *SESSION_SECONDS_BUCKETS)
SESSION_PEERS_BUCKETS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


class Histogram:
    """Observations, counted per bucket and not yet cumulative; `total` is their sum, in the unit of the observations.

    `born` is as in `AccountState`.
    """

    __slots__ = ("born", "bounds", "counts", "total")

    def __init__(self, bounds: tuple[int, ...], counts: Iterable[int] | None = None, total: int = 0, born: int | None = None) -> None:
        self.born = born
        self.bounds = bounds
        self.counts = list(counts) if counts is not None else [0] * (len(bounds) + 1)
        self.total = total

    def observe(self, value: int, scale: int = 1) -> None:
        """Counts one value, given in units of `bounds` times `scale`."""
        low, high = 0, len(self.bounds)
        while low < high:
            middle = (low + high) // 2
            if value <= self.bounds[middle] * scale:
                high = middle
            else:
                low = middle + 1
        self.counts[low] += 1
        self.total += value


HISTOGRAM_BOUNDS = {
    "session_duration": SESSION_SECONDS_BUCKETS,
    "session_peers": SESSION_PEERS_BUCKETS,
    "peer_duration": PEER_SECONDS_BUCKETS,
}


class PeriodSums(msgspec.Struct, gc=False):
    """Settled time (µs) of the latest day and the latest month in which anything was settled."""

    day: int = 0
    in_day: int = 0
    month: int = 0
    in_month: int = 0

    def add(self, day: int, micros: int) -> None:
        """Adds time spent on a day.  Time before the latest day or month is not part of its sum."""
        if day > self.day:
            self.day, self.in_day = day, 0
        if day == self.day:
            self.in_day += micros
        month = month_of(day)
        if month > self.month:
            self.month, self.in_month = month, 0
        if month == self.month:
            self.in_month += micros

    def at(self, now: Calendar) -> tuple[int, int]:
        """The time of the current day and month."""
        return (self.in_day if self.day == now.day else 0), (self.in_month if self.month == now.month else 0)


Counts = TypeVar("Counts", SessionCounts, PeerCounts)


def added(one: Counts, other: Counts) -> Counts:
    """The sums of both, counter by counter."""
    return type(one)(*map(add, one, other))


class Totals(msgspec.Struct, Generic[Counts], kw_only=True, gc=False):
    """Counters: the settled sums of ended sessions, and the published values (`seconds` in µs)."""

    counts: Counts
    seconds: int = 0
    published: Counts
    published_seconds: int = 0

    def settle(self, counts: Counts, seconds: int) -> None:
        """Adds a session that is over."""
        self.counts = added(self.counts, counts)
        self.seconds += seconds

    def publish(self, counts: Counts, seconds: int) -> tuple[bool, ...]:
        """Published = the highest truth so far.  Returns which of the values stay above this truth; nothing if none does."""
        if counts == self.published and seconds >= self.published_seconds:
            self.published_seconds = seconds  # nobody came or left: the usual case, and the fast path
            return ()
        above = (*map(lt, counts, self.published), seconds < self.published_seconds)
        self.published = type(counts)(*map(max, counts, self.published))
        self.published_seconds = max(seconds, self.published_seconds)
        return above if any(above) else ()


class SessionTotals(Totals[SessionCounts], kw_only=True, gc=False):
    """An account's counters of sessions."""

    counts: SessionCounts = SessionCounts()
    published: SessionCounts = SessionCounts()


class RoleTotals(Totals[PeerCounts], kw_only=True, gc=False):
    """An account's counters of peers in one role.

    `periods` are the settled sums of the latest day and month; `usage_day` and `usage_month` are those of the current ones,
    running sessions included.  `born` is as in `AccountState`.
    """

    counts: PeerCounts = PeerCounts()
    published: PeerCounts = PeerCounts()
    periods: PeriodSums = msgspec.field(default_factory=PeriodSums)
    usage_day: int = 0
    usage_month: int = 0
    born: int | None = None


Held = tuple[tuple[str, tuple[bool, ...]], ...]
"""The published values that are held above the truth: by role (`""`: sessions), for each of its values whether it is."""


class Gauges(NamedTuple):
    """An account's gauges at its last good reading; `oldest_start` is in µs, `None` while it is idle."""

    sessions: int
    oldest_start: int | None
    peers: Mapping[str, int]
    users: int
    peak: int

    @classmethod
    def of(cls, state: AccountState, bots: frozenset[str], window: Window) -> Gauges:
        """The gauges of an account whose sessions have just been read; `window` is that of the peak."""
        peers = dict.fromkeys(state.roles, 0)
        users: set[int] = set()
        for tracked in state.sessions.values():
            window.stand(tracked.id, tracked.people(bots))
            users.update(*[found for role, found in tracked.users.items() if role not in bots])
            for role, line in tracked.lines.items():
                peers[role] += line.rate
        return cls(
            sessions=len(state.sessions),
            oldest_start=min((tracked.started for tracked in state.sessions.values()), default=None),
            peers=peers,
            users=len(users),
            peak=window.peak(),
        )


class AccountState:
    """One account: its totals, its unsettled sessions, its gauges."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.totals = SessionTotals()
        self.roles: dict[str, RoleTotals] = {}
        self.sessions: dict[str, Tracked] = {}
        """The running ones."""
        self.ended: dict[str, Tracked] = {}
        """The ended ones that must be read once more."""
        self.kept_by: set[str] = set()
        """The collectors that hold an unsettled item of it."""
        self.run_by: set[str] = set()
        """The collectors that hold an open item of it."""
        self.last_active = 0
        self.born: int | None = None
        """When its counters began (µs): nothing in them is older.  It never changes; 0 if an earlier version did not record it."""
        self.gauges: Gauges | None = None
        self.read_at: int | None = None
        """The API's time of the reading behind the gauges: the window of the next peak begins there."""
        self.fresh = 0.0
        """When that reading was, on the caller's clock: the gauges expire some time after it."""
        self.held: Held = ()
        self.touched = True
        self._steady: tuple[int, Calendar] | None = None
        """When the published times were last added up, with that moment's day and month.  `None` if they do not grow steadily."""
        self._rising: list[tuple[RoleTotals, int]] | None = None
        """The roles whose times grow that way, with the number of connected peers; worked out when first needed."""
        self.version = 0
        """Increases when a published value changes, except values that only move with time."""
        self.moved = 0
        """Increases when values that only move with time change."""

    @property
    def runs(self) -> bool:
        """Whether a session, a recording or a stream is running."""
        return bool(self.sessions or self.run_by)

    def worked_out(self, held: Held, now: int, today: Calendar) -> None:
        """Notes that the published values are the truth as of `now`, or the `held` values above it."""
        self.held = held
        self.touched = False
        self.moved += 1
        steady = not held and not self.ended
        for tracked in self.sessions.values():
            tracked.worked_out = now if tracked.observed == now >= tracked.linear_from and now >= tracked.started else None
            steady &= tracked.worked_out is not None
        self._steady = (now, today) if steady else None
        self._rising = None

    def go_on(self, now: int, today: Calendar) -> bool:
        """Moves the published values on to `now` if nothing but time has changed; returns whether it could.

        Each time then grows by the elapsed time, multiplied by the number of sessions or peers.
        """
        if self._steady is None or self.touched or self._steady[1] != today:
            return False
        before = self._steady[0]
        for tracked in self.sessions.values():
            if tracked.worked_out != before or tracked.observed != now:
                return False
        passed = now - before
        if passed < 0:
            return False
        if self._rising is None:
            lines = [line for tracked in self.sessions.values() for line in tracked.lines.items()]
            self._rising = [(self.roles[role], line.rate) for role, line in lines if line.rate]
        self.totals.published_seconds += passed * len(self.sessions)
        for of, rate in self._rising:
            more = passed * rate
            of.published_seconds += more
            of.usage_day += more
            of.usage_month += more
        for tracked in self.sessions.values():
            tracked.worked_out = now
        self._steady = now, today
        self.moved += 1
        return True

    def role(self, name: str) -> RoleTotals:
        """The totals of a role, created when it is first seen."""
        totals = self.roles.get(name)
        if totals is None:
            totals = self.roles[name] = RoleTotals()
        return totals


def move_usage(sums: dict[str, PeriodSums], state: AccountState, sign: int, now: Calendar) -> None:
    """Adds an account's settled time of this day and month to these sums by role, or subtracts it."""
    for role, totals in state.roles.items():
        today, this_month = sums[role].at(now) if role in sums else (0, 0)
        of_day, of_month = totals.periods.at(now)
        sums[role] = PeriodSums(now.day, today + sign * of_day, now.month, this_month + sign * of_month)
