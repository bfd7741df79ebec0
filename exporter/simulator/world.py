"""A workspace whose every event is scripted: the fake 100ms account of the tests."""

from __future__ import annotations

import heapq
import threading
from bisect import bisect_left, bisect_right, insort
from operator import attrgetter
from typing import Final

from exporter.simulator.timeline import Room, Session, Shape, fixed_id, fixed_uuid, object_id
from exporter.simulator.truth import Truth, truth_of
from exporter.simulator.workspace import RoomQuery, SessionQuery, UnknownCursorError, select_rooms
from exporter.times import SECOND

LONG_AGO: Final = 1_640_995_200 * SECOND
"""2022-01-01: when rooms came to be for which nobody said otherwise."""

# An index over more new events than this share of the sessions is built anew: sorting once beats many insertions.
_REBUILD_SHARE: Final = 8

_by_order = attrgetter("order")


class World:
    """Rooms and sessions of one workspace, as scripted.

    `shape` is how records are written unless a session has its own.  `lock` is held while anything is read or changed; hold it
    to script several things that must appear in one answer.
    """

    def __init__(self, access_key: str, secret: str, *, shape: Shape = Shape()) -> None:  # noqa: B008 -- immutable
        self.access_key = access_key
        self.secret = secret
        self.shape = shape
        self.lock = threading.RLock()
        self._owner = {"customer_id": fixed_id(f"customer {access_key}"), "app_id": fixed_id(f"app {access_key}")}
        self._serial = 0
        self._rooms: dict[str, Room] = {}
        self._rooms_in_order: list[Room] = []
        self._sessions: dict[str, Session] = {}
        self._listing = _Listing()

    @property
    def rooms(self) -> list[Room]:
        """Every room, those of the past and the future too."""
        return list(self._rooms.values())

    @property
    def sessions(self) -> list[Session]:
        """Every session, those of the past and the future too."""
        return list(self._sessions.values())

    def room(
        self,
        *,
        id: str | None = None,  # noqa: A002 -- the API's name
        name: str | None = None,
        template: str = "default",
        template_id: str | None = None,
        region: str = "in",
        enabled: bool = True,
        max_duration_seconds: int | None = None,
        created_at: int = LONG_AGO,
    ) -> Room:
        """A new room; without a name it gets a UUID for one, as 100ms does.  Raises `ValueError` if the id is taken."""
        with self.lock:
            room_id = id or object_id(created_at, self._next())
            if room_id in self._rooms:
                raise ValueError(f"there is a room {room_id} already")
            room = Room(
                id=room_id,
                name=fixed_uuid(room_id) if name is None else name,
                template=template,
                template_id=template_id or fixed_id(f"template {template}"),
                region=region,
                enabled=enabled,
                max_duration_seconds=max_duration_seconds,
                created_at=created_at,
                customer_id=self._owner["customer_id"],
                lock=self.lock,
            )
            self._rooms[room_id] = room
            insort(self._rooms_in_order, room, key=_by_order)
            return room

    def open(self, room_id: str, at: int, id: str | None = None) -> Session:  # noqa: A002 -- the API's name
        """A call begins in the room.  Raises `KeyError` for an unknown room, `ValueError` if the id is taken."""
        with self.lock:
            session_id = id or object_id(at, self._next())
            if session_id in self._sessions:
                raise ValueError(f"there is a session {session_id} already")
            session = Session(
                id=session_id,
                room_id=self._rooms[room_id].id,
                created_at=at,
                owner=self._owner,
                shape=self.shape,
                lock=self.lock,
                changed=self._listing.expect,
            )
            self._sessions[session_id] = session
            return session

    def truth(self, now: int, *, recorded: bool = False) -> Truth:
        """What has truly happened by now, vanished sessions included; see `truth_of`."""
        with self.lock:
            return truth_of(self._sessions.values(), now, recorded=recorded)

    def list_sessions(self, query: SessionQuery, now: int) -> list[Session]:
        """At most `limit` sessions, newest first.  Raises `UnknownCursorError`."""
        with self.lock:
            entries = self._listing.at(now, query.room_id, query.active)
            first, end = 0, len(entries)
            if query.after is not None:
                first = bisect_left(entries, query.after, key=attrgetter("created_at"))
            if query.before is not None:
                end = bisect_right(entries, query.before, key=attrgetter("created_at"))
            if query.start is not None:
                cursor = self._sessions.get(query.start)
                if cursor is None:
                    raise UnknownCursorError(query.start)
                end = min(end, bisect_left(entries, cursor.order, key=_by_order))
            if query.id is not None:
                return [session for session in entries[first:end] if session.id == query.id]
            return entries[max(first, end - query.limit) : max(first, end)][::-1]

    def find_session(self, session_id: str, now: int) -> Session | None:
        """The session of this id, if the API knows it."""
        session = self._sessions.get(session_id)
        return session if session is not None and session.exists(now) else None

    def list_rooms(self, query: RoomQuery, now: int) -> list[Room]:
        """At most `limit` rooms, newest first.  Raises `UnknownCursorError`."""
        with self.lock:
            return select_rooms(self._rooms_in_order, query, now)

    def find_room(self, room_id: str, now: int) -> Room | None:
        """The room of this id, if the API knows it."""
        room = self._rooms.get(room_id)
        return room if room is not None and room.exists(now) else None

    def _next(self) -> int:
        self._serial += 1
        return self._serial


class _Listing:
    """Sessions in rising order, for each room and for all, by whether they run: a page is a slice, however many there are.

    It is kept for one moment and moved on to the next by the events between the two.
    """

    def __init__(self) -> None:
        self._now = 0
        self._sessions: dict[str, Session] = {}
        self._shown: dict[str, bool] = {}
        self._entries: dict[tuple[str | None, bool | None], list[Session]] = {}
        self._events: list[tuple[int, str]] = []

    def expect(self, session: Session, at: int) -> None:
        """The session begins, ends or vanishes at that moment."""
        self._sessions[session.id] = session
        heapq.heappush(self._events, (at, session.id))

    def at(self, now: int, room_id: str | None, active: bool | None) -> list[Session]:
        """The sessions that the API knows, running or not or both; not to be changed."""
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
