"""`web.created_timestamps` with a real Prometheus: `increase` sees the first value of a series whole, and only then."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from exporter.simulator import SimulatedApi, World
from exporter.times import SECOND
from tests.e2e.program import configure, present, running, wait_until, workspace
from tests.e2e.prometheus import scraping

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
CREATED = re.compile(r"^(hms_\w+)_created\{(.*)\} (\S+)$", re.MULTILINE)


def test_increase_sees_a_rooms_first_call_whole_across_a_restart(tmp_path: Path, api: SimulatedApi, world: World) -> None:
    standing = world.room(name="standing")
    configure(tmp_path, api, web={"listen_address": "127.0.0.1:0", "created_timestamps": True})
    with running(tmp_path, "--config.file", "config.yaml") as program:
        wait_until(lambda: program.get("/-/ready").status_code == 200)
        address = program.address
        with scraping(tmp_path, address, "500ms", features=["created-timestamp-zero-ingestion"]) as prometheus:
            wait_until(lambda: prometheus.ask("count(hms_up)") == 1)
            prometheus.scraped(3)  # without the room
            room = world.room(name="first")
            with world.lock:
                now = present()
                session = world.open(room.id, now - 400_000)
                for number in range(3):
                    session.join("guest", now - 300_000 + number * 1000).leave(now - 1000)
                session.close(now)
            truth = {"hms_sessions_started_total": 1, "hms_peers_joined_total": 3, "hms_session_duration_seconds_count": 1}
            wait_until(lambda: prometheus.ask('hms_sessions_started_total{room="first"}') == 1)
            prometheus.scraped(2)
            query = "max_over_time({}[1m]) - min_over_time({}[1m])"
            for name, value in truth.items():
                selector = name if "duration" in name else f'{name}{{room="first"}}'
                assert prometheus.ask(query.format(selector, selector)) == value
                assert value <= prometheus.ask(f"increase({selector}[1m])") < value * 1.5
            before = {(name, labels): at for name, labels, at in CREATED.findall(program.get("/metrics", Accept=OPENMETRICS).text)}
            assert program.stop() == 0
            configure(tmp_path, api, web={"listen_address": address, "created_timestamps": True})
            with running(tmp_path, "--config.file", "config.yaml") as again:
                wait_until(lambda: again.get("/-/ready").status_code == 200)
                after = {(name, labels): at for name, labels, at in CREATED.findall(again.get("/metrics", Accept=OPENMETRICS).text)}
                ours = {key: at for key, at in before.items() if not key[0].startswith("hms_exporter")}
                assert len(ours) >= 9
                assert {key: after.get(key) for key in ours} == ours
                prometheus.scraped(4)
                for name, value in truth.items():
                    selector = name if "duration" in name else f'{name}{{room="first"}}'
                    assert prometheus.ask(query.format(selector, selector)) == value
    del standing


def test_it_is_the_moment_before_the_first_thing_in_a_series(tmp_path: Path, api: SimulatedApi, world: World) -> None:
    idle, busy = world.room(name="idle"), world.room(name="busy")
    start = present() - 3600 * SECOND
    with world.lock:
        session = world.open(busy.id, start)
        session.join("host", start + SECOND)
    configure(tmp_path, api, workspace(rooms=[idle.id, busy.id]), web={"listen_address": "127.0.0.1:0", "created_timestamps": True})
    began = time.time()
    with running(tmp_path, "--config.file", "config.yaml") as program:
        wait_until(lambda: program.get("/-/ready").status_code == 200)

        def created() -> dict[tuple[str, str], float]:
            text = program.get("/metrics", Accept=OPENMETRICS).text
            found = {}
            for name, labels, at in CREATED.findall(text):
                room = re.search(r'room="(\w+)"', labels)
                role = re.search(r'role="(\w+)"', labels)
                found[name, f"{room[1] if room else ''}/{role[1] if role else ''}"] = float(at)
            return found

        wait_until(lambda: {"busy/", "idle/"} <= {series for _, series in created()})
        found = created()
        assert found["hms_sessions_started", "busy/"] == found["hms_peers_joined", "busy/host"] == start / SECOND
        assert began - 3 <= found["hms_sessions_started", "idle/"] <= time.time()
        assert began - 3 <= found["hms_session_duration_seconds", "/"] <= time.time()
        with world.lock:
            joined = present()
            session.join("guest", joined)
        wait_until(lambda: ("hms_peers_joined", "busy/guest") in created())
        later = created()
        assert joined / SECOND - 3 <= later["hms_peers_joined", "busy/guest"] <= joined / SECOND
        # The exporter's own counters begin with their labels. Several of their series share a key here.
        assert all(later[key] == found[key] for key in found if not key[0].startswith("hms_exporter_"))


@pytest.mark.parametrize("on", [False, True])
def test_off_it_changes_nothing_and_on_only_openmetrics(tmp_path: Path, api: SimulatedApi, world: World, on: bool) -> None:
    with world.lock:
        world.open(world.room(name="r").id, present()).join("host", present())
    configure(tmp_path, api, web={"listen_address": "127.0.0.1:0", "created_timestamps": on})
    with running(tmp_path, "--config.file", "config.yaml") as program:
        wait_until(lambda: program.get("/-/ready").status_code == 200)
        assert "_created" not in program.get("/metrics").text
        assert ("_created" in program.get("/metrics", Accept=OPENMETRICS).text) == on
