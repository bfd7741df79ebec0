"""A workspace's accounts and rooms in memory: loaded from the store, opened for new sessions, closed when idle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from exporter.counting.contribution import Account, room_account
from exporter.counting.ledger import Ledger
from exporter.counting.poll import Poll
from exporter.counting.rooms import KnownRoom, Rooms
from exporter.state.store import Store
from exporter.times import SECOND


class Accounts:
    """The ledger and the rooms of one workspace, loaded from and saved to the store.  Every method may raise `StoreError`."""

    def __init__(self, workspace: str, store: Store, rooms: Rooms) -> None:
        self._workspace = workspace
        self._store = store
        self.ledger = Ledger()
        self.rooms = rooms
        self.kept: frozenset[str] = frozenset()
        """Names and ids of rooms that stay in memory while idle, because their usage counts towards a budget."""
        self._learnt: list[KnownRoom] = []
        """Answers about rooms, not stored yet."""

    # -- from and to the store ------------------------------------------------------------------------------------

    def restore(self) -> None:
        """Loads the workspace from the store, and decides which rooms are shown."""
        self._store.restore(self._workspace, self.ledger)
        self.ledger.unloaded = self._store.usage(self._workspace, self.ledger.now or 0)
        self.load()
        self.rooms.show(self.ledger.accounts.values(), self.ledger.now or 0)

    def load(self) -> None:
        """Loads the accounts that are shown, have sessions, or belong to a budget."""
        ledger, now = self.ledger, self.ledger.now or 0
        shown_since = now - round(self.rooms.limits.room_idle_expiry * SECOND)
        states = {state.account: state for state in self._store.accounts(self._workspace, shown_since) if state.last_active >= shown_since}
        needed = [
            room_account(room_id) for room_id in [*self.rooms.scope.ids, *self.kept, *self._store.rooms_named(self._workspace, self.kept)]
        ]
        needed += [tracked.account for tracked in ledger.tracked.values() if tracked.account is not None]
        for account in dict.fromkeys(needed):
            if account not in states and account not in ledger.accounts:
                state = self._store.account(self._workspace, account)
                if state is not None:
                    states[account] = state
        ledger.restore(state for account, state in states.items() if account not in ledger.accounts)
        self._load_rooms(account.id for account in ledger.accounts if account.kind == "room")

    def commit(self) -> None:
        """Stores the ledger's changes and the answers about rooms."""
        self._store.commit(self._workspace, self.ledger, self._learnt)
        self._learnt = []

    def open(self, account: Account) -> None:
        """Loads an account from the store, or makes it if it is new."""
        if account not in self.ledger.accounts:
            stored = self._store.account(self._workspace, account)
            if stored is not None:
                self.ledger.restore([stored])
            else:
                self.ledger.open(account)

    def close_idle(self, now: int) -> list[Account]:
        """Removes the series of idle rooms and groups.  Those with nothing left to count also leave memory, and are returned."""
        closed = []
        for account in self.rooms.idle(self.ledger.accounts, now):
            state = self.ledger.accounts[account]
            if state.ended or state.kept_by or account.id in self.kept or self.rooms.label(account) in self.kept:
                self.rooms.rest(account)
                continue
            self.ledger.close(account)
            self.rooms.forget(account)
            closed.append(account)
        return closed

    # -- rooms ----------------------------------------------------------------------------------------------------

    def assign(self, poll: Poll) -> list[Account]:
        """Assigns the sessions of new rooms to accounts, where that can be decided; returns the accounts."""
        ledger = self.ledger
        undecided = ledger.coverage.is_undecided
        unassigned = {i: peers for i, peers in poll.unassigned_rooms().items() if not undecided(i, self.name_of(i))}
        if not unassigned:
            return []
        placed = self.rooms.place(unassigned, ledger.accounts, poll.now)
        for room_id, account in placed.items():
            name = self.told_name_of(room_id)
            if account is None and ledger.coverage.has_covered(room_id, name):
                # The room belonged to an entry that was removed before the room's name was known: its sessions count, but are not shown.
                account = placed[room_id] = room_account(room_id)
            if account is not None:
                self.open(account)
            poll.assign(room_id, name, account)
        return [account for account in placed.values() if account is not None]

    def in_question(self, now: int) -> list[str]:
        """Rooms to ask 100ms about now."""
        return self.rooms.wanted(self._seen_rooms(), now)

    def name_of(self, room_id: str) -> str | None:
        """A room's name, as far as 100ms has ever told it."""
        if room_id not in self.rooms.known:
            self._load_rooms([room_id])
        return self.rooms.name(room_id)

    def told_name_of(self, room_id: str) -> str | None:
        """What decides about coverage: what 100ms has said; an id that only stands in for the name belongs to no pattern."""
        name = self.name_of(room_id)
        return name if name is not None and self.rooms.known[room_id].answered else None

    def name_polled(self) -> None:
        """A poll has ended: rooms whose name is still unknown after waiting long enough are shown by their id."""
        self._learnt += self.rooms.polled(self._seen_rooms())

    def learn(self, answers: Sequence[KnownRoom], since: int | None) -> None:
        """Takes answers about rooms.  A room with a new name counts under it from `since` on (µs)."""
        now = self.ledger.now
        for room in answers:
            before = self.told_name_of(room.id)
            self.rooms.learn(room)
            after = self.told_name_of(room.id)
            if since is not None and now is not None and before is not None and after is not None and before != after:
                self.ledger.coverage.renamed(room.id, before, after, since, now)
        self._learnt += answers

    def _seen_rooms(self) -> Iterable[str]:
        """The rooms that are shown, or have sessions waiting for an account."""
        shown = [account.id for account in self.ledger.accounts if account.kind == "room" and self.rooms.shown(account)]
        return dict.fromkeys([*shown, *[tracked.room_id for tracked in self.ledger.unassigned.values()]])

    def _load_rooms(self, ids: Iterable[str]) -> None:
        for room in self._store.rooms(self._workspace, ids).values():
            self.rooms.learn(room)
