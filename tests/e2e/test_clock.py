"""The machine's wall clock is set while the program runs, forwards and back, by an hour and by a day."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from exporter.simulator import SimulatedApi, World
from exporter.times import SECOND
from tests.e2e.program import Scraper, busy, comes_to, configure, environment, expected, present, running, wait_until, workspace
from tests.programs import require

HOUR_S, DAY_S = 3600, 86_400


class WallClock:
    """The wall clock of processes that are started with `environment`."""

    def __init__(self, folder: Path) -> None:
        library = folder / "wall_clock.so"
        source = Path(__file__).with_name("wall_clock.c")
        subprocess.run([require("cc"), "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source], check=True)
        self._file = folder / "set_by"
        self._file.write_bytes(bytes(8))
        self.environment = environment(LD_PRELOAD=str(library), WALL_CLOCK=str(self._file))

    def set_by(self, seconds: int) -> None:
        """Sets it this far from the true time, at once."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("=q", seconds))


@pytest.mark.slow
def test_polls_keep_their_beat_and_counters_their_truth_when_the_wall_clock_is_set(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    """The totals are exact and no counter ever falls, also when the program starts with a wrong clock."""
    clock = WallClock(tmp_path)
    room = world.room(name="daily")
    config = configure(tmp_path, api, workspace(rooms=[room.id]), poll={"since": "1h"})
    now = present()
    end = now + 24 * SECOND
    busy(world, [room], now, end, seed=3)
    with running(tmp_path, f"--config.file={config}", env=clock.environment) as program, Scraper(program) as scraper:
        wait_until(lambda: program.value("hms_up") == 1)
        for set_by in (HOUR_S, 0, DAY_S, -HOUR_S, -DAY_S):
            begun, before = api.clock(), program.value("hms_exporter_polls_total")
            clock.set_by(set_by)
            program.polled(3)
            after = program.value("hms_exporter_polls_total")
            assert before is not None
            assert after is not None
            assert after - before <= (api.clock() - begun) / SECOND + 2, "missed polls are not made up for"
            assert program.value("hms_up") == 1
            assert program.value("hms_exporter_clock_skew_seconds") == pytest.approx(-set_by, abs=2)
        program.kill()
        with running(tmp_path, f"--config.file={config}", env=clock.environment) as program:
            scraper.program = program
            wait_until(lambda: program.value("hms_up") == 1)
            clock.set_by(0)
            wait_until(lambda: api.clock() > end, seconds=30)
            comes_to(program, expected(world, end, [room]))
    assert scraper.scrapes > 100
    assert scraper.falls == []
