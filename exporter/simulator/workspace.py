"""The server's interface to a workspace, made up or scripted, and the queries that it answers."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

from exporter.simulator.beside import Beside, UnknownCursorError
from exporter.simulator.timeline import Room, Session


@dataclass(frozen=True, slots=True)
class SessionQuery:
    """A page of sessions.  `None` matches anything; times are inclusive microseconds; the page begins after the id `start`."""

    limit: int
    active: bool | None = None
    room_id: str | None = None
    id: str | None = None
    after: int | None = None
    before: int | None = None
    start: str | None = None


@dataclass(frozen=True, slots=True)
class RoomQuery:
    """A page of rooms; the fields mean the same as in `SessionQuery`."""

    limit: int
    name: str | None = None
    enabled: bool = True
    template_id: str | None = None
    after: int | None = None
    before: int | None = None
    start: str | None = None


class Workspace(Protocol):
    """One credential pair with its rooms and sessions; times in microseconds since the epoch."""

    access_key: str
    secret: str
    lock: threading.RLock
    """Held while the workspace is read or changed, so that an answer shows a single moment."""

    @property
    def beside(self) -> Beside:
        """Its jobs and other events."""

    def sessions_since(self, after: int, now: int) -> list[Session]:
        """Every session that began by `now` and was still running later than `after`; perhaps others too."""

    def list_sessions(self, query: SessionQuery, now: int) -> list[Session]:
        """At most `limit` sessions, newest first.  Raises `UnknownCursorError`."""

    def find_session(self, session_id: str, now: int) -> Session | None:
        """The session with this id, if the API knows it."""

    def list_rooms(self, query: RoomQuery, now: int) -> list[Room]:
        """At most `limit` rooms, newest first.  Raises `UnknownCursorError`."""

    def find_room(self, room_id: str, now: int) -> Room | None:
        """The room with this id, if the API knows it."""


def select_rooms(rooms: Sequence[Room], query: RoomQuery, now: int) -> list[Room]:
    """The page that `query` asks for, from rooms in ascending order.  Raises `UnknownCursorError`."""
    end = len(rooms)
    if query.start is not None:
        cursor = next((room for room in rooms if room.id == query.start), None)
        if cursor is None:
            raise UnknownCursorError(query.start)
        end = bisect_left(rooms, cursor.order, key=attrgetter("order"))
    page: list[Room] = []
    for index in range(end - 1, -1, -1):
        room = rooms[index]
        if (
            room.exists(now)
            and room.enabled == query.enabled
            and (query.template_id is None or room.template_id == query.template_id)
            and (query.after is None or room.created_at >= query.after)
            and (query.before is None or room.created_at <= query.before)
            and (query.name is None or room.name_at(now) == query.name)
        ):
            page.append(room)
            if len(page) == query.limit:
                break
    return page
