"""The benchmark suite: the plain exporter that it compares with is correct, and every measurement runs."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from bench.plain import PlainExporter
from bench.report import Row, growth, table
from bench.rig import Rig
from bench.scrape import fill
from bench.suite import NAMES, measure
from bench.traffic import PLAIN_SERIES, SERIES, Traffic
from exporter.simulator import SimulatedApi, World, management_token, real_clock
from exporter.times import MINUTE, SECOND


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    found = registry.get_sample_value(f"plain_{name}", labels)
    assert found is not None, name
    return found


def test_the_plain_exporter_counts_what_the_records_say() -> None:
    """Also sessions that were seen running and ended later, and ones that began and ended between two polls."""
    now = real_clock()
    world = World("key", "a-secret-that-opens-only-the-simulator")
    room = world.room(name="stand-up")
    running = world.open(room.id, now - 10 * MINUTE)
    running.join("host", now - 10 * MINUTE)
    running.join("guest", now - 9 * MINUTE).leave(now - 5 * MINUTE)
    of_room = {"room_id": room.id, "room": "stand-up"}
    with SimulatedApi([world], clock=lambda: now) as api:
        registry = CollectorRegistry()
        plain = PlainExporter(api.base_url, management_token(world, now), {room.id: "stand-up"}, registry)
        plain.poll()
        assert value(registry, "sessions_active", **of_room) == 1
        assert value(registry, "users_active", **of_room) == 1
        assert value(registry, "peers_active", **of_room, role="host") == 1
        assert value(registry, "peers_active", **of_room, role="guest") == 0
        assert value(registry, "peer_seconds", **of_room, role="guest") == 240

        running.close(now + 30 * SECOND)
        brief = world.open(room.id, now + 35 * SECOND)
        brief.join("guest", now + 36 * SECOND)
        brief.close(now + 50 * SECOND)
        now += MINUTE
        plain.poll()
    truth = world.truth(now)
    assert value(registry, "sessions_active", **of_room) == 0
    assert value(registry, "sessions_started", **of_room) == truth.started[room.id] == 2
    assert value(registry, "sessions_ended", **of_room) == truth.ended[room.id] == 2
    assert value(registry, "session_seconds", **of_room) == pytest.approx(truth.session_us[room.id] / SECOND, abs=1e-3)
    for role in ("host", "guest"):
        assert value(registry, "peers_joined", **of_room, role=role) == truth.joins[room.id, role]
        assert value(registry, "peers_left", **of_room, role=role) == truth.leaves[room.id, role]
        assert value(registry, "peer_seconds", **of_room, role=role) == pytest.approx(truth.peer_us[room.id, role] / SECOND, abs=1e-3)


def test_rooms_of_the_benchmark_publish_as_many_series_as_it_says(tmp_path: Path) -> None:
    """The table gives sizes in series, so both exporters must publish the same number."""
    traffic = Traffic(40)
    rig = Rig(tmp_path, traffic, real_clock())
    rig.bodies = traffic.pages()
    rig.poll()
    rig.close()
    assert rig.series() == pytest.approx(40 * SERIES, rel=0.05)
    registry = CollectorRegistry()
    fill(registry, traffic)
    assert sum(len(family.samples) for family in registry.collect()) == 40 * PLAIN_SERIES


def test_growth_is_the_exponent_over_the_sizes() -> None:
    rows = [Row("square", f"{n}", "s", float(n * n), per=n) for n in (10, 100, 1000)]
    exponent = growth(rows)
    assert exponent is not None
    assert math.isclose(exponent, 2)
    assert "n^2.00" in table(rows)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NAMES)
def test_a_measurement_runs_at_its_smallest_size(name: str) -> None:
    rows = measure(name, quick=True)
    shown = table(rows)
    for row in rows:
        assert row.work in shown
        assert (row.theirs is None) == (row.against == "")
    assert any(row.ours > 0 for row in rows)
