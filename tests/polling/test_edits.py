"""Edits of the configuration do not change what has been counted.  Each test covers a way in which they once did.

Over real HTTP against a simulated 100ms.  An edit comes by reload, or by a restart with another configuration.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from exporter.config.config import LimitsConfig, PollConfig, RoomById, RoomsByName
from exporter.config.money import Budget
from exporter.simulator import Fault, Session, SimulatedApi, World
from exporter.times import SECOND
from lab.bench import QUICK, Bench, Rooms
from lab.counters import sums_of
from tests.e2e.program import ACCESS_KEY, SECRET, Program, configure, running, some, wait_until, workspace
from tests.harness import at, script_totals
from tests.marks import first_quick

DAY_S = 86_400.0


def call(world: World, room_id: str, start: float, end: float | None = None, peers: int = 1) -> Session:
    """A call in which this many peers stay from its beginning to its end, in seconds after `T0`."""
    session = world.open(room_id, at=at(start))
    for _ in range(peers):
        someone = session.join("host", at=at(start))
        if end is not None:
            someone.leave(at(end))
    if end is not None:
        session.close(at(end))
    return session


def by_id(*ids: str) -> list[RoomById | RoomsByName]:
    return [RoomById(room_id) for room_id in ids]


def by_name(*patterns: str) -> list[RoomById | RoomsByName]:
    return [RoomsByName(re.compile(pattern)) for pattern in patterns]


def by_reload(bench: Bench, rooms: Rooms) -> None:
    bench.configure(rooms)


def by_restart(bench: Bench, rooms: Rooms) -> None:
    bench.write(rooms)
    bench.restart()


EDITS = pytest.mark.parametrize("edit", [by_reload, by_restart])
Edit = Callable[[Bench, Rooms], None]


def room_names(bench: Bench) -> set[str]:
    """The label `room` of the counters that are published."""
    return {dict(labels)["room"] for name, labels in bench.samples() if name == "hms_sessions_started_total"}


# -- 1: the same room, asked for in other words -------------------------------------------------------------------

ROOM = "room-of-class-1"
SAME_ROOM: dict[str, tuple[Rooms, Rooms]] = {
    "id to everything": (by_id(ROOM), None),
    "everything to id": (None, by_id(ROOM)),
    "a pattern narrowed": (by_name("class-.*"), by_name("class-[0-9]+")),
    "pattern to id and pattern": (by_name("class-.*"), [*by_id(ROOM), *by_name("class-.*")]),
}


@EDITS
@pytest.mark.parametrize("change", SAME_ROOM)
def test_1_an_entry_that_changes_its_text_counts_nothing_again(
    benches: Callable[..., Bench], world: World, change: str, edit: Edit
) -> None:
    before, after = SAME_ROOM[change]
    world.room(id=ROOM, name="class-1")
    for days_ago in (4, 3, 2, 1, 0.6, 0.1):
        call(world, ROOM, -days_ago * DAY_S, -days_ago * DAY_S + 600)
    bench = benches(before, since=timedelta(days=5))
    bench.poll()
    bench.poll(30)
    edit(bench, after)
    for _ in range(3):
        bench.poll(30)
    assert bench.value("hms_exporter_catch_up_ratio") == 1
    assert bench.value("hms_sessions_started_total", room="class-1") == bench.value("hms_sessions_ended_total", room="class-1") == 6
    assert bench.value("hms_peer_seconds_total", room="class-1") == 6 * 600
    for distribution in ("session_duration_seconds", "session_peers", "peer_duration_seconds"):
        assert bench.value(f"hms_{distribution}_count") == 6
    with closing(sqlite3.connect(bench.state_file)) as db:
        assert db.execute("SELECT us FROM account").fetchall() == [(6 * 600 * SECOND,)]
        assert db.execute("SELECT SUM(us) FROM day").fetchone() == (6 * 600 * SECOND,)


# -- a workspace renamed --------------------------------------------------------------------------------------------


def rename_by_reload(bench: Bench, name: str) -> None:
    bench.configure(bench.workspace.rooms, name=name)


def rename_by_restart(bench: Bench, name: str) -> None:
    bench.write(bench.workspace.rooms, name=name)
    bench.restart()


RENAMES = pytest.mark.parametrize("rename", [rename_by_reload, rename_by_restart])


@RENAMES
@pytest.mark.parametrize("rooms", first_quick([None, by_id(ROOM), by_name("class-.*")]), ids=["all", "id", "pattern"])
def test_a_workspace_under_another_name_begins_anew_and_under_its_old_one_goes_on(
    benches: Callable[..., Bench], world: World, rooms: Rooms, rename: Callable[[Bench, str], None]
) -> None:
    world.room(id=ROOM, name="class-1")
    call(world, ROOM, -900, -600)  # before it all
    call(world, ROOM, 10, 110)  # under the old name
    call(world, ROOM, 400, 700)  # from the old name to the new one
    call(world, ROOM, 800, 900)  # under the new name
    call(world, ROOM, 1000, 2000)  # from the new name to the old one
    bench = benches(rooms)
    for _ in range(20):
        bench.poll(30)
    assert bench.value("hms_peer_seconds_total", workspace="w") == 100 + 200

    rename(bench, "another")
    assert {dict(labels).get("workspace", "another") for _, labels in bench.samples()} == {"another"}
    for _ in range(20):
        bench.poll(30)
    assert bench.value("hms_sessions_started_total", workspace="another") == 3
    assert bench.value("hms_peer_seconds_total", workspace="another") == 300 + 100 + 200

    rename(bench, "w")
    assert bench.value("hms_peer_seconds_total", workspace="w") == 100 + 200, "as it stood"
    assert bench.value("hms_peer_seconds_total", workspace="another") is None
    for _ in range(40):
        bench.poll(30)
    assert bench.value("hms_exporter_catch_up_ratio") == bench.value("hms_up") == 1
    assert bench.value("hms_sessions_started_total") == bench.value("hms_sessions_ended_total") == 4
    assert bench.value("hms_peer_seconds_total") == 100 + 300 + 100 + 1000

    rename(bench, "another")
    for _ in range(10):
        bench.poll(30)
    assert bench.value("hms_sessions_started_total") == bench.value("hms_sessions_ended_total") == 3
    assert bench.value("hms_peer_seconds_total") == 300 + 100 + 1000


# -- 2: edited while it was down ----------------------------------------------------------------------------------


@pytest.mark.parametrize("change", SAME_ROOM)
def test_2_calls_during_downtime_count_though_the_entry_was_edited_meanwhile(
    benches: Callable[..., Bench], world: World, change: str
) -> None:
    before, after = SAME_ROOM[change]
    world.room(id=ROOM, name="class-1")
    call(world, ROOM, -7200, -3600)  # over before the very first start
    call(world, ROOM, 5, 20)
    for hour in (0.5, 1.5, 2.5):
        call(world, ROOM, hour * 3600, hour * 3600 + 60)
    bench = benches(before)
    bench.poll()
    bench.poll(30)
    bench.now = at(3 * 3600)
    by_restart(bench, after)
    bench.finish()
    assert bench.totals() == script_totals(world.sessions, bench.now, at(0))
    assert bench.value("hms_sessions_ended_total", room="class-1") == 4


# -- 3: a new pattern beside an old one ---------------------------------------------------------------------------


@EDITS
@pytest.mark.parametrize("place", ["first", "last"])
def test_3_each_room_counts_by_the_entry_that_its_name_matches_wherever_a_new_one_is_put(
    benches: Callable[..., Bench], world: World, place: str, edit: Edit
) -> None:
    """New rooms count from the moment when the pattern that they match was added."""
    old, new = world.room(name="class-1").id, world.room(name="team-1").id
    for room_id in (old, new):
        call(world, room_id, 40, 50)  # between the last poll of the old configuration and the first of the new one
        call(world, room_id, 55, 100)  # running then
        call(world, room_id, 130, 140)
    bench = benches(by_name("class-.*"))
    bench.poll()
    bench.poll(30)
    edit(bench, by_name("team-.*", "class-.*") if place == "first" else by_name("class-.*", "team-.*"))
    bench.poll(30)
    bench.finish()
    assert bench.value("hms_sessions_ended_total", room="class-1") == 3
    assert bench.value("hms_sessions_ended_total", room="team-1") == 2
    assert bench.value("hms_peer_seconds_total", room="class-1") == 10 + 45 + 10
    assert bench.value("hms_peer_seconds_total", room="team-1") == 45 + 10


@EDITS
def test_3_a_call_seen_running_before_its_rooms_name_was_known_counts_by_the_entry_that_the_room_turns_out_to_be_in(
    benches: Callable[..., Bench], world: World, edit: Edit
) -> None:
    """The room does not match the old pattern, and the new one was added after the call had ended."""
    old, new = world.room(name="class-1").id, world.room(name="team-1").id
    for room_id in (old, new):
        call(world, room_id, -60, 100)
    bench = benches(by_name("class-.*"))
    bench.names = False
    bench.poll()
    bench.poll(30)
    bench.now = at(200)
    bench.names = True
    edit(bench, by_name("class-.*", "team-.*"))
    bench.poll(30)
    bench.finish()
    assert bench.value("hms_sessions_ended_total", room="class-1") == 1
    assert not bench.value("hms_sessions_started_total", room="team-1")


def test_3_a_room_that_100ms_does_not_name_for_a_while_keeps_what_counts_by_its_pattern(
    benches: Callable[..., Bench], world: World
) -> None:
    world.room(id=ROOM, name="class-1")
    bench = benches(by_name("class-.*"))
    bench.poll()
    call(world, ROOM, 400, 600)  # by the pattern alone: its own entry is added later
    call(world, ROOM, 1000, 4000)
    bench.clock.leap(1800)
    bench.configure([*by_id(ROOM), *by_name("class-.*")])
    bench.server.faults.add(Fault(kind="status", status=500, route="/rooms/<id>"))
    for _ in range(4):
        bench.poll(30)
    assert bench.value("hms_sessions_started_total", room=ROOM) == 1, "shown by its id, with what counts by its own entry"
    bench.server.faults.clear()
    bench.restart()
    bench.finish()
    assert bench.value("hms_sessions_ended_total", room="class-1") == 2
    assert bench.value("hms_peer_seconds_total", room="class-1") == 200 + 3000


# -- 4: taken out while its past is being read --------------------------------------------------------------------


@EDITS
def test_4_a_room_taken_out_while_its_past_is_still_being_read_goes_on_from_where_it_was(
    benches: Callable[..., Bench], world: World, edit: Edit
) -> None:
    room, other = world.room(name="r").id, world.room(name="other").id
    for number in range(600):
        call(world, room, -4 * DAY_S + number * 500, -4 * DAY_S + number * 500 + 60)
    bench = benches(by_id(room), since=timedelta(days=5), api=replace(QUICK, page_size=10))
    bench.server.faults.add(Fault(kind="reset", match="before=", after=15))  # the past, from some page on
    bench.poll()
    so_far = bench.value("hms_sessions_ended_total", room="r") or 0
    assert 0 < so_far < 600
    bench.server.faults.clear()
    edit(bench, by_id(other))
    bench.poll(30)
    bench.poll(30)
    assert bench.value("hms_sessions_ended_total", room="r") is None
    edit(bench, by_id(room))
    bench.finish()
    assert bench.value("hms_sessions_ended_total", room="r") == 600
    assert bench.value("hms_peer_seconds_total", room="r") == 600 * 60


# -- 5: a room leaves while a call runs ---------------------------------------------------------------------------


@EDITS
def test_5_a_room_that_is_no_longer_followed_leaves_at_once_and_its_call_is_followed_to_its_end_unseen(
    benches: Callable[..., Bench], world: World, edit: Edit
) -> None:
    stays, goes, comes = (world.room(name=name).id for name in ("class-1", "class-a", "class-2"))
    call(world, stays, -60)
    call(world, goes, -60, 95, peers=2)
    bench = benches(by_name("class-.*"), limits=LimitsConfig(max_rooms=2, room_idle_expiry=1e8))
    bench.poll()
    assert bench.value("hms_sessions_active", room="class-a") == 1
    edit(bench, by_name("class-[0-9]+"))
    bench.poll(30)
    assert room_names(bench) == {"class-1"}
    assert bench.value("hms_rooms_tracked") == 1
    call(world, comes, 40, 200)  # the room can have series of its own now
    bench.poll(30)
    assert bench.value("hms_sessions_active", room="class-2") == 1
    for _ in range(6):
        bench.poll(60)
    assert bench.poller.ledger.tracked.keys() == {session.id for session in world.sessions if session.room_id == stays}
    edit(bench, by_name("class-.*"))
    bench.configure(by_name("class-.*"), LimitsConfig(max_rooms=3, room_idle_expiry=1e8))
    call(world, goes, 600, 610)
    bench.poll(300)
    bench.poll(30)
    assert bench.value("hms_sessions_started_total", room="class-a") == bench.value("hms_sessions_ended_total", room="class-a") == 2
    assert bench.value("hms_peer_seconds_total", room="class-a") == 2 * 155 + 10


def test_5_a_room_renamed_out_of_its_pattern_keeps_its_call_to_its_end_and_then_leaves(benches: Callable[..., Bench], world: World) -> None:
    room, other = world.room(name="class-1"), world.room(name="class-2").id
    call(world, room.id, -60, DAY_S + 300)
    room.rename("elsewhere", at(600))
    bench = benches(by_name("class-.*"), limits=LimitsConfig(max_rooms=1, room_idle_expiry=1e8))
    bench.poll()
    bench.poll(DAY_S + 60)  # the names are refreshed after a day
    bench.poll(30)
    bench.poll(30)
    assert bench.value("hms_sessions_active", room="elsewhere") == 1
    call(world, room.id, DAY_S + 400, DAY_S + 500)  # no longer followed
    bench.poll(300)
    assert bench.value("hms_sessions_ended_total", room="elsewhere") == 1
    assert bench.value("hms_peer_seconds_total", room="elsewhere") == DAY_S + 360
    for _ in range(4):
        bench.poll(60)
    assert room_names(bench) == set()
    assert bench.value("hms_rooms_tracked") == 0
    assert bench.poller.ledger.tracked == {}
    call(world, other, DAY_S + 700)
    bench.poll(120)
    assert bench.value("hms_sessions_active", room="class-2") == 1


# -- 6 and 7: which rooms have series of their own ----------------------------------------------------------------


@EDITS
def test_6_with_fewer_places_rooms_keep_their_series_while_their_calls_run_and_for_three_more_polls(
    benches: Callable[..., Bench], world: World, edit: Edit
) -> None:
    rooms = [world.room(name=f"r{number}").id for number in range(6)]
    calls = [call(world, room_id, -60, peers=number + 1) for number, room_id in enumerate(rooms)]
    bench = benches(limits=LimitsConfig(max_rooms=6, room_idle_expiry=1e8))
    bench.poll()
    bench.config = replace(bench.config, limits=LimitsConfig(max_rooms=2, room_idle_expiry=1e8))
    edit(bench, None)
    bench.poll(30)
    assert room_names(bench) == {f"r{number}" for number in range(6)}
    assert bench.value("hms_sessions_active") == 6
    assert bench.value("hms_peers_active") == 21
    for one in calls:
        one.close(bench.now + 20 * SECOND)
    bench.poll(30)
    for _ in range(3):
        assert room_names(bench) == {f"r{number}" for number in range(6)}
        assert bench.value("hms_sessions_ended_total") == 6
        bench.poll(30)
    bench.poll(30)
    assert len(room_names(bench)) == 2
    new = sorted(set(rooms) - {room_id for room_id in rooms if bench.value("hms_sessions_started_total", room_id=room_id)})
    for room_id in new:
        call(world, room_id, (bench.now - at(0)) / SECOND + 10, peers=1)
    for room_id in set(rooms) - set(new):
        call(world, room_id, (bench.now - at(0)) / SECOND + 10, peers=9)
    bench.poll(30)
    assert bench.value("hms_sessions_active", room="_other") == 4
    assert bench.value("hms_rooms_overflowed") == 4
    assert bench.value("hms_sessions_active") == 6
    assert bench.value("hms_peers_active") == 4 + 2 * 9


def test_7_a_busy_room_takes_the_place_of_an_idle_one(benches: Callable[..., Bench], world: World) -> None:
    idle, busy = [world.room(name=f"idle-{number}").id for number in range(2)], world.room(name="busy").id
    for room_id in idle:
        call(world, room_id, -60, 10)
    call(world, busy, 310, 900, peers=500)
    bench = benches(limits=LimitsConfig(max_rooms=2, room_idle_expiry=DAY_S))
    bench.poll()
    for _ in range(10):
        bench.poll(30)
    assert room_names(bench) == {"idle-0", "idle-1"}
    bench.poll(30)
    assert bench.value("hms_peers_active", room="busy") == 500
    assert bench.value("hms_rooms_overflowed") == 0
    assert "_other" not in room_names(bench)


# -- 8, 9 and 10: reading the past makes progress -----------------------------------------------------------------


@pytest.mark.parametrize(("count", "page_size"), [(120, 10), pytest.param(1100, 100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("everything", first_quick([False, True]), ids=["by id", "everything"])
def test_8_any_number_of_calls_that_began_in_the_same_millisecond_is_read(
    benches: Callable[..., Bench], world: World, count: int, page_size: int, everything: bool
) -> None:
    room = world.room(name="r").id
    for _ in range(count):
        call(world, room, -2 * DAY_S, -2 * DAY_S + 60)
    call(world, room, -1 * DAY_S, -1 * DAY_S + 60)
    bench = benches(None if everything else by_id(room), since=timedelta(days=5), api=replace(QUICK, page_size=page_size))
    for _ in range(3):
        bench.poll(30)
    assert bench.value("hms_exporter_catch_up_ratio") == 1
    assert bench.value("hms_sessions_ended_total", room="r") == count + 1


@pytest.mark.slow
def test_9_polls_an_hour_apart_keep_up_with_1200_calls_an_hour_at_two_requests_a_second(
    benches: Callable[..., Bench], world: World
) -> None:
    rooms = [world.room(name=f"r{number}").id for number in range(4)]
    for number in range(6 * 1200):
        call(world, rooms[number % 4], 3 * number + 1, 3 * number + 2)
    bench = benches(api=replace(QUICK, max_requests_per_second=2.0))
    bench.config = replace(bench.config, poll=PollConfig(interval=3600.0))
    bench.configure(None)
    bench.poll()
    for hour in range(1, 7):
        bench.poll(3600)
        assert bench.up()
        assert bench.value("hms_sessions_ended_total") == hour * 1200
    assert bench.value("hms_exporter_catch_up_ratio") == 1


def test_10_a_room_whose_listing_fails_for_over_an_hour_holds_up_no_other(benches: Callable[..., Bench], world: World) -> None:
    good, bad, elsewhere = (world.room(name=name).id for name in ("good", "bad", "elsewhere"))
    for number in range(60):  # enough other sessions that each room is listed by itself
        call(world, elsewhere, -number - 1)
    for number in range(16 * 5):
        call(world, good, number * 60 + 10, number * 60 + 40)
        call(world, bad, number * 60 + 10, number * 60 + 40)
    bench = benches(by_id(good, bad), api=replace(QUICK, page_size=10))
    bench.config = replace(bench.config, poll=PollConfig(interval=300.0))
    bench.configure(by_id(good, bad))
    bench.poll()
    bench.server.faults.add(Fault(kind="status", status=500, match=f"room_id={bad}"))
    for number in range(1, 17):
        bench.poll(300)
        assert not bench.up()
        assert bench.value("hms_sessions_ended_total", room="good") == number * 5
    bench.server.faults.clear()
    bench.poll(300)
    assert bench.up()
    assert bench.value("hms_sessions_ended_total", room="bad") == 80


# -- 11: budgets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["by its id", "by its name"])
def test_11_a_budget_for_an_idle_room_that_is_added_by_a_reload_shows_its_usage(
    benches: Callable[..., Bench], world: World, named: str
) -> None:
    room = world.room(name="r").id
    call(world, room, 10, 310)
    bench = benches(limits=LimitsConfig(room_idle_expiry=600))
    bench.poll()
    bench.poll(330)
    for _ in range(3):
        bench.poll(600)
    assert room_names(bench) == set()
    budget = Budget("daily", "day", 10, rooms=frozenset({room if named == "by its id" else "r"}))
    bench.config = replace(bench.config, budgets=(budget,))
    bench.board.configure(bench.config.budgets)
    bench.configure(None)
    assert bench.value("hms_budget_used_ratio", budget="daily") == pytest.approx(0.5)
    bench.poll(30)
    assert bench.value("hms_budget_used_ratio", budget="daily") == pytest.approx(0.5)


# -- 12 and 13: records that change after their end ---------------------------------------------------------------


@pytest.mark.parametrize("rooms", ["everything", "by id"])
def test_12_a_leave_recorded_after_the_end_was_polled_is_not_over_counted_for_ever(
    benches: Callable[..., Bench], world: World, rooms: str
) -> None:
    """The counter stands still until the truth has caught up, and equals it from then on."""
    room = world.room(name="r").id
    session = call(world, room, -100)
    session.close(at(29))
    bench = benches(None if rooms == "everything" else by_id(room))
    bench.poll()
    bench.poll(30)
    assert bench.value("hms_peer_seconds_total", room="r") == 129
    bench.now += 3 * SECOND
    session.peers[0].leave(at(29 - 60))
    call(world, room, 200, 240)
    bench.poll(117)
    bench.poll(30)
    assert bench.value("hms_peer_seconds_total", room="r") == 129
    bench.finish()
    assert bench.totals()[room] == sums_of(
        sessions_started=2, sessions_ended=2, session_seconds=169 * SECOND, peers_joined=2, peers_left=2, peer_seconds=109 * SECOND
    )
    assert bench.value("hms_peer_seconds_total", room="r") == 129
    call(world, room, 1000, 1100)
    bench.finish()
    assert bench.value("hms_peer_seconds_total", room="r") == 69 + 40 + 100


@pytest.mark.parametrize("comes_back", ["running", "ended"])
@pytest.mark.parametrize("rooms", ["everything", "by id"])
def test_13_a_session_settled_after_three_404s_is_taken_up_again_when_it_comes_back(
    benches: Callable[..., Bench], world: World, comes_back: str, rooms: str
) -> None:
    room = world.room(name="r").id
    session = call(world, room, -100)
    session.vanish(at(40))
    bench = benches(None if rooms == "everything" else by_id(room))
    for _ in range(6):
        bench.poll(30)
    assert bench.value("hms_sessions_ended_total", room="r") == 1
    assert bench.value("hms_peer_seconds_total", room="r") == 130
    session.vanish(at(1e9))  # 100ms knows it again
    if comes_back == "ended":
        session.close(at(3600))
    bench.poll(2 * 3600)
    bench.poll(30)
    if comes_back == "running":
        assert bench.value("hms_sessions_active", room="r") == 1
        assert bench.value("hms_peer_seconds_total", room="r") == pytest.approx(100 + (bench.now - at(0)) / SECOND, abs=1)
        session.close(bench.now + 10 * SECOND)
        bench.poll(30)
    bench.finish()
    assert bench.totals() == script_totals(world.sessions, bench.now, at(0))
    assert bench.value("hms_sessions_started_total", room="r") == bench.value("hms_sessions_ended_total", room="r") == 1


# -- 14: what a first start costs ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_14_a_first_start_with_20_000_rooms_by_id_takes_a_few_seconds_of_cpu(tmp_path: Path) -> None:
    world = World(ACCESS_KEY, SECRET)
    rooms = [world.room(id=f"61652b404e556e35f{number:07x}", name=f"room-{number}").id for number in range(20_000)]
    with SimulatedApi([world]) as api:
        config = configure(tmp_path, api, workspace(rooms=rooms), poll={"interval": "30s"})
        with running(tmp_path, f"--config.file={config}") as program:
            wait_until(lambda: api.calls["/rooms"] >= 200, 90)  # all names, a hundred a page
            wait_until(lambda: len(some(program.metrics(), "hms_room_info")) == len(rooms), 60)
            used = cpu_seconds(program)
            calls = sum(api.calls.values())
            named = [dict(labels)["room"] for labels in some(program.metrics(), "hms_room_info")]
            assert sorted(named) == sorted(room.name_at(0) for room in world.rooms)
    assert used < 12
    assert calls < 210


def cpu_seconds(program: Program) -> float:
    """CPU seconds that this process has used."""
    user, system = Path(f"/proc/{program.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
