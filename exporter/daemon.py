"""The daemon: the schedule, the signals, reload and shutdown; and what the HTTP face shows of all that."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from types import FrameType
from typing import Literal

import schedule

from exporter import __version__, logs
from exporter.config.config import Config, ConfigError
from exporter.logs import event, failure
from exporter.polling.worker import Worker
from exporter.publish.budgets import BudgetBoard
from exporter.publish.exposition import Exposition, Page
from exporter.publish.selfmetrics import SelfMetrics
from exporter.publish.status import Status
from exporter.state.store import Store, StoreError
from exporter.web.listeners import inherited, listen_on_all
from exporter.web.routes import http_server
from exporter.web.server import HttpServer

_LONGEST_SLEEP = 0.5
"""Seconds that the loop sleeps at most: it is its own sign of life."""
_LOOP_STUCK_AFTER = 10.0
_JOIN_SECONDS = 3.0
_UPKEEP_SECONDS = 10.0

_Command = Literal["stop", "reload", "reschedule"]


class CannotRun(Exception):
    """The daemon cannot run here: the port is taken, the state file unusable or in use."""


class Cadence:
    """A steady beat on the monotonic clock, for a job of `schedule`, which goes by the wall clock and counts from a job's end."""

    def __init__(self, job: schedule.Job, seconds: float, now: float) -> None:
        self._job = job
        self._seconds = seconds
        self._due = now

    def beat(self, now: float) -> None:
        """The job has run: the next beat is a whole number of intervals after the first."""
        self._due += self._seconds
        if self._due <= now:  # the process was suspended or starved: the beats missed are not made up for
            self._due += self._seconds * ((now - self._due) // self._seconds + 1)

    def align(self, now: float) -> None:
        """Tells the job when it is due, in the wall clock's terms of this moment, so that setting that clock changes nothing."""
        self._job.next_run = datetime.now() + timedelta(seconds=self._due - now)  # noqa: DTZ005 (schedule compares with naive local time)


class Daemon:
    """Everything that runs.  `load` reads the configuration again, for a reload."""

    def __init__(self, config: Config, load: Callable[[], Config]) -> None:
        self._config = config
        self._load = load
        self._started_at = time.time()
        self._metrics = SelfMetrics(__version__, revision())
        self._exposition = Exposition(self._metrics.render)
        self._board = BudgetBoard(self._exposition, config.budgets)
        self._workers: dict[str, Worker] = {}
        self._commands: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._reloading = threading.Lock()
        self._scheduler = schedule.Scheduler()
        self._cadences: list[Cadence] = []
        self._alive_at = time.monotonic()
        self._stuck: set[str] = set()

    # -- running --------------------------------------------------------------------------------------------------

    def run(self, ready: Callable[[str], None] | None = None) -> None:
        """Runs until SIGTERM or SIGINT; `ready` is told the address once it listens.  Raises `CannotRun` or `ConfigError`."""
        self._take_signals()
        try:
            store = Store(self._config.storage.path)
        except StoreError as error:
            raise CannotRun(str(error)) from error
        try:
            self._run(store, ready)
        finally:
            for worker in self._workers.values():
                worker.stop()
            deadline = time.monotonic() + _JOIN_SECONDS
            for worker in self._workers.values():
                worker.join(max(0.0, deadline - time.monotonic()))
            store.close()

    def _run(self, store: Store, ready: Callable[[str], None] | None) -> None:
        config = self._config
        self._store = store
        try:
            for workspace in config.workspaces:
                self._workers[workspace.name] = Worker(workspace, config, store, self._exposition, self._metrics, self._board)
        except StoreError as error:
            raise CannotRun(str(error)) from error
        self._in_force()
        server = self._listen()
        try:
            if ready is not None:
                ready(server.address)
            for worker in self._workers.values():
                worker.start()
            self._schedule()
            self._loop()
        finally:
            server.stop()

    def _listen(self) -> HttpServer:
        web = self._config.web
        try:
            if web.systemd_socket:
                listeners = inherited(os.environ)
            else:
                listeners = listen_on_all([(address.host, address.port) for address in web.listen_address])
        except OSError as error:
            reason = (error.strerror or str(error)).partition(" (")[0]  # `create_server` adds the address once more
            raise CannotRun(f"cannot listen on {error.filename or 'the sockets of systemd'}: {reason}") from error
        server = http_server(self, listeners, web.config_file, web.telemetry_path)
        server.start()
        for address in server.addresses:
            event("info", "listening", address=address, version=__version__)
        return server

    def _take_signals(self) -> None:
        def take(number: int, _: FrameType | None) -> None:
            self._commands.put("reload" if number == signal.SIGHUP else "stop")

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, take)

    def _schedule(self) -> None:
        now = time.monotonic()
        self._scheduler.clear()
        self._cadences.clear()
        for seconds, work in ((self._config.poll.interval, self._poll), (_UPKEEP_SECONDS, self._watch)):
            job = self._scheduler.every(max(1, round(seconds)))
            cadence = Cadence(job, seconds, now)
            self._cadences.append(cadence)
            job.seconds.do(self._guarded, work, cadence)

    def _loop(self) -> None:
        while True:
            self._alive_at = now = time.monotonic()
            for cadence in list(self._cadences):
                cadence.align(now)
            self._scheduler.run_pending()
            for cadence in self._cadences:
                cadence.align(time.monotonic())
            idle = self._scheduler.idle_seconds
            try:
                command = self._commands.get(timeout=min(_LONGEST_SLEEP, max(0.001, idle if idle is not None else 1.0)))
            except queue.Empty:
                continue
            if command == "stop":
                event("info", "stopping")
                return
            if command == "reload":
                self.reload()
            else:
                self._schedule()

    def _guarded(self, work: Callable[[], None], cadence: Cadence) -> None:
        """A job that raises is not scheduled again by `schedule`: none does."""
        cadence.beat(time.monotonic())
        try:
            work()
        except Exception:  # noqa: BLE001 (the schedule must go on, whatever happens in one job)
            failure("a scheduled job failed")

    def _poll(self) -> None:
        for worker in list(self._workers.values()):
            worker.poll()

    def _watch(self) -> None:
        """Notices polls that are stuck, and says so once."""
        stuck = {name: reason for name, worker in list(self._workers.items()) if (reason := worker.stuck()) is not None}
        for name in stuck.keys() - self._stuck:
            event("error", "poll loop is stuck", workspace=name, reason=stuck[name])
        for name in self._stuck - stuck.keys():
            event("info", "poll loop works again", workspace=name)
        self._stuck = set(stuck)

    # -- what the HTTP face asks ----------------------------------------------------------------------------------

    @property
    def lifecycle_enabled(self) -> bool:
        """Whether `POST /-/reload` is allowed."""
        return self._config.web.enable_lifecycle

    def finished(self, accept: str, accept_encoding: str) -> Page | None:
        """The answer to a scrape, if it is ready."""
        return self._exposition.finished(accept, accept_encoding)

    def metrics(self, accept: str, accept_encoding: str, names: frozenset[str]) -> Page:
        """The answer to a scrape."""
        return self._exposition.page(accept, accept_encoding, names)

    def status(self) -> Status:
        """The state of things for the landing page."""
        workspaces = tuple(worker.status() for worker in list(self._workers.values()))
        return Status(__version__, revision().replace("unknown", ""), self._started_at, self._config.poll.interval, workspaces)

    def unhealthy(self) -> str | None:
        """Why the process does not work; `None` when it does."""
        silent = time.monotonic() - self._alive_at
        if silent > max(_LOOP_STUCK_AFTER, 3 * self._config.poll.interval):
            return f"The schedule has stood still for {silent:.0f} s."
        for worker in list(self._workers.values()):
            reason = worker.stuck()
            if reason is not None:
                return f"Workspace {worker.name}: {reason}."
        return None

    def unready(self) -> str | None:
        """Why there is nothing complete to show yet; `None` once every workspace has been polled with success."""
        waiting = [worker.name for worker in list(self._workers.values()) if worker.health.succeeded_at is None]
        return f"Not yet polled with success: {', '.join(waiting)}." if waiting else None

    def reload(self) -> str | None:
        """Reads the configuration again and applies it whole: `None`, or why it was refused and nothing has changed."""
        with self._reloading:
            try:
                self._apply(self._load())
            except (ConfigError, StoreError) as error:
                self._metrics.reload_successful.set(0)
                event("error", "configuration not reloaded", reason=error)
                return str(error)
            except Exception:  # noqa: BLE001 (a signal must not be able to end the daemon by a fault of this program)
                self._metrics.reload_successful.set(0)
                failure("configuration not reloaded")
                return "a fault of the exporter; see the log"
            self._in_force()
            event("info", "configuration reloaded")
            return None

    def _apply(self, config: Config) -> None:
        now = self._config
        if config.storage.path != now.storage.path:
            raise ConfigError("storage.path: cannot change while running; restart the exporter for that")
        if config.web.listen_address != now.web.listen_address:
            raise ConfigError("web.listen_address: cannot change while running; restart the exporter for that")
        wanted = {workspace.name: workspace for workspace in config.workspaces}
        # What may fail comes first: after it, nothing can.
        new: list[Worker] = []
        try:
            for name, workspace in wanted.items():
                if name not in self._workers:
                    new.append(Worker(workspace, config, self._store, self._exposition, self._metrics, self._board))
        except StoreError:
            for worker in new:
                worker.withdraw()
            raise
        logs.set_up(config.log.level, config.log.format)
        gone = [worker for name, worker in self._workers.items() if name not in wanted]
        workers = {name: worker for name, worker in self._workers.items() if name in wanted}
        for name, worker in workers.items():
            worker.configure(wanted[name], config)
        for worker in new:
            worker.start()
            workers[worker.name] = worker
        self._workers, self._config = workers, config
        self._board.configure(config.budgets)
        if config.poll.interval != now.poll.interval:
            self._commands.put("reschedule")
        for worker in new:
            worker.poll()
        for worker in gone:
            worker.stop()
        for worker in gone:
            worker.join(_JOIN_SECONDS)
            worker.withdraw()

    def _in_force(self) -> None:
        self._metrics.reload_successful.set(1)
        self._metrics.reload_success_time.set(time.time())


def revision() -> str:
    """The commit that this was built from, as the image's build says; `unknown` elsewhere."""
    return os.environ.get("HMS_EXPORTER_REVISION", "unknown")
