"""A fully scripted workspace: the fake 100ms account of the tests."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from operator import attrgetter
from typing import Any, Final

from exporter.simulator.beside import Scripted, UnknownCursorError
from exporter.simulator.beside_truth import BesideTruth, beside_truth_of
from exporter.simulator.happenings import ClientEvent, Delivery, JoinFailure
from exporter.simulator.jobs import Asset, AssetStatus, Job, Kind
from exporter.simulator.jobs_truth import JobsTruth, jobs_truth_of
from exporter.simulator.listing import Listing
from exporter.simulator.shape import Shape, fixed_id, fixed_uuid, object_id
from exporter.simulator.timeline import Room, Session
from exporter.simulator.truth import Truth, truth_of
from exporter.simulator.workspace import RoomQuery, SessionQuery, select_rooms
from exporter.times import SECOND

LONG_AGO: Final = 1_640_995_200 * SECOND
"""2022-01-01: the default creation time of rooms."""

_by_order = attrgetter("order")


class World:
    """The scripted rooms and sessions of one workspace.

    `shape` says how records are written, unless a session has its own.  `lock` is held while anything is read or changed; hold
    it to script several things that must appear in one answer.
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
        self._listing = Listing()
        self.beside = Scripted(self.lock)
        """Jobs and other events."""

    @property
    def rooms(self) -> list[Room]:
        """Every room, past and future ones included."""
        return list(self._rooms.values())

    @property
    def sessions(self) -> list[Session]:
        """Every session, past and future ones included."""
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
        """A new room; without a name it is named by a UUID, as 100ms does.  Raises `ValueError` if the id is taken."""
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
        """Begins a call in the room.  Raises `KeyError` for an unknown room, `ValueError` if the id is taken."""
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

    def record(self, where: Session | Room, at: int, id: str | None = None, **more: str) -> Job:  # noqa: A002 -- the API's name
        """Requests a recording, in a call or in a room without one; `more` may hold `started_by`."""
        return self._ask("recording", where, at, id, **more)

    def stream(self, where: Session | Room, at: int, id: str | None = None, **more: str) -> Job:  # noqa: A002 -- the API's name
        """Requests a live stream (HLS)."""
        return self._ask("live_stream", where, at, id, **more)

    def push(self, where: Session | Room, at: int, id: str | None = None, **more: str) -> Job:  # noqa: A002 -- the API's name
        """Requests an external stream (RTMP)."""
        return self._ask("external_stream", where, at, id, **more)

    def asset(
        self,
        job: Job,
        type: str,  # noqa: A002 -- the API's name
        at: int,
        *,
        duration: float = 0,
        size: int = 0,
        status: AssetStatus = "completed",
    ) -> Asset:
        """Adds a file of the recording, or one that could not be made."""
        with self.lock:
            asset = Asset(object_id(at, self._next()), job.id, job.room_id, job.session_id, type, at, status, duration, size)
            self.beside.assets.add(asset, asset.room_id)
            return asset

    def client_event(self, where: Session | Room, at: int, type: str = "client.join.failed", **fields: Any) -> ClientEvent:  # noqa: A002 -- the API's name
        """A client reports an event, in a call or before joining one; `fields` are those of `ClientEvent`."""
        with self.lock:
            room_id, session_id = _place(where)
            event = ClientEvent(fixed_uuid(f"event {self._next()}"), at, room_id, type, session_id or None, **fields)
            self.beside.reported.add(event, room_id)
            return event

    def join_failure(self, room: Room, at: int, reason: str = "role not allowed", role: str = "guest") -> JoinFailure:
        """A failed attempt to join, which only webhooks report."""
        with self.lock:
            failure = JoinFailure(fixed_uuid(f"failure {self._next()}"), at, room.id, reason, role)
            self.beside.refused.add(failure, room.id)
            return failure

    def delivery(self, room: Room, at: int, event: str = "session.open.success", error: str | None = None) -> Delivery:
        """Adds a webhook to `/analytics/webhooks`; with an `error` it did not arrive."""
        with self.lock:
            delivery = Delivery(fixed_uuid(f"delivery {self._next()}"), at, room.id, event, error)
            self.beside.deliver(delivery)
            return delivery

    def jobs_truth(self, now: int) -> JobsTruth:
        """The truth about all jobs by now; see `jobs_truth_of`."""
        with self.lock:
            return jobs_truth_of((job for shelf in self.beside.jobs.values() for job in shelf.by_id.values()), now)

    def beside_truth(self, since: int, now: int) -> BesideTruth:
        """The truth about assets, client errors and webhooks from `since` to now; see `beside_truth_of`."""
        with self.lock:
            ends = {session.id: session.closed_at for session in self._sessions.values() if session.closed_at is not None}
            return beside_truth_of(self.beside, ends, since, now)

    def truth(self, now: int, *, recorded: bool = False) -> Truth:
        """The truth about all sessions by now, vanished ones included; see `truth_of`."""
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
        """The session with this id, if the API knows it."""
        session = self._sessions.get(session_id)
        return session if session is not None and session.exists(now) else None

    def list_rooms(self, query: RoomQuery, now: int) -> list[Room]:
        """At most `limit` rooms, newest first.  Raises `UnknownCursorError`."""
        with self.lock:
            return select_rooms(self._rooms_in_order, query, now)

    def find_room(self, room_id: str, now: int) -> Room | None:
        """The room with this id, if the API knows it."""
        room = self._rooms.get(room_id)
        return room if room is not None and room.exists(now) else None

    def sessions_since(self, after: int, now: int) -> list[Session]:
        """Every session that began by `now` and was still running later than `after`; perhaps others too."""
        with self.lock:
            return [
                session
                for session in self._sessions.values()
                if session.created_at <= now and (session.closed_at is None or session.closed_at > after)
            ]

    def _ask(self, kind: Kind, where: Session | Room, at: int, id_: str | None, **more: str) -> Job:
        with self.lock:
            room_id, session_id = _place(where)
            job_id = id_ or object_id(at, self._next())
            job = Job(kind, id=job_id, room_id=room_id, session_id=session_id, created_at=at, lock=self.lock, shape=self.shape, **more)
            self.beside.jobs[kind].add(job, room_id)
            return job

    def _next(self) -> int:
        self._serial += 1
        return self._serial


def _place(where: Session | Room) -> tuple[str, str]:
    """The room's id, and the session's id if there is one."""
    return (where.room_id, where.id) if isinstance(where, Session) else (where.id, "")
