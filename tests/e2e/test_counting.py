"""Totals equal the truth through restarts, kills, downtime, faults and wrong clocks: nothing is lost or counted twice."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from exporter.simulator import ABSENT, Fault, Manners, Shape, SimulatedApi, World, real_clock, shifted_clock
from exporter.times import DAY, HOUR, MINUTE, SECOND, rfc3339
from tests.e2e.program import (
    Program,
    Scraper,
    busy,
    comes_to,
    configure,
    counted,
    expected,
    present,
    running,
    series,
    some,
    total,
    wait_until,
    workspace,
)


def over(api: SimulatedApi, end: int) -> None:
    """Waits until the API's clock has passed this time."""
    wait_until(lambda: api.clock() > end, 60)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("offset", "manners", "shape"),
    [
        (0, Manners(), Shape()),
        (HOUR, Manners(max_page_size=20, active_default="all", empty_data="list", final_last="absent"), Shape(digits=3, peers="list")),
        (-DAY, Manners(active_default="true", final_last="empty"), Shape(digits=9, connected="zero", old_peers=True)),
    ],
    ids=["as documented", "an hour ahead, small pages", "a day behind, old records"],
)
def test_sessions_around_inside_and_between_polls_come_to_the_truth(
    tmp_path: Path, world: World, api: SimulatedApi, offset: int, manners: Manners, shape: Shape
) -> None:
    api.clock, api.manners, world.shape = shifted_clock(offset), manners, shape
    rooms = [world.room(name=f"room-{number}") for number in range(4)]
    now = api.clock() // 1000 * 1000
    # Some calls begin before the exporter starts, and some of these end while it runs.
    early = world.open(rooms[0].id, now - HOUR)
    leaving = early.join("host", now - HOUR + 1000, "c4nary-user-0", "C4nary Person 0")
    ended_before = world.open(rooms[0].id, now - 2 * HOUR)
    ended_before.close(now - 2 * HOUR + MINUTE)
    config = configure(tmp_path, api, workspace(rooms=[room.id for room in rooms]))
    with running(tmp_path, f"--config.file={config}") as program, Scraper(program) as scraper:
        # Scripted only now, because the start may take long, and calls that end before the first poll do not count.
        wait_until(lambda: program.value("hms_up") == 1)
        now = api.clock() // 1000 * 1000
        leaving.leave(now + SECOND)
        early.close(now + 2 * SECOND)
        busy(world, rooms, now + SECOND, now + 4 * SECOND)
        skew = program.value("hms_exporter_clock_skew_seconds")
        assert skew is not None
        assert abs(skew - offset / SECOND) < 2
        over(api, now + 4 * SECOND)
        comes_to(program, expected(world, now + 4 * SECOND, rooms, besides=[ended_before]))
        assert total(program.metrics(), "hms_exporter_records_rejected_total") == 0
    assert scraper.falls == []
    assert scraper.scrapes > 20


@pytest.mark.slow
def test_kills_between_and_during_polls_lose_nothing_and_no_counter_is_seen_to_fall(
    tmp_path: Path, world: World, api: SimulatedApi
) -> None:
    chance = random.Random(7)
    rooms = [world.room(name=f"room-{number}") for number in range(5)]
    config = configure(tmp_path, api, workspace(rooms=[room.id for room in rooms]))
    api.faults.add(Fault(kind="stall", seconds=0.25, probability=0.5))
    program = Program(tmp_path, f"--config.file={config}")
    wait_until(lambda: program.value("hms_up") == 1)
    begin = present()
    end = begin + 13 * SECOND
    busy(world, rooms, begin, end, seed=7)
    try:
        with Scraper(program) as scraper:
            kills = 0
            while real_clock() < end - SECOND:
                time.sleep(chance.uniform(0.2, 1.4))  # at a random moment, within a poll or between two
                program.kill()
                program.check_log()
                kills += 1
                program = scraper.program = Program(tmp_path, f"--config.file={config}")
                _ = program.address
            api.faults.clear()
            over(api, end)
            comes_to(program, expected(world, end, rooms))
    finally:
        program.kill()
    assert kills >= 3
    assert scraper.falls == []
    assert scraper.scrapes > 50


@pytest.mark.slow
def test_calls_during_downtime_are_counted_after_the_restart(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    room, other = world.room(name="daily"), world.room(name="weekly")
    config = configure(tmp_path, api)
    now = present()
    running_on = world.open(room.id, now - MINUTE)
    running_on.join("host", now - MINUTE)
    with running(tmp_path, f"--config.file={config}") as program:
        wait_until(lambda: total(program.metrics(), "hms_sessions_started_total") == 1)
        program.polled()
        before = counted(program.metrics())
        assert program.stop() == 0
    now = present()
    busy(world, [room, other], now, now + 2 * SECOND, seed=3)
    running_on.close(now + SECOND)
    over(api, now + 2 * SECOND)
    api.stop()
    with running(tmp_path, f"--config.file={config}") as program:
        assert counted(program.metrics()) == before, "counters are published before the first good poll"
        assert program.value("hms_up") == 0
        api.start()
        comes_to(program, expected(world, now + 2 * SECOND, [room, other]))


@pytest.mark.slow
def test_faults_at_random_cost_no_second(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    rooms = [world.room(name=f"room-{number}") for number in range(3)]
    limits = {"max_retries": 1, "timeout": "300ms"}
    config = configure(tmp_path, api, workspace(rooms=[room.id for room in rooms]), api=limits, poll={"since": "1h"})
    kinds: list[Any] = ["reset", "reset_in_body", "cut_short", "html", "wrong_types", "deep_nesting", "stall", "repeated_item", "no_date"]
    for kind in kinds:
        api.faults.add(Fault(kind=kind, probability=0.03))
    for status in (401, 403, 408, 429, 500, 503):
        api.faults.add(Fault(kind="status", status=status, probability=0.03))
    # For a room, 404 is an answer: there is no such room.
    api.faults.add(Fault(kind="status", status=404, probability=0.03, match="/sessions"))
    now = present()
    end = now + 7 * SECOND
    busy(world, rooms, now, end, seed=11)
    with running(tmp_path, f"--config.file={config}") as program, Scraper(program) as scraper:
        over(api, end)
        api.faults.clear()
        comes_to(program, expected(world, end, rooms))
        wait_until(lambda: program.value("hms_up") == 1)
        assert total(program.metrics(), "hms_exporter_records_rejected_total") == 0
    assert scraper.falls == []


@pytest.mark.slow
def test_storms_of_429_are_waited_out(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    room = world.room(name="daily")
    config = configure(tmp_path, api, poll={"since": "1h"})
    now = present()
    api.faults.add(Fault(kind="status", status=429, message="rate limited, retry after 1 seconds", probability=0.5, times=12))
    busy(world, [room], now, now + 4 * SECOND)
    with running(tmp_path, f"--config.file={config}") as program:
        over(api, now + 4 * SECOND)
        comes_to(program, expected(world, now + 4 * SECOND, [room]))
        samples = program.metrics()
        assert total(samples, "hms_exporter_api_requests_total", code="429") > 0
        assert total(samples, "hms_exporter_api_retries_total") > 0
        assert total(samples, "hms_exporter_api_throttled_seconds_total") >= 1


@pytest.mark.slow
def test_two_exporters_with_the_same_fixed_since_publish_the_same_whenever_they_began(
    tmp_path: Path, world: World, api: SimulatedApi
) -> None:
    rooms = [world.room(name="daily"), world.room(name="weekly")]
    now = present()
    since = (now - 30 * DAY) // 1000 * 1000
    for number in range(60):
        session = world.open(rooms[number % 2].id, since - 2 * HOUR + number * 3 * HOUR + 1000)
        session.join("host", session.created_at + 1000).leave(session.created_at + MINUTE)
        session.close(session.created_at + HOUR)
    straddling = world.open(rooms[0].id, since - MINUTE)
    straddling.join("guest", since - MINUTE)
    straddling.close(since + MINUTE)
    counted_by = []
    for name in ("early", "late"):
        folder = tmp_path / name
        folder.mkdir()
        config = configure(folder, api, poll={"since": rfc3339(since)})
        with running(folder, f"--config.file={config}") as program:
            wait_until(lambda: total(program.metrics(), "hms_sessions_ended_total") == 60)
            program.polled()
            counted_by.append(counted(program.metrics()))
        extra = world.open(rooms[1].id, real_clock() - 3 * HOUR)
        extra.close(extra.created_at + HOUR)
        world.sessions[-1].vanish(0)  # the second sees the same past
    assert counted_by[0] == counted_by[1]
    whole = counted_by[0][series("hms_peer_seconds_total", workspace="default", room_id=rooms[0].id, room="daily", role="guest")]
    assert whole == 2 * 60_000, "a session that ended after `since` counts whole, from its own start"


@pytest.mark.slow
def test_a_malformed_record_costs_itself_is_counted_once_and_the_poll_is_good(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    room = world.room(name="daily")
    now = present()
    good, odd = world.open(room.id, now - MINUTE), world.open(room.id, now - MINUTE)
    good.join("host", now - MINUTE, "c4nary-user-1", "C4nary Person 1")
    odd.raw = {"created_at": "yesterday"}
    broken = good.join("guest", now - MINUTE, "c4nary-user-2", "C4nary Person 2")
    broken.raw = {"joined_at": "C4nary Person 2", "user_id": ["c4nary-user-2"]}
    nameless = world.open(room.id, now - MINUTE)
    nameless.raw = {"id": ABSENT}
    config = configure(tmp_path, api)
    with running(tmp_path, f"--config.file={config}") as program:
        wait_until(lambda: program.value("hms_up") == 1)
        program.polled(3)
        samples = program.metrics()
        assert samples[series("hms_up", workspace="default")] == 1
        assert total(samples, "hms_exporter_records_rejected_total", kind="session") == 2
        assert total(samples, "hms_exporter_records_rejected_total", kind="peer") == 1
        assert total(samples, "hms_sessions_active") == 1
        assert total(samples, "hms_peers_active") == 1
        assert program.log.count('msg="record rejected"') == 3


@pytest.mark.slow
def test_a_session_that_100ms_forgets_is_settled_as_last_seen_after_three_polls(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    room = world.room(name="daily")
    now = present()
    session = world.open(room.id, now - MINUTE)
    session.join("host", now - MINUTE)
    config = configure(tmp_path, api)
    with running(tmp_path, f"--config.file={config}") as program:
        wait_until(lambda: total(program.metrics(), "hms_sessions_active") == 1)
        session.vanish(0)
        wait_until(lambda: total(program.metrics(), "hms_sessions_ended_total") == 1)
        samples = program.metrics()
        assert total(samples, "hms_exporter_api_requests_total", endpoint="/sessions/{id}", code="404") == 3
        assert total(samples, "hms_peers_left_total") == 1
        assert total(samples, "hms_sessions_active") == 0
        ended = counted(samples)
        program.polled(2)
        assert counted(program.metrics()) == ended


@pytest.mark.slow
def test_gauges_show_who_is_there_now(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    room = world.room(name="daily", template="standup", region="eu")
    idle = world.room(name="never-used")
    now = present()
    session = world.open(room.id, now - HOUR)
    for number, role in enumerate(("host", "guest", "guest")):
        session.join(role, now - HOUR + number * SECOND, f"c4nary-user-{number // 2}", "C4nary Person")
    config = configure(tmp_path, api, workspace(rooms=[room.id, {"id": idle.id, "name": "mine"}, "65f0000000000000deadbeef"]))
    with running(tmp_path, f"--config.file={config}") as program:
        wait_until(lambda: program.value("hms_rooms_missing") == 1)
        samples = program.metrics()
        of_room = {"workspace": "default", "room_id": room.id, "room": "daily"}
        assert samples[series("hms_sessions_active", **of_room)] == 1
        assert samples[series("hms_session_start_timestamp_seconds", **of_room)] == pytest.approx((now - HOUR) / SECOND, abs=1e-3)
        assert samples[series("hms_peers_active", **of_room, role="host")] == 1
        assert samples[series("hms_peers_active", **of_room, role="guest")] == 2
        assert samples[series("hms_users_active", **of_room)] == 2
        assert samples[series("hms_peers_active_peak", **of_room)] == 3
        info = some(samples, "hms_room_info", room="daily")
        assert [dict(labels)["template"] for labels in info] == ["standup"]
        mine = {"workspace": "default", "room_id": idle.id, "room": "mine"}
        assert samples[series("hms_sessions_active", **mine)] == 0
        assert samples[series("hms_sessions_started_total", **mine)] == 0
        assert series("hms_session_start_timestamp_seconds", **mine) not in samples
        assert samples[series("hms_rooms_configured", workspace="default")] == 3
        assert samples[series("hms_rooms_tracked", workspace="default")] == 3
        assert some(samples, "hms_sessions_active", room="65f0000000000000deadbeef"), "a missing room is shown by its id"
        session.close(present())
        wait_until(lambda: program.value("hms_sessions_active", room_id=room.id, room="daily") == 0)
        samples = program.metrics()
        assert series("hms_session_start_timestamp_seconds", **of_room) not in samples
        assert samples[series("hms_peers_active", **of_room, role="guest")] == 0, "roles that were seen stay, at 0"
