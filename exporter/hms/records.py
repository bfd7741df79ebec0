"""100ms's answers as typed records: sessions, their peers' stays, rooms.

Decoding is tolerant where the API's sources disagree, and strict where a record is invalid: a bad peer or session is left out
alone and reported as a `Rejection`.  All times are integer microseconds since the epoch, UTC.  People's names are never decoded,
and user ids do not leave this module: a session keeps keyed hashes of the connected users' ids, to count distinct users.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from exporter.hms.pages import BROKEN
from exporter.times import DAY, EPOCH, MICROSECOND, micros

_NO_TIME = micros(datetime(1, 1, 1, tzinfo=UTC))
"""Go's zero time: no time."""
_EARLIEST = micros(datetime(2015, 1, 1, tzinfo=UTC))
"""Older than the platform itself: an earlier time is an error."""
_PLAIN_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")

MOST_PEERS = 250_000
"""Peers of one session: as many as one answer can hold."""
MOST_BAD_PEERS = 1_000
"""Invalid peers of one session: with more than this the whole session is rejected without reading the rest."""
_LONGEST_TEXT = 1_000
"""Characters of an id or a role: a longer one is invalid, and is neither kept nor shown."""
LARGE_RECORD = 2 << 20
"""Bytes from which a session's peers are counted before they are decoded; a smaller record cannot hold too many."""


class Unreadable(Exception):
    """The session must be rejected; the text is the reason."""


RejectionKind = Literal["session", "peer", "room", "job", "recording_asset", "client_error"]


class Rejection(msgspec.Struct, frozen=True):
    """An invalid record that was left out.

    `identity` distinguishes rejected records (never shown: it may hold anything); `subject` names the record in a log line, if its id looks
    like one; `reason` says what was wrong, without any of the record's own text.
    """

    kind: RejectionKind
    identity: tuple[str, ...]
    subject: str
    reason: str


class Stay(msgspec.Struct, array_like=True, gc=False):
    """One peer: one stay of one person in a session, in the role the record shows.  `left` is `None` while connected."""

    joined: int
    left: int | None
    role: str


Users = Mapping[str, Set[int]]
"""Keyed hashes of user ids, by role."""


class Session(msgspec.Struct, frozen=True):
    """A session with its whole history; `ended` is `None` while it runs.

    `stays` is keyed by peer id; `users` holds by role keyed hashes (valid in this process only) of the connected peers' user ids.
    """

    id: str
    room_id: str
    started: int
    ended: int | None
    stays: dict[str, Stay]
    users: Users


class Room(msgspec.Struct, frozen=True):
    """A room as 100ms describes it; an empty text means unknown."""

    id: str
    name: str = ""
    template: str = ""
    template_id: str = ""
    region: str = ""
    enabled: bool = True


class Head(msgspec.Struct):
    """The part of a session's record that tells whether the configuration covers it."""

    id: str = ""
    room_id: str = ""
    created_at: datetime | None = None


_Time = Annotated[datetime, msgspec.Meta(tz=True)]
_Text = Annotated[str, msgspec.Meta(max_length=_LONGEST_TEXT)]


class WirePeer(msgspec.Struct, gc=False):
    """A peer as 100ms sends it."""

    joined_at: _Time
    left_at: _Time | None = None
    role: _Text | None = None
    user_id: str | int | None = None
    id: _Text | None = None


class WireSession(msgspec.Struct, gc=False):
    """A session as 100ms sends it."""

    id: _Text
    room_id: _Text
    created_at: _Time
    updated_at: _Time | None = None
    active: bool | None = None
    peers: dict[str, WirePeer] | list[WirePeer] | None = None


Peers = Iterable[tuple[str | None, WirePeer]]
"""Peers with their keys, which they do not have in a list."""


class _LooseSession(WireSession):
    peers: msgspec.Raw = msgspec.Raw(b"null")  # type: ignore[assignment]  # the same field, undecoded


class _WireRoom(msgspec.Struct):
    id: str
    name: str | None = None
    template: str | None = None
    template_id: str | None = None
    region: str | None = None
    enabled: bool | None = None


class _Id(msgspec.Struct):
    id: _Text


_head_decoder = msgspec.json.Decoder(Head)
_id_decoder = msgspec.json.Decoder(_Id)
_loose_peers_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw] | list[msgspec.Raw] | None)
_loose_session_decoder = msgspec.json.Decoder(_LooseSession)
_session_decoder = msgspec.json.Decoder(WireSession)
_peer_decoder = msgspec.json.Decoder(WirePeer)
_room_decoder = msgspec.json.Decoder(_WireRoom)


def decode_room(raw: bytes | msgspec.Raw) -> Room | Rejection:
    """One room."""
    try:
        wire = _room_decoder.decode(raw)
        if not wire.id:
            raise msgspec.ValidationError
    except BROKEN:
        return Rejection("room", (str(hash(bytes(raw))),), "unknown", "not a room record")
    return Room(wire.id, wire.name or "", wire.template or "", wire.template_id or "", wire.region or "", enabled=wire.enabled is not False)


def decode_session(raw: bytes | msgspec.Raw, now: int) -> tuple[Session | None, list[Rejection]]:
    """Decodes one session, checked against `now` (the API's time), and lists what was left out of it.

    `None` stands for a session that was rejected as a whole.
    """
    rejections: list[Rejection] = []
    try:
        return _session(*_decode(raw, rejections), now, rejections), rejections
    except Unreadable as error:
        return None, [_rejected_session(raw, str(error))]


def glance(raw: bytes | msgspec.Raw) -> Head:
    """The head of a session's record; an empty one for an invalid record."""
    try:
        return _head_decoder.decode(raw)
    except BROKEN:
        return Head()


def record_id(raw: bytes | msgspec.Raw) -> str | None:
    """The id of a record that may be invalid otherwise; `None` when it has none."""
    try:
        return _id_decoder.decode(raw).id
    except BROKEN:
        return None


def plain(identifier: str) -> str:
    """An id that is safe to log: a placeholder replaces one that does not look like an id."""
    return identifier if _PLAIN_ID.fullmatch(identifier) else "unprintable"


def read_start(wire: WireSession, now: int) -> tuple[int, int]:
    """When a session started, and the latest plausible time in its record.  Raises `Unreadable`."""
    started = _micros(wire.created_at)
    latest = now + 2 * DAY  # generous: the API's clock may be wrong by a day, and a valid record must survive that
    if not wire.id or not wire.room_id:
        raise Unreadable("no id or no room id")
    if started is None or not _EARLIEST <= started <= latest:
        raise Unreadable("it starts at an impossible time")
    return started, latest


def _session(wire: WireSession, peers: Peers, now: int, rejections: list[Rejection]) -> Session:
    started, latest = read_start(wire, now)
    stays, users = read_stays(wire.id, started, latest, peers, rejections)
    ended = None
    if not wire.active:
        # The record has no end: the last leave is the best estimate.
        ended = _micros(wire.updated_at) or max((stay.left for stay in stays.values() if stay.left is not None), default=None)
        if ended is None or not started <= ended <= latest:
            raise Unreadable("it ends before its start, at an impossible time or not at all")
    return Session(wire.id, wire.room_id, started, ended, stays, users)


def _micros(moment: datetime | None) -> int | None:
    """Microseconds since the epoch; `None` for no time and for Go's zero time."""
    if moment is None:
        return None
    at = micros(moment)
    return None if at == _NO_TIME else at


def read_stays(session: str, started: int, latest: int, peers: Peers, rejections: list[Rejection]) -> tuple[dict[str, Stay], Users]:
    """The stays of a session's plausible peers, and the connected users."""
    # The innermost loop of a poll, for a hundred thousand peers: times are converted in place.
    epoch, microsecond = EPOCH, MICROSECOND
    stays: dict[str, Stay] = {}
    users: dict[str, set[int]] = {}
    equals: dict[str, int] = {}
    earliest = started - DAY
    for number, (key, peer) in enumerate(peers):
        joined = (peer.joined_at - epoch) // microsecond
        left = None if peer.left_at is None else (peer.left_at - epoch) // microsecond
        if left == _NO_TIME:
            left = None
        if not earliest <= joined <= latest or (left is not None and not joined <= left <= latest):
            name = peer.id or key or f"#{number}"
            _leave_out(rejections, session, name, number, "its join or leave time is impossible")
            continue
        role = peer.role or "unknown"
        if left is None and (user := peer.user_id):
            found = users.get(role)
            if found is None:
                found = users[role] = set()
            found.add(hash(user) or 1)  # 0 stands for no user elsewhere
        # An old record in a list has no id: its join time identifies it, with its place among those with the same join time.
        stays[peer.id or key or _unused(f"@{joined}", stays, equals)] = Stay(joined, left, role)
    return stays, users


def _unused(name: str, stays: dict[str, Stay], equals: dict[str, int]) -> str:
    """The name, with a number if it is taken.  `equals` keeps the next number, because all peers may have joined at one moment."""
    if name not in stays:
        return name
    number = equals.get(name, 2)
    while f"{name}/{number}" in stays:
        number += 1
    equals[name] = number + 1
    return f"{name}/{number}"


def _leave_out(rejections: list[Rejection], session: str, name: str, number: int, reason: str) -> None:
    if len(rejections) >= MOST_BAD_PEERS:
        raise Unreadable(f"more than {MOST_BAD_PEERS} of its peers are invalid")
    rejections.append(Rejection("peer", (session, name), f"{plain(session)} peer {number + 1}", reason))


def _decode(raw: bytes | msgspec.Raw, rejections: list[Rejection]) -> tuple[WireSession, Peers]:
    """The session and its peers, with their keys.  Raises `Unreadable`."""
    try:
        if len(raw) > LARGE_RECORD:
            count_peers(raw)
        wire = _session_decoder.decode(raw)
    except BROKEN:
        try:
            return _decode_loosely(raw, rejections)
        except BROKEN as error:
            raise Unreadable("not a session record") from error
    found = wire.peers
    return wire, found.items() if isinstance(found, dict) else ((None, peer) for peer in found or ())


def count_peers(raw: bytes | msgspec.Raw) -> None:
    """Raises `Unreadable` for a record with too many peers, or with peers that are not objects, before any is decoded."""
    left = MOST_PEERS

    class Counted(msgspec.Struct, gc=False):
        def __post_init__(self) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Unreadable(f"more than {MOST_PEERS} peers")  # not an error that the decoder knows: it ends there

    peers = dict[_Text, Counted] | list[Counted] | None
    try:
        msgspec.json.decode(raw, type=msgspec.defstruct("CountedSession", [("peers", peers, None)]))
    except BROKEN as error:
        raise Unreadable("not a session record, or one of megabytes whose peers are no objects, or have endless ids") from error


def _decode_loosely(raw: bytes | msgspec.Raw, rejections: list[Rejection]) -> tuple[WireSession, Peers]:
    """Decodes the session without its peers, then each peer by itself, so that only invalid peers are lost."""
    wire = _loose_session_decoder.decode(raw)
    items: Iterable[tuple[str | None, msgspec.Raw]]
    try:
        found = _loose_peers_decoder.decode(wire.peers)
        items = found.items() if isinstance(found, dict) else ((None, item) for item in found or ())
    except msgspec.ValidationError:
        items = [("peers", wire.peers)]

    def peers() -> Iterator[tuple[str | None, WirePeer]]:
        for number, (key, item) in enumerate(items):
            try:
                peer = _peer_decoder.decode(item)
            except BROKEN:
                _leave_out(rejections, wire.id, key or f"#{number}", number, "not a peer record")
            else:
                yield key, peer

    return wire, peers()


def _rejected_session(raw: bytes | msgspec.Raw, reason: str) -> Rejection:
    identifier = record_id(raw)
    identity = identifier or str(hash(bytes(raw)))
    return Rejection("session", (identity,), plain(identifier) if identifier else "unknown", reason)
