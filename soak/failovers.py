"""A pair of exporters on one PostgreSQL, under load: the time of each take-over, and whether anything is lost or doubled."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from exporter.simulator import SimulatedApi, World, real_clock
from exporter.times import SECOND, rfc3339
from lab.postgres import Line, Server, server
from lab.watcher import Watcher
from scripts import stack
from soak.account import Findings
from soak.kills import script, until_all_is_counted
from soak.process import Exporter, free_port

KINDS = ("kill", "pause", "restart", "stall", "cut")
"""The active one is killed or paused, the database crashes and restarts, the connection to the database stalls or is cut."""
ONE_INSTANCE = [{"source_labels": ["workspace"], "regex": ".+", "target_label": "instance", "replacement": "hms-exporter"}]
"""The relabelling of docs/scaling.md that keeps one series through a take-over."""

PROMISED = 15.0
"""Seconds within which one of the two must publish again."""

_ROOMS, _PEERS = 60, 15
"""The number of rooms with a call that lasts until the end, and the number of peers in each."""
_LONGEST_STAY = 20
"""The stay, in seconds, of peers that come and go."""
_SCRAPE_EVERY = 0.05
_SCRAPE_TIMEOUT = 2.0
"""Seconds: far shorter than a lease, so that a page cannot be an old one."""
_TURN = 2.0
"""The shortest time, in seconds, that an exporter stays active: the next event comes later than this."""
_LONGEST = 60.0
_COUNTERS = ("sessions_started", "sessions_ended", "session_seconds", "peers_joined", "peers_left", "peer_seconds")


class TakeOver(NamedTuple):
    """An event, and the seconds until a scrape of the exporter that took over showed workspaces."""

    kind: str
    seconds: float


class Failovers(NamedTuple):
    """The result of a campaign."""

    take_overs: list[TakeOver]
    sessions: int
    scrapes: int
    both_published: int
    both_polled: int
    resets: float | None
    """Counter resets that a real Prometheus saw; `None` if it is not installed."""
    falls: list[str]
    findings: Findings
    lasted: float


def campaign(folder: Path, events: int, seed: int = 1, tell: Callable[[str], None] = lambda line: None) -> Failovers:
    """Runs this many events on a pair, each of `KINDS` in turn, then compares the counters with the truth."""
    rng = random.Random(seed)  # noqa: S311 (a repeatable campaign)
    began = time.monotonic()
    world = World("soak-key", "soak-secret-of-thirty-two-bytes-and-more")
    with ExitStack() as until_end:
        load = Load(world, rng)
        pair = until_end.enter_context(_pair(folder, world, load.began))
        until_end.enter_context(load)
        prometheus = until_end.enter_context(_prometheus(folder, [one.port for one in pair.exporters]))
        pair.scraper.await_active()
        take_overs = []
        for number in range(events):
            time.sleep(rng.uniform(_TURN + 0.5, _TURN + 2.5))
            found = pair.suffer(KINDS[number % len(KINDS)])
            take_overs.append(found)
            tell(f"{number + 1}. {found.kind:8}{found.seconds:6.2f} s")
        load.end()
        findings = until_all_is_counted(world, load.rooms, pair.scraper)
        resets = None if prometheus is None else _resets(prometheus, time.monotonic() - began)
        return Failovers(
            take_overs, len(world.sessions), pair.scraper.watcher.pages, pair.scraper.both, pair.both_polled(), resets,
            pair.scraper.watcher.falls, findings, time.monotonic() - began,
        )  # fmt: skip


def too_soon(moments: Iterable[tuple[float, int]]) -> int:
    """The number of changes that follow too soon on another change.  With two active exporters, activity alternates between them."""
    count, last, since = 0, None, float("-inf")
    for at, who in sorted(moments):
        if last is not None and who != last:
            count += at - since < _TURN
            since = at
        last = who
    return count


class Load:
    """Calls that come and go in real time within the block, beside others that last until `end`."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.began = real_clock()
        self._world = world
        self._rng = rng
        self.rooms = [world.room(name=f"room-{index}", created_at=self.began - SECOND).id for index in range(_ROOMS + 5)]
        self._sessions = [world.open(room, self.began) for room in self.rooms[5:]]
        for session in self._sessions:
            for _ in range(_PEERS):
                session.join(rng.choice(("host", "guest")), self.began + rng.randrange(SECOND))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def end(self) -> None:
        """Starts no new calls, and ends the running ones a little later."""
        self.__exit__(None, None, None)
        over = real_clock() + (_LONGEST_STAY + 2) * SECOND
        with self._world.lock:
            for session in self._sessions:
                session.close(over + self._rng.randrange(SECOND))

    def _run(self) -> None:
        while not self._ended.wait(1.0):
            script(self._world, self.rooms[:5], self._rng)
            with self._world.lock:
                for session in self._rng.sample(self._sessions, 10):
                    joined = real_clock() + self._rng.randrange(SECOND)
                    session.join(self._rng.choice(("host", "guest")), joined).leave(
                        joined + self._rng.randrange(SECOND, _LONGEST_STAY * SECOND)
                    )


class Pair:
    """Two exporters, each with its own connection to the database and its own simulated 100ms over the same world."""

    def __init__(self, exporters: Sequence[Exporter], lines: Sequence[Line], apis: Sequence[SimulatedApi], database: Server) -> None:
        self.exporters = exporters
        self.scraper = PairScraper(exporters)
        self._lines = lines
        self._apis = apis
        self._database = database

    def suffer(self, kind: str) -> TakeOver:
        """Makes this event happen to the active one; returns when there is an active one and a standby again."""
        active = self.scraper.await_active()
        victim, line = self.exporters[active], self._lines[active]
        began = time.monotonic()
        match kind:
            case "kill":
                victim.kill()
            case "pause":
                victim.signal(signal.SIGSTOP)
            case "restart":
                self._database.kill()
                self._database.start()
            case "stall":
                line.stalled.set()
            case "cut":
                line.cut()
        try:
            seconds = self.scraper.await_beginning(began) - began
        finally:
            match kind:
                case "kill":
                    victim.start()
                case "pause":
                    victim.signal(signal.SIGCONT)
                case "stall":
                    line.stalled.clear()
        self.scraper.await_standby()
        return TakeOver(kind, seconds)

    def both_polled(self) -> int:
        """The number of times that both polled 100ms at once."""
        return too_soon((request.at / SECOND, who) for who, api in enumerate(self._apis) for request in api.requests)


class PairScraper:
    """Scrapes both without a pause, in a thread each.  `watcher` sees every page that shows workspaces."""

    def __init__(self, exporters: Sequence[Exporter]) -> None:
        self.watcher = Watcher()
        self.latest: dict[str, float] = {}
        """The samples of the last page that showed workspaces."""
        self._exporters = exporters
        self._shown: list[tuple[float, int]] = []
        self._begun: list[tuple[float, int]] = []
        """The times at which each began to show workspaces."""
        self._showing: list[bool | None] = [None, None]
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(who,), daemon=True) for who in range(len(exporters))]

    def __enter__(self) -> PairScraper:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    @property
    def both(self) -> int:
        """The number of times that both showed workspaces at once."""
        with self._lock:
            return too_soon(self._shown)

    def await_active(self) -> int:
        """Waits for the exporter that shows workspaces; returns its index."""
        _wait(lambda: sum(showing is True for showing in self._showing) == 1, "one active exporter")
        return self._showing.index(True)

    def await_standby(self) -> None:
        """Waits until both answer and one of them is a standby."""
        self._showing = [None, None]
        _wait(lambda: sorted(map(str, self._showing)) == ["False", "True"], "an active exporter and one that stands by")

    def await_beginning(self, after: float) -> float:
        """Waits until an exporter begins to show workspaces after that moment; returns the time."""
        found: list[float] = []

        def begun() -> bool:
            with self._lock:
                found.extend(at for at, _ in self._begun if at > after)
            return bool(found)

        _wait(begun, "an exporter that takes over")
        return found[0]

    def _run(self, who: int) -> None:
        while not self._ended.wait(_SCRAPE_EVERY):
            asked = time.monotonic()
            page = self._exporters[who].scrape(_SCRAPE_TIMEOUT)
            if page is None:
                continue
            shows = 'workspace="' in page
            with self._lock:
                if shows:
                    self._shown.append((asked, who))
                    self.latest = self.watcher.look(page)
                    if self._showing[who] is False:
                        self._begun.append((time.monotonic(), who))
                self._showing[who] = shows


@contextmanager
def _pair(folder: Path, world: World, since: int) -> Iterator[Pair]:
    with ExitStack() as until_end:
        database = until_end.enter_context(server())
        database.database("state")
        exporters: list[Exporter] = []
        lines: list[Line] = []
        apis: list[SimulatedApi] = []
        for name in ("a", "b"):
            home = folder / name
            home.mkdir()
            line = Line(database.port)
            until_end.callback(line.close)
            api = until_end.enter_context(SimulatedApi([world]))
            url, poll = database.url("state", line.port), f"{{interval: 1s, since: '{rfc3339(since, 3)}'}}"
            exporter = Exporter(home, api.base_url, world.access_key, world.secret, poll=poll, database=url)
            until_end.callback(exporter.kill)
            exporter.start()
            exporters.append(exporter)
            lines.append(line)
            apis.append(api)
        pair = Pair(exporters, lines, apis, database)
        until_end.enter_context(pair.scraper)
        yield pair


@contextmanager
def _prometheus(folder: Path, ports: Sequence[int]) -> Iterator[str | None]:
    """The address of a Prometheus that scrapes both each second; `None` if it is not installed."""
    executable = stack.program("prometheus")
    if executable is None:
        yield None
        return
    address = f"127.0.0.1:{free_port()}"
    targets = [f"127.0.0.1:{port}" for port in ports]
    job = {"job_name": "hms-exporter", "static_configs": [{"targets": targets}], "metric_relabel_configs": ONE_INSTANCE}
    settings = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]}
    with stack.Processes(folder) as processes:
        processes.start("prometheus", stack.prometheus_command(executable, folder, address, settings))
        processes.wait("prometheus", f"http://{address}/-/ready")
        yield address


def _resets(prometheus: str, seconds: float) -> float:
    """The resets of room counters that Prometheus saw within this many seconds."""
    found = 0.0
    for name in _COUNTERS:
        query = urllib.parse.quote(f"sum(resets(hms_{name}_total[{seconds:.0f}s]))")
        with urllib.request.urlopen(f"http://{prometheus}/api/v1/query?query={query}", timeout=30) as answer:
            [result] = json.load(answer)["data"]["result"]
        found += float(result["value"][1])
    return found


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _LONGEST
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {_LONGEST:.0f} s")
        time.sleep(0.01)
