"""All workspaces and their threads, started and ended as the configuration changes."""

from __future__ import annotations

import time
from collections.abc import Iterable

from exporter.config.config import Config
from exporter.logs import event
from exporter.polling.inbox import Inbox
from exporter.polling.worker import Worker
from exporter.publish.budgets import BudgetBoard
from exporter.publish.exposition import Exposition
from exporter.publish.selfmetrics import SelfMetrics
from exporter.publish.status import WorkspaceStatus
from exporter.state.store import Store, StoreError

_JOIN_SECONDS = 3.0


class Fleet:
    """The workspaces of a configuration, each with a thread of its own.

    The constructor restores and publishes the stored state, one workspace after the other.  Raises `StoreError`.
    """

    def __init__(self, config: Config, store: Store, exposition: Exposition, metrics: SelfMetrics) -> None:
        self._store = store
        self._exposition = exposition
        self._metrics = metrics
        self._board = BudgetBoard(exposition, config.budgets)
        self._stuck: set[str] = set()
        self.inbox = Inbox(store, exposition) if config.webhooks is not None else None
        """Receives webhooks; `None` when none are received."""
        if self.inbox is not None:
            self.inbox.configure(created=config.web.created_timestamps)
        self._workers = {workspace.name: self._worker(workspace.name, config) for workspace in config.workspaces}

    def _worker(self, name: str, config: Config) -> Worker:
        workspace = next(workspace for workspace in config.workspaces if workspace.name == name)
        return Worker(workspace, config, self._store, self._exposition, self._metrics, self._board, self.inbox)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the workspaces."""
        return tuple(self._workers)

    def start(self) -> None:
        """Begins to wait for polls."""
        for worker in self._workers.values():
            worker.start()
        if self.inbox is not None:
            self.inbox.start()

    def poll(self) -> None:
        """Polls every workspace now, except those whose last poll is still running."""
        for worker in list(self._workers.values()):
            worker.poll()

    def configure(self, config: Config) -> None:
        """Applies a configuration completely or not at all.  Raises `StoreError`, after which nothing has changed."""
        wanted = {workspace.name: workspace for workspace in config.workspaces}
        # The steps that may fail come first.
        new: list[Worker] = []
        try:
            for name in wanted.keys() - self._workers.keys():
                new.append(self._worker(name, config))  # noqa: PERF401 (those made before one that fails are withdrawn)
        except StoreError:
            for worker in new:
                worker.withdraw()
            raise
        gone = [worker for name, worker in self._workers.items() if name not in wanted]
        workers = {name: worker for name, worker in self._workers.items() if name in wanted}
        for name, worker in workers.items():
            worker.configure(wanted[name], config)
        for worker in new:
            worker.start()
            workers[worker.name] = worker
        self._workers = workers
        self._board.configure(config.budgets)
        if self.inbox is not None:
            self.inbox.configure(created=config.web.created_timestamps)
            for worker in gone:
                self.inbox.forget(worker.name)
        for worker in new:
            worker.poll()
        _end(gone)
        for worker in gone:
            worker.withdraw()

    def stop(self) -> None:
        """Ends all threads; requests in progress are cut off."""
        _end(self._workers.values())
        if self.inbox is not None:
            self.inbox.stop()

    def status(self) -> tuple[WorkspaceStatus, ...]:
        """The status of each workspace."""
        return tuple(worker.status for worker in list(self._workers.values()))

    def stuck(self) -> dict[str, str]:
        """The workspaces whose polls show no sign of life, with the reason."""
        return {name: reason for name, worker in list(self._workers.items()) if (reason := worker.stuck()) is not None}

    def watch(self) -> None:
        """Logs which polls are stuck, once each."""
        stuck = self.stuck()
        for name in stuck.keys() - self._stuck:
            event("error", "poll loop is stuck", workspace=name, reason=stuck[name])
        for name in self._stuck - stuck.keys():
            event("info", "poll loop works again", workspace=name)
        self._stuck = set(stuck)


def _end(workers: Iterable[Worker]) -> None:
    workers = list(workers)
    for worker in workers:
        worker.stop()
    deadline = time.monotonic() + _JOIN_SECONDS
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
