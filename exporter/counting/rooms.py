"""Decides which rooms are followed, which have series, and their names.  No I/O.

A room is *configured* (named by its id) or *discovered* (found by a session in it, if it matches a pattern or every room is
followed).  Configured rooms always have series of their own; discovered rooms have them within `max_rooms`, until they have
been idle for long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
from msgspec import structs

from exporter.config.config import LimitsConfig
from exporter.counting.accounts import AccountState
from exporter.counting.contribution import OVERFLOW, Account, group_account, room_account
from exporter.counting.scope import Scope
from exporter.hms.records import Room
from exporter.times import HOUR, SECOND

NAME_POLLS = 3
"""For how many polls a room's series wait for its name."""
REFRESH_AFTER = 24 * HOUR
RETRY_MISSING_AFTER = HOUR
QUIET_POLLS = 3
"""For how many polls a room keeps its series after its last change, so that a scrape sees the change."""


class KnownRoom(msgspec.Struct, frozen=True):
    """100ms's last answer about a room, and when it came (µs, the API's time; 0 without an answer).

    `exists` is false after a 404.  `enabled` is false only if 100ms has said so.
    """

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
        """An answer from the API's record."""
        return cls(room.id, room.name, room.template, room.template_id, room.region, room.enabled, exists=True, fetched_at=fetched_at)

    @classmethod
    def unanswered(cls, room_id: str) -> KnownRoom:
        """A room without an answer: its id serves as its name."""
        return cls(room_id, "", "", "", "", enabled=True, exists=True, fetched_at=0)

    @property
    def answered(self) -> bool:
        """Whether 100ms has answered about it."""
        return self.fetched_at > 0

    @classmethod
    def missing(cls, room_id: str, fetched_at: int) -> KnownRoom:
        """A room that the API does not know."""
        return cls(room_id, "", "", "", "", enabled=True, exists=False, fetched_at=fetched_at)


class Rooms:
    """The known rooms of a workspace."""

    def __init__(self, scope: Scope, limits: LimitsConfig) -> None:
        self.scope = scope
        self.limits = limits
        self.known: dict[str, KnownRoom] = {}
        self.overflowed: dict[str, int] = {}
        """Rooms counted under `_other`, with their last activity."""
        self._waited: dict[str, int] = {}
        self._shown: dict[str, int] = {}
        """Discovered rooms with series of their own, and since when (µs)."""
        self._quiet: dict[str, tuple[int, int]] = {}
        """For each of those rooms: the number of polls in which only time moved on, and the version of the published values."""
        self._resting: set[Account] = set()
        """Accounts without series because they are idle, which stay in memory because something must still be read or counted."""

    # -- which rooms ----------------------------------------------------------------------------------------------

    def covers(self, room_id: str) -> bool | None:
        """Whether the configuration covers a room; `None` while this depends on its unknown name."""
        return self.scope.covers(room_id, self.name(room_id))

    def name(self, room_id: str) -> str | None:
        """A room's name at 100ms, or its id if it has no name; `None` while it is unknown."""
        known = self.known.get(room_id)
        if known is None or (not known.answered and self.scope.patterns and room_id not in self.scope.ids):
            return None
        return _name(known)

    def place(self, rooms: Mapping[str, int], accounts: Mapping[Account, AccountState], now: int) -> dict[str, Account | None]:
        """The accounts for the new sessions of these rooms, given their numbers of peers; the busiest rooms get the free slots.

        `None` stands for a room that is not followed.  Rooms that depend on a name that is not known yet are left out.
        """
        placed: dict[str, Account | None] = {}
        contenders = []
        for room_id, peers in rooms.items():
            name = self.name(room_id)
            covered = self.scope.covers(room_id, name)
            pattern = self.scope.pattern(name) if name is not None and room_id not in self.scope.ids else None
            group = pattern.group_for(name) if pattern is not None and name is not None else None
            if room_id in self.scope.ids:
                placed[room_id] = room_account(room_id)
            elif covered is False:
                placed[room_id] = None
            elif group is not None:
                placed[room_id] = group_account(group)
            elif covered:
                contenders.append((-peers, room_id))
        busy = {room_id for room_id in self._shown if _runs(room_id, accounts)} if contenders else set()
        for _, room_id in sorted(contenders):
            if self._take_slot(room_id, busy, now):
                busy.add(room_id)
                self.overflowed.pop(room_id, None)
                placed[room_id] = room_account(room_id)
            else:
                self.overflowed[room_id] = now
                placed[room_id] = OVERFLOW
        return placed

    def rescoped(self, scope: Scope, limits: LimitsConfig) -> Rooms:
        """The same knowledge under another configuration.  Rooms that it does not cover lose their series."""
        rooms = Rooms(scope, limits)
        rooms.known.update(self.known)
        rooms.overflowed.update({room_id: last for room_id, last in self.overflowed.items() if rooms.covers(room_id)})
        rooms._waited.update(self._waited)
        rooms._shown.update({i: since for i, since in self._shown.items() if i not in scope.ids and rooms.covers(i)})
        rooms._resting.update(self._resting)
        return rooms

    def show(self, states: Iterable[AccountState], now: int) -> None:
        """Chooses the discovered rooms to show after a restart or a reload: all that are in use, then the most recently active."""
        for state in sorted(states, key=lambda state: (not state.runs, -state.last_active)):
            room_id = state.account.id
            if self._is_idle(state, now):
                self.rest(state.account)
                continue
            if state.account.kind != "room" or room_id in self.scope.ids or room_id in self._shown or not self.covers(room_id):
                continue
            if state.runs or len(self._shown) < self.limits.max_rooms:
                self._shown[room_id] = min(now, state.last_active)

    def idle(self, accounts: Mapping[Account, AccountState], now: int) -> list[Account]:
        """Accounts of discovered rooms and of groups without a session, recording or stream for longer than `room_idle_expiry`."""
        for account in [account for account in self._resting if account not in accounts or accounts[account].runs]:
            # A vanished session runs again, or something new began in a group.
            self._resting.discard(account)
            if account in accounts and account.kind == "room" and self.covers(account.id):
                self._shown.setdefault(account.id, now)
        return [account for account, state in accounts.items() if self._is_idle(state, now)]

    def _is_idle(self, state: AccountState, now: int) -> bool:
        account = state.account
        if state.runs or (account.kind == "room" and account.id in self.scope.ids):
            return False
        since = self._shown.get(account.id, 0) if account.kind == "room" else 0
        # A past session that was found only recently is shown as long as one that has just ended.
        found = max((tracked.seen_ended or 0 for tracked in state.ended.values()), default=0)
        return max(state.last_active, since, found) + round(self.limits.room_idle_expiry * SECOND) < now

    def rest(self, account: Account) -> None:
        """Removes an idle account's series until something begins in it; it stays in memory."""
        self.leave(account)
        self._resting.add(account)

    def leave(self, account: Account) -> None:
        """Removes an account's series."""
        self._shown.pop(account.id, None)
        self._quiet.pop(account.id, None)

    def forget(self, account: Account) -> None:
        """Forgets an account that has left memory, and its room."""
        self.leave(account)
        self._resting.discard(account)
        self._waited.pop(account.id, None)
        self.known.pop(account.id, None)

    def end_poll(self, accounts: Mapping[Account, AccountState], now: int) -> None:
        """Ends a poll.

        Rooms beyond `max_rooms`, and rooms that are no longer followed, lose their series once they have been quiet for some polls,
        because by then their last increase has been scraped.  The busiest rooms stay.
        """
        for room_id in self._shown:
            state = accounts.get(room_account(room_id))
            version = -1 if state is None else state.version
            polls, before = self._quiet.get(room_id, (0, version))
            runs = state is not None and bool(state.sessions)
            self._quiet[room_id] = (0 if version != before or runs else polls + 1), version
        quiet = [room_id for room_id in self._shown if self._is_quiet(room_id)]
        leaving = [room_id for room_id in quiet if self.covers(room_id) is False]
        beyond = len(self._shown) - len(leaving) - self.limits.max_rooms
        if beyond > 0:
            others = sorted((i for i in quiet if i not in leaving), key=lambda i: _last_active(i, accounts))
            leaving += others[:beyond]
        for room_id in leaving:
            self.leave(room_account(room_id))
        expiry = round(self.limits.room_idle_expiry * SECOND)
        self.overflowed = {room_id: last for room_id, last in self.overflowed.items() if last + expiry >= now}
        # The names of rooms without series are requested again if the rooms come back.
        for room_id, room in list(self.known.items()):
            if room_id not in self._shown and room_id not in self.scope.ids and 0 < room.fetched_at < now - REFRESH_AFTER:
                del self.known[room_id]

    def _is_quiet(self, room_id: str) -> bool:
        return self._quiet.get(room_id, (0, 0))[0] >= QUIET_POLLS

    def _take_slot(self, room_id: str, busy: set[str], now: int) -> bool:
        """Whether a room with a new session gets series of its own: a room in use takes the place of an idle one."""
        if room_id in busy:
            return True
        if room_id in self._shown:
            return len(self._shown) <= self.limits.max_rooms or len(busy) < self.limits.max_rooms
        if len(self._shown) >= self.limits.max_rooms:
            if len(busy) >= self.limits.max_rooms:
                return False
            # An idle room gives way: at once if its last increase has been scraped, otherwise after a few polls.
            idle = [other for other in self._shown if other not in busy and self._is_quiet(other)]
            if idle:
                self.leave(room_account(min(idle, key=self._shown.__getitem__)))
        self._shown[room_id] = now
        return True

    # -- what they are called -------------------------------------------------------------------------------------

    def shown(self, account: Account) -> bool:
        """Whether the account has series, even while its name is unknown."""
        if account.kind == "group":
            return account not in self._resting
        return account.id in self.scope.ids or account.id in self._shown

    def label(self, account: Account) -> str | None:
        """The label `room` of an account's series; `None` while they wait for the name."""
        if account.kind == "group":
            return account.id
        own = self.scope.ids.get(account.id)
        if own is not None:
            return own
        known = self.known.get(account.id)
        return None if known is None else _name(known)

    def polled(self, asked: Iterable[str]) -> list[KnownRoom]:
        """A poll has ended without an answer about these rooms; those that have waited long enough are shown by their id.

        A room whose name decides whether it is followed keeps waiting.
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
        """Takes an answer about a room.  A room that no longer exists keeps its name."""
        before = self.known.get(room.id)
        if not room.exists and before is not None:
            room = structs.replace(before, exists=False, fetched_at=room.fetched_at)
        self.known[room.id] = room
        self._waited.pop(room.id, None)

    def wanted(self, candidates: Iterable[str], now: int) -> list[str]:
        """The candidates to ask 100ms about: the unknown ones, and the one with the oldest answer if it is due."""
        unknown, due = [], []
        for room_id in candidates:
            known = self.known.get(room_id)
            if known is None or not known.answered:
                unknown.append(room_id)
            elif now - known.fetched_at > (REFRESH_AFTER if known.exists else RETRY_MISSING_AFTER):
                due.append((known.fetched_at, room_id))
        return unknown + [room_id for _, room_id in sorted(due)[:1]]

    def is_missing(self, room_id: str) -> bool:
        """Whether 100ms has answered that this room does not exist."""
        return room_id in self.known and not self.known[room_id].exists

    @property
    def missing(self) -> int:
        """How many configured rooms 100ms does not know."""
        return sum(map(self.is_missing, self.scope.ids))


def _name(known: KnownRoom) -> str:
    """A room's name, or its id if it has none or no longer exists."""
    return known.name or known.id


def _runs(room_id: str, accounts: Mapping[Account, AccountState]) -> bool:
    state = accounts.get(room_account(room_id))
    return state is not None and state.runs


def _last_active(room_id: str, accounts: Mapping[Account, AccountState]) -> int:
    state = accounts.get(room_account(room_id))
    return 0 if state is None else state.last_active
