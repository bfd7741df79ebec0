"""The daemon: the schedule, signals, reload and shutdown, and the data that it provides to the HTTP face."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from types import FrameType
from typing import Literal

import schedule

from exporter import __version__, logs, notify
from exporter.config.config import Config, ConfigError, WebConfig
from exporter.logs import event, failure
from exporter.polling.fleet import Fleet
from exporter.polling.inbox import Taken
from exporter.polling.restoring import Restoring
from exporter.publish.exposition import Exposition, Page
from exporter.publish.selfmetrics import SelfMetrics
from exporter.publish.status import Status, WorkspaceStatus
from exporter.state.database import Database
from exporter.state.store import Store, StoreError
from exporter.state.succession import Candidate
from exporter.web.listeners import inherited, listen, listen_on_all
from exporter.web.routes import http_server
from exporter.web.server import HttpServer
from exporter.web.webhooks import Keys, webhook_server

_LONGEST_SLEEP = 0.5
"""Seconds that the loop sleeps at most, because each round is its sign of life."""
_LOOP_STUCK_AFTER = 10.0
_LONGEST_SILENCE = 1.0
"""Seconds that the port waits for the stored counters, because health checks want an answer within two."""
_UPKEEP_SECONDS = 10.0

_Command = Literal["stop", "reload", "reschedule", "restored", "succession"]


class CannotRun(Exception):
    """The daemon cannot run: the port is taken, or the state file is unusable or in use."""


class Cadence:
    """A steady beat on the monotonic clock for a job of `schedule`, which uses the wall clock and counts from a job's end."""

    def __init__(self, job: schedule.Job, seconds: float, now: float) -> None:
        self._job = job
        self._seconds = seconds
        self._due = now

    def beat(self, now: float) -> None:
        """The job has run: the next beat is a whole number of intervals after the first."""
        self._due += self._seconds
        if self._due <= now:  # the process was suspended or starved: missed beats are skipped
            self._due += self._seconds * ((now - self._due) // self._seconds + 1)

    def align(self, now: float) -> None:
        """Sets when the job is due, by the wall clock of this moment, so that setting that clock changes nothing."""
        self._job.next_run = datetime.now() + timedelta(seconds=self._due - now)  # noqa: DTZ005 (schedule compares with naive local time)


class Daemon:
    """The running exporter.  `load` reads the configuration again, for a reload."""

    def __init__(self, config: Config, load: Callable[[], Config]) -> None:
        self._config = config
        self._load = load
        self._started_at = time.time()
        self._metrics = SelfMetrics(__version__, revision())
        self._metrics.created = config.web.created_timestamps
        self._exposition = Exposition(self._metrics.render, may_show=self._is_active)
        self._candidate: Candidate | None = None
        """Set if the state is a database, which another exporter may hold: active, or standing by."""
        self._database: Database | None = None
        """The state in the database, while this exporter holds it."""
        self._restoring: Restoring | None = None
        self._fleet: Fleet | None = None
        """`None` while the state is still being read, or another exporter holds it."""
        self._commands: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._reloading = threading.Lock()
        self._scheduler = schedule.Scheduler()
        self._cadences: list[Cadence] = []
        self._alive_at = time.monotonic()
        self._keys: Keys | None = None
        """The secrets that webhooks must show; `None` if none are received."""

    # -- running --------------------------------------------------------------------------------------------------

    def run(self, ready: Callable[[list[str]], None] | None = None) -> None:
        """Runs until SIGTERM or SIGINT.  Raises `CannotRun` or `ConfigError`.

        Once it listens, it calls `ready` with the address of the pages, and that for webhooks if they are received.  It listens after
        the stored counters are published, so that no scrape misses them.  If a large state takes longer than the port may wait, it
        listens earlier, answers health checks, and obeys signals.
        """
        self._take_signals()
        if self._config.storage.database() is not None:
            self._candidate = Candidate(lambda: _database_url(self._config), lambda: self._commands.put("succession"))
        servers: list[HttpServer] = []
        try:
            if self._candidate is None:
                restoring = self._restore(lambda: Store(self._config.storage.path))
                if restoring.wait(_LONGEST_SILENCE):
                    self._result(restoring)
            else:
                self._candidate.start()
            servers.append(_listen(self, self._config.web))
            servers += self._listen_for_webhooks()
            if ready is not None:
                ready([server.address for server in servers])
            self._in_force()
            notify.tell("READY=1")
            self._loop()
        finally:
            notify.tell("STOPPING=1")
            for server in servers[1:]:  # answered webhooks are stored first
                server.stop()
            release = None if self._candidate is None else self._candidate.stop
            if self._restoring is not None:
                self._restoring.stop(release)
            elif release is not None:
                release()
            for server in servers[:1]:
                server.stop()

    def _restore(self, open_state: Callable[[], Store]) -> Restoring:
        done = partial(self._commands.put, "restored")
        restoring = self._restoring = Restoring(self._config, open_state, self._exposition, self._metrics, done)
        restoring.start()
        return restoring

    def _listen_for_webhooks(self) -> list[HttpServer]:
        """The port for webhooks, if they are received."""
        config = self._config.webhooks
        if config is None:
            return []
        try:
            listener = listen(config.listen_address.host, config.listen_address.port)
        except OSError as error:
            reason = (error.strerror or str(error)).partition(" (")[0]
            raise CannotRun(f"cannot listen for webhooks on {config.listen_address}: {reason}") from error
        self._keys = Keys(config)
        server = webhook_server(self, self._keys, [listener])
        server.start()
        event("info", "listening for webhooks", address=server.address)
        return [server]

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
                if self._fleet is None:  # restoring the state may take long
                    notify.tell("WATCHDOG=1")
                continue
            if command == "stop":
                event("info", "stopping")
                return
            if command == "restored":
                self._restored()
            elif command == "succession":
                self._succession()
            elif command == "reload":
                self.reload()
            elif self._fleet is not None:
                self._schedule()

    def _restored(self) -> None:
        restoring = self._restoring
        if restoring is None or not restoring.ended or self._fleet is not None:
            return  # the state has been lost meanwhile
        self._fleet = self._result(restoring)
        if self._fleet is not None:
            self._fleet.start()
            self._schedule()

    def _result(self, restoring: Restoring) -> Fleet | None:
        """The workspaces as restored; `None` if a database has failed, which is then tried again."""
        try:
            return restoring.result()
        except StoreError as error:
            if self._database is None:
                raise CannotRun(str(error)) from error
            event("error", "the state cannot be used", reason=error)
            self._database.close()
            return None

    # -- active or standing by ------------------------------------------------------------------------------------

    def _succession(self) -> None:
        """Handles a change of the lock: this exporter got it, or lost it, or must not touch the state."""
        candidate = self._candidate
        assert candidate is not None
        if isinstance(candidate.refused, ConfigError):
            raise candidate.refused
        if candidate.refused is not None:
            raise CannotRun(str(candidate.refused))
        database = candidate.database
        if database is self._database:
            return
        with self._reloading:
            if self._restoring is not None:
                self._scheduler.clear()
                self._cadences.clear()
                restoring, self._restoring, self._fleet = self._restoring, None, None
                restoring.withdraw()
            self._database = database
            if database is not None:
                self._restore(lambda: Store(database))

    def _is_active(self) -> bool:
        """Whether this exporter may publish now; checked at every scrape."""
        return self._candidate is None or self._candidate.leased()

    def _tell_active(self) -> None:
        if self._candidate is not None:
            self._metrics.active.set(int(self._is_active()))

    def _guarded(self, work: Callable[[], None], cadence: Cadence) -> None:
        """Runs a job and logs its exception, because `schedule` does not reschedule a job that raises."""
        cadence.beat(time.monotonic())
        try:
            work()
        except Exception:  # noqa: BLE001 (the schedule must continue after any error in a job)
            failure("a scheduled job failed")

    def _poll(self) -> None:
        if self._fleet is not None and self._is_active():
            self._fleet.poll()

    def _watch(self) -> None:
        if self._fleet is not None:
            self._fleet.watch()
        if self.unhealthy() is None:
            notify.tell("WATCHDOG=1")

    # -- for the HTTP face ----------------------------------------------------------------------------------------

    @property
    def lifecycle_enabled(self) -> bool:
        """Whether `POST /-/reload` is allowed."""
        return self._config.web.enable_lifecycle

    def finished(self, accept: str, accept_encoding: str) -> Page | None:
        """The answer to a scrape, if it is ready."""
        self._tell_active()
        return self._exposition.finished(accept, accept_encoding)

    def metrics(self, accept: str, accept_encoding: str, names: frozenset[str]) -> Page:
        """The answer to a scrape."""
        self._tell_active()
        return self._exposition.page(accept, accept_encoding, names)

    def status(self) -> Status:
        """The data for the landing page."""
        if self._fleet is not None:
            workspaces = self._fleet.status()
        else:
            workspaces = tuple(WorkspaceStatus(workspace.name) for workspace in self._config.workspaces)
        return Status(__version__, revision().replace("unknown", ""), self._started_at, self._config.poll.interval, workspaces)

    def unhealthy(self) -> str | None:
        """Why the process does not work; `None` when it does."""
        silent = time.monotonic() - self._alive_at
        if silent > max(_LOOP_STUCK_AFTER, 3 * self._config.poll.interval):
            return f"The schedule has stood still for {silent:.0f} s."
        stuck = {} if self._fleet is None or not self._is_active() else self._fleet.stuck()
        return next((f"Workspace {name}: {reason}." for name, reason in stuck.items()), None)

    def unready(self) -> str | None:
        """Why the exporter is not ready; `None` once every workspace has been polled successfully."""
        if self._candidate is not None and not self._is_active():
            return f"Standing by: waiting for {self._candidate.waiting_for}."
        if self._fleet is None:
            return "The state is still being read."
        waiting = [status.name for status in self._fleet.status() if status.succeeded_at is None]
        return f"Not yet polled with success: {', '.join(waiting)}." if waiting else None

    def knows(self, workspace: str) -> bool:
        """Whether webhooks may be for this workspace."""
        return any(known.name == workspace for known in self._config.workspaces)

    def take(self, workspace: str, body: bytes) -> Taken:
        """Takes a webhook."""
        fleet = self._fleet
        # A standby stores nothing; 100ms retries, and the retry may reach the active exporter.
        return "busy" if fleet is None or fleet.inbox is None or not self._is_active() else fleet.inbox.take(workspace, body)

    def reject(self, workspace: str, reason: str) -> None:
        """Counts a refused request at the port for webhooks."""
        fleet = self._fleet
        if fleet is not None and fleet.inbox is not None:
            fleet.inbox.reject(workspace, reason)

    def reload(self) -> str | None:
        """Reads the configuration again and applies it completely; returns why it was refused, with nothing changed, or `None`."""
        with self._reloading:
            try:
                self._apply(self._load())
            except (ConfigError, StoreError) as error:
                self._metrics.reload_successful.set(0)
                event("error", "configuration not reloaded", reason=error)
                return str(error)
            except Exception:  # noqa: BLE001 (a reload by a signal must never end the daemon)
                self._metrics.reload_successful.set(0)
                failure("configuration not reloaded")
                return "a fault of the exporter; see the log"
            self._in_force()
            event("info", "configuration reloaded")
            return None

    def _apply(self, config: Config) -> None:
        now = self._config
        if config.storage != now.storage:
            raise ConfigError("storage: cannot change while running; restart the exporter for that")
        config.storage.database()  # refuses a file that holds no URL
        if config.web.listen_address != now.web.listen_address:
            raise ConfigError("web.listen_address: cannot change while running; restart the exporter for that")
        there, then = (None if of.webhooks is None else of.webhooks.listen_address for of in (config, now))
        if there != then:
            raise ConfigError("webhooks.listen_address: cannot change while running; restart the exporter for that")
        if self._fleet is None and self._restoring is not None:
            raise ConfigError("the state is still being read; try again when the exporter is ready")
        keys = Keys(config.webhooks) if config.webhooks is not None else None  # reads its files before anything changes
        if self._fleet is not None:
            self._fleet.configure(config)
        if self._keys is not None and keys is not None and config.webhooks is not None:
            self._keys.configure(config.webhooks)
        logs.set_up(config.log.level, config.log.format)
        self._metrics.created = config.web.created_timestamps
        self._config = config
        if config.poll.interval != now.poll.interval:
            self._commands.put("reschedule")

    def _in_force(self) -> None:
        self._metrics.reload_successful.set(1)
        self._metrics.reload_success_time.set(time.time())


def _listen(daemon: Daemon, web: WebConfig) -> HttpServer:
    """The HTTP pages.  Raises `CannotRun`."""
    try:
        if web.systemd_socket:
            listeners = inherited(os.environ)
        else:
            listeners = listen_on_all([(address.host, address.port) for address in web.listen_address])
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (")[0]  # `create_server` repeats the address
        raise CannotRun(f"cannot listen on {error.filename or 'the sockets of systemd'}: {reason}") from error
    server = http_server(daemon, listeners, web.config_file, web.telemetry_path)
    server.start()
    for address in server.addresses:
        event("info", "listening", address=address, version=__version__)
    return server


def _database_url(config: Config) -> str:
    url = config.storage.database()
    assert url is not None
    return url


def revision() -> str:
    """The commit that this was built from, set by the image's build; otherwise `unknown`."""
    return os.environ.get("HMS_EXPORTER_REVISION", "unknown")
