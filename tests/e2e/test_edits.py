"""Edits of the real program's configuration: fifty while a real Prometheus scrapes, and a workspace renamed during calls."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from exporter.simulator import SimulatedApi, World
from exporter.times import SECOND
from lab.counters import RISING
from tests.e2e.program import Scraper, busy, comes_to, configure, expected, present, running, total, wait_until, workspace
from tests.e2e.prometheus import scraping

EDITS = 50


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_prometheus_sees_no_reset_through_fifty_edits(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    rooms = [world.room(name=f"class-{number}") for number in range(4)]
    begin = present()
    end = begin + (EDITS + 15) * SECOND
    busy(world, rooms, begin + 2 * SECOND, end, seed=4)
    chance = random.Random(4)

    def edited(*, whole: bool = False) -> Path:
        """Another configuration: some or all of the rooms, in different forms."""
        ids: list[Any] = [room.id for room in rooms if whole or chance.random() < 0.6]
        patterns = [{"match": pattern} for pattern in ("class-.*", "class-[0-9]", ".*-1", "class-[23]") if whole or chance.random() < 0.4]
        entries = [*ids, *patterns]
        chance.shuffle(entries)
        asked: dict[str, Any] = {} if whole or not entries else {"rooms": entries}
        limits = {"max_rooms": 100 if whole else chance.choice((4, 100))}
        return configure(tmp_path, api, workspace(**asked), web={"enable_lifecycle": True}, limits=limits, poll={"since": "1h"})

    with running(tmp_path, f"--config.file={edited(whole=True)}") as program, scraping(tmp_path, program.address, "250ms") as prometheus:
        wait_until(lambda: program.value("hms_up") == 1)
        for _ in range(EDITS):
            edited()
            assert program.get("/-/reload", "POST").status_code == 200
            program.polled()
        edited(whole=True)
        assert program.get("/-/reload", "POST").status_code == 200
        wait_until(lambda: api.clock() > end, 60)
        comes_to(program, expected(world, end, rooms), 60)
        assert total(program.metrics(), "hms_exporter_config_last_reload_successful") == 1
        wait_until(lambda: prometheus.scrapes > 4 * EDITS / 2, 30)
        names = [name for name in sorted(RISING) if prometheus.ask(f"count({name})") > 0]
        assert len(names) > 10
        assert {name: prometheus.ask(f"sum(resets({name}[10m]))") for name in names} == dict.fromkeys(names, 0)


@pytest.mark.slow
def test_a_workspace_is_renamed_and_named_back_during_calls(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    rooms = [world.room(name=f"class-{number}") for number in range(3)]
    begin = present()
    end = begin + 14 * SECOND
    busy(world, rooms, begin, end, seed=9)

    def named(*names: str) -> Path:
        return configure(tmp_path, api, *(workspace(name) for name in names), web={"enable_lifecycle": True}, poll={"since": "1h"})

    def reloaded(*names: str) -> None:
        named(*names)
        assert program.get("/-/reload", "POST").status_code == 200

    with running(tmp_path, f"--config.file={named('default')}") as program, Scraper(program) as scraper:
        program.polled(2)
        reloaded("another")
        program.polled(3, "another")
        assert not [key for key in program.metrics() if ("workspace", "default") in key.labels]
        reloaded("default")
        program.polled(2)
        reloaded("another", "default")
        wait_until(lambda: api.clock() > end, 60)
        comes_to(program, expected(world, end, rooms) | expected(world, end, rooms, workspace="another"))
        assert scraper.falls == []
