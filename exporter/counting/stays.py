"""What the stays of one session's peers add to the counters, by role: functions of the stays, of earlier roles, of its end and of now.

All times are the API's, in integer microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from typing import NamedTuple

import msgspec

from exporter.hms.records import Stay
from exporter.hms.steps import Change
from exporter.times import DAY


class PeerCounts(NamedTuple):
    """The counters of peers in one role but for their time; stored in this order."""

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


Lines = tuple[dict[str, Line], int, int]
"""A session's contribution by role, the time of its first join, and the time from which it is linear in now."""

encode_memory = msgspec.msgpack.Encoder().encode
decode_memory = msgspec.msgpack.Decoder(Memory).decode


def changed_part(change: Change) -> Memory:
    """What was known before a change of those that it concerns, none of whom had an earlier role."""
    return Memory({key: stay for key, stay in change.items() if stay is not None}, {})


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


def lines_of(memory: Memory, end: int | None) -> Lines:
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


def moved(before: Lines, change: Change, stays: dict[str, Stay]) -> Lines | None:
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


def seconds_at(memory: Memory, end: int | None, now: int) -> dict[str, int]:
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
