"""The exporter's path from bytes to pages: everything of a poll except the network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.traffic import SECRET, Traffic, known_rooms
from exporter.config.config import Config, KeyPair, LimitsConfig, Secret, WorkspaceConfig
from exporter.hms.client import Api, Client
from exporter.hms.pace import Patience
from exporter.hms.pages import RECORDS, Envelope, Page, decode_page
from exporter.polling.poller import WorkspacePoller
from exporter.publish.exposition import Exposition
from exporter.publish.selfmetrics import SelfMetrics
from exporter.state.store import Store
from exporter.times import SECOND

INTERVAL = 30 * SECOND
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


class Rig:
    """One workspace with its state file in `folder`; `poll` reads `bodies`, which are the pages of running sessions."""

    def __init__(self, folder: Path, traffic: Traffic, now: int) -> None:
        self.now = now
        self.bodies: list[bytes] = []
        config = Config((WorkspaceConfig("bench", KeyPair(Secret("key"), Secret(SECRET))),), limits=LimitsConfig(max_rooms=1_000_000))
        self._metrics = SelfMetrics("bench", "unknown")
        self.exposition = Exposition(self._metrics.render)
        self.store = Store(folder / "state.db")
        own = self._metrics.workspace("bench", config.poll.interval)
        api = _CannedApi(self, config, own)
        self.poller = WorkspacePoller(config.workspaces[0], config, self.store, self.exposition, own, api)
        self.poller.restore()
        self.poller.learn(known_rooms(len(traffic.records), now))

    def poll(self) -> None:
        """A poll, half a minute after the one before.  Raises `AssertionError` when it does not succeed."""
        self.now += INTERVAL
        self.poller.poll()
        assert self.poller.status.reason is None, self.poller.status.reason

    def poll_and_compress(self) -> None:
        """A poll, and the first scrape after it, which compresses the changed sections."""
        self.poll()
        self.exposition.page("", "gzip")

    def render(self) -> None:
        """Renders every account and publishes, as after a poll in which everything changed."""
        self.poller._publisher.configure(self.poller._config)  # noqa: SLF001 (the cache of the last rendering must not help)
        self.poller._publish(up=True)  # noqa: SLF001 (the last step of a poll by itself)

    def pages(self) -> int:
        """Makes the four pages (both formats, plain and gzip); returns their size in bytes."""
        return sum(self.exposition.page(accept, encoding).length for accept in ("", OPENMETRICS) for encoding in ("", "gzip"))

    def series(self) -> int:
        """The number of published series, without the exporter's own."""
        *chunks, _ = self.exposition.page("", "").chunks
        return sum(line[:1] not in (b"#", b"") for chunk in chunks for line in chunk.split(b"\n"))

    def close(self) -> None:
        """Closes the state file."""
        self.store.close()


class _CannedApi(Api):
    """Answers from `Rig.bodies`. No session ever ends."""

    def __init__(self, rig: Rig, config: Config, observer: object) -> None:
        super().__init__(config.api, config.workspaces[0].credentials, observer)  # type: ignore[arg-type]  # never told of anything
        self._rig = rig

    def now(self) -> int:
        return self._rig.now

    def client(self) -> Client:
        return _CannedClient(self, self._rig)


class _CannedClient(Client):
    def __init__(self, api: Api, rig: Rig) -> None:
        self._rig = rig

    @property
    def sent(self) -> int:
        return 0

    def close(self) -> None:
        pass

    def time_at(self, sent: int) -> int:
        return self._rig.now

    def decide_on_clock(self, patience: Patience) -> None:
        pass

    def pages(
        self, route: str, parameters: dict[str, str], patience: Patience, envelope: Envelope = RECORDS, *, optional: bool = False
    ) -> Iterator[Page]:
        if parameters["active"] == "true":
            yield from map(decode_page, self._rig.bodies)
        else:
            yield Page(None)
