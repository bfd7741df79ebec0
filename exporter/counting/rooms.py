"""Which rooms are ours, who owns their series, and what they are called: decided here, without I/O.

A room is *configured* (named by its id) or *discovered* (found by a session in it, by a pattern or because every room is
wanted).  Configured rooms always have series of their own; discovered ones while there is room for them and they are not
idle for long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
from msgspec import structs

from exporter.config.config import LimitsConfig, RoomsByName
from exporter.counting.accounts import AccountState
from exporter.counting.contribution import OVERFLOW, Account, group_account, room_account
from exporter.counting.scope import EVERYTHING, Scope
from exporter.hms.records import Room
from exporter.times import HOUR, SECOND

NAME_POLLS = 3
"""Polls that a room's series wait for an answer about its name."""
REFRESH_AFTER = 24 * HOUR
RETRY_MISSING_AFTER = HOUR


class KnownRoom(msgspec.Struct, frozen=True):
    """What 100ms last said of a room, and when (µs, the API's time; 0 when it has not answered); `exists` is false after a 404."""

    id: str
    name: str
    template: str
    template_id: str
    region: str
    enabled: bool
    exists: bool
    fetched_at: int

    @classmethod
    def of(cls, room: Room, fetched_at: int) -> KnownRoom:
        """From the API's record."""
        return cls(room.id, room.name, room.template, room.template_id, room.region, room.enabled, exists=True, fetched_at=fetched_at)

    @classmethod
    def unanswered(cls, room_id: str) -> KnownRoom:
        """A room about which no answer has come: its id serves as its name."""
        return cls(room_id, "", "", "", "", enabled=True, exists=True, fetched_at=0)

    @property
    def answered(self) -> bool:
        """Whether 100ms has said anything of it."""
        return self.fetched_at > 0

    @classmethod
    def missing(cls, room_id: str, fetched_at: int) -> KnownRoom:
        """A room that the API does not know."""
        return cls(room_id, "", "", "", "", enabled=False, exists=False, fetched_at=fetched_at)


class Rooms:
    """A workspace's rooms as far as they have been seen."""

    def __init__(self, scope: Scope, limits: LimitsConfig) -> None:
        self.scope = scope
        self.limits = limits
        self.known: dict[str, KnownRoom] = {}
        self.overflowed: dict[str, int] = {}
        """Rooms counted under `_other`, with their last activity."""
        self._waited: dict[str, int] = {}
        self._shown: dict[str, int] = {}
        """Discovered rooms with series of their own, since when (µs)."""

    # -- which rooms ----------------------------------------------------------------------------------------------

    def key(self, room_id: str) -> str | None:
        """The entry of the configuration that a room is in, `None` when it is none of ours.

        A room whose name is still to be asked for is taken to be in the first pattern's.
        """
        if room_id in self.scope.ids:
            return room_id
        if self.scope.everything:
            return EVERYTHING
        if not self.scope.patterns:
            return None
        known = self.known.get(room_id)
        pattern = self.scope.patterns[0] if known is None or not known.answered else self._pattern(_name(known))
        return None if pattern is None else f"~{pattern.match.pattern}"

    def place(self, rooms: Mapping[str, int], accounts: Mapping[Account, AccountState], now: int) -> dict[str, Account | None]:
        """The accounts of these rooms' new sessions, given how many peers each has; the busiest come first to what is left.

        Rooms whose name decides, and is not known yet, are left out.
        """
        placed: dict[str, Account | None] = {}
        contenders = []
        for room_id, peers in rooms.items():
            if room_id in self.scope.ids:
                placed[room_id] = room_account(room_id)
            elif self.scope.everything:
                contenders.append((-peers, room_id))
            elif not self.scope.patterns:
                placed[room_id] = None
            elif room_id in self.known and self.known[room_id].answered:
                name = _name(self.known[room_id])
                pattern = self._pattern(name)
                group = pattern.group_for(name) if pattern is not None else None
                if pattern is None:
                    placed[room_id] = None
                elif group is not None:
                    placed[room_id] = group_account(group)
                else:
                    contenders.append((-peers, room_id))
        for _, room_id in sorted(contenders):
            if self._take_slot(room_id, accounts, now):
                self.overflowed.pop(room_id, None)
                placed[room_id] = room_account(room_id)
            else:
                self.overflowed[room_id] = now
                placed[room_id] = OVERFLOW
        return placed

    def rescoped(self, scope: Scope, limits: LimitsConfig) -> Rooms:
        """The same knowledge, for another configuration."""
        rooms = Rooms(scope, limits)
        rooms.known.update(self.known)
        rooms.overflowed.update(self.overflowed)
        rooms._waited.update(self._waited)
        return rooms

    def show(self, states: Iterable[AccountState], now: int) -> None:
        """Discovered rooms that are shown again after a restart: those in use first."""
        for state in sorted(states, key=lambda state: (not state.sessions, -state.last_active)):
            if state.account.kind == "room" and state.account.id not in self.scope.ids and len(self._shown) < self.limits.max_rooms:
                self._shown[state.account.id] = min(now, state.last_active)

    def idle(self, accounts: Mapping[Account, AccountState], now: int, kept: frozenset[str] = frozenset()) -> list[Account]:
        """Discovered accounts without a session for so long that their series leave the exposition, and they the memory.

        Rooms with an id or a name in `kept` only lose their series.
        """
        expiry = self._expiry()
        gone = []
        for account, state in accounts.items():
            if state.sessions or (account.kind == "room" and account.id in self.scope.ids):
                continue
            since = self._shown.get(account.id, 0) if account.kind == "room" else 0
            if max(state.last_active, since) + expiry < now:
                self._shown.pop(account.id, None)
                if account.id in kept or self.label(account) in kept:
                    continue
                gone.append(account)
                self._waited.pop(account.id, None)
                self.known.pop(account.id, None)
        for room_id in [room_id for room_id, last in self.overflowed.items() if last + expiry < now]:
            del self.overflowed[room_id]
        # Names of rooms that are none of ours, or not shown: asked for again should they come back.
        for room_id, room in list(self.known.items()):
            if room_id not in self._shown and room_id not in self.scope.ids and 0 < room.fetched_at < now - REFRESH_AFTER:
                del self.known[room_id]
        return gone

    def _expiry(self) -> int:
        return round(self.limits.room_idle_expiry * SECOND)

    def _take_slot(self, room_id: str, accounts: Mapping[Account, AccountState], now: int) -> bool:
        if room_id in self._shown:
            return True
        if len(self._shown) >= self.limits.max_rooms and not self._evict(accounts, now):
            return False
        self._shown[room_id] = now
        return True

    def _evict(self, accounts: Mapping[Account, AccountState], now: int) -> bool:
        """Gives up the series of a room that is only shown because its past was caught up with."""
        for room_id in self._shown:
            state = accounts.get(room_account(room_id))
            if state is not None and not state.sessions and state.last_active + self._expiry() < now:
                del self._shown[room_id]
                return True
        return False

    def _pattern(self, name: str) -> RoomsByName | None:
        return next((pattern for pattern in self.scope.patterns if pattern.match.fullmatch(name)), None)

    # -- what they are called -------------------------------------------------------------------------------------

    def shown(self, account: Account) -> bool:
        """Whether the account has series, its name being known or not."""
        if account.kind == "room":
            return account.id in self.scope.ids or account.id in self._shown
        return not self.scope.only_ids

    def label(self, account: Account) -> str | None:
        """The label `room` of an account's series; `None` while they wait for it."""
        if account.kind == "group":
            return account.id
        own = self.scope.ids.get(account.id)
        if own is not None:
            return own
        known = self.known.get(account.id)
        return None if known is None else _name(known)

    def polled(self, asked: Iterable[str]) -> list[KnownRoom]:
        """A poll has ended without an answer about these rooms; those that have waited long enough go by their id.

        A room whose name decides whether it is ours waits on.
        """
        assumed = []
        for room_id in asked:
            if room_id in self.known or (self.scope.patterns and room_id not in self.scope.ids):
                continue
            self._waited[room_id] = self._waited.get(room_id, 0) + 1
            if self._waited[room_id] >= NAME_POLLS:
                assumed.append(KnownRoom.unanswered(room_id))
                self.learn(assumed[-1])
        return assumed

    def learn(self, room: KnownRoom) -> None:
        """An answer about a room; one that does not exist any more keeps the name it had."""
        before = self.known.get(room.id)
        if not room.exists and before is not None:
            room = structs.replace(before, exists=False, enabled=False, fetched_at=room.fetched_at)
        self.known[room.id] = room
        self._waited.pop(room.id, None)

    def wanted(self, candidates: Iterable[str], now: int) -> list[str]:
        """Those of these rooms that 100ms should be asked about: the unknown ones, and the one known for longest if it is due."""
        unknown, due = [], []
        for room_id in candidates:
            known = self.known.get(room_id)
            if known is None or not known.answered:
                unknown.append(room_id)
            elif now - known.fetched_at > (REFRESH_AFTER if known.exists else RETRY_MISSING_AFTER):
                due.append((known.fetched_at, room_id))
        return unknown + [room_id for _, room_id in sorted(due)[:1]]

    def is_missing(self, room_id: str) -> bool:
        """Whether 100ms has said that it does not know this room."""
        return room_id in self.known and not self.known[room_id].exists

    @property
    def missing(self) -> int:
        """Configured rooms that 100ms does not know."""
        return sum(map(self.is_missing, self.scope.ids))


def _name(known: KnownRoom) -> str:
    """A room's name; the id serves for one without, or that does not exist any more."""
    return known.name or known.id
