"""The time of a start: `--help`, the first complete page from a warm state file, and a start with a huge one."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.exporters import Exporter, total
from bench.report import Row, medians
from bench.servers import free_port
from bench.traffic import SECRET, known_rooms, room_id
from exporter.config.config import KeyPair, Secret, WorkspaceConfig
from exporter.counting.contribution import room_account
from exporter.counting.ledger import Ledger
from exporter.counting.poll import Poll
from exporter.counting.scope import Scope
from exporter.hms.records import Session, Stay
from exporter.state.store import Store
from exporter.times import HOUR, SECOND

_GOAL = 20_000
_HUGE = 200_000
_ROLES = ("host", "guest", "viewer")


def run(*, quick: bool) -> list[Row]:
    """Wall-clock times, which a person waits for, and CPU times, which other work on the machine does not affect."""
    rows, used, memory = [_help()], [], []
    for rooms in (100, 200, 500) if quick else (2_000, 7_000, _GOAL):
        with tempfile.TemporaryDirectory() as folder:
            warm_state(Path(folder) / "state.db", rooms)
            seconds, cpus, resident, series = zip(*(_first_page(Path(folder), rooms) for _ in range(1 if quick else 5)), strict=True)
        taken, size = statistics.median(seconds), f"{rooms:,} rooms, {series[0]:,} series"
        row = Row("first complete exposition, warm", size, "s", taken, per=rooms)
        rows.append(row.judged("2 s", met=taken <= 2, at=rooms == _GOAL))
        used.append(Row("first complete exposition, warm: CPU", size, "s", statistics.median(cpus), per=rooms))
        memory.append(Row("first complete exposition, warm: memory", size, "MiB", max(resident), per=rooms))
    return rows + used + memory + _huge(1_000 if quick else _HUGE)


def _huge(rooms: int) -> list[Row]:
    """The times of the first health answer and of the end after SIGTERM, while a huge state is restored."""
    size = f"{rooms:,} rooms"
    with tempfile.TemporaryDirectory() as folder:
        warm_state(Path(folder) / "state.db", rooms)
        with _without_api(Path(folder), rooms) as exporter:
            healthy = exporter.healthy()
            stopped = exporter.stop()
        with _without_api(Path(folder), rooms) as exporter:
            exporter.wait_for("hms_sessions_ended_total", rooms)
            restored = time.perf_counter() - exporter.started
    return [
        Row("/-/healthy answers", size, "s", healthy).judged("2 s", met=healthy <= 2, at=rooms == _HUGE),
        Row("SIGTERM ends it while it restores", size, "s", stopped).judged("5 s", met=stopped <= 5, at=rooms == _HUGE),
        Row("everything is restored and published", size, "s", restored, per=rooms),
    ]


def _help() -> Row:
    found = medians({"ours": _timed("-m", "exporter", "--help"), "python": _timed("-c", "pass")}, 9)
    row = Row("hms-exporter --help", "", "s", found["ours"], "python -c pass", found["python"])
    return row.judged("250 ms", met=found["ours"] <= 0.25)


def _timed(*arguments: str) -> Callable[[], float]:
    def measure() -> float:
        before = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)  # noqa: S603 (our own program)
        return time.perf_counter() - before

    return measure


def _first_page(folder: Path, rooms: int) -> tuple[float, float, float, int]:
    """Seconds and CPU seconds from the start until every room is published, MiB, and series.  100ms does not answer meanwhile."""
    with _without_api(folder, rooms) as exporter:
        page, answered = exporter.scrape()
        taken, used = answered - exporter.started, exporter.cpu()
        assert total(page, "hms_sessions_ended_total") == rooms
        return taken, used, exporter.memory()[1], sum(not line.startswith("#") for line in page.splitlines())


def _without_api(folder: Path, rooms: int) -> Exporter:
    """The exporter with the state in this folder.  100ms does not answer."""
    return Exporter(folder, f"http://127.0.0.1:{free_port()}", SECRET, limits={"max_rooms": rooms})


def warm_state(path: Path, rooms: int) -> None:
    """Makes a state file in which each room has had one recent session with three roles."""
    now = time.time_ns() // 1000
    ledger = Ledger()
    poll = Poll(ledger, now, HOUR)
    ledger.coverage.configure(Scope(WorkspaceConfig("bench", KeyPair(Secret("key"), Secret(SECRET)))), now, now, str)
    ledger.coverage.complete(now)
    for number in range(rooms):
        poll.see(_session(number, now), str(number))
        poll.assign(room_id(number), str(number), room_account(room_id(number)))
    # Polled so late that all sessions are settled.
    poll = Poll(ledger, now + HOUR, HOUR)
    for number in range(rooms):
        poll.see(_session(number, now, now), str(number))
    poll.finish(None, 0.0)
    store = Store(path)
    store.commit("bench", ledger, known_rooms(rooms, now))
    store.close()


def _session(number: int, now: int, ended: int | None = None) -> Session:
    started = now - 600 * SECOND
    stays = {f"peer-{number}-{place}": Stay(started, ended, role) for place, role in enumerate(_ROLES)}
    return Session(f"6205{number:020x}", room_id(number), started, ended, stays, {})
