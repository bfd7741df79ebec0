"""What one session contributes to the counters: a function of its record, of the roles its peers were seen in, and of now.

All times are the API's, in integer microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from typing import NamedTuple

import msgspec

from exporter.hms.records import Stay, Users
from exporter.hms.steps import Change, Known, Marks
from exporter.times import DAY


class Account(NamedTuple):
    """The owner of a set of series: a room by its id, or a group by its name."""

    kind: str
    id: str


UNKNOWN_POLLS = 3
"""A session that is not found by this many polls in a row counts as vanished."""

OVERFLOW = Account("group", "_other")
"""The account of discovered rooms beyond `limits.max_rooms`."""


def room_account(room_id: str) -> Account:
    """The account of a room with series of its own."""
    return Account("room", room_id)


def group_account(name: str) -> Account:
    """The account of a group."""
    return Account("group", name)


class SessionCounts(NamedTuple):
    """The counters of sessions but for their time, each by the last word of its metric's name.

    They are stored in this order, so a new one comes last.
    """

    started: int = 0
    ended: int = 0


class PeerCounts(NamedTuple):
    """The counters of peers in one role but for their time; otherwise as `SessionCounts`."""

    joined: int = 0
    left: int = 0


class Line(msgspec.Struct, array_like=True, gc=False):
    """What one role adds to a counter: whole joins and leaves, and participant time as `seconds + rate * now` (µs)."""

    joined: int = 0
    left: int = 0
    seconds: int = 0
    rate: int = 0

    @property
    def counts(self) -> PeerCounts:
        """What it adds to the counters of peers."""
        return PeerCounts(self.joined, self.left)


Past = dict[str, list[tuple[str, int]]]
"""For each peer that changed its role: each earlier role, and the time up to which it was credited."""


class Memory(msgspec.Struct, array_like=True):
    """The part of a running session that is kept: its stays, and the earlier roles of peers."""

    stays: dict[str, Stay]
    past: Past


_Sums = tuple[dict[str, Line], int, int]
"""A session's contribution by role, the time of its first join, and the time from which it is linear in now."""

_encode_memory = msgspec.msgpack.Encoder().encode
_decode_memory = msgspec.msgpack.Decoder(Memory).decode


def changed_part(change: Change) -> Memory:
    """What was known before a change of those that it concerns, none of whom had an earlier role."""
    return Memory({key: stay for key, stay in change.items() if stay is not None}, {})


class Tracked:
    """A session that has been seen and is not settled: it runs, or it has ended and is due for a second look.

    `memory` is its encoded `Memory`, in the form in which it is stored.  `observed` is the time up to which it is credited: that of
    the last poll, unless it is `behind`, which means that the last poll did not read it.  `seen_ended` is the poll that first read
    its end, `measured` says whether the distributions include it, `looked` whether it was read again after its end.  `read` is for
    a session that had ended when it was first seen, in a room that could not be decided about: the entries that had already read
    its start.  `before` is the time up to which it had been counted when it was last read; everything new in it is later.
    `worked_out` is the moment of the last sums of its account that include all of it, if it is linear from then on.  `marks` are
    those of its last record, if it runs.
    """

    __slots__ = (
        "_before", "account", "before", "behind", "connected", "digest", "ended", "first_joined", "id", "linear_from", "lines", "looked",
        "marks", "measured", "memory", "observed", "read", "roles_changed", "room_id", "seen_ended", "started", "tried", "unknown", "users",
        "worked_out",
    )  # fmt: skip

    def __init__(
        self, session_id: str, room_id: str, started: int, ended: int | None, observed: int, memory: Memory, unknown: int = 0
    ) -> None:
        self.id = session_id
        self.room_id = room_id
        self.account: Account | None = None
        self.behind = False
        self.started = started
        self.observed = observed
        self.before = started
        self.unknown = unknown
        self.digest: int | None = None
        self.users: Users = {}
        self.seen_ended: int | None = None
        self.measured = False
        self.looked = False
        self.read: frozenset[str] | None = None
        self.tried = 0
        """When a vanished session was last requested."""
        self.lines: dict[str, Line] = {}
        self.first_joined = self.linear_from = 0
        self.update(memory, ended)

    @property
    def counts(self) -> SessionCounts:
        """What it adds to the counters of sessions."""
        return SessionCounts(started=1, ended=int(self.ended is not None))

    @property
    def vanished(self) -> bool:
        """Whether the API no longer knows it: it counts as ended when it was last seen, and may come back."""
        return self.ended is not None and self.unknown >= UNKNOWN_POLLS

    def update(self, memory: Memory, ended: int | None, change: Change | None = None) -> None:
        """Takes over a new record; `change` says how it differs from the last one, if that is known and no role has changed."""
        sums = None if change is None else _moved((self.lines, self.first_joined, self.linear_from), change, memory.stays)
        self.ended = ended
        self.worked_out: int | None = None
        self.marks: Marks | None = None
        self.memory = _encode_memory(memory)
        self.roles_changed = bool(memory.past)
        """Whether a peer has had an earlier role."""
        self.lines, self.first_joined, self.linear_from = sums or _lines(memory, ended)
        self._before: dict[int, dict[str, int]] = {}
        self.connected = 0 if ended is not None else sum(line.rate for line in self.lines.values())

    def recall(self) -> Memory:
        """The decoded memory."""
        return _decode_memory(self.memory)

    def known(self) -> Known | None:
        """What the next record can be compared with."""
        return None if self.marks is None else Known(self.marks, self.users, lambda: self.recall().stays)

    def peer_seconds(self, now: int) -> dict[str, int]:
        """Participant time by role up to `now`, in microseconds."""
        if now >= self.linear_from:
            return {role: line.seconds + line.rate * now for role, line in self.lines.items()}
        return _seconds_at(self.recall(), self.ended, now)

    def peer_seconds_before(self, moment: int) -> dict[str, int]:
        """Participant time by role up to a past moment, such as the beginning of a day, in microseconds."""
        if self.first_joined >= moment:
            return {}
        if moment not in self._before:
            self._before[moment] = _seconds_at(self.recall(), self.ended, moment)
        return self._before[moment]

    def people(self, bots: frozenset[str]) -> int:
        """How many of the connected peers are people: those not in the roles `bots`."""
        count = self.connected
        for role in bots:
            line = self.lines.get(role)
            if line is not None:
                count -= line.rate
        return count

    def of_these(self, roles: frozenset[str]) -> frozenset[str]:
        """The subset of the roles that a peer of this session has or had."""
        return roles.intersection(self.lines)

    def session_seconds(self, now: int) -> int:
        """Wall-clock time up to `now`, in microseconds."""
        return max(0, (now if self.ended is None else self.ended) - self.started)


def _segments(key: str, stay: Stay, past: Past, end: int | None) -> Iterator[tuple[str, int, int | None]]:
    """A stay, cut at its role changes: role, from, to (`None`: still connected).  `end` is the end of an ended session."""
    left = stay.left
    if left is None and end is not None:
        left = max(stay.joined, end)  # a ghost: its stay ends with its session
    start = stay.joined
    for role, until in past.get(key, ()):
        stop = until if left is None else min(until, left)
        if stop > start:
            yield role, start, stop
            start = stop
    yield stay.role, start, left


def presences(memory: Memory, end: int | None, bots: frozenset[str]) -> Iterable[tuple[int, int | None]]:
    """From when to when (`None`: still) people were connected.  A peer counts as people while its role is not in `bots`."""
    if not bots:
        return [(stay.joined, end if stay.left is None else stay.left) for stay in memory.stays.values()]
    return _without(bots, memory, end)


def _without(bots: frozenset[str], memory: Memory, end: int | None) -> Iterator[tuple[int, int | None]]:
    for key, stay in memory.stays.items():
        if key in memory.past:
            for role, start, stop in _segments(key, stay, memory.past, end):
                if role not in bots:
                    yield start, stop
        elif stay.role not in bots:
            yield stay.joined, end if stay.left is None else stay.left


def count_people(memory: Memory, bots: frozenset[str]) -> int:
    """How many peers were people at any time."""
    past = memory.past
    return sum(stay.role not in bots or any(role not in bots for role, _ in past.get(key, ())) for key, stay in memory.stays.items())


def _lines(memory: Memory, end: int | None) -> _Sums:
    """A session's contribution by role, the time of its first join, and the time from which it is linear in now."""
    lines: dict[str, Line] = {}
    first_joined, linear_from = 1 << 62, 0
    past = memory.past
    # This loop runs for every peer of a changed session: calling `min` or `max` would double its cost.
    for key, stay in memory.stays.items():
        if past and key in past:
            continue
        joined, left = stay.joined, stay.left
        line = lines.get(stay.role)
        if line is None:
            line = lines[stay.role] = Line()
        line.joined += 1
        if joined < first_joined:
            first_joined = joined
        if left is None and end is not None:
            left = max(joined, end)  # a ghost: its stay ends with its session
        if left is None:
            line.seconds -= joined
            line.rate += 1
            if joined > linear_from:
                linear_from = joined
        else:
            line.left += 1
            line.seconds += left - joined
            if left > linear_from:
                linear_from = left
    for key in past.keys() & memory.stays.keys():
        first_joined = min(first_joined, memory.stays[key].joined)
        linear_from = max(linear_from, _add_changed(lines, key, memory, end))
    return lines, first_joined, 0 if end is not None else linear_from


def _moved(before: _Sums, change: Change, stays: dict[str, Stay]) -> _Sums | None:
    """The same for a running session, from what it was before a change in which nobody changed the role.

    `None` if a peer's change may have moved the first join back, or the time from which it is linear: the others then decide.
    """
    before_lines, first_joined, linear_from = before
    lines = {role: copy(line) for role, line in before_lines.items()}
    for key, known in change.items():
        for stay, sign in ((known, -1), (stays[key], 1)):
            if stay is None:
                continue
            joined, left = stay.joined, stay.left
            last = joined if left is None else left
            if sign < 0 and (joined <= first_joined or last >= linear_from):
                return None
            first_joined, linear_from = min(first_joined, joined), max(linear_from, last)
            line = lines.setdefault(stay.role, Line())
            line.joined += sign
            line.seconds += sign * ((left or 0) - joined)
            if left is None:
                line.rate += sign
            else:
                line.left += sign
    return lines, first_joined, linear_from


def _add_changed(lines: dict[str, Line], key: str, memory: Memory, end: int | None) -> int:
    """Adds the stay of a peer that changed its role; returns the time from which it is linear in now."""
    stay, roles = memory.stays[key], memory.past[key]
    linear_from = 0
    lines.setdefault(roles[0][0], Line()).joined += 1
    for role, start, stop in _segments(key, stay, memory.past, end):
        line = lines.setdefault(role, Line())
        if stop is None:
            line.seconds -= start
            line.rate += 1
        else:
            line.seconds += stop - start
        linear_from = max(linear_from, start if stop is None else stop)
    if stay.left is not None or end is not None:
        lines[stay.role].left += 1
    return linear_from


def _seconds_at(memory: Memory, end: int | None, now: int) -> dict[str, int]:
    """Participant time by role up to `now`, stay by stay, for times at which it is not linear."""
    seconds: dict[str, int] = {}
    for key, stay in memory.stays.items():
        for role, start, stop in _segments(key, stay, memory.past, end):
            until = now if stop is None else min(stop, now)
            seconds[role] = seconds.get(role, 0) + max(0, until - start)
    return seconds


def seconds_by_day(memory: Memory, end: int) -> dict[tuple[int, str], int]:
    """An ended session's participant time by UTC day (days since the epoch) and role, stays split at midnight."""
    days: dict[tuple[int, str], int] = {}
    for key, stay in memory.stays.items():
        for role, start, stop in _segments(key, stay, memory.past, end):
            assert stop is not None
            while start < stop:
                day = start // DAY
                until = min(stop, (day + 1) * DAY)
                days[day, role] = days.get((day, role), 0) + until - start
                start = until
    return days
