"""One exporter in this process against a simulated 100ms on a real socket, at a clock that leaps: days pass in minutes.

Everything between the socket and the page is the real thing: the client, the poller, the state file, the exposition.
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
"""Where a bench's clock begins: a Monday, 08:00 UTC."""
NAME = "w"
"""The workspace's name, until it is given another."""
QUICK = ApiConfig(timeout=2.0, max_requests_per_second=1000.0, max_retries=0)
FOREVER = LimitsConfig(room_idle_expiry=1e8)

Rooms = Sequence[RoomById | RoomsByName] | None
Since = Literal["start"] | timedelta | datetime
Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and labels."""


class Clock:
    """The simulated API's clock (µs): it stands still, or runs like a real one, and leaps ahead when told to."""

    def __init__(self, at: int, *, runs: bool = False) -> None:
        self._runs = runs
        self._ahead = 0
        self.set(at)

    def __call__(self) -> int:
        """Its time."""
        return self._ahead + (real_clock() if self._runs else 0)

    def leap(self, seconds: float) -> None:
        """So much time has passed."""
        self._ahead += round(seconds * SECOND)

    def set(self, at: int) -> None:
        """It is this moment."""
        self._ahead = at - (real_clock() if self._runs else 0)


class NoNames(NameReader):
    """100ms says nothing of rooms."""

    def read(self, wanted: Sequence[str], until: float, monotonic: Callable[[], float] = time.monotonic) -> list[KnownRoom]:
        """Nothing."""
        return []


class Bench:
    """An exporter's poller, its state file and its page, and the API that it polls; as a context manager, cleared away after its block.

    `rooms` are the configuration's, `None` for all.  The API's clock stands still unless it `runs`.  `watcher` has seen every
    page that `poll`, `look` and `restart` return; a counter that falls fails them unless it may be `lenient`.
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
        """Seconds on the exporter's own steady clock, besides those that really pass."""
        self.state_file = folder / "state.db"
        self.watcher = Watcher()
        self.names = True
        """Whether the names of rooms are asked for after a poll."""
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
        """The simulated workspace, where it is a scripted one."""
        assert isinstance(self.simulated, World)
        return self.simulated

    @property
    def now(self) -> int:
        """What the API's clock says."""
        return self.clock()

    @now.setter
    def now(self, at: int) -> None:
        self.clock.set(at)

    def monotonic(self) -> float:
        """The exporter's steady clock."""
        return time.monotonic() + self.uptime

    # -- processes ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A process begins, and publishes what the state file holds."""
        self.self_metrics = SelfMetrics("0", "test")
        self.exposition = Exposition(self.self_metrics.render, self.monotonic)
        self.store = Store(self.state_file)
        try:
            self._follow()
        except BaseException:
            self.end()
            raise

    def _follow(self) -> None:
        """The workspace is taken up as the state file has it."""
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
        """It is gone: nothing is left of it but the state file."""
        self.api.stop()
        self.store.close()

    def restart(self, pause: float = 0.0) -> None:
        """A process ends, and another one begins so many seconds later."""
        self.end()
        self.clock.leap(pause)
        self.begin()
        self.look()

    def close(self) -> None:
        """All is cleared away."""
        self.end()
        self.server.stop()

    # -- its configuration ----------------------------------------------------------------------------------------

    def write(self, rooms: Rooms, limits: LimitsConfig | None = None, name: str | None = None) -> None:
        """The configuration asks for other rooms, or calls the workspace by another name; it has not been read yet."""
        self.workspace = replace(self.workspace, name=name or self.workspace.name, rooms=None if rooms is None else tuple(rooms))
        self.config = replace(self.config, workspaces=(self.workspace,), limits=limits or self.config.limits)

    def configure(self, rooms: Rooms, limits: LimitsConfig | None = None, name: str | None = None) -> None:
        """A reload with that.  Under another name a workspace is another one, which comes before the old one goes."""
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
        """A reload with another way of asking."""
        self.api.stop()
        self.api = Api(api, self.workspace.credentials, self.metrics, self.api.clock, steady=self.clock)
        self.poller.configure(self.workspace, self.config, self.api)

    def ask_here(self, api: ApiConfig | None = None) -> ApiConfig:
        """How the simulated API is asked."""
        return replace(api if api is not None else self.config.api, base_url=self.server.base_url)

    # -- polls ----------------------------------------------------------------------------------------------------

    def poll(self, seconds: float = 0.0) -> dict[str, float]:
        """A poll so many seconds later, and what is published then."""
        self.clock.leap(seconds)
        reader = self.poller._names  # noqa: SLF001 (whether names are read is decided for each poll)
        if not self.names:
            self.poller._names = NoNames(self.api.client(), self.api.now, self.poller.rejected)  # noqa: SLF001 (as above)
        self.poller.poll()
        self.poller._names = reader  # noqa: SLF001 (as above)
        return self.look()

    def look(self) -> dict[str, float]:
        """What is published now."""
        found = self.watcher.look(self.page())
        assert self._lenient or not self.watcher.falls, self.watcher.falls
        return found

    def page(self) -> str:
        """The exposition, as text."""
        return b"".join(self.exposition.page("", "").chunks).decode()

    def samples(self) -> dict[Key, float]:
        """The exposition's samples."""
        return _parsed(self.page())

    def value(self, name: str, **labels: str) -> float | None:
        """The sum of the samples of this name with these labels among theirs; `None` when there are none."""
        wanted = set(labels.items())
        lines = [line for line in self.page().splitlines(keepends=True) if line.startswith((f"{name}{{", f"{name} "))]
        values = [value for (_, found), value in _parsed("".join(lines)).items() if wanted <= set(found)]
        return sum(values) if values else None

    def up(self) -> bool:
        """Whether the last poll read everything."""
        return samples(self.page())[f'hms_up{{workspace="{self.workspace.name}"}}'] == 1

    def finish(self) -> None:
        """Everything that is scripted has ended, and has been read."""
        self.server.faults.clear()
        self.now = max([self.now, *(call.closed_at or 0 for call in self.world.sessions)])
        self.uptime += TRY_FAILED_AFTER  # so long a stretch of the past that failed is left alone
        self.poll(30)
        self.poll(150)  # ended sessions are looked at once more, two minutes after their end
        ledger = self.poller.ledger
        for _ in range(len(ledger.tracked) + 5):  # a poll spends a page on that at least, which settles one at least
            if not ledger.tracked and not ledger.coverage.tasks:
                break
            self.poll(30)
        assert self.up()
        assert self.poller.ledger.coverage.tasks == {}
        assert self.poller.ledger.tracked == {}

    def totals(self) -> dict[str, Sums]:
        """By account with sessions, what has been settled."""
        accounts = self.poller.ledger.accounts.items()
        return {account.id: settled(state) for account, state in accounts if state.totals.counts.started}


def _parsed(page: str) -> dict[Key, float]:
    families = text_string_to_metric_families(page)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def since_moment(since: Since, now: int) -> int:
    """`poll.since` as a time (µs), for a first poll at `now`."""
    if since == "start":
        return now
    if isinstance(since, timedelta):
        return now - since // timedelta(microseconds=1)
    return min(now, micros(since))
