"""Recordings and streams, polled over real HTTP: the counts are exact, the calls are few, and each collector fails alone."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from exporter.config.config import CollectConfig, LimitsConfig, RoomById, RoomsByName
from exporter.hms.jobs import ACTIVE
from exporter.simulator import Fault, World
from exporter.simulator.jobs import Kind
from exporter.simulator.seeds import MARK
from exporter.state.tables import COLLECTOR, CollectorRow
from exporter.times import DAY, SECOND
from lab.beside import BesideBench
from tests.harness import at, places_of

METRICS: dict[Kind, tuple[str, str]] = {
    "recording": ("recording", "recordings"),
    "live_stream": ("live_stream", "live_streams"),
    "external_stream": ("external_stream", "external_streams"),
}


@pytest.fixture
def benches(beside_benches: Callable[..., BesideBench]) -> Callable[..., BesideBench]:
    """A factory of benches that read jobs with each poll."""
    return beside_benches


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


def calls(bench: BesideBench) -> dict[str, int]:
    """The calls since the last time this was asked, without those for sessions and names."""
    found = {route: count for route, count in bench.server.calls.items() if not route.startswith(("/sessions", "/rooms"))}
    bench.server.calls.clear()
    return found


METRIC_KINDS = ("recordings", "live_streams", "external_streams")
ONE_EACH = {"/recordings": 1, "/live-streams": 1, "/external-streams": 1}


# -- what it costs ------------------------------------------------------------------------------------------------


def test_one_call_for_each_kind_a_read_while_something_is_open(benches: Any, world: World) -> None:
    room = world.room(name="r")
    for ask in (world.record, world.stream, world.push):
        for number in range(60):
            ask(room, at(-number * 30)).start(at(1000 - number))
    bench = benches()
    for seconds in (0, 30, 30):
        bench.poll(seconds)
        assert calls(bench) == ONE_EACH


def test_one_call_for_each_kind_in_ten_intervals_where_there_was_nothing_for_an_hour(benches: Any, world: World) -> None:
    room = world.room(name="r")
    world.record(room, at(-50)).start(at(-40)).stop(at(-30)).complete(at(-20))
    bench = benches(collect=CollectConfig(interval=60.0, live_streams=False))
    bench.poll()
    assert calls(bench) == {"/recordings": 1, "/external-streams": 1}
    found = [calls(bench) for _ in range(130) if bench.poll(30) is not None]
    assert sum(of.get("/external-streams", 0) for of in found[:120]) == 6
    assert sum(of.get("/recordings", 0) for of in found[:118]) == 59
    bench.poll(30)
    assert sum(of.get("/recordings", 0) for of in found[119:]) <= 2


def test_a_job_open_for_long_among_many_new_ones_is_asked_for_by_its_id(benches: Any, world: World) -> None:
    room = world.room(name="r")
    long = world.record(room, at(-20_000)).start(at(-19_990))
    for number in range(600):
        world.record(room, at(-18_000 + number * 25)).fail(at(-18_000 + number * 25 + 20))
    bench = benches(collect=CollectConfig(interval=30.0, live_streams=False, external_streams=False))
    bench.poll()
    assert bench.value("hms_recordings_active", status="running") == 1
    calls(bench)
    bench.poll(300)
    assert calls(bench) == {"/recordings": 1, "/recordings/<id>": 1}
    long.stop(at(400)).complete(at(420))
    bench.poll(300)
    assert bench.value("hms_recording_seconds_total") == 20_390


def test_a_collector_that_is_turned_off_asks_nothing_and_shows_nothing(benches: Any, world: World) -> None:
    bench = benches(collect=CollectConfig(recordings=False, live_streams=False, external_streams=False))
    bench.poll()
    assert calls(bench) == {}
    assert bench.value("hms_collector_up") is None


# -- from when, and the past --------------------------------------------------------------------------------------


def test_jobs_that_ended_before_the_start_do_not_count_and_open_ones_do(benches: Any, world: World) -> None:
    room = world.room(name="r")
    world.record(room, at(-500)).start(at(-490)).stop(at(-100)).complete(at(-50))
    world.record(room, at(-400)).start(at(-390)).stop(at(100)).complete(at(120))
    bench = benches()
    for seconds in (0, 30, 300):
        bench.poll(seconds)
    assert bench.value("hms_recordings_requested_total") == 1
    assert bench.value("hms_recording_seconds_total") == 490


def test_the_past_is_read_page_by_page_and_continued_after_a_kill(benches: Any, world: World) -> None:
    room = world.room(name="r")
    for number in range(2500):
        begin = -200_000 + number * 75
        world.record(room, at(begin)).start(at(begin + 5)).stop(at(begin + 35)).complete(at(begin + 40))
    since = datetime.fromtimestamp(at(-100_000) / SECOND, UTC)
    bench = benches(since=since, collect=CollectConfig(interval=30.0, live_streams=False, external_streams=False))
    bench.server.faults.add(Fault(kind="status", route="/recordings", after=12, times=1))
    bench.poll()
    bench.restart()
    for seconds in (30, 30, 60, 60):
        bench.poll(seconds)
    ended = sum(-200_000 + number * 75 + 35 > -100_000 for number in range(2500))
    assert bench.value("hms_recordings_completed_total") == ended
    assert bench.value("hms_recording_seconds_total") == 30 * ended
    assert calls(bench)["/recordings"] < 45


def test_jobs_during_downtime_count(benches: Any, world: World) -> None:
    room = world.room(name="r")
    bench = benches()
    bench.poll()
    for number in range(300):
        begin = 1000 + number * 60
        world.stream(room, at(begin)).start(at(begin + 5)).stop(at(begin + 35)).complete(at(begin + 40))
    bench.end()
    bench.now = at(30_000)
    bench.begin()
    for seconds in (0, 30, 300):
        bench.poll(seconds)
    assert bench.value("hms_live_streams_completed_total") == 300
    assert bench.value("hms_live_stream_seconds_total") == 9000


def test_after_a_restart_counters_are_published_at_once_and_gauges_are_not(benches: Any, world: World) -> None:
    room = world.room(name="r")
    world.record(room, at(-50)).start(at(-40))
    bench = benches()
    bench.poll()
    bench.poll(30)
    before = bench.value("hms_recording_seconds_total")
    bench.restart()
    assert bench.value("hms_recording_seconds_total") == before == pytest.approx(70, abs=1)
    assert bench.value("hms_recordings_active") is None
    assert bench.value("hms_collector_up", collector="recordings") == 0


def test_pages_of_the_past_in_which_nothing_makes_sense_are_passed_over(benches: Any, world: World) -> None:
    room = world.room(name="r")
    for number in range(2600):
        begin = -number * 60 - 60
        job = world.record(room, at(begin)).start(at(begin + 10)).stop(at(begin + 30)).complete(at(begin + 31))
        if 200 <= number < 2500:
            job.raw = {"created_at": "nonsense"}
    since = datetime.fromtimestamp(at(-2550 * 60) / SECOND, UTC)
    bench = benches(since=since, collect=CollectConfig(interval=30.0, live_streams=False, external_streams=False))
    for seconds in (0, 30, 30):
        bench.poll(seconds)
    assert bench.value("hms_recordings_completed_total") == 250
    assert bench.server.calls["/recordings"] <= 30


def test_counts_that_could_not_be_stored_are_not_published(benches: Any, world: World) -> None:
    room = world.room(name="r")
    world.record(room, at(-50)).start(at(-40))
    bench = benches()
    bench.poll()
    before = bench.value("hms_recording_seconds_total")
    bench.store.close()
    bench.poll(30)
    assert bench.value("hms_recording_seconds_total") == before
    bench.begin()
    assert bench.value("hms_recording_seconds_total") == before
    bench.poll()
    assert bench.value("hms_recording_seconds_total") == pytest.approx(70, abs=1)


def test_a_room_that_is_taken_out_while_it_is_recorded_is_exact_when_it_comes_back(benches: Any, world: World) -> None:
    room, other = world.room(name="r"), world.room(name="other")
    world.record(room, at(-50)).start(at(-40)).stop(at(500)).complete(at(520))
    bench = benches([RoomById(room.id), RoomById(other.id)])
    bench.poll()
    bench.configure([RoomById(other.id)])
    for seconds in (30, 600):
        bench.poll(seconds)
    assert bench.value("hms_recordings_requested_total") is None
    bench.configure([RoomById(room.id), RoomById(other.id)])
    for seconds in (30, 600):
        bench.poll(seconds)
    assert bench.value("hms_recordings_completed_total", room="r") == 1
    assert bench.value("hms_recording_seconds_total", room="r") == 540


def test_a_room_that_100ms_does_not_name_for_a_while_keeps_what_counts_by_its_pattern(benches: Any, world: World) -> None:
    room = world.room(name="class-1")
    pattern = RoomsByName(re.compile("class-.*"))
    bench = benches([pattern])
    bench.poll()
    for begin, end in ((400, 600), (1000, 4000)):  # the first by the pattern alone: the room's own entry is added later
        world.record(room, at(begin)).start(at(begin)).stop(at(end)).complete(at(end + 10))
    bench.server.faults.add(Fault(kind="status", status=500, route="/rooms/<id>"))
    bench.poll(1800)
    bench.configure([RoomById(room.id), pattern])
    for _ in range(5):
        bench.poll(30)
    bench.server.faults.clear()
    bench.restart()
    for _ in range(10):
        bench.poll(600)
    assert bench.value("hms_recordings_completed_total", room="class-1") == 2
    assert bench.value("hms_recording_seconds_total", room="class-1") == 200 + 3000


@pytest.mark.slow
def test_two_exporters_with_the_same_since_count_the_same(benches: Any, world: World) -> None:
    room = world.room(name="r")
    for number in range(200):
        begin = -10_000 + number * 60
        world.push(room, at(begin)).start(at(begin + 3)).stop(at(begin + 40)).complete(at(begin + 45))
    since = datetime.fromtimestamp(at(-5000) / SECOND, UTC)
    first = benches(since=since, now=at(-4000))
    for _ in range(30):
        first.poll(300)
    second = benches(since=since, now=first.now)
    for _ in range(3):
        second.poll(300)
    names = [f"hms_external_stream{name}_total" for name in ("s_requested", "s_started", "s_completed", "_seconds")]
    assert [first.value(name) for name in names] == [second.value(name) for name in names]


def test_a_collector_turned_on_again_has_missed_nothing(benches: Any, world: World) -> None:
    room = world.room(name="r")
    world.record(room, at(-50)).start(at(-40)).stop(at(5000)).complete(at(5010))
    world.record(room, at(1000)).start(at(1010)).stop(at(1100)).complete(at(1110))
    bench = benches()
    bench.poll()
    for collect, seconds in ((CollectConfig(recordings=False, interval=30.0), 30_000), (CollectConfig(interval=30.0), 30)):
        bench.config = replace(bench.config, collect=collect)
        bench.configure(None)
        bench.poll(seconds)
    bench.poll(300)
    assert bench.value("hms_recordings_completed_total") == 2
    assert bench.value("hms_recording_seconds_total") == 5040 + 90


# -- each collector fails alone -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [{"kind": "status", "status": 500}, {"kind": "wrong_types"}, {"kind": "reset"}, {"kind": "html"}])
def test_a_collector_that_fails_spoils_neither_sessions_nor_the_others(benches: Any, world: World, fault: dict[str, Any]) -> None:
    room = world.room(name="r")
    world.open(room.id, at=at(-10)).join("host", at=at(-9))
    world.record(room, at(-50)).start(at(-40))
    world.push(room, at(-50)).start(at(-40))
    bench = benches()
    bench.poll()
    bench.server.faults.add(Fault(route="/recordings", **fault))
    for _ in range(4):
        bench.poll(30)
        assert bench.up()
        assert bench.value("hms_collector_up", collector="recordings") == 0
        assert bench.value("hms_collector_up", collector="external_streams") == 1
    assert bench.value("hms_exporter_poll_failures_total") == 0
    assert bench.value("hms_peer_seconds_total") == pytest.approx(129, abs=1)
    assert bench.value("hms_external_stream_seconds_total") == pytest.approx(160, abs=1)
    assert bench.value("hms_recording_seconds_total") == pytest.approx(40, abs=1)
    assert bench.value("hms_recordings_active") is None  # three intervals have passed by now
    bench.server.faults.clear()
    bench.poll(300)
    assert bench.value("hms_collector_up", collector="recordings") == 1
    assert bench.value("hms_recording_seconds_total") == pytest.approx(460, abs=1)


def test_an_answer_in_which_nothing_makes_sense_hides_nothing(benches: Any, world: World) -> None:
    room = world.room(name="r")
    world.record(room, at(-50)).start(at(-40))
    bench = benches()
    bench.poll()
    world.record(room, at(40)).start(at(45)).stop(at(50)).complete(at(55))
    bench.server.faults.add(Fault(kind="invalid_utf8", route="/recordings"))
    for _ in range(20):
        bench.poll(300)
    assert bench.value("hms_recordings_requested_total") == 1
    bench.server.faults.clear()
    bench.poll(300)
    bench.poll(300)
    assert bench.value("hms_recordings_requested_total") == 2
    assert bench.value("hms_recordings_completed_total") == 1
    assert bench.value("hms_recordings_active", status="running") == 1


def test_a_reload_leaves_a_collector_up_and_reads_it_again(benches: Any, world: World) -> None:
    world.record(world.room(name="r"), at(-50)).start(at(-40))
    bench = benches(collect=CollectConfig(interval=3600.0))
    bench.poll()
    bench.configure(None)
    assert bench.value("hms_collector_up", collector="recordings") == 1
    assert bench.value("hms_recordings_active", status="running") == 1
    bench.poll(30)
    assert bench.server.calls["/recordings"] == 2


def test_gauges_stay_for_three_intervals_of_their_collector(benches: Any, world: World) -> None:
    world.record(world.room(name="r"), at(-50)).start(at(-40))
    bench = benches()
    bench.poll()
    bench.server.faults.add(Fault(kind="status", status=500, route="/recordings"))
    bench.poll(30)
    bench.uptime += 55
    assert bench.value("hms_recordings_active", status="running") == 1
    bench.uptime += 10
    assert bench.value("hms_recordings_active") is None


@pytest.mark.parametrize("status", [403, 404])
def test_a_collector_that_a_workspace_may_not_read_is_left_alone_for_a_day_and_says_so_once(
    benches: Any, world: World, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    world.stream(world.room(name="r"), at(-50)).start(at(-40))
    bench = benches()
    logging.getLogger("exporter").propagate = True
    bench.server.faults.add(Fault(kind="status", status=status, route="/recordings"))
    for _ in range(20):
        bench.poll(30)
        assert bench.up()
    assert bench.server.calls["/recordings"] == 1
    assert bench.value("hms_collector_up", collector="recordings") == 0
    assert bench.value("hms_collector_up", collector="live_streams") == 1
    lines = [found for found in caplog.records if found.levelno >= logging.WARNING]
    assert [found.getMessage() for found in lines] == ["a collector may not be read"]
    assert bench.poller.status.collectors[0].state == "silent"
    bench.poll(86_400)
    assert bench.server.calls["/recordings"] == 2
    bench.configure(None)
    bench.server.faults.clear()
    bench.poll(30)
    assert bench.value("hms_collector_up", collector="recordings") == 1
    assert len([found for found in caplog.records if found.levelno >= logging.WARNING]) == 1


def test_a_collector_that_hangs_ends_before_the_next_poll(benches: Any, world: World) -> None:
    bench = benches(interval=2.0, collect=CollectConfig(interval=1.0))
    bench.server.faults.add(Fault(kind="stall", seconds=5.0, route="/recordings"))
    began = bench.monotonic()
    bench.poll()
    assert bench.monotonic() - began < 2
    assert bench.up()


def test_a_list_that_broke_off_at_new_jobs_is_not_read_over_and_over(benches: Any, world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The unread stretch ends at the present: no call could ever read one that reaches into the future."""
    room = world.room(name="r")
    world.record(room, at(-50)).start(at(-40))
    bench = benches()
    bench.poll()
    for number in range(250):
        world.record(room, at(29 + number / 1000))
    bench.server.faults.add(Fault(kind="status", status=500, route="/recordings", match="start="))
    bench.poll(30)
    assert bench.value("hms_collector_up", collector="recordings") == 0
    bench.server.faults.clear()
    before = bench.server.calls["/recordings"]
    logging.getLogger("exporter").propagate = True
    caplog.clear()
    for _ in range(3):
        bench.poll(30)
        assert bench.value("hms_collector_up", collector="recordings") == 1
    assert bench.value("hms_recordings_requested_total") == 251
    assert bench.server.calls["/recordings"] - before <= 12
    assert [found.getMessage() for found in caplog.records].count("a collector failed") == 0


def test_the_end_of_a_polls_time_is_no_fault_of_the_past_that_is_being_read(benches: Any, world: World) -> None:
    room = world.room(name="r", created_at=at(-30 * DAY / SECOND))
    for number in range(1500):
        world.record(room, at(-3600 - number)).start(at(-3599 - number)).stop(at(-3598 - number)).complete(at(-3597 - number))
    bench = benches(interval=1.0, since=timedelta(days=1), collect=CollectConfig(live_streams=False, external_streams=False, interval=1.0))
    bench.server.faults.add(Fault(kind="stall", seconds=0.15, route="/recordings"))
    for _ in range(12):
        bench.poll(1)
        assert bench.value("hms_collector_up", collector="recordings") == 1
    assert bench.value("hms_recordings_completed_total") == 1500


# -- rooms --------------------------------------------------------------------------------------------------------


def test_a_room_with_jobs_alone_gets_series_like_any_other_and_leaves_when_it_is_idle(benches: Any, world: World) -> None:
    world.record(world.room(name="r"), at(10)).start(at(20)).stop(at(50)).complete(at(60))
    bench = benches(limits=LimitsConfig(room_idle_expiry=20_000.0))
    bench.poll()
    bench.poll(300)
    assert bench.value("hms_rooms_tracked") == 1
    assert bench.value("hms_sessions_started_total", room="r") == 0
    assert bench.value("hms_recordings_requested_total", room="r") == 1
    for _ in range(12):
        bench.poll(2000)
    assert bench.value("hms_rooms_tracked") == 0
    assert bench.value("hms_recordings_requested_total") is None
    world.record(world.rooms[0], at(30_000)).start(at(30_001))
    bench.poll(6000)
    assert bench.value("hms_recordings_requested_total", room="r") == 2


def test_rooms_beyond_max_rooms_count_together(benches: Any, world: World) -> None:
    for number in range(5):
        world.record(world.room(name=f"r{number}"), at(-10)).start(at(-5))
    bench = benches(limits=LimitsConfig(max_rooms=2))
    bench.poll()
    assert bench.value("hms_rooms_tracked") == 2
    assert bench.value("hms_recordings_active", room="_other", status="running") == 3
    assert bench.value("hms_recordings_requested_total") == 5


def test_rooms_that_are_not_asked_for_do_not_count_and_those_that_match_do(benches: Any, world: World) -> None:
    import re

    named, single, other = world.room(name="class-7"), world.room(name="x"), world.room(name="y")
    for room in (named, single, other):
        world.push(room, at(-10)).start(at(-5))
    bench = benches([RoomById(single.id), RoomsByName(re.compile("class-.*"), "classes")])
    bench.poll()
    bench.poll(30)
    assert bench.value("hms_external_streams_requested_total", room="classes") == 1
    assert bench.value("hms_external_streams_requested_total", room="x") == 1
    assert bench.value("hms_external_streams_requested_total") == 2
    bench.configure([RoomById(single.id), RoomsByName(re.compile("class-.*"), "classes"), RoomById(other.id)])
    bench.poll(30)
    bench.poll(30)
    assert bench.value("hms_external_streams_requested_total", room="y") == 1
    assert bench.value("hms_external_stream_seconds_total", room="y") == pytest.approx(125, abs=31)


def test_the_followed_rooms_are_stored_when_they_change_and_not_with_each_read(benches: Any, world: World) -> None:
    """The list of followed rooms is large where many rooms are named. A read without news stores little besides."""
    rooms = [RoomById(world.room(name=f"r{number}").id) for number in range(1000)]
    bench = benches(rooms)

    def stored() -> dict[str, CollectorRow]:
        with bench.store.reading() as db:
            return {row.collector: row for row in db.select(COLLECTOR)}

    bench.poll()
    assert all(len(stored()[f"{name}.followed"].followed) > 100_000 for name in METRIC_KINDS)
    assert all(len(b"".join(field for field in stored()[name] if isinstance(field, bytes))) < 1000 for name in METRIC_KINDS)
    written: list[int] = []
    bench.store.database.file.db.set_trace_callback(lambda sql: written.append(len(sql)))
    for _ in range(3):
        bench.poll(600)
    bench.store.database.file.db.set_trace_callback(None)
    assert written
    assert max(written) < 2000
    bench.configure([*rooms, RoomById(world.room(name="new").id)])
    bench.poll(60)
    assert len(_followed(stored()["recordings.followed"])) == 1001


def test_a_state_that_holds_the_followed_rooms_with_the_rest_is_read_and_stored_anew(benches: Any, world: World) -> None:
    room = world.room(name="r")
    world.record(room, at(-50)).start(at(-40)).stop(at(100)).complete(at(110))
    bench = benches([RoomById(room.id)])
    for seconds in (0, 120):
        bench.poll(seconds)
    with bench.store.writing() as db:
        rows = {row.collector: row for row in db.select(COLLECTOR)}
        for name in METRIC_KINDS:
            db.put(COLLECTOR, [rows[name]._replace(followed=rows[f"{name}.followed"].followed)])
            db.delete(COLLECTOR, "collector = ?", [(f"{name}.followed",)])
    for _ in range(2):
        bench.restart()
        bench.poll(60)
        assert bench.value("hms_recordings_completed_total", room="r") == 1
        with bench.store.reading() as db:
            after = {row.collector: row for row in db.select(COLLECTOR)}
        assert {name: row.followed for name, row in after.items()} == {name: row.followed for name, row in rows.items()}


def _followed(row: CollectorRow) -> dict[str, Any]:
    entries: dict[str, Any] = json.loads(row.followed)["entries"]
    return entries


# -- secrets and unknown values -----------------------------------------------------------------------------------


def test_no_secret_of_a_job_is_logged_published_or_stored(benches: Any, world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "exporter")
    logging.getLogger("exporter").propagate = True
    room = world.room(name="r")
    for ask in (world.record, world.stream, world.push):
        ask(room, at(-50), started_by=f"{MARK}-peer").start(at(-40)).stop(at(50), by=f"{MARK}-peer").complete(at(60))
        ask(room, at(-50)).raw = {"status": f"{MARK}-status", "error": MARK}
        ask(room, at(-50)).raw = {"created_at": f"{MARK}-time", "id": f"{MARK}-id {MARK}"}
    bench = benches()
    for seconds in (0, 60, 300):
        bench.poll(seconds)
    assert bench.value("hms_recordings_requested_total") == 2
    assert places_of(MARK, bench, caplog) == []


def test_an_unknown_status_is_told_once_and_counts_by_its_times(benches: Any, world: World, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("exporter").propagate = True
    room = world.room(name="r")
    for _ in range(3):
        world.record(room, at(-50)).start(at(-40)).raw = {"status": "paused", "of_the_future": {"deep": [1]}}
    bench = benches()
    for _ in range(3):
        bench.poll(30)
    assert bench.value("hms_recordings_active", status="running") == 3
    assert bench.value("hms_recording_seconds_total") == pytest.approx(390, abs=3)
    assert bench.value("hms_collector_up", collector="recordings") == 1
    assert [found.levelno for found in caplog.records if "does not know" in found.getMessage()] == [logging.WARNING]


def test_the_beginning_of_each_counter_is_published_where_that_is_asked_for_and_stays(benches: Any, world: World) -> None:
    room = world.room(name="r")
    bench = benches()
    bench.config = replace(bench.config, web=replace(bench.config.web, created_timestamps=True))
    bench.configure(None)
    bench.poll()
    world.record(room, at(40)).start(at(45))

    def created() -> list[str]:
        page = bench.exposition.page("application/openmetrics-text; version=1.0.0", "")
        lines = b"".join(page.chunks).decode().splitlines()
        return sorted(line for line in lines if line.startswith("hms_record") and "_created{" in line)

    bench.poll(300)
    before = created()
    assert len(before) == 7
    bench.restart()
    bench.poll(30)
    assert created() == before
