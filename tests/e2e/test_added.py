"""Assets, deliveries and client errors, counted by the real program while it is killed: exact, and no counter ever falls."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.simulator import Room, SimulatedApi, World
from exporter.simulator.beside_truth import BesideTruth
from exporter.simulator.jobs import AssetStatus
from exporter.times import MINUTE, SECOND
from lab.bench import Clock
from lab.beside import beside_counted
from tests.e2e.program import Program, Samples, Scraper, configure, present, run, running, wait_until
from tests.postgres import Server, server

COUNTERS = ("hms_recording_asset", "hms_webhook_deliveries", "hms_client_errors")
LASTS = 10 * 60
"""Seconds, by 100ms's clock, in which everything happens."""


class AddedScraper(Scraper):
    """Notes every counter of assets, deliveries and client errors that falls."""

    def _look(self, samples: Samples) -> None:
        self.scrapes += 1
        for key, value in samples.items():
            if key.name.startswith(COUNTERS) and key.name.endswith("_total"):
                if value < self._highest.get(key, 0):
                    self.falls.append((key, self._highest[key], value))
                self._highest[key] = value


def script(world: World, rooms: list[Room], begin: int, chance: random.Random) -> None:
    """Scripts, from `begin` on, short calls with errors, files of several types, and webhooks that arrive or do not."""
    outcomes: list[AssetStatus] = ["completed", "completed", "failed"]
    for room in rooms:
        recording = world.record(room, begin + SECOND).start(begin + 2 * SECOND)
        for _ in range(40):
            kind, moment = chance.choice(["chat", "track", "room-composite"]), begin + chance.randrange(2 * SECOND, LASTS * SECOND)
            status = chance.choice(outcomes)
            world.asset(recording, kind, moment, duration=chance.randrange(4000) / 8, size=chance.randrange(10**9), status=status)
        for second in range(2, LASTS - 60, 30):
            started = begin + second * SECOND
            session = world.open(room.id, started)
            session.join("guest", started).leave(started + 20 * SECOND)
            session.close(started + chance.randrange(20, 30) * SECOND)
            for _ in range(chance.randrange(4)):
                kind, code = chance.choice(["client.join.failed", "client.disconnected"]), chance.randrange(4000, 4004)
                world.client_event(session, started + SECOND, kind, error_code=code, sdk=chance.choice(["web", "ios"]))
    for tenth in range(20, LASTS * 10, 13):
        world.delivery(rooms[0], begin + tenth * SECOND // 10, error=chance.choice([None, None, "timeout"]))


def counted(samples: Samples) -> BesideTruth:
    """The published counters."""
    return beside_counted((key.name, dict(key.labels), value) for key, value in samples.items())


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    with server() as started:
        yield started


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["SQLite", "PostgreSQL"])
def test_killed_at_random_moments_it_counts_everything_once(tmp_path: Path, world: World, postgres: Server, kind: str) -> None:
    """100ms's clock leaps while the program is down.  In the end a copy of the state in the other kind of database is equal."""
    chance = random.Random(kind)
    rooms = [world.room(name=f"hall-{number}") for number in range(2)]
    file = {"path": str(tmp_path / "state.db")}
    database = {"url": postgres.database(f"added_{kind.lower()}")}
    storage, other = (file, database) if kind == "SQLite" else (database, file)
    clock = Clock(present(), runs=True)
    with SimulatedApi([world], clock=clock) as api:
        collect = {"recording_assets": True, "webhook_deliveries": True, "client_errors": True, "interval": "1s"}
        config = configure(tmp_path, api, collect=collect, api={"max_requests_per_second": 50})

        def store_in(where: dict[str, str]) -> None:
            config.write_text(json.dumps({**json.loads(config.read_text()), "storage": where}))

        store_in(storage)
        with running(tmp_path, f"--config.file={config}") as program, AddedScraper(program) as scraper:
            wait_until(lambda: program.value("hms_up") == 1)
            begin = clock() + SECOND
            with world.lock:
                script(world, rooms, begin, chance)
            try:
                while clock() < begin + LASTS * SECOND:
                    time.sleep(chance.uniform(0.3, 3))
                    scraper.program.kill()
                    clock.leap(chance.uniform(20, 120))
                    scraper.program = Program(tmp_path, f"--config.file={config}")
                scraper.program.kill()
                clock.leap(6 * MINUTE / SECOND)
                scraper.program = Program(tmp_path, f"--config.file={config}")
                wanted = world.beside_truth(begin, begin + 2 * LASTS * SECOND)
                wait_until(lambda: counted(scraper.program.metrics()) == wanted, 60, "the counters are not the truth")
                assert sum(wanted.errors.values()) > 10
                assert scraper.program.stop() == 0
                for name, where in (("from", storage), ("to", other)):
                    (tmp_path / name).write_text(next(iter(where.values())))
                copied = run(tmp_path, "state", "copy", "@from", "@to")
                assert copied.returncode == 0, copied.stderr
                store_in(other)
                scraper.program = Program(tmp_path, f"--config.file={config}")
                wait_until(lambda: scraper.program.value("hms_up") == 1)
                scraper.program.polled()
                assert counted(scraper.program.metrics()) == wanted
            finally:
                scraper.program.kill()
        assert scraper.falls == []
        assert scraper.scrapes > 20
