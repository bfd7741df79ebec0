"""An endless workspace that keeps only its last hours: calls in a few standing rooms, and a new room for each meeting.

Sums of the forgotten sessions are kept, so that the truth about the standing rooms is complete.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, defaultdict

from exporter.simulator import Nothing, Room, RoomQuery, Session, SessionQuery, Shape, UnknownCursorError
from exporter.simulator.shape import object_id
from exporter.simulator.workspace import select_rooms
from exporter.times import HOUR, MINUTE, SECOND
from soak.account import Distributions, RoomTruth, both, nothing, true_distributions, true_rooms

_STANDING = 6
_SHAPES = (Shape(), Shape(peers="list"), Shape(connected="null"), Shape(connected="zero", digits=9))
_OWNER = {"customer_id": "soak", "app_id": "soak"}


class Life:
    """A `Workspace` whose script is written as time goes on (`live`).  `retire` forgets sessions that ended long ago."""

    def __init__(self, seed: int, now: int, *, meetings_an_hour: int = 40) -> None:
        self.access_key = "soak-key"
        self.secret = "soak-secret-of-thirty-two-bytes-and-more"  # noqa: S105 (a secret of the simulator only)
        self.lock = threading.RLock()
        self.beside = Nothing()
        self.sessions = 0
        """The number of sessions so far."""
        self._rng = random.Random(seed)  # noqa: S311 (a repeatable life)
        self._meetings = meetings_an_hour
        self._serial = 0
        self._until = now
        self._rooms: dict[str, Room] = {}
        self._sessions: dict[str, Session] = {}
        self._of_room: defaultdict[str, list[Session]] = defaultdict(list)
        self._past: defaultdict[str, RoomTruth] = defaultdict(nothing)
        self._past_distributions: Distributions = Counter()
        self.standing = [self._room(f"standing-{index}", now).id for index in range(_STANDING)]
        """The rooms that are never forgotten."""

    def live(self, now: int) -> None:
        """Writes the script some hours ahead."""
        with self.lock:
            while self._until < now + HOUR:
                for _ in range(self._meetings):
                    start = self._until + self._rng.randrange(HOUR)
                    room = self._room(f"meeting-{self._serial}", start - MINUTE).id
                    self._script(room, start, self._rng.choice((5, 20, 90, 600, 2400)))
                for room in self.standing:
                    self._script(room, self._until + self._rng.randrange(HOUR), self._rng.choice((5, 60, 1800, 4 * 3600)))
                self._until += HOUR

    def rename(self, rng: random.Random, now: int) -> None:
        """Gives a standing room another name from now on."""
        index = rng.randrange(_STANDING)
        self._rooms[self.standing[index]].rename(f"standing-{index + _STANDING * rng.randrange(100)}", now)

    @property
    def room_ids(self) -> frozenset[str]:
        """The rooms that are not forgotten."""
        with self.lock:
            return frozenset(self._rooms)

    def quiet_from(self) -> int:
        """The end of everything that has been scripted."""
        return max((session.closed_at or 0 for session in self._sessions.values()), default=0)

    def retire(self, now: int, after: int) -> dict[str, RoomTruth]:
        """Forgets sessions that ended this long ago; returns the whole truth about the meeting rooms that are forgotten with them."""
        with self.lock:
            over = [session for session in self._sessions.values() if (session.closed_at or now) + after < now]
            for session in over:
                del self._sessions[session.id]
                self._of_room[session.room_id].remove(session)
                self._past[session.room_id] = both(self._past[session.room_id], true_rooms([session], now)[session.room_id])
            self._past_distributions.update(true_distributions(over, now))
            gone = {room for session in over if (room := session.room_id) not in self.standing and not self._of_room[room]}
            for room in gone:
                del self._rooms[room], self._of_room[room]
            return {room: self._past.pop(room) for room in gone}

    def truth(self, now: int) -> dict[str, RoomTruth]:
        """The truth about the rooms that are not forgotten."""
        with self.lock:
            present = true_rooms(self._sessions.values(), now)
            return {room: both(self._past.get(room, nothing()), present.get(room, nothing())) for room in {*self._past, *present}}

    def truth_of_quiet(self, now: int, quiet: int, earliest: int, latest: int) -> dict[str, RoomTruth]:
        """The truth about rooms that have been quiet for this long, from the sessions that ended after counting began.

        Counting began between `earliest` and `latest`.  Rooms in which a session ended between these are left out.
        """
        with self.lock:
            rooms = {}
            for room, sessions in self._of_room.items():
                ends = [session.closed_at or now for session in sessions if session.created_at <= now]
                if ends and max(ends) + quiet < now and not any(earliest < end < latest for end in ends):
                    counted = [session for session in sessions if (session.closed_at or now) >= latest and session.created_at <= now]
                    rooms[room] = true_rooms(counted, now).get(room, nothing())
            return rooms

    def distributions(self, now: int) -> Distributions:
        """The true histograms, forgotten sessions included."""
        with self.lock:
            return self._past_distributions + true_distributions(self._sessions.values(), now)

    # -- a Workspace ----------------------------------------------------------------------------------------------

    def list_sessions(self, query: SessionQuery, now: int) -> list[Session]:
        """At most `limit` sessions, newest first.  Raises `UnknownCursorError`."""
        last = None
        if query.start is not None:
            cursor = self._sessions.get(query.start)
            if cursor is None:
                raise UnknownCursorError(query.start)
            last = cursor.order
        candidates = self._sessions.values() if query.room_id is None else self._of_room.get(query.room_id, [])
        found = [
            session
            for session in candidates
            if session.created_at <= now
            and (query.active is None or session.active(now) == query.active)
            and (query.id is None or session.id == query.id)
            and (query.after is None or session.created_at >= query.after)
            and (query.before is None or session.created_at <= query.before)
            and (last is None or session.order < last)
        ]
        return sorted(found, key=lambda session: session.order, reverse=True)[: query.limit]

    def find_session(self, session_id: str, now: int) -> Session | None:
        """The session of this id, if the API knows it."""
        session = self._sessions.get(session_id)
        return session if session is not None and session.exists(now) else None

    def sessions_since(self, after: int, now: int) -> list[Session]:
        """At least every session that began by `now` and was still running after `after`."""
        return [session for session in self._sessions.values() if session.created_at <= now]

    def list_rooms(self, query: RoomQuery, now: int) -> list[Room]:
        """At most `limit` rooms, newest first.  Raises `UnknownCursorError`."""
        return select_rooms(sorted(self._rooms.values(), key=lambda room: room.order), query, now)

    def find_room(self, room_id: str, now: int) -> Room | None:
        """The room of this id, if the API knows it."""
        room = self._rooms.get(room_id)
        return room if room is not None and room.exists(now) else None

    # -- the script -----------------------------------------------------------------------------------------------

    def _room(self, name: str, created_at: int) -> Room:
        self._serial += 1
        room = Room(
            id=object_id(created_at, self._serial), name=name, template="default", template_id="", region="in", enabled=True,
            max_duration_seconds=None, created_at=created_at, customer_id="soak", lock=self.lock,
        )  # fmt: skip
        self._rooms[room.id] = room
        return room

    def _script(self, room: str, start: int, length: int) -> None:
        """Scripts a call: peers come and go, one changes its role, one remains a ghost, one leave is recorded late.

        The time of the last one is too long until its leave is recorded.  A peer of the same role stays to the end, so that the
        truth catches up with the counter.
        """
        rng = self._rng
        self._serial += 1
        end = start + length * SECOND + rng.randrange(SECOND)
        session = Session(
            id=object_id(start, self._serial), room_id=room, created_at=start, owner=_OWNER, shape=rng.choice(_SHAPES), lock=self.lock
        )  # fmt: skip
        session.join("guest", start).leave(end)
        for index in range(rng.randrange(8)):
            joined = rng.randrange(start, end)
            peer = session.join(rng.choice(("host", "guest")), joined, user_id=f"user-{rng.randrange(20)}")
            if index == 0:
                peer.change_role("speaker", rng.randrange(joined, end))
            elif index == 1 and length > 300 and joined < end - 200 * SECOND and peer.roles[0][1] == "guest":
                left = rng.randrange(joined, end - 150 * SECOND)
                peer.leave(left, left + rng.randrange(60 * SECOND))
            elif index != 2:
                peer.leave(rng.randrange(joined, end + 1))
        session.close(end)
        self._sessions[session.id] = session
        self._of_room[room].append(session)
        self.sessions += 1
