"""Polls one workspace: reads, counts, stores and publishes. Errors become `hms_up` here and nowhere else."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec

from exporter.config.config import Config, WorkspaceConfig
from exporter.counting.contribution import room_account
from exporter.counting.ledger import Ledger
from exporter.counting.poll import Poll
from exporter.counting.rooms import KnownRoom, Rooms
from exporter.counting.scope import Scope
from exporter.hms.client import Api, Client
from exporter.hms.pace import Patience
from exporter.hms.records import Rejection, decode_session, glance, record_id
from exporter.hms.steps import decode_step
from exporter.logs import event, failure
from exporter.polling.accounts import Accounts
from exporter.polling.names import NameReader
from exporter.polling.planner import Choices, Stretch
from exporter.polling.reading import Reading
from exporter.polling.telling import Telling
from exporter.publish.budgets import BudgetBoard
from exporter.publish.exposition import Exposition
from exporter.publish.publisher import Publisher
from exporter.publish.selfmetrics import WorkspaceMetrics
from exporter.publish.status import WorkspaceStatus
from exporter.state.store import Store, StoreError
from exporter.times import HOUR, SECOND, micros

_GAP_INTERVALS = 3
"""After a pause of this many intervals, and at least an hour, the sessions that ended meanwhile are read beside the polls."""
_NAME_SECONDS = 5.0
"""The minimum time that a poll spends on the names of rooms, if its interval allows it."""
_REMEMBERED_REJECTIONS = 10_000


class WorkspacePoller:
    """A workspace's state, and the polls that renew it.  Its methods are for one thread; `status` may be read by others."""

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
        self.accounts = Accounts(workspace.name, store, Rooms(Scope(workspace), config.limits))
        self.ledger: Ledger = self.accounts.ledger
        self.status = WorkspaceStatus(workspace.name)
        self.metrics = metrics
        self._publisher = Publisher(
            workspace.name, config, exposition, board if board is not None else BudgetBoard(exposition, config.budgets), monotonic
        )
        self._monotonic = monotonic
        self._telling = Telling(workspace.name, monotonic)
        self._rejections: OrderedDict[int, None] = OrderedDict()
        self._poll: Poll | None = None
        """The last poll: room names that arrive later still change its accounts."""
        self._read_at = monotonic()
        """When the last poll finished reading (monotonic seconds)."""
        self._durable = True
        """Whether the store holds everything in the ledger: only then it may be published."""
        self._use(config, api)

    @property
    def rooms(self) -> Rooms:
        """The workspace's rooms, under the current configuration."""
        return self.accounts.rooms

    # -- its configuration ----------------------------------------------------------------------------------------

    def configure(self, workspace: WorkspaceConfig, config: Config, api: Api) -> None:
        """Applies a configuration between two polls; counters keep their values."""
        self._client.close()
        self.accounts.rooms = self.rooms.rescoped(Scope(workspace), config.limits)
        self._publisher.configure(config)
        self._use(config, api)
        try:
            self.accounts.load()
        except StoreError as error:
            event("warn", "accounts could not be read", workspace=self.name, reason=error)
        self.rooms.show(self.ledger.accounts.values(), self.ledger.now or 0)
        self._publish(up=self.status.state == "ok")

    def _use(self, config: Config, api: Api) -> None:
        self._config = config
        self.accounts.kept = self._publisher.rooms_of_budgets
        self.api = api
        self.ledger.leave_out(config.bots.roles)
        self._client = api.client()
        self._names = NameReader(self._client, api.now, self.rejected)
        count = len(self.rooms.scope.ids) if self.rooms.scope.only_ids else None
        self._choices = Choices(count, config.api.page_size)
        self._stretch = Stretch()
        self._entered = False

    def restore(self) -> None:
        """Publishes the stored state at once: counters as they were, no gauges, `hms_up` 0.  Raises `StoreError`."""
        self.accounts.restore()
        self._publish(up=False)

    # -- a poll ---------------------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Asks 100ms, counts, stores and publishes.  Never raises: an error becomes `hms_up` 0 and a line in the log.

        The present is published before the names of rooms and the past are read.
        """
        started = self._monotonic()
        reading = self._poll_present(started, self._client)
        if reading is None:
            return
        until = started + self._config.poll.interval / 2
        fault = self._guarded(lambda: self._read_beside(reading, until))
        if fault is not None and not self.api.stopped.is_set():
            self._tell(fault, started)

    def _poll_present(self, started: float, client: Client) -> Reading | None:
        """Reads and publishes the present; returns `None` if the exporter is stopping."""
        patience = Patience(started + max(self._config.poll.interval, self._config.api.timeout))
        reading = Reading(client, self.rooms, self._choices, patience, self._monotonic)
        fault = self._guarded(lambda: self._read_present(reading)) or (reading.faults[0] if reading.faults else None)
        if self.api.stopped.is_set():
            return None
        self._present_read(fault)
        self._publish(up=fault is None)
        self._tell(fault, started)
        return reading

    def _present_read(self, fault: str | None) -> None:
        """A poll of everything has read the present, completely or with this fault."""

    def _pressed(self) -> bool:
        """Whether an early poll should interrupt what is read beside the polls."""
        return False

    def _give_way(self) -> None:
        """Lets the early poll run."""

    def _guarded(self, work: Callable[[], None]) -> str | None:
        """Runs `work`; returns its error in words, if any."""
        try:
            work()
        except StoreError as error:
            return str(error)
        except Exception:  # noqa: BLE001 (after any error the next poll may succeed, and the counters must stay published)
            failure("a poll failed by a fault of the exporter", workspace=self.name)
            return "a fault of the exporter; see the log"
        return None

    def _read_present(self, reading: Reading) -> None:
        now = reading.begin()
        if now is None:
            return
        poll = self._begin(now)
        for raw in reading.present(poll):
            self._see(poll, raw)
        self.accounts.assign(poll)
        self._read_at = self._monotonic()
        poll.finish(reading.fresh(poll), self._read_at)
        self.accounts.name_polled()
        self._end(poll)

    def _begin(self, now: int) -> Poll:
        """The poll's first answer gives the API's time, from which the poll and its coverage begin."""
        self._durable = False
        longest_gap = max(HOUR, round(_GAP_INTERVALS * self._config.poll.interval * SECOND))
        poll = self._poll = Poll(self.ledger, now, longest_gap)
        if not self._entered:
            self._since_in_force = self._config.poll.since
            self.ledger.coverage.configure(self.rooms.scope, self._since(now), now, self.accounts.told_name_of)
            for room_id in self.rooms.scope.ids:
                self.accounts.open(room_account(room_id))
            self._entered = True
        return poll

    def _see(self, poll: Poll, raw: bytes | msgspec.Raw, *, may_run: bool = True) -> None:
        """Counts one session's record, as received; `may_run` says whether it may be a running one."""
        ledger = self.ledger
        digest = hash(bytes(raw))
        if poll.see_unchanged(digest):
            return
        if not self.rooms.scope.everything:
            # In a large workspace most records belong to other rooms, and are skipped without decoding them fully.
            head = glance(raw)
            if head.room_id and head.id not in ledger.tracked and self.rooms.covers(head.room_id) is False:
                return
        step = decode_step(raw, poll.now, poll.known) if may_run else None
        if step is not None:
            room_id = step.session.room_id
            if step.session.id in ledger.tracked or self.rooms.covers(room_id) is not False:
                poll.see_step(step, self.accounts.told_name_of(room_id), digest)
            return
        session, rejections = decode_session(raw, poll.now)
        for rejection in rejections:
            self.rejected(rejection)
        if session is None:
            poll.unread(record_id(raw))
        elif session.id in ledger.tracked or self.rooms.covers(session.room_id) is not False:
            poll.see(session, self.accounts.told_name_of(session.room_id), None if rejections else digest)

    def _end(self, poll: Poll) -> None:
        """Stores the poll, and closes accounts that have been idle for too long."""
        self.ledger.forget(self.accounts.told_name_of)
        self._commit()
        self.rooms.end_poll(self.ledger.accounts, poll.now)
        for account in self.accounts.close_idle(poll.now):
            self._publisher.forget(account)

    def _commit(self) -> None:
        self.accounts.commit()
        self._durable = True

    # -- beside it ------------------------------------------------------------------------------------------------

    def _read_beside(self, reading: Reading, until: float) -> None:
        """Reads the names of rooms and then the past, as far as the time allows; both can wait until the present is published."""
        if self._poll is None or reading.now is None or reading.faults:
            return
        self._read_names(until)
        self._read_past(self._poll, reading, until)

    def _read_names(self, until: float) -> None:
        now = self._monotonic()
        answers = self._names.read(self.rooms_in_question(), min(until, now + max(_NAME_SECONDS, (until - now) / 2)), self._until_pressed)
        if answers:
            self.learn(answers)

    def _until_pressed(self) -> float:
        """The monotonic clock, or infinity when an early poll is waiting."""
        return float("inf") if self._pressed() else self._monotonic()

    def _read_past(self, poll: Poll, reading: Reading, until: float) -> None:
        """Reads the past; stores each stretch when it is read, and publishes the result at the end.

        An early poll may come in between; the records after it are counted in that poll.
        """
        read = False
        while self._monotonic() < until and (records := reading.past(poll, self._stretch)) is not None:
            read = True
            self._durable = False
            for raw in records:
                if self._pressed():
                    self._give_way()
                    poll = self._poll or poll
                self._durable = False
                self._see(poll, raw, may_run=False)
            self.accounts.assign(poll)
            poll.settle()
            self.ledger.forget(self.accounts.told_name_of)
            self._commit()
            if reading.faults_end_it or self.api.stopped.is_set():
                break
        if read and not self.api.stopped.is_set():
            poll.finish((), self._read_at)
            self._commit()
            self._publish(up=self.status.reason is None)
        self._tell_of_the_past()

    # -- rooms ----------------------------------------------------------------------------------------------------

    def rooms_in_question(self) -> list[str]:
        """Rooms to ask 100ms about now."""
        return self.accounts.in_question(self.api.now())

    def learn(self, answers: Sequence[KnownRoom]) -> None:
        """Takes answers about rooms: counts the sessions that waited for them, and publishes the series under their names."""
        poll, now = self._poll, self.ledger.now
        self.accounts.learn(answers, None if poll is None or now is None else self._since(now))
        if poll is None:
            return
        self._durable = False
        try:
            poll.finish(self.accounts.assign(poll), self._read_at)
            self._commit()
        except StoreError as error:
            event("warn", "what was learnt about rooms could not be stored", workspace=self.name, reason=error)
        self._publish(up=self.status.state == "ok")

    def _since(self, now: int) -> int:
        """`poll.since` as a time (µs), never later than now, from the configuration with which the last poll began."""
        since = self._since_in_force
        if isinstance(since, timedelta):
            return now - since // timedelta(microseconds=1)
        if isinstance(since, datetime):
            return min(now, micros(since.astimezone(UTC)))
        return now

    # -- telling --------------------------------------------------------------------------------------------------

    def rejected(self, rejection: Rejection) -> None:
        """Counts and logs a rejected record the first time it is seen."""
        identity = hash((rejection.kind, *rejection.identity))  # the texts themselves may be long
        if identity in self._rejections:
            self._rejections.move_to_end(identity)
            return
        self._rejections[identity] = None
        if len(self._rejections) > _REMEMBERED_REJECTIONS:
            self._rejections.popitem(last=False)
        self.metrics.rejected[rejection.kind].inc()
        self._telling.rejected(rejection)

    def _publish(self, *, up: bool) -> None:
        """Publishes the series, but only what has been stored."""
        if self._durable:
            self.status = self._publisher.publish(self.ledger, self.rooms, self._read_at if up else None, self.status)
        else:
            self._publisher.publish_down()

    def _tell(self, fault: str | None, started: float) -> None:
        """Reports the result of the poll in the exporter's own metrics, on the landing page and in the log."""
        metrics, now = self.metrics, time.time()
        metrics.duration.observe(self._monotonic() - started)
        metrics.polls.inc()
        if fault is None:
            metrics.last_success.set(now)
        else:
            metrics.failures.inc()
        succeeded_at = now if fault is None else self.status.succeeded_at
        self.status = replace(
            self.status, state="ok" if fault is None else "failing", polled_at=now, succeeded_at=succeeded_at, reason=fault
        )
        self._telling.poll_ended(fault)
        self._tell_of_the_past()

    def _tell_of_the_past(self) -> None:
        progress = self.ledger.coverage.progress(self.ledger.now or 0)
        self.metrics.catch_up.set(1.0 if progress is None else progress)
        self.status = replace(self.status, catching_up=progress)
        self._telling.past(progress)
