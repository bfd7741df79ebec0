"""Decides which series each session and job belongs to, as the live exporter would, and sorts what begins and ends in them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from exporter.commands.backfill.series import Grid
from exporter.commands.backfill.work import JobRow, SessionRow, Work
from exporter.config.config import LimitsConfig
from exporter.counting.contribution import OVERFLOW, Account, group_account, room_account
from exporter.counting.scope import Scope, matches
from exporter.times import DAY, SECOND

_BATCH = 2000
"""How many sessions are arranged in one transaction."""


class Since(NamedTuple):
    """When live counting begins: sessions that ended later count.  The fields are as in `Plan`."""

    entries: Sequence[tuple[str, int]]
    rooms: Mapping[str, int]
    otherwise: int

    def of(self, room_id: str, name: str) -> int:
        """When the counting of a room's sessions begins."""
        own = self.rooms.get(room_id)
        if own is not None:
            return own
        return next((since for key, since in self.entries if matches(key, room_id, name)), self.otherwise)


Counts = Callable[[SessionRow | JobRow, str], bool]
"""Whether the live counters count a session or job in the room with this name."""


class Owners:
    """Decides which account a session or job belongs to.  Call it in order of starts, because discovered rooms take the free places."""

    def __init__(self, scope: Scope, limits: LimitsConfig, name: Callable[[str], str]) -> None:
        self._scope = scope
        self._name = name
        self._most = limits.max_rooms
        self._expiry = round(limits.room_idle_expiry * SECOND)
        self._shown: dict[str, int] = {}
        self._leaving: list[tuple[int, str]] = []

    def owner(self, session: SessionRow | JobRow) -> Account | None:
        """The account of a session or job; `None` if the configuration does not cover it."""
        room_id, scope = session.room_id, self._scope
        if room_id in scope.ids:
            return room_account(room_id)
        if scope.everything:
            return self._discovered(session)
        name = self._name(room_id)
        pattern = next((pattern for pattern in scope.patterns if pattern.match.fullmatch(name)), None)
        if pattern is None:
            return None
        group = pattern.group_for(name)
        return self._discovered(session) if group is None else group_account(group)

    def _discovered(self, session: SessionRow | JobRow) -> Account:
        """A room gets series of its own if a place is free; it keeps its place until it has been idle for long."""
        shown, leaving, room_id = self._shown, self._leaving, session.room_id
        while leaving and leaving[0][0] < session.started:
            until, gone = heapq.heappop(leaving)
            if shown.get(gone) == until:
                del shown[gone]
        if room_id not in shown and len(shown) >= self._most:
            return OVERFLOW
        until = (session.started if session.ended is None else session.ended) + self._expiry
        if until > shown.get(room_id, 0):
            shown[room_id] = until
            heapq.heappush(leaving, (until, room_id))
        return room_account(room_id)


def arrange(work: Work, scope: Scope, limits: LimitsConfig, counts: Counts, grid: Grid, told: Callable[[int], None]) -> None:
    """Arranges the work file's sessions and jobs; calls `told` with how many are done."""

    def name(room_id: str) -> str:
        room = work.room(room_id)
        return (room.name if room is not None else "") or room_id

    owners = Owners(scope, limits, name)
    expiry = round(limits.room_idle_expiry * SECOND)
    work.begin_arrangement()
    with work.transaction():
        for room_id in scope.ids:
            number = work.account_number(room_account(room_id))
            work.put_spans([(number, [(grid.start, grid.end)])])
            work.add_series([(number, "", grid.start, 0, 0)])
    batch = _Batch()
    for count, found in enumerate(_in_order(work), start=1):
        account = owners.owner(found)
        if account is not None:
            number, counted = work.account_number(account), counts(found, name(found.room_id))
            if isinstance(found, JobRow):
                batch.add_job(found, number, counted=counted, end=grid.end, expiry=expiry)
            else:
                batch.add(found, number, counted=counted, end=grid.end, expiry=expiry)
        if count % _BATCH == 0:
            batch.put(work)
            batch = _Batch()
            told(count)
    batch.put(work)
    work.end_arrangement()


def _in_order(work: Work) -> Iterator[SessionRow | JobRow]:
    """All sessions and jobs, in order of when they began or were requested."""
    sources: list[Iterator[SessionRow | JobRow]] = [iter(work.sessions()), iter(work.jobs())]
    return heapq.merge(*sources, key=lambda found: found.started)


class _Batch:
    """The arrangement of some sessions, before it is written."""

    def __init__(self) -> None:
        self._owners: list[tuple[int, bool, str]] = []
        self._job_owners: list[tuple[int, bool, str, str]] = []
        self._events: list[tuple[int, str, int, int, int, int | None, int]] = []
        self._series: dict[tuple[int, str], list[int]] = {}
        self._spans: dict[int, list[tuple[int, int]]] = {}

    def add(self, session: SessionRow, account: int, *, counted: bool, end: int, expiry: int) -> None:
        """Adds a session of this account; a session that the live counters do not count is part of their base."""
        started, ended = session.started, session.ended
        self._owners.append((account, counted, session.id))
        self._thing(account, "", started, started, ended, ended, None, counted=counted, end=end)
        for stay in session.stays:
            left = stay.left
            if left is None and ended is not None:
                left = max(stay.joined, ended)  # a ghost: its stay ends with its session
            # No part of a session is seen before its start, and its end shows all of it.
            at = max(stay.joined, started) if ended is None else min(max(stay.joined, started), ended)
            over = None if left is None else max(at, left if ended is None else min(left, ended))
            begin, joins = stay.joined, 1
            # In live counting, a peer joins in its first role and leaves in its last; in between its time is credited role by role.
            for role, until in stay.past if counted else ():
                stop = max(begin, until if left is None else min(until, left))
                turn = max(at, stop) if over is None else min(max(at, stop), over)
                self._thing(account, role, at, begin, turn, stop, stay.user, counted=counted, end=end, began=joins, ended=0)
                at, begin, joins = turn, stop, 0
            self._thing(account, stay.role, at, begin, over, left, stay.user, counted=counted, end=end, began=joins)
        if started < end:
            last = end if ended is None else ended
            self._spans.setdefault(account, []).append((started, last + expiry))

    def add_job(self, found: JobRow, account: int, *, counted: bool, end: int, expiry: int) -> None:
        """Adds a job of this account.  Its room is shown because of it, with counters of sessions too, even if there were none."""
        self._job_owners.append((account, counted, found.kind, found.job.id))
        series = self._series.setdefault((account, ""), [found.started, 0, 0])
        series[0] = min(series[0], found.started)
        if found.started < end:
            last = found.started + DAY if found.ended is None else found.ended
            self._spans.setdefault(account, []).append((found.started, last + expiry))

    def _thing(
        self,
        account: int,
        role: str,
        at: int,
        begin: int,
        over: int | None,
        end_moment: int | None,
        user: int | None,
        *,
        counted: bool,
        end: int,
        began: int = 1,
        ended: int = 1,
    ) -> None:
        series = self._series.setdefault((account, role), [at, 0, 0])
        series[0] = min(series[0], at)
        if not counted and end_moment is not None:
            series[1] += 1
            series[2] += end_moment - begin
        if at < end:
            self._events.append((account, role, at, 1, begin, user, began))
            if over is not None and end_moment is not None and over < end:
                self._events.append((account, role, over, -1, end_moment, user, ended))

    def put(self, work: Work) -> None:
        """Writes the batch."""
        with work.transaction():
            work.belongs(self._owners)
            work.jobs_belong(self._job_owners)
            work.put_events(self._events)
            work.add_series((*key, first, number, micros) for key, (first, number, micros) in self._series.items())
            work.put_spans(self._spans.items())
