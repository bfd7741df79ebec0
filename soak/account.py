"""Compares the published counters with the truth: each room in sum and by role, and the workspace's histograms."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from exporter.counting.accounts import HISTOGRAM_BOUNDS
from exporter.simulator import Session, Truth, truth_of
from exporter.simulator.timeline import Peer
from exporter.simulator.truth import add_peer
from exporter.times import SECOND
from lab.counters import BY_ROLE, NAMES, Sums, added, room_of, sums, sums_of, true_sums, unit

ByRole = Counter[tuple[str, str]]
"""Counts and microseconds by role and counter."""
Distributions = Counter[tuple[str, str, str]]
"""The values of the histograms' series by name, role (`""` if there is none) and `le` (`""` except for buckets)."""

_ROLE = re.compile(r'[{,]role="([^"]*)"')
_LE = re.compile(r'[{,]le="([^"]*)"')
_TIMES = [name for name in NAMES if unit(name) == SECOND]
_COUNTS = [name for name in NAMES if unit(name) == 1]
_BY_LAST_ROLE = frozenset({"hms_peers_left_total"})
"""The counters by a peer's last role, which an exporter knows in the end even if the peer changed its role."""
_HISTOGRAMS = {
    "hms_session_duration_seconds": ("session_duration", SECOND),
    "hms_session_peers": ("session_peers", 1),
    "hms_peer_duration_seconds": ("peer_duration", SECOND),
}


class RoomTruth(NamedTuple):
    """The truth about a room.

    A peer that never changed its role counts in that role alone.  An exporter notices a change only at its next poll, so the time
    and the join of such a peer belong to any of its roles.  Each role therefore has a value between `least` and `most`.
    """

    sums: Sums
    least: ByRole
    most: ByRole


class Findings(NamedTuple):
    """Differences from the truth; times in seconds."""

    lost: float = 0.0
    doubled: float = 0.0
    wrong_counts: int = 0
    """Rooms in which a counter other than time is wrong."""
    wrong_roles: int = 0
    """Rooms in which a role is outside its bounds."""
    wrong_distributions: int = 0
    """Series of histograms."""


class Account:
    """Adds up the differences from the truth."""

    def __init__(self) -> None:
        self.rooms = self._lost = self._doubled = self._counts = self._roles = self._distributions = 0

    @property
    def findings(self) -> Findings:
        """The differences so far."""
        return Findings(self._lost / SECOND, self._doubled / SECOND, self._counts, self._roles, self._distributions)

    def hold(self, found: Mapping[str, float], truth: Mapping[str, RoomTruth]) -> None:
        """Compares a page with the truth about these rooms."""
        seen_sums, seen_roles = sums(found), _roles(found)
        for room, true in truth.items():
            seen, whole = seen_sums.get(room, sums_of()), true.sums
            self.rooms += 1
            for name in _TIMES:
                self._doubled += max(0, seen[name] - whole[name])
                self._lost += max(0, whole[name] - seen[name])
            self._counts += any(seen[name] != whole[name] for name in _COUNTS)
            of = seen_roles.get(room, Counter())
            self._roles += not all(true.least[key] <= of[key] <= true.most[key] for key in {*of, *true.least})

    def hold_rooms(self, found: Mapping[str, float], known: Collection[str]) -> None:
        """Checks that a page holds no other rooms than these."""
        for room, made_up in sums(found).items():
            if room not in known:
                self._doubled += sum(made_up[name] for name in _TIMES)
                self._counts += 1

    def hold_distributions(self, found: Mapping[str, float], truth: Distributions) -> None:
        """Compares a page with the true histograms since the workspace's beginning."""
        seen = _distributions(found)
        self._distributions += sum(seen[key] != truth[key] for key in {*seen, *truth})


def true_rooms(sessions: Iterable[Session], now: int) -> dict[str, RoomTruth]:
    """The truth by room id, for rooms that have had a session."""
    sessions = [session for session in sessions if session.created_at <= now]
    rooms = {room: RoomTruth(of, Counter(), Counter()) for room, of in true_sums(truth_of(sessions, now)).items()}
    for session in sessions:
        for peer in session.peers:
            if peer.joined_at <= now:
                _add_peer(rooms[session.room_id], session, peer, now)
    return rooms


def nothing() -> RoomTruth:
    """The truth about a room without sessions."""
    return RoomTruth(sums_of(), Counter(), Counter())


def both(one: RoomTruth, other: RoomTruth) -> RoomTruth:
    """The truth about a room, joined from the truths about two sets of its sessions."""
    return RoomTruth(added(one.sums, other.sums), one.least + other.least, one.most + other.most)


def true_distributions(sessions: Iterable[Session], now: int) -> Distributions:
    """The histograms of these sessions. Only ended ones count."""
    found: Distributions = Counter()
    for session in sessions:
        ended = session.closed_at
        if ended is None or ended > now:
            continue
        _add_value(found, "hms_session_duration_seconds", "", ended - session.created_at)
        _add_value(found, "hms_session_peers", "", len(session.peers))
        for peer in session.peers:
            _add_value(found, "hms_peer_duration_seconds", peer.roles[-1][1], _until(session, peer, now) - peer.joined_at)
    return found


def _until(session: Session, peer: Peer, now: int) -> int:
    """The end of the peer's stay, as known at `now`."""
    horizon = now if session.closed_at is None else min(now, session.closed_at)
    return horizon if peer.left_at is None else min(horizon, peer.left_at)


def _add_peer(room: RoomTruth, session: Session, peer: Peer, now: int) -> None:
    until = _until(session, peer, now)
    held = {role for at, role in peer.roles if at <= until}
    alone = Truth()
    add_peer(alone, session, peer, now)
    for name, by_role in alone.by_role.items():
        certain = len(held) == 1 or name in _BY_LAST_ROLE
        for role in (role for (_, role) in by_role) if certain else held:
            value = by_role[session.room_id, role] if certain else by_role.total()
            for into in (room.least, room.most) if certain else (room.most,):
                into[role, name] += value


def _add_value(into: Distributions, family: str, role: str, value: int) -> None:
    name, scale = _HISTOGRAMS[family]
    into[f"{family}_sum", role, ""] += value
    into[f"{family}_count", role, ""] += 1
    into[f"{family}_bucket", role, "+Inf"] += 1
    for bound in HISTOGRAM_BOUNDS[name]:
        if value <= bound * scale:
            into[f"{family}_bucket", role, str(float(bound))] += 1


def _roles(found: Mapping[str, float]) -> dict[str, ByRole]:
    rooms: dict[str, ByRole] = {}
    for series, value in found.items():
        name, room = series.partition("{")[0], room_of(series)
        if name in BY_ROLE and room is not None:
            rooms.setdefault(room, Counter())[_label(_ROLE, series), name] += round(value * unit(name))
    return rooms


def _distributions(found: Mapping[str, float]) -> Distributions:
    seen: Distributions = Counter()
    for series, value in found.items():
        name = series.partition("{")[0]
        family, _, kind = name.rpartition("_")
        if family in _HISTOGRAMS:
            scale = _HISTOGRAMS[family][1] if kind == "sum" else 1
            seen[name, _label(_ROLE, series), _label(_LE, series)] = round(value * scale)
    return seen


def _label(which: re.Pattern[str], series: str) -> str:
    found = which.search(series)
    return "" if found is None else found[1]
