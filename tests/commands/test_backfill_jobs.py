"""Backfill of recordings and streams: the file says what truly had become of them by then, and joins on to the live counters."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.simulator import Fault, SimulatedApi, World
from exporter.simulator.jobs import KINDS
from exporter.times import HOUR, MINUTE, SECOND
from lab.beside import BesideBench
from tests.commands.test_backfill import END, NOW, START, STEP, Bench
from tests.polling.test_jobs import METRICS
from tests.programs import require

_COUNTS = ("requested", "started", "completed", "failed")


def jobs(world: World, seed: int) -> None:
    """Jobs of each kind in two rooms around the range: some never start, some fail, some are composed for long."""
    chance = random.Random(seed)
    rooms = [world.room(name=name) for name in ("alpha", "beta")]
    for _ in range(150):
        asked = now = START - 3 * HOUR + chance.randrange(6 * HOUR)
        job = chance.choice((world.record, world.stream, world.push))(chance.choice(rooms), asked)
        if chance.random() < 0.85:
            now += chance.randrange(90 * SECOND)
            job.start(now)
            now += chance.randrange(SECOND, HOUR)
            if chance.random() < 0.8:
                job.stop(now)
                now += chance.randrange(40 * MINUTE)
        now += chance.randrange(SECOND, 10 * MINUTE)
        _ = job.fail(now) if chance.random() < 0.3 else job.complete(now)


@pytest.fixture(params=[1, 2, 3])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    world = World("key", "secret-of-at-least-thirty-two-bytes!")
    jobs(world, request.param)
    with SimulatedApi([world], clock=lambda: NOW) as api:
        yield Bench(tmp_path, world, api)


def truth(world: World, now: int) -> dict[str, float]:
    """What has truly become of all jobs by then, by series."""
    true = world.jobs_truth(now)
    found: dict[str, float] = {}
    for kind, (one, many) in METRICS.items():
        for room in world.rooms:
            labels = f'{{workspace="w",room_id="{room.id}",room="{room.name_at(now)}"}}'
            for name in _COUNTS:
                found[f"hms_{many}_{name}_total{labels}"] = getattr(true, name)[kind, room.id]
            found[f"hms_{one}_seconds_total{labels}"] = true.us[kind, room.id] / SECOND
        for name, values in (("start_delay", true.start_delays), ("processing", true.processing)):
            found[f'hms_{one}_{name}_seconds_count{{workspace="w"}}'] = len(values.get(kind, []))
            found[f'hms_{one}_{name}_seconds_sum{{workspace="w"}}'] = sum(values.get(kind, [])) / SECOND
    return found


def of_jobs(sample: dict[str, float]) -> dict[str, float]:
    """The counters of jobs among some samples, and the counts and sums of their distributions."""
    return {
        key: value for key, value in sample.items() if key.startswith(("hms_recording", "hms_live", "hms_external")) and "le=" not in key
    }


def test_every_step_rises_as_the_truth_does(bench: Bench) -> None:
    """Values differ from the truth by what had ended before the range, which is the same at each step."""
    assert bench.run() == 0
    written = bench.samples()
    last = max(written)
    assert last == END // SECOND - STEP
    final, compared = truth(bench.world, last * SECOND), 0
    for step, sample in written.items():
        true = truth(bench.world, step * SECOND)
        for key, value in of_jobs(sample).items():
            assert of_jobs(written[last])[key] - value == pytest.approx(final[key] - true[key], abs=1e-6), (step, key)
            compared += 1
    assert compared > 1000


def live(bench: Bench, folder: Path, end: int) -> dict[str, float]:
    """A live exporter that begins there: what its first poll publishes.  It goes on for a while."""
    folder.mkdir()
    exporter = BesideBench(folder, bench.world, now=end)
    try:
        first = exporter.poll()
        for _ in range(5):
            exporter.poll(300)
    finally:
        exporter.close()
    (folder / "state.db").rename(bench.folder / "state.db")
    return of_jobs(first)


def test_the_live_counters_go_on_from_where_the_past_ends(bench: Bench, tmp_path: Path) -> None:
    """Jobs are running, starting and being composed then; nothing falls, and the rise is the truth's."""
    first = live(bench, tmp_path / "live", END)
    assert bench.run(end=None) == 0
    written = bench.samples()
    last = max(written)
    assert last == END // SECOND - STEP
    before, after = truth(bench.world, last * SECOND), truth(bench.world, END)
    past, compared = of_jobs(written[last]), 0
    for key in past.keys() & first.keys():
        assert first[key] - past[key] == pytest.approx(after[key] - before[key], abs=1e-6), key
        compared += 1
    assert compared >= 15
    assert any(first.values())


def test_promtool_takes_the_file(bench: Bench) -> None:
    assert bench.run() == 0
    assert "hms_recording_start_delay_seconds_bucket" in bench.output.read_text()
    done = subprocess.run(
        [require("promtool"), "tsdb", "create-blocks-from", "openmetrics", os.fspath(bench.output), os.fspath(bench.folder / "data")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("status", [403, 404])
def test_a_kind_that_may_not_be_read_is_left_out_with_one_line(bench: Bench, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    bench.api.faults.add(Fault(kind="status", route="/recordings", status=status))
    assert bench.run() == 0
    keys = of_jobs({key: value for sample in bench.samples().values() for key, value in sample.items()})
    assert {METRICS[kind][1] for kind in KINDS if any(f"hms_{METRICS[kind][1]}_" in key for key in keys)} == {
        "live_streams",
        "external_streams",
    }
    assert capsys.readouterr().err.count("left out, because the workspace may not read it") == 1


def test_a_kind_that_is_off_is_neither_read_nor_written(bench: Bench) -> None:
    assert bench.run(more="collect: {recordings: false, live_streams: false, external_streams: false}") == 0
    assert not bench.api.calls["/recordings"]
    assert not of_jobs({key: value for sample in bench.samples().values() for key, value in sample.items()})


def test_an_interrupted_run_writes_the_same(bench: Bench) -> None:
    assert bench.run() == 0
    whole = bench.output.read_bytes()
    bench.output.unlink()
    bench.api.faults.add(Fault(kind="status", route="/live-streams", status=500, after=1))
    assert bench.run() == 1
    bench.api.faults.clear()
    assert bench.run() == 0
    assert bench.output.read_bytes() == whole
