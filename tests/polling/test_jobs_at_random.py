"""Jobs at random, read through faults, kills, pauses and reloads: in the end every counter equals the simulator's truth."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.hms.jobs import ACTIVE, OVER
from exporter.simulator import Fault, Manners, World, faults
from exporter.simulator.jobs import KINDS
from exporter.simulator.shape import Shape
from exporter.times import HOUR, SECOND
from lab.beside import BesideBench
from tests.harness import MEMORY, at
from tests.polling.test_jobs import METRICS

_ROUTES = ("/recordings", "/live-streams", "/external-streams")
_FAULTS: tuple[faults.Kind, ...] = (
    "status",
    "html",
    "wrong_types",
    "invalid_utf8",
    "reset",
    "cut_short",
    "repeated_cursor",
    "repeated_item",
)
_LENGTH = 3 * 3600


def script(world: World, rng: random.Random) -> None:
    """Scripts rooms and jobs: some jobs end before the exporter starts, some never start, some fail, some last long."""
    rooms = [world.room(name=f"room-{number}") for number in range(rng.choice([1, 3, 8]))]
    for _ in range(rng.randrange(1, 40)):
        begin = world.record, world.stream, world.push
        asked = at(rng.uniform(-2 * 3600, _LENGTH))
        job = rng.choice(begin)(rng.choice(rooms), asked)
        now = asked
        if rng.random() < 0.85:
            now += rng.randrange(0, 120 * SECOND)
            job.start(now)
            now += rng.choice([rng.randrange(SECOND, 90 * SECOND), rng.randrange(SECOND, 2 * HOUR)])
            if rng.random() < 0.8:
                job.stop(now)
                now += rng.randrange(0, 600 * SECOND)
        else:
            now += rng.randrange(SECOND, 600 * SECOND)
        _ = job.fail(now) if rng.random() < 0.3 else job.complete(now)


def check(bench: BesideBench, world: World, since: int) -> None:
    """Every counter equals the truth about the jobs that had not ended when the exporter started."""
    for kind in KINDS:
        for job in list(world.beside.jobs[kind].by_id.values()):
            if job.created_at <= since and job.standing(since).status in OVER:
                del world.beside.jobs[kind].by_id[job.id]
    truth = world.jobs_truth(bench.now)
    page = bench.samples()

    def published(name: str, room: str) -> float:
        return sum(value for (of, labels), value in page.items() if of == name and ("room_id", room) in labels)

    for kind, (one, many) in METRICS.items():
        for room in {room for _, room in truth.requested}:
            found = {name: published(f"hms_{many}_{name}_total", room) for name in ("requested", "started", "completed", "failed")}
            true = {name: getattr(truth, name)[kind, room] for name in ("requested", "started", "completed", "failed")}
            assert found == true, (kind, room)
            assert round(published(f"hms_{one}_seconds_total", room) * SECOND) == truth.us[kind, room], (kind, room)
        for name, values in (("start_delay", truth.start_delays), ("processing", truth.processing)):
            observed = [page[f"hms_{one}_{name}_seconds_{part}", (("workspace", "w"),)] for part in ("count", "sum")]
            assert observed[0] == len(values.get(kind, [])), (kind, name)
            assert round(observed[1] * SECOND) == sum(values.get(kind, [])), (kind, name)


@settings(max_examples=3)
@given(st.integers(0, 1 << 32))
def test_in_the_end_the_counters_equal_the_truth_whatever_happens(seed: int) -> None:
    run(seed)


@pytest.mark.slow
@pytest.mark.timeout(900)
@given(st.integers(0, 1 << 32))
def test_in_the_end_the_counters_equal_the_truth_in_many_more_runs(seed: int) -> None:
    run(seed)


def run(seed: int) -> None:
    """Plays a script of jobs with faults, restarts and long pauses."""
    rng = random.Random(seed)
    shape = Shape(connected=rng.choice(["absent", "null", "zero"]))
    world = World("key", "secret-of-at-least-thirty-two-bytes!", shape=shape)
    script(world, rng)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        bench = BesideBench(Path(folder), world)
        bench.server.manners = Manners(max_page_size=rng.choice([10, 100]), final_last=rng.choice(["id", "empty", "absent"]))
        try:
            bench.poll()
            since = next(iter(bench.poller.ledger.coverage.entries.values())).since
            while bench.now < at(_LENGTH):
                if rng.random() < 0.1:
                    bench.restart()
                bench.server.faults.clear()
                if rng.random() < 0.3:
                    route = rng.choice(_ROUTES)
                    bench.server.faults.add(
                        Fault(kind=rng.choice(_FAULTS), route=route, after=rng.choice([0, 1]), times=rng.choice([1, None]))
                    )
                bench.poll(rng.choice([30, 30, 30, 60, 300, 1500, 4000]))
                assert bench.up()
            bench.server.faults.clear()
            bench.now = max([bench.now, *(job.moments[-1][0] for kind in KINDS for job in world.beside.jobs[kind].by_id.values())])
            for _ in range(10):
                bench.poll(300)
            check(bench, world, since)
            for many in ("recordings", "live_streams", "external_streams"):
                assert (bench.value("hms_collector_up", collector=many) or 0) == 1
                assert sum(bench.value(f"hms_{many}_active", status=status) or 0 for status in ACTIVE) == 0
        finally:
            bench.close()
