"""Compares two checkouts in one run: the CPU of a scrape and of a poll, and the latency of a scrape while a poll computes.

`HMS_BENCH_BESIDE` names the folder of the other checkout.  Without it only this checkout is measured.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from bench.report import Row, medians
from bench.servers import Scraper, Served
from bench.traffic import PLAIN_SERIES, SERIES

BESIDE = "HMS_BENCH_BESIDE"
_HERE = Path(__file__).resolve().parent


class Kind(NamedTuple):
    """A request and its goals: at most these shares of the other checkout's figures."""

    name: str
    path: str
    encoding: str
    cpu: float | None = None
    latency: float | None = None


_LARGE = (Kind("gzip", "/metrics", "gzip", 0.7, 0.5), Kind("plain", "/metrics", "identity"))
_SMALL = (
    Kind("health", "/-/healthy", "identity", 0.5),
    Kind("plain", "/metrics", "identity", 0.5),
    Kind("gzip", "/metrics", "gzip"),
)


def run(*, quick: bool) -> list[Row]:
    """The CPU of large and small pages and of polls, then the latency during polls."""
    sessions, polls, times = (20, 1, 5) if quick else (100_000 // SERIES, 5, 50)
    folder = os.environ.get(BESIDE)
    rows: list[Row] = []
    for of, kinds in ((sessions, _LARGE), (1, _SMALL)):
        with ExitStack() as servers:
            ours = servers.enter_context(Face(_HERE.parent, of))
            theirs = servers.enter_context(Face(Path(folder), of)) if folder else None
            rows += [_cpu(kind, of, ours, theirs, times) for kind in kinds]
            if of == sessions and not quick:
                rows.append(_beside_start_http_server(ours, of))
    with ExitStack() as servers:
        of = 20 if quick else 2000
        ours = servers.enter_context(Face(_HERE.parent, of))
        theirs = servers.enter_context(Face(Path(folder), of)) if folder else None
        for kind in (_LARGE[0], _SMALL[0]):
            found = _during(kind, ours, theirs, polls)
            row = _row(f"while a poll computes ({kind.path}, {kind.name}): latency", f"{of:,} sessions", found)
            rows.append(_judged(row, kind.latency))
        for share in (1.0, 0.1):
            runs = {name: _poll(face, share) for name, face in (("ours", ours), ("theirs", theirs)) if face is not None}
            row = _row(f"a poll in which {share:.0%} of the sessions changed: CPU", f"{of:,} sessions", medians(runs, 1 if quick else 9))
            rows.append(_judged(row, None if quick else 1.03))
    return rows


class Face:
    """A checkout's HTTP server in a process of its own, within a `with` block."""

    def __init__(self, folder: Path, sessions: int) -> None:
        command = [sys.executable, str(_HERE / "face_server.py"), str(sessions)]
        self._process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 (our own program)
        self.port = int(self._read())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()

    def ask(self, question: str) -> float:
        """The answer of `face_server` to a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{question}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> float:
        assert self._process.stdout is not None
        return float(self._process.stdout.readline())


def _cpu(kind: Kind, sessions: int, ours: Face, theirs: Face | None, times: int) -> Row:
    runs = {"ours": _costs(ours, kind, times)}
    if theirs is not None:
        runs["theirs"] = _costs(theirs, kind, times)
    row = _row(f"beside another checkout ({kind.path}, {kind.name}): CPU", f"{sessions * SERIES:,} series", medians(runs, 5))
    return _judged(row, kind.cpu)


def _costs(face: Face, kind: Kind, times: int) -> Callable[[], float]:
    scraper = Scraper(face.port, encoding=kind.encoding, path=kind.path)
    scraper.scrape()

    def measure() -> float:
        before = face.ask("cpu")
        for _ in range(times):
            scraper.scrape()
        return (face.ask("cpu") - before) / times

    return measure


def _poll(face: Face, share: float) -> Callable[[], float]:
    def measure() -> float:
        face.ask(f"change {share}")
        return face.ask("spend")

    return measure


def _beside_start_http_server(ours: Face, sessions: int) -> Row:
    from bench.scrape import plain_server

    with Served(plain_server, sessions * SERIES // PLAIN_SERIES) as plain:
        scraper = Scraper(plain.port)

        def theirs() -> float:
            before = plain.cpu()
            scraper.scrape()
            return plain.cpu() - before

        found = medians({"ours": _costs(ours, _LARGE[1], 20), "theirs": theirs}, 5)
    row = Row("a plain scrape: CPU", f"{sessions * SERIES:,} series", "s", found["ours"], "start_http_server", found["theirs"])
    return row.judged("1/200 of the CPU", met=found["ours"] * 200 <= found["theirs"])


def _during(kind: Kind, ours: Face, theirs: Face | None, polls: int) -> dict[str, float]:
    """The median latencies during polls in which every session has changed; the checkouts take turns."""
    faces = {"ours": ours} | ({"theirs": theirs} if theirs is not None else {})
    found: dict[str, list[float]] = {name: [] for name in faces}
    for _ in range(polls):
        for name, face in faces.items():
            found[name] += _in_one_poll(kind, face)
    return {name: statistics.median(values) for name, values in found.items()}


def _in_one_poll(kind: Kind, face: Face) -> list[float]:
    scraper = Scraper(face.port, encoding=kind.encoding, path=kind.path)
    scraper.scrape()
    face.ask("change 1")
    face.ask("poll")
    waits: list[float] = []
    while not waits or face.ask("busy"):
        began = time.perf_counter()
        scraper.scrape()
        waits.append(time.perf_counter() - began)
        time.sleep(0.005)  # a pause between scrapes, so that they do not use all of the CPU
    scraper.close()
    return waits


def _row(work: str, size: str, found: dict[str, float]) -> Row:
    theirs = found.get("theirs")
    return Row(work, size, "s", found["ours"], "" if theirs is None else "the other checkout", theirs)


def _judged(row: Row, share: float | None) -> Row:
    if row.theirs is None or share is None:
        return row
    return row.judged(f"at most {share} of the other's", met=row.ours <= share * row.theirs)
