"""A workspace's poller that also polls early, when a webhook reports that something happened."""

from __future__ import annotations

from typing import Any

from exporter.counting.contribution import Account, room_account
from exporter.counting.poll import Poll
from exporter.hms.client import Client
from exporter.hms.pace import Patience
from exporter.logs import event
from exporter.polling.adding import AddingPoller
from exporter.polling.early import EarlyReading
from exporter.polling.hurry import Hurry
from exporter.polling.inbox import Hearing
from exporter.polling.names import NameReader
from exporter.polling.planner import estimate
from exporter.state.store import StoreError
from exporter.times import calendar

_NAME_SECONDS = 1.0
"""How long an early poll may read the names of new rooms."""


class HurriedPoller(AddingPoller):
    """An `AddingPoller` with `early`, a poll of the rooms that `hurry` names.

    Early polls have their own connection, because one may come while a page of the past is being read.
    """

    hearing: Hearing | None = None
    _connection: Client | None = None
    """The connection of early polls, because the other one may be in the middle of a page."""

    def __init__(self, *arguments: Any, hurry: Hurry, **more: Any) -> None:
        """The arguments are those of `AddingPoller`."""
        self._hurry = hurry
        self._is_early = False
        self._whole_fault: str | None = None
        super().__init__(*arguments, **more)

    def listen(self, hearing: Hearing) -> None:
        """From now on, the counts of `hearing` are assigned to rooms and published."""
        self.hearing = hearing
        self._publisher.heard = hearing.shown

    def poll(self) -> None:
        """Polls everything."""
        self._hurry.take()
        super().poll()

    def early(self) -> None:
        """Polls the rooms in which something happened, or everything if that costs no more.  Never raises."""
        self._is_early = True
        try:
            started = self._monotonic()
            rooms = self._worth_alone(self._hurry.take())
            if rooms is None:
                self._poll_present(started, self._early_client())
            elif rooms or (self.hearing is not None and self.hearing.waits):
                self._poll_rooms(rooms, started)
            if self._whole_fault is None and not self.api.stopped.is_set():
                self._guarded(self._read_new_names)
        finally:
            self._is_early = False

    # -- what the poller asks -------------------------------------------------------------------------------------

    def _pressed(self) -> bool:
        return not self._is_early and self._hurry.is_due()

    def _give_way(self) -> None:
        self.early()

    def _use(self, *arguments: Any) -> None:
        super()._use(*arguments)
        if self._connection is not None:
            self._connection.close()
        self._connection = client = self.api.client()
        self._early_names = NameReader(client, self.api.now, self.rejected)

    def _early_client(self) -> Client:
        assert self._connection is not None
        return self._connection

    def _end(self, poll: Poll) -> None:
        self._place_events(poll)
        super()._end(poll)

    def _present_read(self, fault: str | None) -> None:
        self._whole_fault = fault

    # -- an early poll --------------------------------------------------------------------------------------------

    def _worth_alone(self, asked: frozenset[str]) -> list[str] | None:
        """The rooms to read alone; `None` if a poll of everything is wanted, or costs no more."""
        ledger = self.ledger
        if self._poll is None or not self._entered or ledger.coverage.horizon is None or "" in asked or self._whole_fault is not None:
            return None
        now = ledger.now or 0
        if calendar(now) != calendar(self.api.now()):
            return None  # a new day's usage is worked out for all rooms at once
        rooms = [room_id for room_id in asked if self.rooms.covers(room_id) is not False]
        running = sum(tracked.ended is None for tracked in ledger.tracked.values())
        count = len(self.rooms.scope.ids) if self.rooms.scope.only_ids else None
        return rooms if len(rooms) < estimate(count, running, 0, self._choices.page_size) else None

    def _poll_rooms(self, rooms: list[str], started: float) -> None:
        patience = Patience(started + self._config.api.timeout)
        reading = EarlyReading(self._early_client(), rooms, patience)
        fault = self._guarded(lambda: self._read_rooms(reading, self._monotonic())) or reading.fault
        if self.api.stopped.is_set():
            return
        # A poll of everything must follow this failed one, which is reported like any other failed poll.
        self._publish(up=fault is None)
        self._tell(fault, started)

    def _read_rooms(self, reading: EarlyReading, at: float) -> None:
        now = reading.begin() if reading.rooms else self.ledger.now
        if now is None:
            return
        self._durable = False
        poll = Poll(self.ledger, max(now, self.ledger.now or 0), 0, early=True)
        for raw in reading.records(poll):
            self._see(poll, raw)
        new = self.accounts.assign(poll)
        self._place_events(poll)
        read = set(reading.read)
        accounts = {room_account(room_id) for room_id in read}
        accounts |= {t.account for t in self.ledger.tracked.values() if t.account is not None and t.room_id in read}
        poll.finish_early([*accounts, *new], at)
        self._commit()

    def _read_new_names(self) -> None:
        """Reads the names of rooms in which a call has just begun, so that their series do not wait for the next poll."""
        wanted = [room_id for room_id in self.rooms_in_question() if room_id not in self.rooms.known]
        if wanted:
            answers = self._early_names.read(wanted, self._monotonic() + _NAME_SECONDS, self._monotonic)
            if answers:
                self.learn(answers)

    def rooms_in_question(self) -> list[str]:
        """Rooms to ask 100ms about now, including those known only from webhooks."""
        found = super().rooms_in_question()
        if self.hearing is None or not self.rooms.scope.patterns:
            return found
        unknown = [i for i in self.hearing.waiting_rooms() if self.rooms.covers(i) is None]
        return list(dict.fromkeys([*found, *self.rooms.wanted(unknown, self.api.now())]))

    # -- what webhooks counted ------------------------------------------------------------------------------------

    def _place_events(self, poll: Poll) -> None:
        """Moves the counts of rooms to the accounts that own the rooms' series."""
        if self.hearing is None or not self.hearing.waits:
            return
        try:
            self.hearing.place(lambda room_ids: self._owners(poll, room_ids))
        except StoreError as error:
            event("warn", "what webhooks counted could not be placed", workspace=self.name, reason=error)

    def _owners(self, poll: Poll, room_ids: list[str]) -> dict[str, Account | None]:
        """The accounts of those of these rooms that are decided; `None` for a room that is not followed."""
        covered = {room_id: self.rooms.scope.covers(room_id, self.accounts.told_name_of(room_id)) for room_id in room_ids}
        of_sessions = {t.room_id: t.account for t in self.ledger.tracked.values() if t.account is not None}
        known = {room_id: of_sessions[room_id] for room_id in room_ids if covered[room_id] and room_id in of_sessions}
        # Together, because to place one room takes a look at all of them.
        new = self.rooms.place({i: 0 for i in room_ids if covered[i] and i not in known}, self.ledger.accounts, poll.now)
        decided = known | {room_id: account for room_id, account in new.items() if account is not None}
        for account in decided.values():
            self.accounts.open(account)
            state = self.ledger.accounts[account]
            if state.last_active == 0:  # otherwise it would look idle for a long time
                state.last_active = poll.now
                state.touched = True
        return {**decided, **{room_id: None for room_id in room_ids if covered[room_id] is False}}
