"""A workspace's thread, which polls on command and applies configurations between two polls."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from exporter.config.config import Config, WorkspaceConfig
from exporter.hms.client import Api
from exporter.hms.clock import ApiClock
from exporter.logs import failure
from exporter.polling.hurried import HurriedPoller
from exporter.polling.hurry import Hurry
from exporter.polling.inbox import Inbox
from exporter.publish.budgets import BudgetBoard
from exporter.publish.exposition import Exposition
from exporter.publish.selfmetrics import SelfMetrics
from exporter.publish.status import WorkspaceStatus
from exporter.state.store import Store

_CALLS_OF = 20
"""The calls of this many polls are averaged, because collectors do not read with every poll."""


class Worker:
    """One workspace: its thread, and the daemon's commands to it.  The constructor restores and publishes the stored state."""

    def __init__(
        self,
        workspace: WorkspaceConfig,
        config: Config,
        store: Store,
        exposition: Exposition,
        metrics: SelfMetrics,
        board: BudgetBoard,
        inbox: Inbox | None = None,
    ) -> None:
        self.name = workspace.name
        self._exposition = exposition
        self._self_metrics = metrics
        self._metrics = metrics.workspace(workspace.name, config.poll.interval)
        self._clock = ApiClock()
        self._config = config
        self._api = self._new_api(workspace, config)
        self._hurry = Hurry()
        self._poller = HurriedPoller(workspace, config, store, exposition, self._metrics, self._api, board, hurry=self._hurry)
        if inbox is not None:
            self._poller.listen(inbox.hearing(workspace.name, lambda: self._api.now(), self.poll_soon))
        self._board = board
        self._poller.restore()
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._busy_since: float | None = None
        self._early_since: float | None = None
        self._calls: deque[int] = deque(maxlen=_CALLS_OF)
        """The calls of the last polls."""
        self._thread = threading.Thread(target=self._run, name=f"poll-{self.name}", daemon=True)

    def start(self) -> None:
        """Starts to wait for commands."""
        self._thread.start()

    def poll(self) -> None:
        """Polls now; if the last poll is still running, this one is counted as skipped."""
        if self._busy_since is not None:
            self._metrics.skipped.inc()
            return
        self._busy_since = time.monotonic()
        self._commands.put(self._poll)

    def poll_soon(self, rooms: Iterable[str]) -> None:
        """Polls these rooms as soon as an early poll is allowed; the empty id stands for an unknown room."""
        self._hurry.ask(rooms)
        self._commands.put(_nothing)

    def configure(self, workspace: WorkspaceConfig, config: Config) -> None:
        """Applies a configuration as soon as no poll is running."""
        self._config = config
        self._metrics.interval.set(config.poll.interval)
        self._commands.put(partial(self._configure, workspace, config))

    def stop(self) -> None:
        """Ends the thread; a request in progress is cut off, a transaction is not."""
        self._api.stop()
        self._commands.put(None)

    def join(self, seconds: float) -> None:
        """Waits for the thread's end, at most this long."""
        if self._thread.ident is not None:  # it was never started if the daemon could not run
            self._thread.join(seconds)

    def withdraw(self) -> None:
        """Removes the workspace's series after it was removed from the configuration."""
        self._exposition.publish(self.name, None)
        self._board.tell(self.name, None)
        self._self_metrics.forget(self.name)

    def stuck(self) -> str | None:
        """Why the poll loop does not work; `None` if it does.  A slow API is no reason, because every request has a deadline."""
        if not self._thread.is_alive():
            return "its thread has ended"
        since = min((at for at in (self._busy_since, self._early_since) if at is not None), default=None)
        patience = max(5 * self._config.poll.interval, 3 * self._config.api.timeout)
        if since is not None and time.monotonic() - max(since, self._api.heard) > patience:
            return f"its poll has shown no sign of life for more than {patience:g} s"
        return None

    @property
    def status(self) -> WorkspaceStatus:
        """The workspace's status."""
        calls = sum(self._calls) / len(self._calls) if self._calls else 0
        calls_per_hour = calls * 3600 / self._config.poll.interval
        return replace(self._poller.status, calls_per_hour=calls_per_hour)

    # -- in the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (command := self._next()) is not None:
            try:
                command()
            except Exception:  # noqa: BLE001 (the thread must survive: the next poll may succeed)
                failure("a command to a workspace failed", workspace=self.name)

    def _next(self) -> Callable[[], None] | None:
        """The next command, or an early poll if it is due."""
        try:
            return self._commands.get(timeout=self._hurry.wait())
        except queue.Empty:
            return self._early

    def _early(self) -> None:
        self._early_since = time.monotonic()
        try:
            self._poller.early()
        finally:
            self._early_since = None

    def _poll(self) -> None:
        asked = self._metrics.asked
        try:
            self._poller.poll()
        finally:
            self._busy_since = None
        self._calls.append(self._metrics.asked - asked)

    def _configure(self, workspace: WorkspaceConfig, config: Config) -> None:
        before = self._api
        self._api = self._new_api(workspace, config)
        self._poller.configure(workspace, config, self._api)
        before.stop()

    def _new_api(self, workspace: WorkspaceConfig, config: Config) -> Api:
        return Api(config.api, workspace.credentials, self._metrics, self._clock)


def _nothing() -> None:
    """Does nothing: as a command it wakes the thread, which then sees the request for an early poll."""
