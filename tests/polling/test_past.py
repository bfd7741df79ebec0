"""Reading a long past makes progress and is exact, through kills and clock changes."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from exporter.simulator import Fault, World
from exporter.times import SECOND
from lab.bench import QUICK, Bench
from tests.harness import at, script_totals

DAY_S = 86_400


def past_calls(world: World, count: int, days: int, rooms: int = 5) -> None:
    """Scripts `count` calls that ended within the last `days`, in some rooms."""
    chance = random.Random(count)
    ids = [world.room(name=f"r{number}").id for number in range(rooms)]
    for _ in range(count):
        start = at(-chance.uniform(0.05, days - 0.5) * DAY_S)
        call = world.open(chance.choice(ids), start)
        for role in ("host", "guest"):
            call.join(role, start).leave(start + chance.randrange(300 * SECOND))
        call.close(start + 300 * SECOND)


@pytest.mark.parametrize("hours", [1, 24 * 400])
def test_a_local_clock_set_back_during_a_catch_up_changes_nothing(
    folder: Path, world: World, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    past_calls(world, 400, 5)
    with Bench(folder, world, since=timedelta(days=5), api=replace(QUICK, page_size=10)) as bench:
        bench.server.faults.add(Fault(kind="reset", match="before=", after=12, times=1))
        bench.poll()
        assert 0 < (bench.value("hms_exporter_catch_up_ratio") or 0) < 1
        real, real_ns = time.time, time.time_ns
        monkeypatch.setattr(time, "time", lambda: real() - hours * 3600)
        monkeypatch.setattr(time, "time_ns", lambda: real_ns() - hours * 3600 * 10**9)
        bench.poll(30)
        bench.finish()
        assert bench.totals() == script_totals(world.sessions, bench.now, at(-5 * DAY_S))


def interrupted(folder: Path, world: World, days: int, most: int) -> int:
    """Reads the last `days`, killed about once a minute on the way; returns the number of kills."""
    chance = random.Random(1)
    kills = 0
    with Bench(folder, world, since=timedelta(days=days)) as bench:
        while True:
            bench.server.faults.clear()
            # A number of requests stands for the minute: the process dies in the middle of the request after them.
            bench.server.faults.add(Fault(kind="reset", match="before=", after=chance.randrange(3, 30)))
            before = bench.value("hms_exporter_catch_up_ratio")
            bench.poll(30)
            bench.poll(30)
            ratio = bench.value("hms_exporter_catch_up_ratio") or 0
            if ratio == 1:
                break
            assert before is None or ratio > 0
            kills += 1
            assert kills < most
            bench.restart()
        bench.finish()
        assert bench.totals() == script_totals(world.sessions, bench.now, at(-days * DAY_S))
    return kills


def test_a_past_that_is_read_between_kills_makes_progress_and_is_exact(folder: Path, world: World) -> None:
    past_calls(world, 2000, 10)
    assert interrupted(folder, world, 10, most=30) > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_thirty_days_with_20_000_calls_are_read_though_it_is_killed_each_minute(folder: Path, world: World) -> None:
    past_calls(world, 20_000, 30)
    assert interrupted(folder, world, 30, most=200) > 3
