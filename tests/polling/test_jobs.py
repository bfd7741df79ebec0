"""Recordings and streams, polled from a simulated 100ms over real HTTP: exact beside its truth, few calls, each collector alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.hms.jobs import ACTIVE
from exporter.simulator import World
from exporter.simulator.jobs import Kind
from exporter.times import SECOND
from lab.beside import BesideBench
from tests.harness import MEMORY, at

METRICS: dict[Kind, tuple[str, str]] = {
    "recording": ("recording", "recordings"),
    "live_stream": ("live_stream", "live_streams"),
    "external_stream": ("external_stream", "external_streams"),
}


@pytest.fixture
def world() -> World:
    return World("key", "secret-of-at-least-thirty-two-bytes!")


@pytest.fixture
def benches(world: World) -> Iterator[Any]:
    """Makes a bench that reads jobs with each poll; it is cleared away in the end."""
    made: list[BesideBench] = []
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:

        def make(rooms: Any = None, **options: Any) -> BesideBench:
            own = Path(folder) / str(len(made))
            own.mkdir()
            made.append(BesideBench(own, options.pop("world", world), rooms, **options))
            return made[-1]

        yield make
        for bench in made:
            bench.close()


def test_a_recording_is_counted_from_being_asked_for_to_its_end(benches: Any, world: World) -> None:
    room = world.room(name="standup")
    world.record(room, at(-10)).start(at(14)).stop(at(100)).complete(at(130))
    bench = benches()
    bench.poll()
    assert bench.value("hms_collector_up", collector="recordings") == 1
    assert bench.value("hms_recordings_active", room="standup", status="starting") == 1
    assert bench.value("hms_recording_starting_since_timestamp_seconds", room="standup") == at(-10) / SECOND
    bench.poll(42)
    assert {s: bench.value("hms_recordings_active", status=s) for s in ACTIVE} == {**dict.fromkeys(ACTIVE, 0), "running": 1}
    assert bench.value("hms_recording_starting_since_timestamp_seconds") is None
    assert bench.value("hms_recording_seconds_total", room="standup") == pytest.approx(28, abs=1)
    bench.poll(120)
    counted = [bench.value(f"hms_recordings_{name}_total", room="standup") for name in ("requested", "started", "completed", "failed")]
    assert counted == [1, 1, 1, 0]
    assert bench.value("hms_recording_seconds_total", room="standup") == 86
    assert bench.value("hms_recording_start_delay_seconds_sum") == 24
    assert bench.value("hms_recording_processing_seconds_sum") == 30
