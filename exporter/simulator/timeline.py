"""Rooms, sessions and peers as scripts of what happens to them, and the API's record of each at any moment.

Every time is passed in, as integer microseconds since the epoch, UTC.  A script may reach into the future: a record shows
only what has been recorded by the requested moment.
"""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from collections.abc import Callable, Mapping

import msgspec

from exporter.simulator.seeds import WEBHOOK_HEADERS, WEBHOOK_URL
from exporter.simulator.shape import ZERO_TIME, Record, Shape, fixed_uuid, overridden
from exporter.times import rfc3339


class Room:
    """One room, with its present and future names, and its end.  Made by `World.room`."""

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 -- the API's name
        name: str,
        template: str,
        template_id: str,
        region: str,
        enabled: bool,
        max_duration_seconds: int | None,
        created_at: int,
        customer_id: str,
        lock: threading.RLock,
    ) -> None:
        self.id = id
        self.template = template
        self.template_id = template_id
        self.region = region
        self.enabled = enabled
        self.max_duration_seconds = max_duration_seconds
        self.created_at = created_at
        self.removed_at: int | None = None
        self.raw: Mapping[str, object] = {}
        """Fields, by the API's names, that override the true ones in the record."""
        self._customer_id = customer_id
        self._names = [(created_at, name)]
        self._lock = lock

    @property
    def order(self) -> tuple[int, str]:
        """The room's sort key in listings."""
        return self.created_at, self.id

    def rename(self, name: str, at: int) -> None:
        """The room has another name from `at` on."""
        with self._lock:
            insort(self._names, (at, name), key=lambda known: known[0])

    def remove(self, at: int) -> None:
        """From `at` on, the API no longer knows the room; its sessions stay."""
        self.removed_at = at

    def exists(self, now: int) -> bool:
        """Whether the API knows the room."""
        return self.created_at <= now and (self.removed_at is None or now < self.removed_at)

    def name_at(self, now: int) -> str:
        """The room's name at `now`."""
        return next(name for at, name in reversed(self._names) if at <= now or at == self.created_at)

    def record(self, now: int) -> Record:
        """The room as the API shows it."""
        record: Record = {
            "id": self.id,
            "name": self.name_at(now),
            "enabled": self.enabled,
            "description": "",
            "customer_id": self._customer_id,
            "template": self.template,
            "template_id": self.template_id,
            "region": self.region,
            "large_room": False,
            "size": 0,
            "max_duration_seconds": self.max_duration_seconds or 0,
            "created_at": rfc3339(self.created_at),
            "webhook": {"url": WEBHOOK_URL, "headers": WEBHOOK_HEADERS},
        }
        return overridden(record, self.raw)

    def encoded(self, now: int) -> bytes:
        """The record as JSON."""
        return msgspec.json.encode(self.record(now))


class Peer:
    """One stay of one person in a session.  Made by `Session.join`."""

    __slots__ = ("_raw", "_roles", "_session", "id", "joined_at", "left_at", "name", "reason", "recorded_at", "user_id")

    def __init__(self, session: Session, peer_id: str, user_id: str, name: str, role: str, joined_at: int) -> None:
        self.id = peer_id
        self.user_id = user_id
        self.name = name
        self.joined_at = joined_at
        self.left_at: int | None = None
        self.recorded_at: int | None = None
        self.reason = ""
        """Why the peer left, as webhooks report it; empty until then."""
        self._roles = [(joined_at, role)]
        self._session = session
        self._raw: Mapping[str, object] = {}

    @property
    def roles(self) -> tuple[tuple[int, str], ...]:
        """Each role with its beginning, in order; the first is the role on joining."""
        return tuple(self._roles)

    @property
    def raw(self) -> Mapping[str, object]:
        """Fields, by the API's names, that override the true ones in the record."""
        return self._raw

    @raw.setter
    def raw(self, fields: Mapping[str, object]) -> None:
        self._raw = fields
        self._session.touch()

    def role_at(self, now: int) -> str:
        """The peer's role at `now`, or its last role."""
        return next((role for at, role in reversed(self._roles) if at <= now), self._roles[0][1])

    def leave(self, at: int, recorded_at: int | None = None, reason: str = "client request") -> None:
        """The peer leaves at `at`; until `recorded_at` the record still shows it as connected.

        The end of a session records the leaves that have happened by then.  Raises `ValueError` if the leave is impossible.
        """
        closed_at = self._session.closed_at
        if self.left_at is not None or at < self._roles[-1][0] or (closed_at is not None and at > closed_at):
            raise ValueError(f"peer {self.id} cannot leave at {at}")
        with self._session.lock:
            self.left_at = at
            self.reason = reason
            self.recorded_at = at if recorded_at is None else max(at, recorded_at)
            self._session.touch()

    def change_role(self, role: str, at: int) -> None:
        """The peer has this role from `at` on.  Raises `ValueError` if it is not connected then."""
        if at < self.joined_at or (self.left_at is not None and at > self.left_at):
            raise ValueError(f"peer {self.id} cannot change its role at {at}")
        with self._session.lock:
            insort(self._roles, (at, role), key=lambda held: held[0])
            self._session.touch()

    def leave_recorded_at(self) -> int | None:
        """When the record begins to show the leave; `None` if no leave is scripted, and for a ghost."""
        if self.recorded_at is None or self._session.closed_at is None:
            return self.recorded_at
        return min(self.recorded_at, self._session.closed_at)

    def record(self, now: int, shape: Shape) -> Record:
        """The peer as the API shows it within its session's record."""
        record: Record = {"name": self.name, "role": self.role_at(now), "joined_at": rfc3339(self.joined_at, shape.digits)}
        if not shape.old_peers:
            record = {"id": self.id, "session_id": self._session.id, **record, "user_id": self.user_id}
        recorded_at = self.leave_recorded_at()
        if self.left_at is not None and recorded_at is not None and recorded_at <= now:
            record["left_at"] = rfc3339(self.left_at, shape.digits)
        elif shape.connected != "absent":
            record["left_at"] = None if shape.connected == "null" else ZERO_TIME
        return overridden(record, self._raw)


def _nobody(_session: Session, _at: int) -> None:
    """Ignores changes."""


class Session:
    """One call in a room.  Made by `World.open`.

    `changed` is called with each moment at which the session begins, ends or vanishes, when it is scripted.
    """

    __slots__ = (
        "_cache",
        "_changed",
        "_moments",
        "_owner",
        "_raw",
        "_shape",
        "closed_at",
        "created_at",
        "id",
        "lock",
        "peers",
        "room_id",
        "vanished_at",
    )

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 -- the API's name
        room_id: str,
        created_at: int,
        owner: Mapping[str, str],
        shape: Shape,
        lock: threading.RLock,
        changed: Callable[[Session, int], None] = _nobody,
    ) -> None:
        self.id = id
        self.room_id = room_id
        self.created_at = created_at
        self.closed_at: int | None = None
        self.vanished_at: int | None = None
        self.peers: list[Peer] = []
        """All peers, in the order they were scripted."""
        self.lock = lock
        self._owner = owner
        self._shape = shape
        self._changed = changed
        self._raw: Mapping[str, object] = {}
        self._moments: list[int] | None = None
        self._cache: tuple[int, bytes] | None = None
        changed(self, created_at)

    @property
    def order(self) -> tuple[int, str]:
        """The session's sort key in listings."""
        return self.created_at, self.id

    @property
    def shape(self) -> Shape:
        """How the record is written."""
        return self._shape

    @shape.setter
    def shape(self, shape: Shape) -> None:
        self._shape = shape
        self.touch()

    @property
    def raw(self) -> Mapping[str, object]:
        """Fields, by the API's names, that override the true ones in the record."""
        return self._raw

    @raw.setter
    def raw(self, fields: Mapping[str, object]) -> None:
        self._raw = fields
        self.touch()

    def join(self, role: str, at: int, user_id: str | None = None, name: str | None = None, id: str | None = None) -> Peer:  # noqa: A002 -- the API's name
        """A peer joins at `at`.  Raises `ValueError` if the session is not running then."""
        if at < self.created_at or (self.closed_at is not None and at > self.closed_at):
            raise ValueError(f"nobody can join session {self.id} at {at}")
        with self.lock:
            serial = len(self.peers)
            peer = Peer(self, id or fixed_uuid(f"{self.id}/{serial}"), user_id or f"user-{serial}", name or f"Guest {serial}", role, at)
            self.peers.append(peer)
            self.touch()
        return peer

    def close(self, at: int) -> None:
        """The call ends; peers that have not left by then become ghosts.  Raises `ValueError` if later events are scripted."""
        with self.lock:
            last = max((max(peer.roles[-1][0], peer.left_at or 0) for peer in self.peers), default=self.created_at)
            if self.closed_at is not None or at < max(last, self.created_at):
                raise ValueError(f"session {self.id} cannot end at {at}")
            self.closed_at = at
            self.touch()
            self._changed(self, at)

    def vanish(self, at: int) -> None:
        """From `at` on, the API no longer knows the session; calling it again moves that moment."""
        with self.lock:
            if self.vanished_at is not None:
                self._changed(self, self.vanished_at)
            self.vanished_at = at
            self._changed(self, at)

    def exists(self, now: int) -> bool:
        """Whether the API knows the session."""
        return self.created_at <= now and (self.vanished_at is None or now < self.vanished_at)

    def active(self, now: int) -> bool:
        """Whether the call is running."""
        return self.created_at <= now and (self.closed_at is None or now < self.closed_at)

    def connected(self, now: int) -> list[Peer]:
        """The peers that the record shows as connected."""
        if not self.active(now):
            return []
        recorded = ((peer, peer.leave_recorded_at()) for peer in self.peers if peer.joined_at <= now)
        return [peer for peer, recorded_at in recorded if recorded_at is None or now < recorded_at]

    def record(self, now: int) -> Record:
        """The session as the API shows it.  Raises `ValueError` before it begins."""
        updated_at = self._changes()[self._step(now) - 1]
        record: Record = {"id": self.id, "room_id": self.room_id, **self._owner, "active": self.active(now)}
        peers = [(peer.id, peer.record(now, self._shape)) for peer in self.peers if peer.joined_at <= now]
        match self._shape.peers:
            case "object":
                record["peers"] = dict(peers)
            case "list":
                record["peers"] = [peer for _, peer in peers]
            case "null":
                record["peers"] = None
            case "absent":
                pass
        record["created_at"] = rfc3339(self.created_at, self._shape.digits)
        record["updated_at"] = rfc3339(updated_at, self._shape.digits)
        return overridden(record, self._raw)

    def encoded(self, now: int) -> bytes:
        """The record as JSON, cached until it changes."""
        step = self._step(now)
        if self._cache is None or self._cache[0] != step:
            self._cache = step, msgspec.json.encode(self.record(now))
        return self._cache[1]

    def touch(self) -> None:
        """Clears the cached record, because the script has changed."""
        self._moments = None
        self._cache = None

    def _changes(self) -> list[int]:
        """The moments at which the record changes, in order."""
        if self._moments is None:
            moments = {self.created_at}
            for peer in self.peers:
                moments.update(at for at, _ in peer.roles)
                recorded_at = peer.leave_recorded_at()
                if recorded_at is not None:
                    moments.add(recorded_at)
            if self.closed_at is not None:
                moments.add(self.closed_at)
            self._moments = sorted(moments)
        return self._moments

    def _step(self, now: int) -> int:
        """How many of the changes have happened by `now`."""
        step = bisect_right(self._changes(), now)
        if step == 0:
            raise ValueError(f"session {self.id} has not begun at {now}")
        return step
