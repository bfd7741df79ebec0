"""Backfill of recordings and streams: the file holds the truth at each step, and joins on to the live counters."""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from exporter import cli
from exporter.config.config import CollectConfig, LimitsConfig, RoomsByName
from exporter.simulator import Fault, Room, SimulatedApi, World
from exporter.simulator.jobs import KINDS
from exporter.times import HOUR, MINUTE, SECOND
from lab.beside import BesideBench
from tests.commands.test_backfill import END, NOW, START, STEP, Bench
from tests.marks import first_quick
from tests.polling.test_jobs import METRICS
from tests.postgres import server
from tests.programs import require

_COUNTS = ("requested", "started", "completed", "failed")


def jobs(world: World, seed: int) -> None:
    """Scripts jobs of each kind in two rooms around the range: some never start, some fail, some are processed for long."""
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


@pytest.fixture(params=first_quick([1, 2, 3]))
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    world = World("key", "secret-of-at-least-thirty-two-bytes!")
    jobs(world, request.param)
    with SimulatedApi([world], clock=lambda: NOW) as api:
        yield Bench(tmp_path, world, api)


def own_series(room: Room) -> str:
    return f'room_id="{room.id}",room="{room.name_at(NOW)}"'


def truth(world: World, now: int, series: Callable[[Room], str] = own_series) -> dict[str, float]:
    """The truth about all jobs at that moment, by series. `series` are a room's labels."""
    true = world.jobs_truth(now)
    found: defaultdict[str, float] = defaultdict(float)
    for kind, (one, many) in METRICS.items():
        for room in world.rooms:
            labels = f'{{workspace="w",{series(room)}}}'
            for name in _COUNTS:
                found[f"hms_{many}_{name}_total{labels}"] += getattr(true, name)[kind, room.id]
            found[f"hms_{one}_seconds_total{labels}"] += true.us[kind, room.id] / SECOND
        for name, values in (("start_delay", true.start_delays), ("processing", true.processing)):
            found[f'hms_{one}_{name}_seconds_count{{workspace="w"}}'] = len(values.get(kind, []))
            found[f'hms_{one}_{name}_seconds_sum{{workspace="w"}}'] = sum(values.get(kind, [])) / SECOND
    return found


def of_jobs(sample: dict[str, float]) -> dict[str, float]:
    """The job counters among some samples, with the counts and sums of their histograms."""
    return {
        key: value for key, value in sample.items() if key.startswith(("hms_recording", "hms_live", "hms_external")) and "le=" not in key
    }


def test_every_step_rises_as_the_truth_does(bench: Bench) -> None:
    """Values differ from the truth by the jobs that ended before the range, which is the same difference at each step."""
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


def live(bench: Bench, folder: Path, end: int, **options: Any) -> dict[str, float]:
    """Runs a live exporter from there on; returns its first page after it has read everything that counts."""
    folder.mkdir()
    exporter = BesideBench(folder, bench.world, now=end, **options)
    try:
        exporter.poll()
        for _ in range(5):
            exporter.poll()  # the rest of the past
        first = exporter.look()
        for _ in range(5):
            exporter.poll(300)
    finally:
        exporter.close()
    (folder / "state.db").rename(bench.folder / "state.db")
    return of_jobs(first)


def joins(bench: Bench, first: dict[str, float], series: Callable[[Room], str] = own_series) -> None:
    """No counter falls where the live counters continue the past, and the rise equals the truth's."""
    written = bench.samples()
    last = max(written)
    assert last == END // SECOND - STEP
    before, after = truth(bench.world, last * SECOND, series), truth(bench.world, END, series)
    past, compared = of_jobs(written[last]), 0
    for key in past.keys() & first.keys():
        assert first[key] - past[key] == pytest.approx(after[key] - before[key], abs=1e-6), key
        compared += 1
    assert compared >= 15
    assert any(first.values())


def test_the_live_counters_go_on_from_where_the_past_ends(bench: Bench, tmp_path: Path) -> None:
    """Jobs are running, starting and being processed at that moment."""
    first = live(bench, tmp_path / "live", END)
    assert bench.run(end=None) == 0
    joins(bench, first)


@pytest.mark.parametrize("since", [START - HOUR, START + HOUR], ids=["before the range", "within it"])
def test_live_counters_that_begin_in_the_past_go_on_from_it(bench: Bench, tmp_path: Path, since: int) -> None:
    """They have read the whole past before they are scraped, and the backfill counts from the same zero."""
    begun = datetime.fromtimestamp(since / SECOND, UTC)
    first = live(bench, tmp_path / "live", END, since=begun)
    assert bench.run(end=None, more=f"poll: {{since: {begun:%Y-%m-%dT%H:%M:%SZ}}}") == 0
    joins(bench, first)


def test_the_past_of_groups_is_that_of_their_rooms(bench: Bench, tmp_path: Path) -> None:
    first = live(bench, tmp_path / "live", END, rooms=[RoomsByName(re.compile("[ab].*"), "both")])
    assert bench.run(end=None, rooms=', rooms: [{match: "[ab].*", group: both}]') == 0
    joins(bench, first, lambda room: 'room="both"')


def test_with_more_rooms_than_series_the_sum_of_all_goes_on_from_the_past(bench: Bench, tmp_path: Path) -> None:
    """In the backfill the first room has series of its own, live the busiest one: a single series need not join."""
    first = live(bench, tmp_path / "live", END, limits=LimitsConfig(max_rooms=1))
    assert bench.run(end=None, more="limits: {max_rooms: 1}") == 0
    written = bench.samples()
    last = max(written)
    before, after = (summed(truth(bench.world, now)) for now in (last * SECOND, END))
    past, live_sums = summed(of_jobs(written[last])), summed(first)
    assert sum('room="_other"' in key for key in written[last]) > 0
    assert past.keys() == after.keys() <= live_sums.keys()
    for name in past:
        assert live_sums[name] - past[name] == pytest.approx(after[name] - before[name], abs=1e-6), name


def summed(sample: dict[str, float]) -> dict[str, float]:
    """The sums over all rooms, by name."""
    found: defaultdict[str, float] = defaultdict(float)
    for key, value in sample.items():
        found[key.partition("{")[0]] += value
    return dict(found)


def test_a_kind_that_was_turned_on_later_has_a_longer_past(bench: Bench, tmp_path: Path) -> None:
    """Sessions had been counted for half an hour when it was turned on."""
    folder = tmp_path / "live"
    folder.mkdir()
    off = CollectConfig(recordings=False, live_streams=False, external_streams=False)
    exporter = BesideBench(folder, bench.world, now=END - 30 * MINUTE, collect=off)
    try:
        for _ in range(30):
            exporter.poll(60)
        exporter.config = replace(exporter.config, collect=CollectConfig(interval=30.0))
        exporter.poller.configure(exporter.workspace, exporter.config, exporter.api)
        assert exporter.now == END
        first = of_jobs(exporter.poll())
        exporter.poll(300)
    finally:
        exporter.close()
    (folder / "state.db").rename(bench.folder / "state.db")
    assert bench.run(end=None) == 0
    joins(bench, first)


@pytest.mark.slow
def test_the_state_may_be_in_postgresql(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = live(bench, tmp_path / "live", END)
    assert bench.run(end=None) == 0
    wanted = bench.samples()
    bench.output.unlink()
    with server() as postgres:
        url = postgres.database("backfill")
        assert cli.main(["state", "copy", os.fspath(bench.folder / "state.db"), url]) == 0
        written = bench.config()
        written.write_text(written.read_text().replace(f"path: '{bench.folder}/state.db'", f"url: '{url}'"))
        monkeypatch.setattr(bench, "config", lambda *_: written)
        assert bench.run(end=None) == 0
    assert bench.samples() == wanted
    joins(bench, first)


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
