"""The true totals of sessions and peers, summed directly from the scripts: exact counting must give the same.

Independent of the exporter's counting code, so that tests can compare the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from exporter.simulator.timeline import Peer, Session
from exporter.times import DAY


@dataclass(slots=True)
class Truth:
    """Sums by now, in microseconds and counts.  Keys are (room id, role) or room id; days are counted from the epoch, UTC.

    Time belongs to the role at that moment, a join to the first role, a leave to the last role.  An observer sees a role change
    only later: for peers that changed their role, only the sums over a room's roles can agree.
    """

    peer_us: Counter[tuple[str, str]] = field(default_factory=Counter)
    peer_us_by_day: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    room_peer_us: Counter[str] = field(default_factory=Counter)
    joins: Counter[tuple[str, str]] = field(default_factory=Counter)
    leaves: Counter[tuple[str, str]] = field(default_factory=Counter)
    session_us: Counter[str] = field(default_factory=Counter)
    started: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)

    @property
    def by_room(self) -> dict[str, Counter[str]]:
        """The true value of each counter of a room, by the metric's name."""
        return {
            "hms_sessions_started_total": self.started,
            "hms_sessions_ended_total": self.ended,
            "hms_session_seconds_total": self.session_us,
        }

    @property
    def by_role(self) -> dict[str, Counter[tuple[str, str]]]:
        """The true value of each counter of a role in a room, by the metric's name."""
        return {
            "hms_peers_joined_total": self.joins,
            "hms_peers_left_total": self.leaves,
            "hms_peer_seconds_total": self.peer_us,
        }


def truth_of(sessions: Iterable[Session], now: int, *, recorded: bool = False) -> Truth:
    """The truth about these sessions by now.

    A ghost's stay ends with its session.  With `recorded`, a leave that is recorded late counts only once it is recorded, and
    then from when it happened: this is what an observer can know.
    """
    truth = Truth()
    for session in sessions:
        if session.created_at > now:
            continue
        over = session.closed_at is not None and session.closed_at <= now
        room = session.room_id
        truth.started[room] += 1
        truth.ended[room] += over
        truth.session_us[room] += _horizon(session, now) - session.created_at
        for peer in session.peers:
            if peer.joined_at <= now:
                add_peer(truth, session, peer, now, recorded=recorded)
    return truth


def add_peer(truth: Truth, session: Session, peer: Peer, now: int, *, recorded: bool = False) -> None:
    """Adds a peer who has joined by now, as in `truth_of`."""
    over = session.closed_at is not None and session.closed_at <= now
    room, left_at = session.room_id, peer.left_at
    known_at = peer.recorded_at if recorded and not over else left_at
    gone = left_at is not None and known_at is not None and known_at <= now
    until = left_at if gone and left_at is not None else _horizon(session, now)
    truth.joins[room, peer.roles[0][1]] += 1
    if gone or over:
        truth.leaves[room, peer.role_at(until)] += 1
    truth.room_peer_us[room] += until - peer.joined_at
    changes = [at for at, _ in peer.roles[1:]]
    for (begin, role), change in zip(peer.roles, [*changes, until], strict=True):
        _credit(truth, room, role, begin, min(change, until))


def _horizon(session: Session, now: int) -> int:
    """The end of a session, or now."""
    return now if session.closed_at is None else min(now, session.closed_at)


def _credit(truth: Truth, room: str, role: str, begin: int, end: int) -> None:
    """Adds the time in one role, split at midnights."""
    while begin < end:
        day = begin // DAY
        step = min(end, (day + 1) * DAY)
        truth.peer_us[room, role] += step - begin
        truth.peer_us_by_day[room, role, day] += step - begin
        begin = step
