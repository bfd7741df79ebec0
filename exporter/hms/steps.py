"""A running session's record, read as a step from its last one: only peers whose bytes have changed are decoded.

A session's record holds all of its peers, and in most of them nothing changes between two polls.  So a hash of each peer's bytes is
kept while the session runs, and equal hashes stand for equal bytes.  The hashes have 64 bits and a key of this process's own: among
the peers of one session they collide by chance once in 10¹⁴ changes, and the whole decoding of the record of the end would put it
right.

`decode_step` reads the usual shape of a record, and returns `None` for everything else: `decode_session` then decodes it whole.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from itertools import compress, count
from operator import ne
from typing import NamedTuple

import msgspec

from exporter.hms.pages import BROKEN
from exporter.hms.records import (
    LARGE_RECORD,
    Rejection,
    Session,
    Stay,
    Unreadable,
    Users,
    WirePeer,
    WireSession,
    count_peers,
    read_start,
    read_stays,
)


class Marks(NamedTuple):
    """Hashes of a running session's peers, in the order of its stays: of their bytes, and of the connected ones' user ids (0: none).

    They hold for a record that has the same start and was read no earlier, because these decide which times are plausible.
    """

    started: int
    read: int
    peers: array[int]
    users: array[int]


class Known(NamedTuple):
    """A running session as its last record showed it; `stays` decodes them."""

    marks: Marks
    users: Users
    stays: Callable[[], dict[str, Stay]]


Change = dict[str, Stay | None]
"""The peers that differ from the last record in their stay or user, each with its stay in that record, `None` for a new peer."""


class Step(NamedTuple):
    """A session, the marks of its record, and how it differs from the last record; `None` if that is unknown."""

    session: Session
    marks: Marks
    change: Change | None


class _SplitSession(WireSession):
    peers: dict[str, msgspec.Raw] | list[msgspec.Raw] | None = None  # type: ignore[assignment]  # the same field, undecoded


_session_decoder = msgspec.json.Decoder(_SplitSession)
_peers_decoder = msgspec.json.Decoder(list[WirePeer])


_Fresh = dict[str, tuple[Stay, int]]
"""Decoded peers: their stays and users by their ids."""
_Decode = Callable[[list[int]], _Fresh | None]
"""Decodes the peers at these places of the record."""
_NOBODY = Known(Marks(0, 0, array("q"), array("q")), {}, dict)


def decode_step(raw: bytes | msgspec.Raw, now: int, known: Callable[[str], Known | None]) -> Step | None:
    """Decodes a running session's record, as `decode_session` would; `known` returns what is known by a session's id.

    `None`: the session has ended, the record is invalid, its peers are not told apart by ids, or one has vanished from it.
    """
    try:
        if len(raw) > LARGE_RECORD:
            count_peers(raw)
        wire = _session_decoder.decode(raw)
        if not wire.active or not wire.peers:
            return None
        started, latest = read_start(wire, now)
        raws = list(wire.peers.values() if isinstance(wire.peers, dict) else wire.peers)
        marks = array("q", map(hash, map(bytes, raws)))

        def decode(places: list[int]) -> _Fresh | None:
            return _decode(wire.id, started, latest, [raws[place] for place in places])

        before = known(wire.id)
        if before is None or before.marks.started != started or before.marks.read > now:
            before, found = None, _merged(marks, _NOBODY, decode)
        else:
            same_place = _in_place(marks, before, decode) if len(marks) == len(before.marks.peers) else None
            found = same_place or _merged(marks, before, decode)
    except (*BROKEN, Unreadable):
        return None
    if found is None:
        return None
    users = _users(found, {} if before is None else before.users)
    session = Session(wire.id, wire.room_id, started, None, found.stays, users)
    return Step(session, Marks(started, now, found.marks, found.users), None if before is None else found.change)


class _Peers(NamedTuple):
    """A record's peers in its order: their stays, both hashes, and the change."""

    stays: dict[str, Stay]
    marks: array[int]
    users: array[int]
    change: Change


def _in_place(marks: array[int], before: Known, decode: _Decode) -> _Peers | None:
    """The peers of a record that shows those of the last one in the same order; `None` if it does not."""
    stays, users = before.stays(), before.marks.users
    places = list(compress(count(), map(ne, marks, before.marks.peers)))
    change: Change = {}
    if places:
        fresh, names = decode(places), list(stays)
        if fresh is None or [*fresh] != [names[place] for place in places]:
            return None
        users = users[:]
        for place, (name, (stay, user)) in zip(places, fresh.items(), strict=True):
            if (stays[name], users[place]) != (stay, user):
                change[name], stays[name], users[place] = stays[name], stay, user
    return _Peers(stays, marks, users, change)


def _merged(marks: array[int], before: Known, decode: _Decode) -> _Peers | None:
    """The same for any order and new peers.  `None` if a peer has vanished, or two have one id."""
    known, (_, _, old, old_users) = before.stays(), before.marks
    places = dict(zip(old, count()))
    if len(places) == len(old) == len(marks) and places.keys() == set(marks):
        return _Peers(known, old, old_users, {})
    fresh = decode([at for at, mark in enumerate(marks) if mark not in places])
    if fresh is None:
        return None
    names, rest = list(known.items()), iter(fresh.items())
    stays: dict[str, Stay] = {}
    users = array("q")
    for mark in marks:
        place = places.get(mark)
        if place is None:
            name, (stay, user) = next(rest)
        else:
            (name, stay), user = names[place], old_users[place]
        stays[name] = stay
        users.append(user)
    if len(stays) != len(marks) or not known.keys() <= stays.keys():
        return None
    return _Peers(stays, marks, users, {name: known.get(name) for name in fresh})


def _decode(session: str, started: int, latest: int, raws: list[msgspec.Raw]) -> _Fresh | None:
    """Peers' stays and users by their ids; `None` if one of them has no id, or that of another, or is invalid."""
    found = _peers_decoder.decode(b"[%b]" % b",".join(raws))
    rejections: list[Rejection] = []
    stays, _ = read_stays(session, started, latest, [(None, peer) for peer in found], rejections)
    if rejections or len(stays) != len(raws) or not all(peer.id for peer in found):
        return None
    users = [
        (hash(peer.user_id) or 1) if stay.left is None and peer.user_id else 0 for peer, stay in zip(found, stays.values(), strict=True)
    ]
    return {name: (stay, user) for (name, stay), user in zip(stays.items(), users, strict=True)}


def _users(found: _Peers, before: Users) -> Users:
    """The connected users by role: those of roles that no change concerns are as before."""
    if before and not found.change:
        return before
    roles = {stay.role for name, known in found.change.items() for stay in (known, found.stays[name]) if stay is not None}
    of_roles: dict[str, set[int]] = {role: set() for role in roles}
    for stay, user in zip(found.stays.values(), found.users, strict=True):
        if user:
            of = of_roles.get(stay.role)
            if of is not None:
                of.add(user)
    users = {**before, **of_roles}
    for role in roles:
        if not of_roles[role]:
            del users[role]
    return users
