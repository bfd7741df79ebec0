"""100ms's answers: tokens, routes, filters, pages and errors, as the public documentation describes them.  No sockets here."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import jwt
import msgspec
from jwt.types import Options

from exporter.simulator import beside_answers
from exporter.simulator.replies import Call, Manners, Pages, RefusedError, Response, Twist, flag, moment
from exporter.simulator.shape import Record
from exporter.simulator.timeline import Room, Session
from exporter.simulator.workspace import RoomQuery, SessionQuery, Workspace
from exporter.times import SECOND, rfc3339

LEEWAY: Final = 5 * SECOND
"""How far the times in a token may differ from the server's clock."""

_CLAIMS: Final = ["access_key", "type", "version", "jti", "iat", "nbf", "exp"]

PREFIX: Final = "/v2"

_ROUTES: Final = {
    "/sessions": re.compile(r"/sessions"),
    "/sessions/<id>": re.compile(r"/sessions/([^/]+)"),
    "/rooms": re.compile(r"/rooms"),
    "/rooms/<id>": re.compile(r"/rooms/([^/]+)"),
    "/active-rooms/<id>": re.compile(r"/active-rooms/([^/]+)"),
    "/active-rooms/<id>/peers": re.compile(r"/active-rooms/([^/]+)/peers"),
    **beside_answers.ROUTES,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, and whether the token was accepted."""

    authorized: bool
    response: Response


def route_of(path: str) -> str | None:
    """The route of a path without its prefix, such as `/rooms/<id>`; `None` if the API has no such route."""
    return next((route for route, pattern in _ROUTES.items() if pattern.fullmatch(path)), None)


def answer(call: Call, workspaces: Sequence[Workspace], manners: Manners, now: int, twist: Twist | None = None) -> Answer:
    """The API's answer at `now` (microseconds, on the API's clock); a `twist` breaks lists in the way it names."""
    authorized = False
    try:
        workspace = authorize(call.authorization, workspaces, now)
        authorized = True
        with workspace.lock:
            return Answer(authorized, _Answering(workspace, manners, now, twist).to(call))
    except RefusedError as refused:
        return Answer(authorized, refused.response)


def authorize(header: str | None, workspaces: Sequence[Workspace], now: int) -> Workspace:
    """The workspace that a valid management token opens; every claim is required, and its times are checked against the server's clock."""
    scheme, _, token = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise RefusedError(401, "authorization failed", "no bearer token")
    try:
        access_key = jwt.decode(token, options={"verify_signature": False}).get("access_key")
        workspace = next((known for known in workspaces if known.access_key == access_key), None)
        if workspace is None:
            raise RefusedError(401, "authorization failed", "unknown access_key")
        # The times are checked below: PyJWT uses this machine's clock, and the simulated clock may differ by hours.
        options: Options = {"require": _CLAIMS, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
        claims = jwt.decode(token, workspace.secret, algorithms=["HS256"], options=options)
        uuid.UUID(claims["jti"])
        issued, begins, ends = (float(claims[name]) * SECOND for name in ("iat", "nbf", "exp"))
    except (jwt.InvalidTokenError, ValueError, TypeError, AttributeError) as fault:
        raise RefusedError(401, "authorization failed", f"invalid token: {type(fault).__name__}") from fault
    if claims["type"] != "management" or claims["version"] != 2:
        raise RefusedError(401, "authorization failed", "not a management token of version 2")
    if max(issued, begins) > now + LEEWAY:
        raise RefusedError(401, "authorization failed", "token is not valid yet")
    if ends < now - LEEWAY:
        raise RefusedError(401, "authorization failed", "token is expired")
    return workspace


def management_token(workspace: Workspace, now: int, **claims: object) -> str:
    """A token that opens the workspace for a day from `now` (microseconds), for trying the API by hand; `claims` override the defaults."""
    issued = now // SECOND - 10
    own = {"access_key": workspace.access_key, "type": "management", "version": 2, "jti": str(uuid.uuid4())}
    return jwt.encode({**own, "iat": issued, "nbf": issued, "exp": issued + 86_400, **claims}, workspace.secret, "HS256")


class _Answering:
    """Answers one authorized call."""

    def __init__(self, workspace: Workspace, manners: Manners, now: int, twist: Twist | None) -> None:
        self._workspace = workspace
        self._manners = manners
        self._now = now
        self._pages = Pages(manners, now, twist)

    def to(self, call: Call) -> Response:
        """The answer."""
        route = route_of(call.path)
        if route is None:
            raise RefusedError(404, "not found")
        if call.method != "GET":
            raise RefusedError(405, "method not allowed", headers={"Allow": "GET"})
        match route:
            case "/sessions":
                return self._sessions(call.query)
            case "/rooms":
                return self._rooms(call.query)
        if route in beside_answers.ROUTES:
            return beside_answers.answer(call, route, self._workspace.beside, self._pages)
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
        active = flag(query, "active")
        if active is None and self._manners.active_default == "true":
            active = True
        after, before = moment(query, "after"), moment(query, "before")

        def select(limit: int, start: str | None) -> Sequence[Session]:
            wanted = SessionQuery(limit, active, query.get("room_id"), query.get("id"), after, before, start)
            return self._workspace.list_sessions(wanted, self._now)

        return self._pages.page(query, select, lambda session_id: self._workspace.find_session(session_id, self._now))

    def _rooms(self, query: Mapping[str, str]) -> Response:
        enabled = flag(query, "enabled") is not False
        after, before = moment(query, "after"), moment(query, "before")

        def select(limit: int, start: str | None) -> Sequence[Room]:
            wanted = RoomQuery(limit, query.get("name"), enabled, query.get("template_id"), after, before, start)
            return self._workspace.list_rooms(wanted, self._now)

        return self._pages.page(query, select, lambda room_id: self._workspace.find_room(room_id, self._now))

    def _one(self, item: Session | Room | None, kind: str) -> Response:
        if item is None:
            raise RefusedError(404, f"{kind} not found")
        return Response(200, item.encoded(self._now))

    def _running_in(self, room_id: str) -> Session:
        running = self._workspace.list_sessions(SessionQuery(1, active=True, room_id=room_id), self._now)
        if not running:
            raise RefusedError(404, "room is not active")
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
