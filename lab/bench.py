"""One exporter in this process against a simulated 100ms on a real socket.  The clock leaps, so that days pass in minutes.

Client, poller, state file and exposition are the real ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from prometheus_client.parser import text_string_to_metric_families

from exporter.config.config import ApiConfig, Config, KeyPair, LimitsConfig, PollConfig, RoomById, RoomsByName, Secret, WorkspaceConfig
from exporter.counting.rooms import KnownRoom
from exporter.hms.client import Api
from exporter.polling.names import NameReader
from exporter.polling.planner import TRY_FAILED_AFTER
from exporter.polling.poller import WorkspacePoller
from exporter.publish.budgets import BudgetBoard
from exporter.publish.exposition import Exposition
from exporter.publish.selfmetrics import SelfMetrics
from exporter.simulator import SimulatedApi, World, real_clock
from exporter.simulator.workspace import Workspace
from exporter.state.store import Store
from exporter.times import SECOND, micros
from lab.counters import Sums, samples, settled
from lab.watcher import Watcher

START = 1_772_438_400 * SECOND
"""The first time on a bench's clock: a Monday, 08:00 UTC."""
NAME = "w"
"""The workspace's first name."""
QUICK = ApiConfig(timeout=2.0, max_requests_per_second=1000.0, max_retries=0)
FOREVER = LimitsConfig(room_idle_expiry=1e8)

Rooms = Sequence[RoomById | RoomsByName] | None
Since = Literal["start"] | timedelta | datetime
Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and labels."""


class Clock:
    """The simulated API's clock (µs).  It stands still or, if it `runs`, follows the real clock; `leap` and `set` move it."""

    def __init__(self, at: int, *, runs: bool = False) -> None:
        self._runs = runs
        self._ahead = 0
        self.set(at)

    def __call__(self) -> int:
        """The present time."""
        return self._ahead + (real_clock() if self._runs else 0)

    def leap(self, seconds: float) -> None:
        """Moves the clock ahead."""
        self._ahead += round(seconds * SECOND)

    def set(self, at: int) -> None:
        """Sets the clock to this moment."""
        self._ahead = at - (real_clock() if self._runs else 0)


class NoNames(NameReader):
    """A reader that learns no names."""

    def read(self, wanted: Sequence[str], until: float, monotonic: Callable[[], float] = time.monotonic) -> list[KnownRoom]:
        """Reads nothing."""
        return []


class Bench:
    """An exporter's poller, its state file and its page, and the API that it polls.  As a context manager it is closed at the end.

    `rooms` are the configuration's, `None` for all.  The API's clock stands still unless it `runs`.  `watcher` sees every page
    that `poll`, `look` and `restart` return.  A counter that falls fails the test, unless the bench is `lenient`.
    """

    def __init__(
        self,
        folder: Path,
        workspace: Workspace,
        rooms: Rooms = None,
        *,
        now: int = START,
        runs: bool = False,
        since: Literal["start"] | timedelta | datetime = "start",
        limits: LimitsConfig = FOREVER,
        api: ApiConfig = QUICK,
        interval: float = 30.0,
        seed: int = 0,
        lenient: bool = False,
    ) -> None:
        self.simulated = workspace
        self.clock = Clock(now, runs=runs)
        self.uptime = 0.0
        """Seconds on the exporter's monotonic clock, in addition to real time."""
        self.state_file = folder / "state.db"
        self.watcher = Watcher()
        self.names = True
        """Whether names of rooms are read after a poll."""
        self._lenient = lenient
        self.server = SimulatedApi([workspace], clock=self.clock, seed=seed)
        self.server.start()
        pair = KeyPair(Secret(workspace.access_key), Secret(workspace.secret))
        self.workspace = WorkspaceConfig(NAME, pair, None if rooms is None else tuple(rooms))
        self.config = Config((self.workspace,), api=self.ask_here(api), poll=PollConfig(interval=interval, since=since), limits=limits)
        try:
            self.begin()
        except BaseException:
            self.server.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    @property
    def world(self) -> World:
        """The simulated workspace, which must be a scripted one."""
        assert isinstance(self.simulated, World)
        return self.simulated

    @property
    def now(self) -> int:
        """The time on the API's clock."""
        return self.clock()

    @now.setter
    def now(self, at: int) -> None:
        self.clock.set(at)

    def monotonic(self) -> float:
        """The exporter's monotonic clock."""
        return time.monotonic() + self.uptime

    # -- processes ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Starts a process, which publishes the content of the state file."""
        self.self_metrics = SelfMetrics("0", "test")
        self.exposition = Exposition(self.self_metrics.render, self.monotonic)
        self.store = Store(self.state_file)
        try:
            self._follow()
        except BaseException:
            self.end()
            raise

    def _follow(self) -> None:
        """Takes up the workspace as the state file has it."""
        self.metrics = self.self_metrics.workspace(self.workspace.name, self.config.poll.interval)
        self.api = Api(self.config.api, self.workspace.credentials, self.metrics, steady=self.clock)
        self.poller = self.make_poller()
        self.poller.restore()

    def make_poller(self) -> WorkspacePoller:
        """The process's poller."""
        self.board = BudgetBoard(self.exposition, self.config.budgets)
        return WorkspacePoller(
            self.workspace, self.config, self.store, self.exposition, self.metrics, self.api, self.board, monotonic=self.monotonic
        )

    def end(self) -> None:
        """Ends the process.  Only the state file remains."""
        self.api.stop()
        self.store.close()

    def restart(self, pause: float = 0.0) -> None:
        """Ends the process, and starts another one this many seconds later."""
        self.end()
        self.clock.leap(pause)
        self.begin()
        self.look()

    def close(self) -> None:
        """Ends the process and stops the simulated API."""
        self.end()
        self.server.stop()

    # -- its configuration ----------------------------------------------------------------------------------------

    def write(self, rooms: Rooms, limits: LimitsConfig | None = None, name: str | None = None) -> None:
        """Writes a configuration with other rooms or another name of the workspace.  The process has not read it yet."""
        self.workspace = replace(self.workspace, name=name or self.workspace.name, rooms=None if rooms is None else tuple(rooms))
        self.config = replace(self.config, workspaces=(self.workspace,), limits=limits or self.config.limits)

    def configure(self, rooms: Rooms, limits: LimitsConfig | None = None, name: str | None = None) -> None:
        """Writes a configuration and reloads.  A renamed workspace is a new one, which is added before the old one is removed."""
        before, api = self.workspace.name, self.api
        self.write(rooms, limits, name)
        if self.workspace.name == before:
            self.poller.configure(self.workspace, self.config, self.api)
            return
        try:
            self._follow()
        finally:
            api.stop()
        self.exposition.publish(before, None)
        self.self_metrics.forget(before)

    def use(self, api: ApiConfig) -> None:
        """Reloads with another `api` section."""
        self.api.stop()
        self.api = Api(api, self.workspace.credentials, self.metrics, self.api.clock, steady=self.clock)
        self.poller.configure(self.workspace, self.config, self.api)

    def ask_here(self, api: ApiConfig | None = None) -> ApiConfig:
        """The `api` section with the simulated API's address."""
        return replace(api if api is not None else self.config.api, base_url=self.server.base_url)

    # -- polls ----------------------------------------------------------------------------------------------------

    def poll(self, seconds: float = 0.0) -> dict[str, float]:
        """Polls this many seconds later; returns the published samples."""
        self.clock.leap(seconds)
        reader = self.poller._names  # noqa: SLF001 (whether names are read is decided for each poll)
        if not self.names:
            self.poller._names = NoNames(self.api.client(), self.api.now, self.poller.rejected)  # noqa: SLF001 (as above)
        self.poller.poll()
        self.poller._names = reader  # noqa: SLF001 (as above)
        return self.look()

    def look(self) -> dict[str, float]:
        """The samples that are published now."""
        found = self.watcher.look(self.page())
        assert self._lenient or not self.watcher.falls, self.watcher.falls
        return found

    def page(self) -> str:
        """The page as text."""
        return b"".join(self.exposition.page("", "").chunks).decode()

    def samples(self) -> dict[Key, float]:
        """The page's samples."""
        return _parsed(self.page())

    def value(self, name: str, **labels: str) -> float | None:
        """The sum of the samples of this name whose labels include these; `None` if there are none."""
        wanted = set(labels.items())
        lines = [line for line in self.page().splitlines(keepends=True) if line.startswith((f"{name}{{", f"{name} "))]
        values = [value for (_, found), value in _parsed("".join(lines)).items() if wanted <= set(found)]
        return sum(values) if values else None

    def up(self) -> bool:
        """Whether the last poll read everything."""
        return samples(self.page())[f'hms_up{{workspace="{self.workspace.name}"}}'] == 1

    def finish(self) -> None:
        """Polls until everything that is scripted has ended and has been read."""
        self.server.faults.clear()
        self.now = max([self.now, *(call.closed_at or 0 for call in self.world.sessions)])
        self.uptime += TRY_FAILED_AFTER  # a stretch of the past that failed is left alone for this long
        self.poll(30)
        self.poll(150)  # ended sessions are read once more, two minutes after their end
        ledger = self.poller.ledger
        for _ in range(len(ledger.tracked) + 5):  # each poll spends at least a page on this, which settles at least one session
            if not ledger.tracked and not ledger.coverage.tasks:
                break
            self.poll(30)
        assert self.up()
        assert self.poller.ledger.coverage.tasks == {}
        assert self.poller.ledger.tracked == {}

    def totals(self) -> dict[str, Sums]:
        """The settled sums, by account that has sessions."""
        accounts = self.poller.ledger.accounts.items()
        return {account.id: settled(state) for account, state in accounts if state.totals.counts.started}


def _parsed(page: str) -> dict[Key, float]:
    families = text_string_to_metric_families(page)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def since_moment(since: Since, now: int) -> int:
    """The time (µs) that `poll.since` means for a first poll at `now`."""
    if since == "start":
        return now
    if isinstance(since, timedelta):
        return now - since // timedelta(microseconds=1)
    return min(now, micros(since))
