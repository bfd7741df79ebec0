"""One exporter in this process against a simulated 100ms on a real socket, with a clock that leaps: days pass in minutes.

Everything between the socket and the page is the real thing: the client, the poller, the state file, the exposition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from exporter.config.config import (
    ApiConfig,
    Config,
    KeyPair,
    LimitsConfig,
    PollConfig,
    RoomById,
    RoomsByName,
    Secret,
    StorageConfig,
    WorkspaceConfig,
)
from exporter.counting.rooms import KnownRoom
from exporter.hms.client import Api
from exporter.hms.errors import ApiError
from exporter.polling.names import read_rooms
from exporter.polling.poller import WorkspacePoller
from exporter.publish.exposition import Exposition
from exporter.publish.selfmetrics import SelfMetrics, WorkspaceMetrics
from exporter.simulator import SimulatedApi, real_clock
from exporter.simulator.workspace import Workspace
from exporter.state.store import Store
from exporter.times import SECOND
from soak.watcher import Watcher

NAME = "w"
"""The workspace's name."""


class LeapingClock:
    """The simulated API's clock (µs): it runs like a real one, and leaps ahead when told to."""

    def __init__(self, at: int) -> None:
        self._ahead = at - real_clock()

    def __call__(self) -> int:
        """Its time."""
        return real_clock() + self._ahead

    def leap(self, seconds: float) -> None:
        """So much time has passed."""
        self._ahead += round(seconds * SECOND)


class Stage:
    """A workspace, its API, and an exporter that polls when told to; as a context manager, up within its block.

    `rooms` are the configuration's, `None` for all.  `restart` is what a kill and a new start come to; `watcher` has seen
    every page that `poll` and `restart` published.
    """

    def __init__(
        self,
        folder: Path,
        workspace: Workspace,
        now: int,
        *,
        rooms: Sequence[RoomById | RoomsByName] | None = None,
        api: ApiConfig = ApiConfig(timeout=2.0, max_requests_per_second=1000.0, max_retries=0),  # noqa: B008 (immutable)
        interval: float = 30.0,
        limits: LimitsConfig = LimitsConfig(),  # noqa: B008 (immutable)
        seed: int = 0,
    ) -> None:
        self.workspace = workspace
        self.clock = LeapingClock(now)
        self.server = SimulatedApi([workspace], clock=self.clock, seed=seed)
        self.watcher = Watcher()
        self.poller: WorkspacePoller
        self.metrics: WorkspaceMetrics
        self.exposition: Exposition
        self.store: Store
        self._api: Api
        credentials = KeyPair(Secret(workspace.access_key), Secret(workspace.secret))
        self._workspace = WorkspaceConfig(NAME, credentials, None if rooms is None else tuple(rooms))
        self._config = Config(
            (self._workspace,), api=api, poll=PollConfig(interval=interval), storage=StorageConfig(folder / "state.db"), limits=limits
        )

    def __enter__(self) -> Stage:
        self.server.start()
        try:
            self._begin()
        except BaseException:
            self.server.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None) -> None:
        self._end()
        self.server.stop()

    @property
    def state_file(self) -> Path:
        """Where the state lies."""
        return self._config.storage.path

    def poll(self, *, names: bool = True) -> dict[str, float]:
        """One poll; with `names`, what rooms are called is asked after it.  Returns what is published then."""
        self.poller.poll()
        if names:
            self._read_names()
        return self.look()

    def look(self) -> dict[str, float]:
        """What is published now."""
        return self.watcher.look(self.page())

    def page(self) -> str:
        """The exposition, as text."""
        return b"".join(self.exposition.page("", "").chunks).decode()

    def restart(self, pause: float = 0.0) -> None:
        """Nothing is left of the exporter but its state file, for so many seconds of the simulated time."""
        self._end()
        self.clock.leap(pause)
        self._begin()
        self.look()

    def use(self, api: ApiConfig) -> None:
        """The exporter goes on with another way of asking."""
        self._api.stop()
        self._api = Api(api, self._workspace.credentials, self.metrics, self._api.clock, steady=self.clock)
        self.poller.configure(self._workspace, self._config, self._api)

    def ask_here(self, api: ApiConfig | None = None) -> ApiConfig:
        """How the simulated API is asked."""
        return replace(api if api is not None else self._config.api, base_url=self.server.base_url)

    def _begin(self) -> None:
        selfmetrics = SelfMetrics("0", "soak")
        self.metrics = selfmetrics.workspace(NAME, self._config.poll.interval)
        self.exposition = Exposition(selfmetrics.render)
        self.store = Store(self.state_file)
        self._api = Api(self.ask_here(), self._workspace.credentials, self.metrics, steady=self.clock)
        self.poller = WorkspacePoller(self._workspace, self._config, self.store, self.exposition, self.metrics, self._api)
        try:
            self.poller.restore()
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        self._api.stop()
        self.store.close()

    def _read_names(self) -> None:
        wanted = self.poller.rooms_in_question()
        if not wanted:
            return
        client = self._api.client()
        learnt: list[KnownRoom] = []
        try:
            learnt.extend(read_rooms(client, wanted, self._api.now, self.poller.rejected))
        except ApiError:
            pass  # asked for again after the next poll, as the daemon does
        finally:
            client.close()
        if learnt:
            self.poller.learn(learnt)
