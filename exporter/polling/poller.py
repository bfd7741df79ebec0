"""One workspace, polled: what is read is counted, stored and published.  The one place where an error becomes health."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import msgspec

from exporter.config.config import Config, WorkspaceConfig
from exporter.counting.contribution import Account, room_account
from exporter.counting.ledger import Ledger
from exporter.counting.rooms import KnownRoom, Rooms
from exporter.counting.scope import Scope
from exporter.hms.client import Api
from exporter.hms.pace import Patience
from exporter.hms.records import Rejection, decode_session, glance, record_id
from exporter.logs import event, failure
from exporter.polling.planner import Choice, Stretch
from exporter.polling.reading import Reading
from exporter.publish.budgets import BudgetBoard
from exporter.publish.exposition import Exposition
from exporter.publish.publisher import Figures, Publisher
from exporter.publish.selfmetrics import WorkspaceMetrics
from exporter.state.store import Store, StoreError
from exporter.times import HOUR, SECOND, micros

_REMEMBERED_REJECTIONS = 10_000
_TOLD_REJECTIONS = 20
"""Lines for rejected records in the log from one poll to the next: an answer can hold a thousand of them."""
_LONGEST_GAP = HOUR
"""After a longer pause, what ended meanwhile is read as a catch-up, beside the polls."""
_CATCH_UP_SECONDS = 5.0
"""What a poll spends on the past at most, before it publishes the present."""


@dataclass
class Health:
    """How the polls of a workspace go; times are Unix seconds, `catching_up` is from 0 to 1."""

    polled_at: float | None = None
    succeeded_at: float | None = None
    fault: str | None = None
    figures: Figures = field(default_factory=Figures)
    catching_up: float | None = None


class WorkspacePoller:
    """A workspace's state and how it is renewed.  Its methods are for one thread; `health` may be read by others."""

    def __init__(
        self,
        workspace: WorkspaceConfig,
        config: Config,
        store: Store,
        exposition: Exposition,
        metrics: WorkspaceMetrics,
        api: Api,
        board: BudgetBoard | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = workspace.name
        self.ledger = Ledger()
        self.rooms = Rooms(Scope(workspace), config.limits)
        self.health = Health()
        self.metrics = metrics
        self._store = store
        self._publisher = Publisher(
            workspace.name, config, exposition, board if board is not None else BudgetBoard(exposition, config.budgets), monotonic
        )
        self._monotonic = monotonic
        self._rejections: OrderedDict[int, None] = OrderedDict()
        self._rejected = 0
        """Records rejected since the last poll ended."""
        self._learnt: list[KnownRoom] = []
        self._read_at = monotonic()
        """When the last poll had read what it could (monotonic seconds)."""
        self._durable = True
        """Whether the store has taken everything that the ledger holds: nothing else may be shown."""
        self._use(config, api)

    def configure(self, workspace: WorkspaceConfig, config: Config, api: Api) -> None:
        """Takes over a configuration, between two polls; nothing counted is touched."""
        self._client.close()
        self.rooms = self.rooms.rescoped(Scope(workspace), config.limits)
        if not self.rooms.scope.only_ids:
            self.rooms.show(self.ledger.accounts.values(), self.ledger.now or 0)
        self._publisher.configure(config)
        self._use(config, api)

    def _use(self, config: Config, api: Api) -> None:
        self._config = config
        self.api = api
        self._client = api.client()
        count = len(self.rooms.scope.ids) if self.rooms.scope.only_ids else None
        self._choices = Choice(count), Choice(count), Choice(count)
        self._stretch = Stretch()
        self._entered = False
        self._budgeted = self._publisher.rooms_of_budgets

    def restore(self) -> None:
        """What the state file holds, published at once: counters as they were, no gauges, `hms_up` 0.  Raises `StoreError`."""
        ledger = self.ledger
        self._store.restore(self.name, ledger)
        now = ledger.now or 0
        expiry = round(self._config.limits.room_idle_expiry * SECOND)
        states = {state.account: state for state in self._store.accounts(self.name, now - expiry)}
        needed = [room_account(room_id) for room_id in self.rooms.scope.ids]
        needed += [room_account(room_id) for room_id in self._rooms_of_budgets()]
        needed += [tracked.account for tracked in ledger.tracked.values() if tracked.account is not None]
        for account in dict.fromkeys(needed):
            if account not in states and (state := self._store.account(self.name, account)) is not None:
                states[account] = state
        ledger.unloaded = self._store.usage(self.name, now)
        ledger.restore(states.values())
        if not self.rooms.scope.only_ids:
            self.rooms.show(states.values(), now)
        self._recall_rooms(account.id for account in states if account.kind == "room")
        self._publish(up=False)

    # -- a poll ---------------------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Asks 100ms, counts, stores and publishes.  Never raises: what goes wrong becomes `hms_up` 0 and a line in the log."""
        started = self._monotonic()
        interval = self._config.poll.interval
        fault: str | None
        try:
            patience = Patience(started + max(interval, self._config.api.timeout))
            reading = Reading(self, self._client, self._choices, patience, self._monotonic)
            reading.read(self._stretch, started + min(_CATCH_UP_SECONDS, interval / 2))
            if reading.now is not None:
                self._conclude(reading)
            fault = reading.faults[0] if reading.faults else None
        except StoreError as error:
            fault = str(error)
        except Exception:  # noqa: BLE001 (whatever it is: the next poll may succeed, and the counters must stay published)
            failure("a poll failed by a fault of the exporter", workspace=self.name)
            fault = "a fault of the exporter; see the log"
        if self.api.stopped.is_set():
            return
        self._publish(up=fault is None)
        self._tell(fault, started)

    def _conclude(self, reading: Reading) -> None:
        """Counts what has been read, makes it durable, and lets go of what has been idle for too long."""
        ledger, rooms = self.ledger, self.rooms
        self._durable = False
        self._assign()
        self._read_at = self._monotonic()
        ledger.finish(reading.fresh(), self._read_at)
        self._learnt += rooms.polled(self.rooms_in_question())
        self._commit()
        for account in rooms.idle(ledger.accounts, ledger.now or 0, self._budgeted):
            ledger.close(account)
            self._publisher.forget(account)

    def _commit(self) -> None:
        self._store.commit(self.name, self.ledger, self._learnt)
        self._learnt = []
        self._durable = True

    def _tell(self, fault: str | None, started: float) -> None:
        metrics, health = self.metrics, self.health
        metrics.duration.observe(self._monotonic() - started)
        now = time.time()
        if fault is None:
            metrics.last_success.set(now)
            health.succeeded_at = now
            if health.fault is not None:
                event("info", "polls succeed again", workspace=self.name)
        else:
            metrics.failures.inc()
            if fault != health.fault:
                event("warn", "poll failed", workspace=self.name, reason=fault)
        self._tell_of_rejections()
        self._tell_of_the_past(_progress(self.ledger))
        health.fault = fault
        health.polled_at = now
        metrics.polls.inc()

    def _tell_of_rejections(self) -> None:
        """Says how many records were rejected without a line of their own."""
        untold, self._rejected = self._rejected - _TOLD_REJECTIONS, 0
        if untold > 0:
            event("warn", "more records rejected", workspace=self.name, records=untold)

    def _tell_of_the_past(self, progress: float | None) -> None:
        """Shows how far a catch-up has come; logs its beginning, its end, and every tenth of it."""
        before = self.health.catching_up
        self.health.catching_up = progress
        self.metrics.catch_up.set(1.0 if progress is None else progress)
        if progress is not None and (before is None or int(progress * 10) > int(before * 10)):
            event("info", "reading the past", workspace=self.name, done=f"{progress:.0%}", settled=len(self.ledger.settled))
        elif progress is None and before is not None:
            event("info", "the past has been read", workspace=self.name)

    # -- what the reading tells -----------------------------------------------------------------------------------

    def begin(self, now: int) -> None:
        """The poll's first answer has come: its time is known, and with it from when things count."""
        ledger = self.ledger
        self._durable = False
        ledger.begin(now)
        if not self._entered:
            ledger.configure(self.rooms.scope.keys, _since(self._config.poll.since, now), now)
            for room_id in self.rooms.scope.ids:
                self._open(room_account(room_id))
            self._entered = True
        ledger.catch_up_gap(now, _LONGEST_GAP)

    def see(self, raw: bytes | msgspec.Raw) -> None:
        """One session's record, as it came."""
        ledger = self.ledger
        assert ledger.now is not None
        digest = hash(bytes(raw))
        if ledger.see_unchanged(digest):
            return
        if not self.rooms.scope.everything:
            # Most records of a large workspace are not ours: a glance at the room is enough to pass over them.
            room_id = glance(raw).room_id
            if room_id and self.rooms.key(room_id) is None:
                return
        session, rejections = decode_session(raw, ledger.now)
        for rejection in rejections:
            self.rejected(rejection)
        if session is None:
            ledger.unread(record_id(raw))
            return
        key = self.rooms.key(session.room_id)
        if key is not None:
            ledger.see(session, key, None if rejections else digest)

    def settle(self) -> None:
        """Adds up the ended sessions seen so far, so that reading a long past takes no more memory than a short one."""
        self._assign()
        self.ledger.settle()

    def rejected(self, rejection: Rejection) -> None:
        """Counts a rejected record, and logs it, the first time it is seen; of many at once only the first ones are logged."""
        identity = hash((rejection.kind, *rejection.identity))  # the texts themselves may be of any length
        if identity in self._rejections:
            self._rejections.move_to_end(identity)
            return
        self._rejections[identity] = None
        if len(self._rejections) > _REMEMBERED_REJECTIONS:
            self._rejections.popitem(last=False)
        self.metrics.rejected[rejection.kind].inc()
        self._rejected += 1
        if self._rejected <= _TOLD_REJECTIONS:
            event("warn", "record rejected", workspace=self.name, kind=rejection.kind, record=rejection.subject, reason=rejection.reason)

    # -- rooms ----------------------------------------------------------------------------------------------------

    def rooms_in_question(self) -> list[str]:
        """Rooms that 100ms should be asked about now."""
        shown = [account.id for account in self.ledger.accounts if account.kind == "room" and self.rooms.shown(account)]
        return self.rooms.wanted([*shown, *self.ledger.unassigned_rooms()], self.api.now())

    def learn(self, answers: Sequence[KnownRoom]) -> None:
        """Answers about rooms: counts what waited for them, and publishes it under its name."""
        for room in answers:
            self.rooms.learn(room)
        self._learnt += answers
        self._durable = False
        try:
            if self.ledger.now is not None:
                self.ledger.finish(self._assign(), self._read_at)
            self._commit()
        except StoreError as error:
            event("warn", "what was learnt about rooms could not be stored", workspace=self.name, reason=error)
        self._publish(up=self.health.fault is None and self.health.polled_at is not None)

    def _assign(self) -> list[Account]:
        """Gives the sessions of rooms that were not seen before their accounts, as far as that can be decided; which ones."""
        ledger = self.ledger
        unassigned = ledger.unassigned_rooms()
        if not unassigned:
            return []
        self._recall_rooms(room_id for room_id in unassigned if room_id not in self.rooms.known)
        placed = self.rooms.place(unassigned, ledger.accounts, ledger.now or 0)
        for room_id, account in placed.items():
            if account is not None:
                self._open(account)
            ledger.assign(room_id, account)
        return [account for account in placed.values() if account is not None]

    def _recall_rooms(self, ids: Iterable[str]) -> None:
        for room in self._store.rooms(self.name, ids).values():
            self.rooms.learn(room)

    def _open(self, account: Account) -> None:
        """An account comes into use: as it was stored, or new."""
        if account not in self.ledger.accounts:
            stored = self._store.account(self.name, account)
            if stored is not None:
                self.ledger.restore([stored])
            else:
                self.ledger.open(account)

    # -- publication ----------------------------------------------------------------------------------------------

    def _publish(self, *, up: bool) -> None:
        """Only what the store has taken is ever shown."""
        if self._durable:
            self.health.figures = self._publisher.publish(self.ledger, self.rooms, self._read_at if up else None)
        else:
            self._publisher.publish_down()

    def _rooms_of_budgets(self) -> list[str]:
        """The ids of rooms that budgets name: they stay in memory, for their usage counts though they be idle."""
        return [*self._budgeted, *self._store.rooms_named(self.name, self._budgeted)]


def _since(since: object, now: int) -> int:
    """`poll.since` as a time (µs), never later than now."""
    if isinstance(since, timedelta):
        return now - since // timedelta(microseconds=1)
    if isinstance(since, datetime):
        return min(now, micros(since.astimezone(UTC)))
    return now


def _progress(ledger: Ledger) -> float | None:
    """How much of the past has been read, from 0 to 1; `None` when there is nothing to catch up with."""
    if not ledger.catch_ups:
        return None
    now = ledger.now or 0
    whole = sum((task.until or now) - task.begin for task in ledger.catch_ups)
    done = sum(task.frontier - task.begin for task in ledger.catch_ups)
    return min(1.0, max(0.0, done / whole)) if whole > 0 else 0.0
