"""Catching up: the real process reads a month of ended sessions at its first start, as `poll.since` asks."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from pathlib import Path

from bench.exporters import Exporter, total
from bench.report import Row
from bench.servers import Served
from bench.traffic import SECRET
from exporter.simulator import SimulatedApi, World, real_clock
from exporter.times import DAY, SECOND

_GOAL = 100_000
_PEERS = 5
_ROOMS = 200


def run(*, quick: bool) -> list[Row]:
    """Sessions per second, memory, and the time of a scrape meanwhile."""
    results = [_measure(sessions) for sessions in ((500, 1_000, 2_000) if quick else (5_000, 20_000, _GOAL))]
    return [row for kind in zip(*results, strict=True) for row in kind]


def _measure(sessions: int) -> tuple[Row, ...]:
    with (
        Served(simulated, sessions) as server,
        tempfile.TemporaryDirectory() as folder,
        Exporter(Path(folder), f"http://127.0.0.1:{server.port}/v2", SECRET, 2.0, poll={"since": "31d"}) as exporter,
    ):
        exporter.wait_for("hms_sessions_ended_total", 1)
        half, done = 0.0, 0.0
        scrapes, page = [], ""
        while done < sessions:
            time.sleep(0.1)  # between scrapes, so that they do not slow down what is measured
            before = time.perf_counter()
            page, answered = exporter.scrape()
            scrapes.append(answered - before)
            done = total(page, "hms_sessions_ended_total")
            half = half or (exporter.memory()[1] if done >= sessions / 2 else 0.0)
            assert before - exporter.started < 300, f"{done:.0f} of {sessions} after five minutes"
        taken, used = time.perf_counter() - exporter.started, exporter.cpu()
        most = exporter.memory()[1]
        assert total(page, "hms_peers_joined_total") == sessions * _PEERS
        assert total(page, "hms_sessions_ended_total") == sessions
    size, at_goal = f"{sessions:,} sessions in {_ROOMS} rooms", sessions == _GOAL
    memory = Row("catching up: memory at most", size, "MiB", most, "half way", half, sessions)
    slowest = Row("catching up: slowest scrape", size, "s", max(scrapes), "the median one", statistics.median(scrapes))
    return (
        Row("catching up", size, "s", taken, per=sessions),
        Row("catching up: sessions a second", size, "a second", sessions / taken),
        Row("catching up: CPU", size, "s", used, per=sessions),
        memory.judged("flat", met=most <= 1.05 * half, at=at_goal),
        slowest.judged("answered", met=max(scrapes) < 1, at=at_goal),
    )


def simulated(sessions: int) -> int:
    """Runs the simulated 100ms with this many ended sessions of the last month; returns its port."""
    world, now, chance = World("key", SECRET), real_clock(), random.Random(1)  # noqa: S311 (the same past every time)
    rooms = [world.room(name=f"room-{number}").id for number in range(_ROOMS)]
    for number in range(sessions):
        length = chance.randrange(60, 3600) * SECOND
        started = now - 30 * DAY + (30 * DAY - 3600 * SECOND) * number // sessions
        session = world.open(rooms[number % _ROOMS], started)
        for place in range(_PEERS):
            joined = started + chance.randrange(30) * SECOND
            session.join("host" if not place else "guest", joined).leave(joined + chance.randrange(1, length // SECOND - 30) * SECOND)
        session.close(started + length)
    api = SimulatedApi([world])
    api.start()
    return api.port
