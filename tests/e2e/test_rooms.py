"""The series of rooms and their names: discovered, matched, grouped, overflowing, idle and nameless rooms."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.simulator import Fault, Room, Session, SimulatedApi, World
from exporter.times import MINUTE
from tests.e2e.program import Program, configure, present, running, some, total, wait_until, workspace


def call(world: World, room: Room, peers: int = 1) -> Session:
    """A running call that began a minute ago."""
    session = world.open(room.id, present() - MINUTE)
    for _ in range(peers):
        session.join("host", present() - MINUTE)
    return session


def rooms(program: Program, name: str = "hms_sessions_started_total") -> dict[str, float]:
    """A metric's values by the label `room`."""
    return {dict(labels)["room"]: value for labels, value in some(program.metrics(), name).items()}


@pytest.mark.slow
def test_discovered_rooms_are_published_from_their_first_session_on(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    daily, weekly = world.room(name="daily"), world.room(name="weekly")
    call(world, daily)
    with running(tmp_path, f"--config.file={configure(tmp_path, api)}") as program:
        wait_until(lambda: rooms(program) == {"daily": 1})
        call(world, weekly)
        wait_until(lambda: rooms(program) == {"daily": 1, "weekly": 1})
        assert program.value("hms_rooms_configured") == 0
        assert program.value("hms_rooms_tracked") == 2


@pytest.mark.slow
def test_patterns_choose_rooms_by_their_whole_name_and_groups_publish_them_as_one(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    for name in ("class-north-1", "class-north-2", "class-south-1", "support-1", "my-support-1", "other"):
        call(world, world.room(name=name), peers=2)
    patterns = [{"match": "class-(?P<school>[a-z]+)-.*", "group": "class-${school}"}, {"match": "support-.*"}]
    with running(tmp_path, f"--config.file={configure(tmp_path, api, workspace(rooms=patterns))}") as program:
        wait_until(lambda: rooms(program) == {"class-north": 2, "class-south": 1, "support-1": 1})
        wait_until(lambda: rooms(program, "hms_peers_active") == {"class-north": 4, "class-south": 2, "support-1": 2})
        by_label = {dict(labels)["room"]: set(dict(labels)) for labels in some(program.metrics(), "hms_sessions_active")}
        assert by_label["class-north"] == {"workspace", "room"}
        assert by_label["support-1"] == {"workspace", "room_id", "room"}


@pytest.mark.slow
def test_rooms_beyond_the_limit_are_counted_together_and_the_busiest_keep_their_series(
    tmp_path: Path, world: World, api: SimulatedApi
) -> None:
    for number in range(5):
        call(world, world.room(name=f"room-{number}"), peers=number + 1)
    with running(tmp_path, f"--config.file={configure(tmp_path, api, limits={'max_rooms': 2})}") as program:
        wait_until(lambda: rooms(program, "hms_peers_joined_total") == {"room-4": 5, "room-3": 4, "_other": 6})
        assert program.value("hms_rooms_overflowed") == 3
        assert program.value("hms_rooms_tracked") == 2
        assert [set(dict(labels)) for labels in some(program.metrics(), "hms_sessions_active", room="_other")] == [{"workspace", "room"}]


@pytest.mark.slow
def test_an_idle_room_leaves_and_comes_back_with_its_totals(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    room = world.room(name="daily")
    session = call(world, room)
    with running(tmp_path, f"--config.file={configure(tmp_path, api, limits={'room_idle_expiry': '3s'})}") as program:
        # Calls that end before the first poll do not count.
        wait_until(lambda: program.value("hms_up") == 1)
        session.close(present())
        seconds = 0.0

        def ended() -> bool:
            # Read from one page: a moment later the room may have left.
            nonlocal seconds
            samples = program.metrics()
            seconds = total(samples, "hms_session_seconds_total")
            return total(samples, "hms_sessions_ended_total") == 1

        wait_until(ended)
        wait_until(lambda: rooms(program) == {})
        call(world, room)
        wait_until(lambda: rooms(program) == {"daily": 2})
        assert total(program.metrics(), "hms_session_seconds_total") > seconds + 60


@pytest.mark.slow
def test_a_name_that_does_not_come_is_waited_for_three_polls_and_then_the_id_serves(
    tmp_path: Path, world: World, api: SimulatedApi
) -> None:
    room = world.room(name="daily")
    call(world, room)
    fault = Fault(kind="status", status=500, route="/rooms/<id>")
    api.faults.add(fault)
    config = configure(tmp_path, api, workspace(rooms=[room.id]), api={"max_retries": 0})
    with running(tmp_path, f"--config.file={config}") as program:
        wait_until(lambda: program.value("hms_up") == 1)
        wait_until(lambda: rooms(program) == {room.id: 1})
        polls = program.value("hms_exporter_polls_total")
        assert polls is not None
        assert 3 <= polls <= 5
        api.faults.clear()
        wait_until(lambda: rooms(program) == {"daily": 1})
    with running(tmp_path, f"--config.file={config}") as program:
        assert rooms(program) == {"daily": 1}, "the name is known at once after a restart"
