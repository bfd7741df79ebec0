"""The sessions that a listing shows, kept in order as time moves on."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from operator import attrgetter
from typing import Final

from exporter.simulator.timeline import Session

# With more new events than this share of the sessions, the index is rebuilt: one sort is faster than many insertions.
_REBUILD_SHARE: Final = 8

_by_order = attrgetter("order")


class Listing:
    """Sessions in ascending order, for each room and for all, by whether they run, so that a page is a slice.

    It holds the order of one moment, and moves to a later one by applying the events in between.
    """

    def __init__(self) -> None:
        self._now = 0
        self._sessions: dict[str, Session] = {}
        self._shown: dict[str, bool] = {}
        self._entries: dict[tuple[str | None, bool | None], list[Session]] = {}
        self._events: list[tuple[int, str]] = []

    def expect(self, session: Session, at: int) -> None:
        """Notes that the session begins, ends or vanishes at `at`."""
        self._sessions[session.id] = session
        heapq.heappush(self._events, (at, session.id))

    def at(self, now: int, room_id: str | None, active: bool | None) -> list[Session]:
        """The sessions that the API knows at `now`: running, ended, or both.  The caller must not change the list."""
        if now < self._now:
            self._rebuild(now)
        self._now = now
        due: set[str] = set()
        while self._events and self._events[0][0] <= now:
            due.add(heapq.heappop(self._events)[1])
        if len(due) * _REBUILD_SHARE > len(self._sessions):
            self._rebuild(now)
        else:
            for session_id in due:
                self._move(self._sessions[session_id], now)
        return self._entries.get((room_id, active), [])

    def _move(self, session: Session, now: int) -> None:
        before = self._shown.pop(session.id, None)
        if before is not None:
            for key in _keys(session, before):
                entries = self._entries[key]
                del entries[bisect_left(entries, session.order, key=_by_order)]
        if session.exists(now):
            active = self._shown[session.id] = session.active(now)
            for key in _keys(session, active):
                insort(self._entries.setdefault(key, []), session, key=_by_order)

    def _rebuild(self, now: int) -> None:
        self._shown = {}
        self._entries = {}
        self._events = []
        for session in sorted(self._sessions.values(), key=_by_order):
            moments = (session.created_at, session.closed_at, session.vanished_at)
            self._events.extend((at, session.id) for at in moments if at is not None and at > now)
            if session.exists(now):
                active = self._shown[session.id] = session.active(now)
                for key in _keys(session, active):
                    self._entries.setdefault(key, []).append(session)
        heapq.heapify(self._events)


def _keys(session: Session, active: bool) -> tuple[tuple[str | None, bool | None], ...]:
    return (None, active), (None, None), (session.room_id, active), (session.room_id, None)
