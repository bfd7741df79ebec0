"""What 100ms answers: tokens, routes, filters, pages and errors as the public documentation has them.  No sockets here."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import jwt
import msgspec
from jwt.types import Options

from exporter.simulator.timeline import Record, Room, Session, fixed_id
from exporter.simulator.workspace import RoomQuery, SessionQuery, UnknownCursorError, Workspace
from exporter.times import SECOND, rfc3339

LEEWAY: Final = 5 * SECOND
"""How far a token's times may lie on the wrong side of the server's clock."""

_CLAIMS: Final = ["access_key", "type", "version", "jti", "iat", "nbf", "exp"]

SMALLEST_PAGE: Final = 10

PREFIX: Final = "/v2"

_ROUTES: Final = {
    "/sessions": re.compile(r"/sessions"),
    "/sessions/<id>": re.compile(r"/sessions/([^/]+)"),
    "/rooms": re.compile(r"/rooms"),
    "/rooms/<id>": re.compile(r"/rooms/([^/]+)"),
    "/active-rooms/<id>": re.compile(r"/active-rooms/([^/]+)"),
    "/active-rooms/<id>/peers": re.compile(r"/active-rooms/([^/]+)/peers"),
}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Twist = Literal["repeated_cursor", "endless_pages", "repeated_item"]


@dataclass(frozen=True, slots=True)
class Manners:
    """How the API behaves where its documentation is silent or contradicts itself.

    `oversize`: a `limit` outside of 10 to `max_page_size` is refused with 400, or silently moved into that range;
    `active_default`: what leaving `active` out means; `empty_data`: `data` when nothing was found;
    `final_last`: what the last page has in `last`.
    """

    max_page_size: int = 100
    oversize: Literal["refuse", "lower"] = "refuse"
    active_default: Literal["true", "all"] = "true"
    empty_data: Literal["null", "list"] = "null"
    final_last: Literal["id", "empty", "absent"] = "id"


@dataclass(frozen=True, slots=True)
class Response:
    """An answer before it is put on the wire; length, date and encoding are added there."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked: the path without its prefix, and the query's last value of each name."""

    method: str
    path: str
    query: Mapping[str, str]
    authorization: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, and whether the token was accepted."""

    authorized: bool
    response: Response


class _RefusedError(Exception):
    """The call is answered with an error."""

    def __init__(self, status: int, message: str, *details: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.response = error(status, message, *details, headers=headers)


def error(status: int, message: str, *details: str, headers: Mapping[str, str] | None = None) -> Response:
    """100ms's error document."""
    body = msgspec.json.encode({"code": status, "message": message, "details": details or (message,)})
    return Response(status, body, headers=headers or {})


def route_of(path: str) -> str | None:
    """The route of a path without its prefix, such as `/rooms/<id>`; `None` for what the API does not have."""
    return next((route for route, pattern in _ROUTES.items() if pattern.fullmatch(path)), None)


def answer(call: Call, workspaces: Sequence[Workspace], manners: Manners, now: int, twist: Twist | None = None) -> Answer:
    """The API's answer at that moment of its clock (microseconds); a `twist` breaks lists in the way it names."""
    authorized = False
    try:
        workspace = authorize(call.authorization, workspaces, now)
        authorized = True
        with workspace.lock:
            return Answer(authorized, _Answering(workspace, manners, now, twist).to(call))
    except _RefusedError as refused:
        return Answer(authorized, refused.response)


def authorize(header: str | None, workspaces: Sequence[Workspace], now: int) -> Workspace:
    """The workspace that a valid management token opens; every claim is demanded and checked against the server's clock."""
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise _RefusedError(401, "authorization failed", "no bearer token")
    try:
        access_key = jwt.decode(token, options={"verify_signature": False}).get("access_key")
        workspace = next((known for known in workspaces if known.access_key == access_key), None)
        if workspace is None:
            raise _RefusedError(401, "authorization failed", "unknown access_key")
        # The times are checked below: PyJWT knows this machine's clock only, the simulated one may be hours away from it.
        options: Options = {"require": _CLAIMS, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
        claims = jwt.decode(token, workspace.secret, algorithms=["HS256"], options=options)
        uuid.UUID(claims["jti"])
        issued, begins, ends = (float(claims[name]) * SECOND for name in ("iat", "nbf", "exp"))
    except (jwt.InvalidTokenError, ValueError, TypeError, AttributeError) as fault:
        raise _RefusedError(401, "authorization failed", f"invalid token: {type(fault).__name__}") from fault
    if claims["type"] != "management" or claims["version"] != 2:
        raise _RefusedError(401, "authorization failed", "not a management token of version 2")
    if max(issued, begins) > now + LEEWAY:
        raise _RefusedError(401, "authorization failed", "token is not valid yet")
    if ends < now - LEEWAY:
        raise _RefusedError(401, "authorization failed", "token is expired")
    return workspace


def management_token(workspace: Workspace, now: int, **claims: object) -> str:
    """A token that opens the workspace for a day from `now` (microseconds), for trying the API by hand; `claims` replace its own."""
    issued = now // SECOND - 10
    own = {"access_key": workspace.access_key, "type": "management", "version": 2, "jti": str(uuid.uuid4())}
    return jwt.encode({**own, "iat": issued, "nbf": issued, "exp": issued + 86_400, **claims}, workspace.secret, "HS256")


class _Answering:
    """One accepted call."""

    def __init__(self, workspace: Workspace, manners: Manners, now: int, twist: Twist | None) -> None:
        self._workspace = workspace
        self._manners = manners
        self._now = now
        self._twist = twist

    def to(self, call: Call) -> Response:
        """The answer."""
        route = route_of(call.path)
        if route is None:
            raise _RefusedError(404, "not found")
        if call.method != "GET":
            raise _RefusedError(405, "method not allowed", headers={"Allow": "GET"})
        match route:
            case "/sessions":
                return self._sessions(call.query)
            case "/rooms":
                return self._rooms(call.query)
        pattern = _ROUTES[route].fullmatch(call.path)
        assert pattern is not None
        subject = pattern.group(1)
        match route:
            case "/sessions/<id>":
                return self._one(self._workspace.find_session(subject, self._now), "session")
            case "/rooms/<id>":
                return self._one(self._workspace.find_room(subject, self._now), "room")
            case "/active-rooms/<id>":
                return self._active_room(subject)
            case _:
                return self._active_peers(subject)

    def _sessions(self, query: Mapping[str, str]) -> Response:
        active = _flag(query, "active")
        if active is None and self._manners.active_default == "true":
            active = True
        after, before = _moment(query, "after"), _moment(query, "before")

        def select(limit: int, start: str | None) -> Sequence[Session]:
            wanted = SessionQuery(limit, active, query.get("room_id"), query.get("id"), after, before, start)
            return self._workspace.list_sessions(wanted, self._now)

        return self._page(query, select, lambda session_id: self._workspace.find_session(session_id, self._now))

    def _rooms(self, query: Mapping[str, str]) -> Response:
        enabled = _flag(query, "enabled") is not False
        after, before = _moment(query, "after"), _moment(query, "before")

        def select(limit: int, start: str | None) -> Sequence[Room]:
            wanted = RoomQuery(limit, query.get("name"), enabled, query.get("template_id"), after, before, start)
            return self._workspace.list_rooms(wanted, self._now)

        return self._page(query, select, lambda room_id: self._workspace.find_room(room_id, self._now))

    def _page(
        self,
        query: Mapping[str, str],
        select: Callable[[int, str | None], Sequence[Session | Room]],
        find: Callable[[str], Session | Room | None],
    ) -> Response:
        limit = self._limit(query.get("limit"))
        start = query.get("start") or None
        try:
            # One more than asked for tells whether this is the last page.
            found = list(select(limit + 1, None if self._twist == "endless_pages" else start))
        except UnknownCursorError as unknown:
            raise _RefusedError(400, "invalid start", f"no such id: {unknown}") from unknown
        if self._twist == "repeated_item" and start is not None:
            again = find(start)
            found[:0] = [again] if again is not None else []
        final = len(found) <= limit
        shown = found[:limit]
        last = shown[-1].id if shown else None
        if self._twist == "endless_pages" and shown:
            final = False
            shown = [shown[index % len(shown)] for index in range(limit)]
            last = fixed_id(f"after {start}")
        elif self._twist == "repeated_cursor" and start is not None:
            last = start
        data = b"[" + b",".join([item.encoded(self._now) for item in shown]) + b"]"
        if not shown and self._manners.empty_data == "null":
            data = b"null"
        tail = b""
        if last is not None and (not final or self._manners.final_last == "id" or self._twist is not None):
            tail = b',"last":' + msgspec.json.encode(last)
        elif self._manners.final_last == "empty":
            tail = b',"last":""'
        return Response(200, b'{"limit":%d,"data":%b%b}' % (limit, data, tail))

    def _limit(self, text: str | None) -> int:
        largest = self._manners.max_page_size
        smallest = min(SMALLEST_PAGE, largest)
        if text is None:
            return smallest
        wanted = int(text) if re.fullmatch(r"\d{1,9}", text) else -1
        if smallest <= wanted <= largest:
            return wanted
        if wanted < 0 or self._manners.oversize == "refuse":
            raise _RefusedError(400, "invalid limit", f"limit must be a number from {smallest} to {largest}")
        return min(max(wanted, smallest), largest)

    def _one(self, item: Session | Room | None, kind: str) -> Response:
        if item is None:
            raise _RefusedError(404, f"{kind} not found")
        return Response(200, item.encoded(self._now))

    def _running_in(self, room_id: str) -> Session:
        running = self._workspace.list_sessions(SessionQuery(1, active=True, room_id=room_id), self._now)
        if not running:
            raise _RefusedError(404, "room is not active")
        return running[0]

    def _active_room(self, room_id: str) -> Response:
        session = self._running_in(room_id)
        room = self._workspace.find_room(room_id, self._now)
        record: Record = {"id": room_id, "name": room.name_at(self._now) if room is not None else ""}
        record["session"] = {
            "id": session.id,
            "created_at": rfc3339(session.created_at, session.shape.digits),
            "peers": [peer.id for peer in session.connected(self._now)],
        }
        return Response(200, msgspec.json.encode(record))

    def _active_peers(self, room_id: str) -> Response:
        session = self._running_in(room_id)
        peers = {peer.id: peer.record(self._now, session.shape) for peer in session.connected(self._now)}
        return Response(200, msgspec.json.encode({"peers": peers}))


def _flag(query: Mapping[str, str], name: str) -> bool | None:
    text = query.get(name)
    if text is None:
        return None
    if text not in ("true", "false"):
        raise _RefusedError(400, f"invalid {name}", f"{name} must be true or false")
    return text == "true"


def _moment(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, TypeError) as fault:  # TypeError: a time without its zone
        raise _RefusedError(400, f"invalid {name}", f"{name} must be an RFC 3339 time") from fault
