"""What 100ms says, as typed records: sessions, their peers' stays, rooms.

Decoding is tolerant where the API's sources disagree and strict where a record makes no sense: a bad peer costs itself, a
bad session costs itself, and what was left out is reported as a `Rejection`.  All times are integer microseconds since the
epoch, UTC.  People's names are never decoded, and user ids go no further than this module: a session keeps keyed hashes
of those connected, to count them apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import msgspec

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_NO_TIME = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""Go's zero time, which stands for none."""
_EARLIEST = (datetime(2015, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""Older than the platform itself: a time before it is a fault, not a fact."""
_PLAIN_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")


class MalformedAnswer(Exception):
    """An answer that is not what the API documents, as a whole; nothing in it can be used."""


class Rejection(msgspec.Struct, frozen=True):
    """A record that made no sense and was left out.

    `identity` tells two rejected records apart (never shown: it may hold anything); `subject` names it for a log line,
    only where the id looks like one; `reason` says what was wrong, without any of the record's own text.
    """

    kind: Literal["session", "peer", "room"]
    identity: tuple[str, ...]
    subject: str
    reason: str


class Stay(msgspec.Struct, array_like=True, gc=False):
    """One peer: one stay of one person in a session, in the role the record shows.  `left` is `None` while connected."""

    joined: int
    left: int | None
    role: str


class Session(msgspec.Struct, frozen=True):
    """A session with its whole history; `ended` is `None` while it runs.

    `stays` is keyed by peer id; `users` holds keyed hashes (valid in this process only) of the connected peers' user ids.
    """

    id: str
    room_id: str
    started: int
    ended: int | None
    stays: dict[str, Stay]
    users: frozenset[int]


class Room(msgspec.Struct, frozen=True):
    """What 100ms says of a room; an empty text is an unknown one."""

    id: str
    name: str = ""
    template: str = ""
    template_id: str = ""
    region: str = ""
    enabled: bool = True


class Page(msgspec.Struct, frozen=True):
    """One page of a list: its records undecoded, the page size that the server used, and the cursor of the next page."""

    data: list[msgspec.Raw] | None
    limit: int | None = None
    last: str | None = None


_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class _WirePeer(msgspec.Struct, gc=False):
    joined_at: _Time
    left_at: _Time | None = None
    role: str | None = None
    user_id: str | int | None = None
    id: str | None = None


class _WireSession(msgspec.Struct, gc=False):
    id: str
    room_id: str
    created_at: _Time
    updated_at: _Time | None = None
    active: bool | None = None
    peers: dict[str, _WirePeer] | list[_WirePeer] | None = None


class _LooseSession(_WireSession):
    peers: msgspec.Raw = msgspec.Raw(b"null")  # type: ignore[assignment]  # the same field, undecoded


class _WireRoom(msgspec.Struct):
    id: str
    name: str | None = None
    template: str | None = None
    template_id: str | None = None
    region: str | None = None
    enabled: bool | None = None


_page_decoder = msgspec.json.Decoder(Page)
_session_decoder = msgspec.json.Decoder(_WireSession)
_peer_decoder = msgspec.json.Decoder(_WirePeer)
_room_decoder = msgspec.json.Decoder(_WireRoom)


def decode_page(body: bytes) -> Page:
    """A list's answer, its records still undecoded.  Raises `MalformedAnswer` when it is not a list of records at all."""
    try:
        return _page_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedAnswer("the answer is not a list of records") from error


def decode_room(raw: bytes | msgspec.Raw) -> Room | Rejection:
    """One room."""
    try:
        wire = _room_decoder.decode(raw)
        if not wire.id:
            raise msgspec.ValidationError
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Rejection("room", (str(hash(bytes(raw))),), "unknown", "not a room record")
    return Room(wire.id, wire.name or "", wire.template or "", wire.template_id or "", wire.region or "", enabled=wire.enabled is not False)


def decode_session(raw: bytes | msgspec.Raw, now: int) -> tuple[Session | None, list[Rejection]]:
    """One session as `now` (the API's time) lets it make sense, and what of it was left out.

    `None` stands for a session that was itself rejected.
    """
    rejections: list[Rejection] = []
    peers: Iterable[tuple[str | None, _WirePeer]]
    try:
        wire = _session_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        try:
            wire, peers = _decode_loosely(raw, rejections)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None, [_rejected_session(raw, "not a session record")]
    else:
        found = wire.peers
        peers = found.items() if isinstance(found, dict) else ((None, peer) for peer in found or ())

    started = _micros(wire.created_at)
    latest = now + 2 * DAY  # generous: the API's clock may be misread by a day, and a true record must survive that
    if not wire.id or not wire.room_id:
        return None, [_rejected_session(raw, "no id or no room id")]
    if started is None or not _EARLIEST <= started <= latest:
        return None, [_rejected_session(raw, "it starts at an impossible time")]
    stays, users = _stays(wire.id, started, latest, peers, rejections)
    ended = None
    if not wire.active:
        # No end on record: the last leave is the best that the record itself can say.
        ended = _micros(wire.updated_at) or max((stay.left for stay in stays.values() if stay.left is not None), default=None)
        if ended is None or not started <= ended <= latest:
            return None, [_rejected_session(raw, "it ends before its start, at an impossible time or not at all")]
    return Session(wire.id, wire.room_id, started, ended, stays, users), rejections


def session_id(raw: bytes | msgspec.Raw) -> str | None:
    """The id of a session's record, though the rest of it may make no sense; `None` when not even that can be read."""

    class _Id(msgspec.Struct):
        id: str

    try:
        return msgspec.json.decode(raw, type=_Id).id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def plain(identifier: str) -> str:
    """An id fit for a log line: itself when it looks like one, else a placeholder, for it may hold anything."""
    return identifier if _PLAIN_ID.fullmatch(identifier) else "unprintable"


def _micros(moment: datetime | None) -> int | None:
    """Microseconds since the epoch; `None` for no time and for Go's zero time, which stands for it."""
    if moment is None:
        return None
    micros = (moment - _EPOCH) // _MICROSECOND
    return None if micros == _NO_TIME else micros


def _stays(
    session: str, started: int, latest: int, peers: Iterable[tuple[str | None, _WirePeer]], rejections: list[Rejection]
) -> tuple[dict[str, Stay], frozenset[int]]:
    # The innermost loop of a poll: a hundred thousand peers pass through it, so that times are converted in place.
    epoch, microsecond = _EPOCH, _MICROSECOND
    stays: dict[str, Stay] = {}
    users = []
    earliest = started - DAY
    for number, (key, peer) in enumerate(peers):
        joined = (peer.joined_at - epoch) // microsecond
        left = None if peer.left_at is None else (peer.left_at - epoch) // microsecond
        if left == _NO_TIME:
            left = None
        if not earliest <= joined <= latest or (left is not None and not joined <= left <= latest):
            name = peer.id or key or f"#{number}"
            reason = "it joins at an impossible time, or leaves at one"
            rejections.append(Rejection("peer", (session, name), f"{plain(session)} peer {number + 1}", reason))
            continue
        if left is None:
            users.append(peer.user_id)
        # An old record in a list has no id; what it has that stays the same is its moment of joining, and its place among equals.
        stays[peer.id or key or _unused(f"@{joined}", stays)] = Stay(joined, left, peer.role or "unknown")
    return stays, frozenset([hash(user) for user in users if user])


def _unused(name: str, stays: dict[str, Stay]) -> str:
    if name not in stays:
        return name
    number = 2
    while f"{name}/{number}" in stays:
        number += 1
    return f"{name}/{number}"


def _decode_loosely(raw: bytes | msgspec.Raw, rejections: list[Rejection]) -> tuple[_WireSession, Iterator[tuple[str | None, _WirePeer]]]:
    """The session without its peers, then each peer by itself, so that one that is broken costs only itself."""
    wire = msgspec.json.decode(raw, type=_LooseSession)
    session = plain(wire.id)
    items: list[tuple[str | None, msgspec.Raw]]
    try:
        found = msgspec.json.decode(wire.peers, type=dict[str, msgspec.Raw] | list[msgspec.Raw] | None)
        items = list(found.items()) if isinstance(found, dict) else [(None, item) for item in found or ()]
    except msgspec.ValidationError:
        items = [("peers", wire.peers)]

    def peers() -> Iterator[tuple[str | None, _WirePeer]]:
        for number, (key, item) in enumerate(items):
            try:
                yield key, _peer_decoder.decode(item)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                identity = (wire.id, key or f"#{number}")
                rejections.append(Rejection("peer", identity, f"{session} peer {number + 1}", "not a peer record"))

    return wire, peers()


def _rejected_session(raw: bytes | msgspec.Raw, reason: str) -> Rejection:
    identifier = session_id(raw)
    identity = identifier or str(hash(bytes(raw)))
    return Rejection("session", (identity,), plain(identifier) if identifier else "unknown", reason)
