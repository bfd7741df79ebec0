"""Reads the sessions of a range into the work file, page by page, so that an interrupted run continues where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from exporter.commands.backfill.seen import Seen
from exporter.commands.backfill.work import Work
from exporter.counting.rooms import KnownRoom
from exporter.counting.scope import Scope
from exporter.hms.client import Api, Client
from exporter.hms.errors import NotFound
from exporter.hms.pace import Patience
from exporter.hms.pages import Page
from exporter.hms.records import Rejection, Room, Session, decode_room, decode_session, glance
from exporter.times import DAY, rfc3339

FEW_ROOMS = 10
"""Up to this many rooms are listed one by one, because a listing of the workspace would show mostly other rooms' sessions."""
_WIDE_WINDOW = DAY
_ROOM_WINDOW = 30 * DAY
_PATIENCE = Patience(float("inf"))
"""A request is retried as often as `api.max_retries` says, for any length of time."""
_FIRST_PAGES = 3
"""The number of pages of the list of rooms that are always worth their calls, if many names are wanted."""


class Span(NamedTuple):
    """The wanted sessions: those that started from `first` to `last` and had not ended by `over` (µs)."""

    first: int
    last: int
    over: int


class Task(NamedTuple):
    """A listing to read: running sessions, or ended ones by their start; of one room or of all."""

    room_id: str | None
    first: int
    last: int
    active: bool = False

    @property
    def parameters(self) -> dict[str, str]:
        """The query parameters for the API."""
        wanted = {"active": "true" if self.active else "false", "after": rfc3339(self.first, 3), "before": rfc3339(self.last + 999, 3)}
        return wanted if self.room_id is None else {**wanted, "room_id": self.room_id}


class Position(msgspec.Struct):
    """How far reading has come: the number of finished tasks, and the cursor within the next one."""

    task: int = 0
    cursor: str | None = None
    rejected: int = 0


def tasks(span: Span, scope: Scope) -> list[Task]:
    """The listings to read, in order.

    Running sessions come first: one that ends meanwhile is found again among the ended ones, and replaces the earlier record.
    """
    by_room = scope.only_ids and len(scope.ids) <= FEW_ROOMS
    rooms: list[str | None] = [*scope.ids] if by_room else [None]
    window = _ROOM_WINDOW if by_room else _WIDE_WINDOW
    found = [Task(room_id, span.first, span.last, active=True) for room_id in rooms]
    for room_id in rooms:
        found += [Task(room_id, first, min(first + window - 1, span.last)) for first in range(span.first, span.last + 1, window)]
    return found


def read_sessions(work: Work, client: Client, api: Api, span: Span, scope: Scope, seen: Seen, told: Callable[[int, int], None]) -> int:
    """Reads the listings that have not been read yet; returns how many invalid records were left out.

    It calls `told` with how many listings are done, and how many there are.  Raises `ApiError`.
    """
    position = msgspec.json.decode(work.noted("position") or b"{}", type=Position)
    wanted = tasks(span, scope)
    while position.task < len(wanted):
        told(position.task, len(wanted))
        parameters = wanted[position.task].parameters
        if position.cursor is not None:
            parameters["start"] = position.cursor
        for page in client.pages("/sessions", parameters, _PATIENCE):
            with work.transaction():
                work.put_sessions(
                    (session, users, seen.past(session)) for session, users in _sessions(page, api.now(), span, scope, position)
                )
                position.cursor = page.last
                work.note(position=msgspec.json.encode(position))
            told(position.task, len(wanted))
        position.task, position.cursor = position.task + 1, None
        work.note(position=msgspec.json.encode(position))
    return position.rejected


def _sessions(page: Page, now: int, span: Span, scope: Scope, position: Position) -> Iterator[tuple[Session, Mapping[str, str]]]:
    for raw in page.data or ():
        if scope.only_ids and glance(raw).room_id not in scope.ids:
            continue
        session, rejections = decode_session(raw, now)
        position.rejected += len(rejections)
        if session is not None and (session.ended is None or session.ended > span.over):
            yield session, _users(raw)


class _User(msgspec.Struct):
    id: str | None = None
    user_id: str | int | None = None


class _Users(msgspec.Struct):
    peers: dict[str, _User] | list[_User] | None = None


_decode_users = msgspec.json.Decoder(_Users).decode


def _users(raw: bytes | msgspec.Raw) -> dict[str, str]:
    """The user ids of a record's peers, by the ids that `decode_session` gives them; empty if they are invalid."""
    try:
        peers = _decode_users(raw).peers
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    items = peers.items() if isinstance(peers, dict) else ((None, peer) for peer in peers or ())
    return {key: str(peer.user_id) for name, peer in items if (key := peer.id or name) and peer.user_id}


def read_rooms(work: Work, client: Client, span: Span, scope: Scope, told: Callable[[int, int], None]) -> None:
    """Asks for the names of the sessions' rooms; calls `told` with how many of how many are known.  Raises `ApiError`."""
    left = dict.fromkeys([*scope.ids, *work.unnamed_rooms()])
    for room_id in [room_id for room_id in left if work.room(room_id) is not None]:
        del left[room_id]
    total = len(left)
    if total > FEW_ROOMS:
        # A page costs one call, like a room: pages are read until they have cost as much as the remaining rooms would.
        for pages, page in enumerate(client.pages("/rooms", {"before": rfc3339(span.last, 3)}, _PATIENCE), start=1):
            found = [room for raw in page.data or () if isinstance(room := decode_room(raw), Room) and room.id in left]
            with work.transaction():
                work.put_rooms(KnownRoom.of(room, 1) for room in found)
            for room in found:
                del left[room.id]
            told(total - len(left), total)
            if pages >= max(_FIRST_PAGES, len(left)):
                break
    for count, room_id in enumerate(left, start=total - len(left) + 1):
        work.put_rooms([_ask(client, room_id)])
        told(count, total)


def _ask(client: Client, room_id: str) -> KnownRoom:
    try:
        answer = decode_room(client.record("/rooms", room_id, _PATIENCE))
    except NotFound:
        return KnownRoom.missing(room_id, 1)
    if isinstance(answer, Rejection):
        return KnownRoom.missing(room_id, 1)  # it is shown by its id, like a room that does not exist
    return KnownRoom(room_id, answer.name, answer.template, answer.template_id, answer.region, answer.enabled, exists=True, fetched_at=1)
