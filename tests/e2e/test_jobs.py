"""Recordings and streams, counted by the real program while it is killed: exact in the end, and no counter ever falls."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from exporter.simulator import Room, SimulatedApi, World
from exporter.simulator.jobs import Job
from exporter.simulator.jobs_truth import jobs_truth_of
from exporter.times import SECOND
from tests.e2e.program import Program, Samples, Scraper, configure, present, run, running, some, total, wait_until, workspace
from tests.postgres import server

KINDS = ("recording", "live_stream", "external_stream")
COUNTS = ("requested", "started", "completed", "failed")
OF_A_KIND = 25
LASTS = 15
"""Seconds in which jobs begin and end."""

Counts = dict[tuple[str, str, str], int]
"""Values by kind, room id and counter; times in milliseconds."""


class JobScraper(Scraper):
    """Notes every counter of jobs that falls."""

    def _look(self, samples: Samples) -> None:
        self.scrapes += 1
        for key, value in samples.items():
            if key.name.startswith(tuple(f"hms_{name}" for name in KINDS)) and key.name.endswith("_total"):
                if value < self._highest.get(key, 0):
                    self.falls.append((key, self._highest[key], value))
                self._highest[key] = value


def scripted(world: World, rooms: list[Room], begin: int) -> dict[str, list[Job]]:
    """Scripts short and long jobs around `begin`, which all end soon after `LASTS` seconds; returns them by kind."""
    chance = random.Random(12)
    made: dict[str, list[Job]] = {}

    def moment(low: int, high: int) -> int:
        return chance.randint(low // 1000, high // 1000) * 1000

    for kind, ask in zip(KINDS, (world.record, world.stream, world.push), strict=True):
        made[kind] = []
        for number in range(OF_A_KIND):
            asked = begin + moment(-3 * SECOND, (LASTS - 2) * SECOND)
            job = ask(chance.choice(rooms), asked)
            made[kind].append(job)
            started = asked + moment(0, SECOND // 2)
            if number % 5 == 0:
                job.fail(max(begin + SECOND, started))  # it never starts
                continue
            stopped = max(begin + SECOND, started + moment(SECOND // 20, 4 * SECOND))
            over = stopped + moment(SECOND // 100, SECOND)
            job.start(started).stop(stopped)
            if number % 7 == 0:
                job.fail(over)
            else:
                job.complete(over)
    return made


def truth(jobs: Mapping[str, list[Job]], now: int) -> Counts:
    """The expected counters."""
    found: Counts = {}
    for kind, of_kind in jobs.items():
        of = jobs_truth_of(of_kind, now)
        for key in of.requested:
            found |= {(kind, key[1], name): getattr(of, name)[key] for name in COUNTS}
            found[kind, key[1], "time"] = of.us[key] // 1000
    return found


def counted(samples: Samples) -> Counts:
    """The published counters."""
    found: Counts = {}
    for kind in KINDS:
        for what in (*COUNTS, "time"):
            metric, scale = (f"hms_{kind}_seconds_total", 1000) if what == "time" else (f"hms_{kind}s_{what}_total", 1)
            for labels, value in some(samples, metric).items():
                found[kind, dict(labels)["room_id"], what] = round(value * scale)
    return found


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The section `storage` of the configuration."""
    if request.param == "SQLite":
        yield {"path": str(tmp_path / "state.db")}
        return
    with server() as postgres:
        yield {"url": postgres.database("jobs")}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_killed_at_random_moments_it_counts_every_job_once(
    tmp_path: Path, world: World, api: SimulatedApi, storage: dict[str, str]
) -> None:
    """Some jobs begin and end while the program is down.  In the end a copy of the state equals the state."""
    rooms = [world.room(name=f"hall-{number}") for number in range(3)]
    chance = random.Random(1)
    config = configure(tmp_path, api, collect={"interval": "1s"})

    def store_in(where: dict[str, str]) -> None:
        config.write_text(json.dumps({**json.loads(config.read_text()), "storage": where}))

    store_in(storage)
    with running(tmp_path, f"--config.file={config}") as program, JobScraper(program) as scraper:
        wait_until(lambda: program.value("hms_up") == 1)
        begin = present()
        with world.lock:
            jobs = scripted(world, rooms, begin)
        try:
            while api.clock() < begin + LASTS * SECOND:
                time.sleep(chance.uniform(0.2, 2.5))  # killed at a random moment, within a poll or between two
                scraper.program.kill()
                time.sleep(chance.choice((0, 0, 2)))  # sometimes down for a while
                scraper.program = Program(tmp_path, f"--config.file={config}")
            wanted = truth(jobs, begin + (LASTS + 30) * SECOND)
            wait_until(lambda: counted(scraper.program.metrics()) == wanted, 60, "the counters are not the truth")
            assert scraper.program.stop() == 0
            (tmp_path / "from").write_text(storage.get("url") or storage["path"])
            copied = run(tmp_path, "state", "copy", "@from", str(tmp_path / "copy.db"))
            assert copied.returncode == 0, copied.stderr
            store_in({"path": str(tmp_path / "copy.db")})
            scraper.program = Program(tmp_path, f"--config.file={config}")
            wait_until(lambda: scraper.program.value("hms_up") == 1)
            scraper.program.polled()
            assert counted(scraper.program.metrics()) == wanted
        finally:
            scraper.program.kill()
    assert scraper.falls == []
    assert scraper.scrapes > 50


def test_workspaces_count_their_own_jobs_though_their_rooms_have_the_same_id(tmp_path: Path) -> None:
    """They still do after a kill."""
    worlds = {name: World(f"key-of-{name}", f"secret-of-{name}-of-more-than-thirty-two-bytes") for name in ("a", "b")}
    with SimulatedApi(list(worlds.values())) as api:
        spaces = [workspace(name, access_key=world.access_key, secret=world.secret) for name, world in worlds.items()]
        config = configure(tmp_path, api, *spaces, poll={"since": "1h"}, collect={"interval": "1s"})
        now = present()
        for name, count in (("a", 3), ("b", 5)):
            room = worlds[name].room(id="0123456789abcdef01234567", name="hall")
            for number in range(count):
                asked = now - (60 + number) * SECOND
                worlds[name].record(room, asked).start(asked + SECOND).stop(asked + 21 * SECOND).complete(asked + 22 * SECOND)

        def recorded(program: Program) -> list[float]:
            samples = program.metrics()
            metrics = ("hms_recordings_completed_total", "hms_recording_seconds_total")
            return [total(samples, metric, workspace=name) for name in worlds for metric in metrics]

        for _ in range(2):
            with running(tmp_path, f"--config.file={config}") as program:
                wait_until(lambda: recorded(program) == [3, 60, 5, 100])
                program.kill()
