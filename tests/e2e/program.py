"""The program as its users run it: started as a process, asked over HTTP, ended by signals; and the expected counters."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import requests

from exporter.simulator import Room, Session, SimulatedApi, World, real_clock, truth_of
from exporter.times import SECOND
from lab.counters import NAMES, RISING, unit

REPOSITORY = Path(__file__).parent.parent.parent
ACCESS_KEY, SECRET = "c4nary-access-key", "c4nary-secret-which-is-of-enough-bytes"
PRIVATE = (ACCESS_KEY, SECRET, "eyJ", "c4nary-user", "C4nary Person")
"""Texts that must appear nowhere: credentials, the beginning of a token, and the user ids and names that `busy` makes up."""

_SAMPLE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_LOG_LINE = re.compile(
    r'time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=(debug|info|warn|error) msg=("(?:[^"\\]|\\.)*"|\S+)( \w+=("(?:[^"\\]|\\.)*"|\S+))*'
)


class Series(NamedTuple):
    """A sample's identity."""

    name: str
    labels: frozenset[tuple[str, str]]


Samples = Mapping[Series, float]


def wait_until(condition: Callable[[], Any], seconds: float = 15.0, what: str = "") -> Any:
    """Waits for the first true value of `condition` and returns it; fails after this many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, what or "the condition was not met in time"
        time.sleep(0.02)


def parse(text: str) -> dict[Series, float]:
    """The samples of a page in the text format."""
    samples = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            found = _SAMPLE.fullmatch(line)
            assert found is not None, f"no sample: {line}"
            samples[Series(found[1], frozenset(_LABEL.findall(found[2] or "")))] = float(found[3])
    return samples


def series(name: str, **labels: str) -> Series:
    """The series of this name and exactly these labels."""
    return Series(name, frozenset(labels.items()))


def some(samples: Samples, name: str, **labels: str) -> dict[frozenset[tuple[str, str]], float]:
    """The samples of this name whose labels include these."""
    wanted = set(labels.items())
    return {key.labels: value for key, value in samples.items() if key.name == name and wanted <= key.labels}


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples that `some` finds."""
    return sum(some(samples, name, **labels).values())


def workspace(name: str = "default", *, access_key: str = ACCESS_KEY, secret: str = SECRET, **more: Any) -> dict[str, Any]:
    """A workspace of the configuration."""
    return {"name": name, "access_key": access_key, "secret": secret, **more}


def configure(folder: Path, source: SimulatedApi | str, /, *workspaces: dict[str, Any], file: str = "config.yaml", **sections: Any) -> Path:
    """Writes a configuration with polls each second; `sections` change it.  JSON is YAML too."""
    config: dict[str, Any] = {
        "workspaces": list(workspaces) or [workspace()],
        "api": {"base_url": source if isinstance(source, str) else source.base_url, "max_requests_per_second": 500, "timeout": "2s"},
        "poll": {"interval": "1s"},
        "storage": {"path": str(folder / "state.db")},
        "web": {"listen_address": "127.0.0.1:0"},
        "log": {"level": "debug"},
    }
    for key, section in sections.items():
        config[key] = {**config.get(key, {}), **section}
    path = folder / file
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(config, indent=1))
    scratch.replace(path)
    return path


def environment(**more: str) -> dict[str, str]:
    """A minimal environment for the program."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", **more}


def run(folder: Path, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    """Runs the program to its end."""
    command = [sys.executable, "-m", "exporter", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env=env or environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )


class Program:
    """A running process of the program; its log is in `folder`, one file for all processes there."""

    def __init__(self, folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self._log = folder / "log"
        self._begin = self._log.stat().st_size if self._log.exists() else 0
        self._output = folder / "output"
        self._http = requests.Session()
        self._http.trust_env = False
        self._address: str | None = None
        with self._log.open("ab") as log, self._output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "exporter", *arguments],
                cwd=folder,
                env=env or environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
            )

    @property
    def log(self) -> str:
        """The log of this process so far."""
        with self._log.open("rb") as log:
            log.seek(self._begin)
            return log.read().decode()

    @property
    def output(self) -> str:
        """The stdout of all processes in this folder."""
        return self._output.read_text()

    @property
    def address(self) -> str:
        """The address on which it listens; waits until it is logged."""
        if self._address is None:

            def listening() -> str | None:
                assert self.process.poll() is None, f"it has ended: {self.log}"
                found = re.search(r"msg=listening address=(\S+)", self.log)
                return found[1] if found else None

            self._address = wait_until(listening, 15)
        return self._address

    def url(self, path: str) -> str:
        """The address of a page."""
        return f"http://{self.address}{path}"

    def get(self, path: str, method: str = "GET", **headers: str) -> requests.Response:
        """An answer of the program's HTTP server."""
        return self._http.request(method, self.url(path), headers=headers, timeout=5, allow_redirects=False)

    def metrics(self) -> dict[Series, float]:
        """All samples that are published now."""
        return parse(self.get("/metrics").text)

    def value(self, name: str, **labels: str) -> float | None:
        """One sample by its name and exactly these labels (`workspace` is `default` unless given); `None` if there is none."""
        return self.metrics().get(series(name, **{"workspace": "default", **labels}))

    def polled(self, times: int = 1, name: str = "default", seconds: float = 15.0) -> None:
        """Waits until this many more polls have ended."""
        before = self.value("hms_exporter_polls_total", workspace=name) or 0
        wait_until(lambda: (self.value("hms_exporter_polls_total", workspace=name) or 0) >= before + times, seconds, "no poll ends")

    def send(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM, within: float = 5.0) -> int:
        """Asks it to stop; returns its exit code.  Fails if that takes too long."""
        self.send(number)
        return self.process.wait(within)

    def kill(self) -> None:
        """Ends it as a crash would."""
        self.process.kill()
        self.process.wait()
        self._http.close()

    def check_log(self) -> None:
        """Checks that every line is an event and that none shows private data."""
        text = self.log
        for line in text.splitlines():
            assert _LOG_LINE.fullmatch(line), f"not an event: {line!r}"
        assert not [private for private in PRIVATE if private in text]


@contextlib.contextmanager
def running(folder: Path, *arguments: str, env: Mapping[str, str] | None = None, events_only: bool = True) -> Iterator[Program]:
    """A process, ended at the end of the block if it still runs.  Its log is checked."""
    program = Program(folder, *arguments, env=env)
    try:
        yield program
    finally:
        program.kill()
    if events_only:
        program.check_log()


class Scraper:
    """Scrapes without a pause and notes every counter that falls. A successor may replace `program` at any time."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.scrapes = 0
        self.falls: list[tuple[Series, float, float]] = []
        self._highest: dict[Series, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(requests.RequestException, AssertionError):
                self._look(parse(requests.get(self.program.url("/metrics"), timeout=2).text))
            self._stop.wait(0.03)

    def _look(self, samples: Samples) -> None:
        self.scrapes += 1
        for key, value in samples.items():
            if key.name in RISING:
                if value < self._highest.get(key, 0):
                    self.falls.append((key, self._highest[key], value))
                self._highest[key] = value


# --- a script, and the counters that follow from it ---


def present() -> int:
    """Now, in whole milliseconds, so that the script's times are exact in milliseconds."""
    return real_clock() // 1000 * 1000


def busy(world: World, rooms: Sequence[Room], begin: int, end: int, seed: int = 0) -> None:
    """Scripts long and short calls in these rooms from `begin` to `end` (µs of the API's clock). All have ended by `end`."""
    chance = random.Random(seed)

    def moment(low: int, high: int) -> int:
        return chance.randint(low // 1000, high // 1000) * 1000

    for room in rooms:
        at = begin + moment(0, SECOND // 2)
        while at < end - SECOND // 10:
            over = min(end, at + moment(SECOND // 20, 2 * SECOND))
            with world.lock:
                session = world.open(room.id, at)
                for _ in range(chance.randint(0, 4)):
                    number = chance.randrange(6)
                    joined = moment(at, over)
                    peer = session.join(
                        chance.choice(["host", "guest"]), joined, user_id=f"c4nary-user-{number}", name=f"C4nary Person {number}"
                    )
                    if chance.random() < 0.8:  # otherwise the peer is a ghost
                        peer.leave(moment(joined, over))
                session.close(over)
            at = over + moment(0, SECOND)


def expected(
    world: World, now: int, rooms: Sequence[Room], *, besides: Collection[Session] = (), workspace: str = "default"
) -> dict[Series, int]:
    """The expected counters at `now`, if all sessions count except `besides`.  Times are in milliseconds."""
    truth = truth_of([session for session in world.sessions if session not in besides], now)
    found = {}

    def enter(name: str, value: int, **labels: str) -> None:
        found[series(name, workspace=workspace, **labels)] = value // 1000 if unit(name) == SECOND else value

    for room in rooms:
        labels = {"room_id": room.id, "room": room.name_at(now)}
        for name, by_room in truth.by_room.items():
            enter(name, by_room[room.id], **labels)
        for name, by_role in truth.by_role.items():
            for role in {role for of, role in truth.joins if of == room.id}:
                enter(name, by_role[room.id, role], **labels, role=role)
    return found


def counted(samples: Samples) -> dict[Series, int]:
    """The published counters of rooms, in the form of `expected`."""
    return {
        key: round(value * 1000) if unit(key.name) == SECOND else round(value)
        for key, value in samples.items()
        if key.name in NAMES and "room_id" in dict(key.labels)
    }


def comes_to(program: Program, wanted: Mapping[Series, int], seconds: float = 20.0) -> None:
    """Waits until every counter has its wanted value, and checks that it still has it a poll later."""

    def wrong() -> list[tuple[Series, int | None, int | None]]:
        found = counted(program.metrics())
        return [(key, found.get(key), wanted.get(key)) for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)]

    deadline = time.monotonic() + seconds
    while wrong() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert wrong() == []
    program.polled()
    assert wrong() == []
