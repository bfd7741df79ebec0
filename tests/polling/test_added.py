"""Assets, deliveries and client errors, polled over real HTTP: each is exact, and each fails alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import pytest

from exporter.config.config import CollectConfig, LimitsConfig
from exporter.simulator import Fault, Room, Session, World
from exporter.simulator.beside_truth import BesideTruth
from exporter.simulator.happenings import ERROR_TYPES
from exporter.simulator.jobs import AssetStatus
from exporter.simulator.seeds import MARK
from exporter.state.store import Store, StoreError
from exporter.times import DAY, EPOCH, HOUR, MICROSECOND, MINUTE, SECOND
from lab.beside import BesideBench, beside_counted
from tests.harness import T0, at, places_of
from tests.marks import first_quick

ALL = CollectConfig(
    recordings=False,
    live_streams=False,
    external_streams=False,
    recording_assets=True,
    webhook_deliveries=True,
    client_errors=True,
    interval=30.0,
)
ROUTES = {"recording_assets": "/recording-assets", "webhook_deliveries": "/analytics/webhooks", "client_errors": "/analytics/events"}
LONG_AGO = EPOCH + (T0 - DAY) * MICROSECOND


@pytest.fixture
def benches(beside_benches: Callable[..., BesideBench]) -> Callable[..., BesideBench]:
    """A factory of benches that read all three with each poll."""
    return partial(beside_benches, collect=ALL)


def call(world: World, room: Room, start: float, end: float) -> Session:
    """A call with one peer."""
    session = world.open(room.id, at(start))
    session.join("guest", at(start)).leave(at(end))
    session.close(at(end))
    return session


def asked(bench: BesideBench, route: str) -> int:
    return sum(request.path == route for request in bench.server.requests)


def shown(bench: BesideBench, since: int = T0) -> BesideTruth:
    """The published counters in the form of the truth, by room id."""
    return beside_counted((name, dict(labels), value) for (name, labels), value in bench.samples().items())


# -- assets -----------------------------------------------------------------------------------------------------------


def test_assets_count_by_when_they_were_made(benches: Any, world: World) -> None:
    room = world.room(name="hall")
    recording = world.record(room, at(-HOUR / SECOND))
    world.asset(recording, "chat", at(-1), duration=60, size=10)
    bench = benches()
    bench.poll()
    assert bench.value("hms_recording_assets_total") is None, "assets made before counting began"
    world.asset(recording, "room-composite", at(10), duration=600.5, size=1000)
    world.asset(recording, "room-composite", at(11), duration=5, size=7, status="failed")
    bench.poll(30)
    assert bench.value("hms_recording_assets_total", room="hall", type="room-composite", status="completed") == 1
    assert bench.value("hms_recording_assets_total", room="hall", type="room-composite", status="failed") == 1
    assert bench.value("hms_recording_asset_seconds_total", type="room-composite") == 600.5
    assert bench.value("hms_recording_asset_bytes_total", type="room-composite") == 1000
    assert bench.value("hms_collector_up", collector="recording_assets") == 1
    assert bench.value("hms_rooms_tracked") == 1


def test_assets_cost_one_call_a_read_though_they_are_looked_at_again(benches: Any, world: World) -> None:
    room = world.room(name="hall")
    recording = world.record(room, at(0))
    bench = benches()
    bench.poll()
    for number in range(20):
        world.asset(recording, "track", at(number * 30 + 1), duration=1, size=1)
        bench.poll(30)
    assert bench.value("hms_recording_assets_total") == 20
    assert asked(bench, "/recording-assets") == 12, "the first one found nothing: the next is ten intervals later"
    assert not [request.path for request in bench.server.requests if request.path.startswith("/recording-assets/")]


# -- deliveries -------------------------------------------------------------------------------------------------------


def test_deliveries_count_up_to_a_minute_ago_each_once(benches: Any, world: World) -> None:
    room = world.room(name="hall")
    for second in range(0, 600, 5):
        world.delivery(room, at(second), error="timeout" if second % 3 == 0 else None)
    bench = benches()
    bench.poll()
    for _ in range(8):
        bench.poll(37.5)
    until = (bench.now - MINUTE) // SECOND * SECOND
    assert shown(bench).deliveries == world.beside_truth(T0, until).deliveries
    bench.restart()
    for _ in range(20):
        bench.poll(37.5)
    assert shown(bench).deliveries == {"failed": 40, "success": 80}


def test_deliveries_are_there_from_the_first_window_on_and_cost_two_calls(benches: Any) -> None:
    bench = benches()
    bench.poll()
    assert bench.value("hms_webhook_deliveries_total") is None
    assert bench.value("hms_collector_up", collector="webhook_deliveries") == 1
    bench.poll(300)
    assert {s: bench.value("hms_webhook_deliveries_total", status=s) for s in ("success", "failed")} == {"success": 0, "failed": 0}
    assert asked(bench, "/analytics/webhooks") == 2


def test_deliveries_of_a_long_pause_are_caught_up_with(benches: Any, world: World) -> None:
    room = world.room(name="hall")
    bench = benches()
    bench.poll()
    for hour in range(1, 20 * 24, 7):
        world.delivery(room, T0 + hour * HOUR)
    bench.end()
    bench.now += 20 * DAY
    bench.begin()
    bench.poll()
    assert shown(bench).deliveries == {"success": 69, "failed": 0}


def test_a_window_that_takes_too_long_is_read_in_shorter_ones(benches: Any, world: World) -> None:
    room = world.room(name="hall")
    for hour in range(24):
        world.delivery(room, at(-3600 * hour - 1))
    bench = benches(since=LONG_AGO)
    bench.server.faults.add(Fault(kind="reset", route="/analytics/webhooks", times=1))
    bench.poll()
    for _ in range(4):
        bench.poll(60)
    windows = [
        datetime.fromisoformat(request.query["end_time"]) - datetime.fromisoformat(request.query["start_time"])
        for request in bench.server.requests
        if request.path == "/analytics/webhooks" and request.query["status"] == "success"
    ]
    assert windows[0].total_seconds() > 23 * 3600
    assert windows[1].total_seconds() < 3 * 3600
    assert shown(bench).deliveries["success"] == 24


# -- client errors ----------------------------------------------------------------------------------------------------


def test_errors_count_when_their_call_has_ended(benches: Any, world: World) -> None:
    room = world.room(name="hall")
    session = call(world, room, 0, 300)
    world.client_event(session, at(1), "client.join.failed", error_code=4006, sdk="ios")
    world.client_event(session, at(2), "client.disconnected", error_code=1000)
    world.client_event(session, at(3), "track.add.success")
    world.client_event(room, at(4), "client.join.failed")
    bench = benches()
    bench.poll()
    bench.poll(200)
    assert bench.value("hms_client_errors_total") is None
    assert asked(bench, "/analytics/events") == 0
    for _ in range(10):
        bench.poll(60)
    assert bench.value("hms_client_errors_total", room="hall", type="join", error_code="4006") == 1
    assert bench.value("hms_client_errors_total", room="hall", type="disconnected", error_code="1000") == 1
    assert bench.value("hms_client_errors_total") == 2
    assert bench.value("hms_client_errors_by_sdk_total", type="join", sdk="ios") == 1
    assert asked(bench, "/analytics/events") == 1


def test_errors_of_calls_that_ended_before_counting_began_do_not_count(benches: Any, world: World) -> None:
    session = call(world, world.room(name="hall"), -600, -10)
    world.client_event(session, at(-500))
    bench = benches()
    for _ in range(6):
        bench.poll(60)
    assert bench.value("hms_client_errors_total") is None
    assert asked(bench, "/analytics/events") == 0


def test_errors_of_the_past_count_if_since_says_so(benches: Any, world: World) -> None:
    session = call(world, world.room(name="hall"), -6000, -5000)
    world.client_event(session, at(-5500))
    bench = benches(since=LONG_AGO)
    for _ in range(3):
        bench.poll(60)
    assert bench.value("hms_client_errors_total", room="hall") == 1


def test_many_errors_of_one_call_are_read_page_by_page(benches: Any, world: World) -> None:
    session = call(world, world.room(name="hall"), -6000, -5000)
    for number in range(250):
        world.client_event(session, at(-5500 + number), error_code=number % 3)
    bench = benches(since=LONG_AGO)
    bench.poll()
    bench.poll(60)
    assert [bench.value("hms_client_errors_total", error_code=str(code)) for code in range(3)] == [84, 83, 83]


@pytest.mark.parametrize("twist", first_quick(["repeated_item", "endless_pages", "repeated_cursor"]))
def test_errors_count_once_whatever_the_pages_repeat(benches: Any, world: World, twist: Any) -> None:
    session = call(world, world.room(name="hall"), -6000, -5000)
    for number in range(250):
        world.client_event(session, at(-5500 + number))
    bench = benches(since=LONG_AGO)
    bench.server.faults.add(Fault(kind=twist, route="/analytics/events", times=20))
    for _ in range(20):
        bench.poll(300)
    assert bench.value("hms_client_errors_total") == 250


def test_a_call_whose_errors_cannot_be_read_does_not_hold_up_other_calls(benches: Any, world: World) -> None:
    room = world.room(name="hall")
    bad, *good = [call(world, room, -6000 + 60 * number, -5950 + 60 * number) for number in range(5)]
    for session in (bad, *good):
        world.client_event(session, session.created_at + 1)
    bench = benches(since=LONG_AGO)
    bench.server.faults.add(Fault(kind="status", route="/analytics/events", status=500, match=f"session_id={bad.id}"))
    for _ in range(5):
        bench.poll(60)
    assert bench.value("hms_client_errors_total") == 4
    assert bench.value("hms_collector_up", collector="client_errors") == 0
    bench.server.faults.clear()
    for _ in range(12):
        bench.poll(60)
    assert bench.value("hms_client_errors_total") == 5
    assert bench.value("hms_collector_up", collector="client_errors") == 1


def test_a_call_that_the_route_does_not_know_has_no_errors_in_the_end(benches: Any, world: World) -> None:
    room = world.room(name="hall")
    gone, known = call(world, room, -500, -20), call(world, room, -400, -20)
    world.client_event(known, at(-300))
    bench = benches(since=LONG_AGO)
    bench.server.faults.add(Fault(kind="status", route="/analytics/events", status=404, match=f"session_id={gone.id}"))
    later = [call(world, room, 100 + 60 * number, 110 + 60 * number) for number in range(40)]
    for session in later:
        world.client_event(session, session.created_at + 1)
    for _ in range(60):
        bench.poll(60)
    assert 3 <= sum(request.query.get("session_id") == gone.id for request in bench.server.requests) <= 10
    assert bench.value("hms_client_errors_total") == 1 + sum(session.created_at < bench.now - 6 * MINUTE for session in later)
    assert bench.value("hms_collector_up", collector="client_errors") == 1


# -- each fails alone -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", first_quick(ROUTES))
@pytest.mark.parametrize(
    "fault",
    first_quick([Fault(kind="status", status=500), Fault(kind="wrong_types"), Fault(kind="reset")]),
    ids=["500", "garbage", "reset"],
)
def test_each_fails_alone_and_catches_up(benches: Any, world: World, name: str, fault: Fault) -> None:
    room = world.room(name="hall")
    bench = benches()
    bench.poll()
    _script(world, room, random.Random(1), 0, 1200)
    bench.server.faults.add(_of(fault, ROUTES[name]))
    for _ in range(10):
        bench.poll(60)
        assert bench.up()
    up = {collector: bench.value("hms_collector_up", collector=collector) for collector in ROUTES}
    assert up == {**dict.fromkeys(ROUTES, 1), name: 0}
    bench.server.faults.clear()
    for _ in range(30):
        bench.poll(60)
    assert bench.value("hms_collector_up", collector=name) == 1
    assert shown(bench) == world.beside_truth(T0, bench.now)


@pytest.mark.parametrize("name", first_quick(ROUTES))
@pytest.mark.parametrize("status", first_quick([403, 404]))
def test_a_collector_that_the_workspace_may_not_read_is_left_alone_for_a_day(
    benches: Any, world: World, name: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    room = world.room(name="hall")
    bench = benches()
    bench.poll()
    _script(world, room, random.Random(2), 0, 600)
    bench.server.faults.add(Fault(kind="status", route=ROUTES[name], status=status))
    for _ in range(20):
        bench.poll(60)
    before = asked(bench, ROUTES[name])
    for _ in range(10):
        bench.poll(60)
        assert bench.up()
    assert asked(bench, ROUTES[name]) == before <= 4
    assert bench.value("hms_collector_up", collector=name) == 0
    warnings = [getattr(record, "fields", {}) for record in caplog.records if record.levelname == "WARNING"]
    assert [fields["collector"] for fields in warnings] == [name]
    bench.server.faults.clear()
    bench.poll(86_400)
    for _ in range(3):
        bench.poll(60)
    assert bench.value("hms_collector_up", collector=name) == 1
    assert shown(bench) == world.beside_truth(T0, bench.now)


def test_a_reload_leaves_them_up(benches: Any, world: World) -> None:
    call(world, world.room(name="hall"), -200, -100)
    bench = benches()
    for _ in range(3):
        bench.poll(60)
    assert {name: bench.value("hms_collector_up", collector=name) for name in ROUTES} == dict.fromkeys(ROUTES, 1)
    bench.configure(None)
    assert {name: bench.value("hms_collector_up", collector=name) for name in ROUTES} == dict.fromkeys(ROUTES, 1)


def _of(fault: Fault, route: str) -> Fault:
    return Fault(kind=fault.kind, status=fault.status, route=route)


# -- the time of a poll -----------------------------------------------------------------------------------------------

EVERYTHING = replace(ALL, recordings=True, live_streams=True, external_streams=True, interval=1.0)
ALL_ROUTES = {"recordings": "/recordings", "live_streams": "/live-streams", "external_streams": "/external-streams", **ROUTES}
OFF = dict.fromkeys(ALL_ROUTES, False)


def slow_sessions(bench: BesideBench, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on, reading sessions takes this many seconds of each poll."""
    present = type(bench.poller)._poll_present

    def takes_time(*arguments: Any) -> Any:
        found = present(bench.poller, *arguments)
        bench.uptime += seconds
        return found

    monkeypatch.setattr(bench.poller, "_poll_present", takes_time)


def states(bench: BesideBench) -> dict[str, str]:
    return {collector.name: collector.state for collector in bench.poller.status.collectors}


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """The log's messages about collectors, each with the collector's name."""
    return [
        (record.getMessage(), fields["collector"]) for record in caplog.records if "collector" in (fields := getattr(record, "fields", {}))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL_ROUTES)
def test_a_collector_cut_short_by_the_end_of_a_polls_time_waits_for_the_next_poll_and_does_not_fail(
    benches: Any, world: World, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer takes 1.5 s, and sessions leave 0.9 s of each poll."""
    room = world.room(name="hall")
    bench = benches(interval=4.0, collect=replace(ALL, **{**OFF, name: True}, interval=4.0))
    bench.poll()
    for second in range(1, 300, 50):
        world.asset(world.record(room, at(second)), "chat", at(second), duration=1, size=1)
        session = call(world, room, second, second + 10)
        world.client_event(session, at(second + 1))
        world.delivery(room, at(second))
    bench.poll(600)
    slow_sessions(bench, 2.7, monkeypatch)
    bench.server.faults.add(Fault(kind="stall", seconds=1.5, route=ALL_ROUTES[name]))
    before = asked(bench, ALL_ROUTES[name])
    for _ in range(2):
        bench.poll(120)
        assert bench.up()
        assert states(bench)[name] != "failing"
    assert asked(bench, ALL_ROUTES[name]) > before
    bench.server.faults.clear()
    monkeypatch.undo()
    for _ in range(3):
        bench.poll(60)
    assert states(bench) == {name: "ok"}
    assert [message for message, _ in told(caplog) if message == "a collector failed"] == []
    if name in ROUTES:
        found, truth = shown(bench), world.beside_truth(T0, bench.now)
        assert {"recording_assets": +found.assets, "client_errors": +found.errors, "webhook_deliveries": +found.deliveries}[name] == {
            "recording_assets": +truth.assets,
            "client_errors": +truth.errors,
            "webhook_deliveries": +truth.deliveries,
        }[name]


@pytest.mark.slow
def test_a_collector_whose_answers_never_come_within_a_polls_time_fails_in_the_end(benches: Any, caplog: pytest.LogCaptureFixture) -> None:
    bench = benches(interval=0.5, collect=replace(ALL, **{**OFF, "webhook_deliveries": True}, interval=0.5), since=LONG_AGO)
    bench.server.faults.add(Fault(kind="stall", seconds=1.0, route="/analytics/webhooks"))
    bench.poll()
    bench.poll(1)
    assert told(caplog) == []
    bench.poll(1)
    assert told(caplog) == [("a collector failed", "webhook_deliveries")]
    assert bench.value("hms_collector_up", collector="webhook_deliveries") == 0


@pytest.mark.slow
@pytest.mark.parametrize("interval", [1.0, 3.0], ids=["each poll", "each third poll"])
def test_collectors_that_need_more_time_than_a_poll_has_take_turns(
    benches: Any, world: World, interval: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Each read takes 0.3 s, and a poll has 0.9 s. The first collectors do not starve the last ones."""
    room = world.room(name="hall")
    for make in (world.record, world.stream, world.push):
        make(room, at(-1)).start(at(0))
    world.asset(world.record(room, at(-1)), "chat", at(0), duration=1, size=1)
    bench = benches(interval=1.0, collect=replace(EVERYTHING, interval=interval))
    bench.poll()
    for number in range(60):
        session = call(world, room, number * 30, number * 30 + 20)
        world.client_event(session, session.created_at + 1)
        world.delivery(room, session.created_at)
    for route in ALL_ROUTES.values():
        bench.server.faults.add(Fault(kind="stall", seconds=0.3, route=route))
    read: dict[str, set[float | None]] = {name: set() for name in ALL_ROUTES}
    bench.now = at(600)
    for _ in range(20):
        bench.poll(1)
        bench.clock.leap(30)
        for collector in bench.poller.status.collectors:
            read[collector.name].add(collector.read_at)
    assert [message for message, _ in told(caplog) if message == "a collector failed"] == []
    assert {name: len(times - {None}) >= 3 for name, times in read.items()} == dict.fromkeys(ALL_ROUTES, True), read


def test_where_sessions_leave_a_little_of_each_poll_collectors_take_it_in_the_end(
    benches: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Less than a tenth of the interval is left in each poll. Only a collector that is late begins in so little time."""
    bench = benches(interval=30.0)
    slow_sessions(bench, 25.5, monkeypatch)
    bench.poll()
    assert states(bench) == dict.fromkeys(ROUTES, "waiting")
    assert not [request for request in bench.server.requests if request.path in ROUTES.values()]
    for _ in range(6):
        bench.poll(10)
    assert states(bench) == dict.fromkeys(ROUTES, "ok")
    assert "a collector failed" not in {message for message, _ in told(caplog)}


def test_where_sessions_leave_nothing_the_log_says_once_that_collectors_wait(
    benches: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    bench = benches(interval=30.0)
    bench.poll()
    assert states(bench) == dict.fromkeys(ROUTES, "ok")
    slow_sessions(bench, 29.0, monkeypatch)
    for _ in range(20):
        bench.poll(30)
    assert sorted(told(caplog)) == sorted(("a collector waits", name) for name in ROUTES)
    assert {name: bench.value("hms_collector_up", collector=name) for name in ROUTES} == dict.fromkeys(ROUTES, 0)
    monkeypatch.undo()
    bench.poll(30)
    assert sorted(told(caplog)[3:]) == sorted(("a collector succeeds again", name) for name in ROUTES)
    assert {name: bench.value("hms_collector_up", collector=name) for name in ROUTES} == dict.fromkeys(ROUTES, 1)


def test_where_sessions_outlast_their_interval_collectors_have_the_rest_of_the_next_one(
    benches: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = benches(interval=30.0)
    slow_sessions(bench, 40.0, monkeypatch)
    bench.poll()
    assert states(bench) == dict.fromkeys(ROUTES, "ok")


# -- what it costs ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_calls_of_each_hour_with_default_intervals(benches: Any, world: World) -> None:
    """Two idle hours, half an hour with some of everything, then idle hours with one job that stays open."""
    hours = 7
    hall, attic = world.room(name="hall"), world.room(name="attic")
    happens = range(2 * 3600, 2 * 3600 + 1800, 300)
    for second in happens:
        session = call(world, hall, second, second + 200)
        world.client_event(session, session.created_at + 1)
        for ask in (world.record, world.stream, world.push):
            job = ask(hall, at(second)).start(at(second + 5)).stop(at(second + 200)).complete(at(second + 210))
            if ask == world.record:
                world.asset(job, "chat", at(second + 220), duration=1, size=1)
        world.delivery(hall, at(second))
    world.stream(attic, at(6 * 3600)).start(at(6 * 3600 + 5))
    bench = benches(interval=30.0, collect=replace(EVERYTHING, interval=60.0))
    calls: list[dict[str, int]] = []
    for hour in range(hours):
        bench.server.calls.clear()
        while bench.now < at((hour + 1) * 3600):
            bench.poll(30)
        calls.append({name: bench.server.calls[route] for name, route in ALL_ROUTES.items()} | {"by id": _by_id(bench)})
    seen = {name: [of[name] for of in calls] for name in calls[0]}
    rarely, often = range(5, 8), range(48, 62)
    for name in ("recordings", "live_streams", "external_streams", "recording_assets"):
        assert seen[name][0] in rarely
        assert seen[name][1] in rarely
        assert seen[name][2] in often, (name, seen)
        assert seen[name][3] in range(25, 40), "until an hour after the last change"
        assert seen[name][4] in rarely
        assert seen[name][6] in (often if name == "live_streams" else rarely)
    assert [number // 2 in rarely for number in seen["webhook_deliveries"]] == [True, True, False, False, True, True, True], seen
    assert seen["webhook_deliveries"][2] in range(96, 124), "two calls a read"
    assert seen["client_errors"] == [0, 0, len(happens), 0, 0, 0, 0], "one for each call that has ended"
    assert seen["by id"] == [0] * hours


def _by_id(bench: BesideBench) -> int:
    return sum(count for route, count in bench.server.calls.items() if route.endswith("/<id>") and route.split("/")[1] in _LISTS)


_LISTS = {route.strip("/") for route in ALL_ROUTES.values()}


# -- exact ------------------------------------------------------------------------------------------------------------


def _script(world: World, room: Room, rng: random.Random, begin: int, end: int) -> None:
    """Scripts some of everything between two moments (seconds after `T0`)."""
    recording = world.record(room, at(begin))
    for _ in range(30):
        kind, moment = rng.choice(["chat", "track", "room-composite"]), begin + rng.random() * (end - begin)
        status: AssetStatus = rng.choice(["completed", "completed", "failed"])
        world.asset(recording, kind, at(moment), duration=rng.randrange(4000) / 8, size=rng.randrange(10**9), status=status)
        world.delivery(room, at(begin + rng.random() * (end - begin)), error=rng.choice([None, None, "timeout"]))
    for number in range(8):
        start = begin + (end - begin) * number / 8
        session = call(world, room, start, start + rng.random() * (end - begin) / 9)
        for _ in range(rng.randrange(6)):
            code, kind = rng.randrange(4000, 4005), rng.choice(ERROR_TYPES)
            world.client_event(session, session.created_at + 1, kind, error_code=code, sdk=rng.choice(["web", "ios"]))
        world.client_event(room, session.created_at + 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_totals_equal_the_truth_through_restarts_faults_and_downtime(benches: Any, world: World, seed: int) -> None:
    rng = random.Random(seed)
    rooms = [world.room(name=name) for name in ("hall", "attic")]
    bench = benches()
    bench.poll()
    for hour in range(3):
        for room in rooms:
            _script(world, room, rng, hour * 3600, (hour + 1) * 3600)
    while bench.now < T0 + 3 * HOUR:
        match rng.randrange(8):
            case 0:
                bench.restart()
            case 1:
                bench.end()
                bench.now += rng.randrange(1, 40) * MINUTE
                bench.begin()
            case 2:
                route = rng.choice(list(ROUTES.values()))
                bench.server.faults.add(Fault(kind="status", route=route, status=500, times=rng.randrange(1, 3)))
            case _:
                pass
        bench.poll(rng.choice([30, 30, 61.5, 200]))
    bench.server.faults.clear()
    for _ in range(40):
        bench.poll(60)
    truth = world.beside_truth(T0, bench.now)
    found = shown(bench)
    for part in ("assets", "asset_us", "asset_bytes", "errors", "errors_by_sdk", "deliveries"):
        assert +getattr(found, part) == +getattr(truth, part), part


@pytest.mark.slow
def test_two_with_the_same_fixed_since_publish_the_same(benches: Any, world: World) -> None:
    room = world.room(name="hall")
    _script(world, room, random.Random(5), -7200, 3600)
    first, second = benches(since=LONG_AGO), benches(since=LONG_AGO)
    for _ in range(80):
        first.poll(60)
    second.now = first.now
    for _ in range(5):
        second.poll(60)
        first.poll(60)
    assert shown(first) == shown(second)
    assert +shown(first).errors == +world.beside_truth(T0 - DAY, first.now).errors


def test_counts_that_cannot_be_stored_are_not_shown_and_are_counted_once_in_the_end(
    benches: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = world.room(name="hall")
    bench = benches()
    bench.poll()
    _script(world, room, random.Random(7), 0, 600)
    for _ in range(3):
        bench.poll(60)
    before = shown(bench)
    writing = Store.writing

    def full(store: Store) -> Any:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Store, "writing", full)
    for _ in range(4):
        bench.poll(60)
        assert shown(bench) == before
    assert bench.value("hms_collector_up", collector="webhook_deliveries") == 0
    monkeypatch.setattr(Store, "writing", writing)
    for _ in range(20):
        bench.poll(60)
    assert shown(bench) == world.beside_truth(T0, bench.now)


def test_a_room_that_left_for_being_idle_comes_back_with_what_it_had_counted(benches: Any, world: World) -> None:
    room = world.room(name="hall")
    for number in range(2):
        session = call(world, room, 7200 * number, 7200 * number + 60)
        world.client_event(session, session.created_at + 1)
    bench = benches(limits=LimitsConfig(room_idle_expiry=1800.0))
    bench.poll()
    for _ in range(6):
        bench.poll(60)
    assert bench.value("hms_client_errors_total", room="hall") == 1
    for _ in range(12):
        bench.poll(300)
    assert bench.value("hms_client_errors_total", room="hall") is None, "it has left"
    while bench.now < at(7200 + 600):
        bench.poll(60)
    assert bench.value("hms_client_errors_total", room="hall") == 2


def test_turned_on_by_a_reload_they_count_from_then_on_and_turned_off_they_leave(benches: Any, world: World) -> None:
    room = world.room(name="hall")
    for number in range(3):
        session = call(world, room, 1000 * number, 1000 * number + 60)
        world.client_event(session, session.created_at + 1)
        world.delivery(room, session.created_at)
    bench = benches(since=LONG_AGO)

    def reload(collect: CollectConfig) -> None:
        bench.config = replace(bench.config, collect=collect)
        bench.poller.configure(bench.workspace, bench.config, bench.api)

    reload(CollectConfig(interval=30.0))
    while bench.now < at(900):
        bench.poll(60)
    assert bench.value("hms_collector_up", collector="client_errors") is None
    reload(ALL)
    while bench.now < at(1900):
        bench.poll(60)
    assert bench.value("hms_client_errors_total") == 1, "the one whose call ended later"
    assert shown(bench).deliveries["success"] == 2, "since says from when"
    reload(CollectConfig(interval=30.0))
    bench.poll(60)
    assert bench.value("hms_client_errors_total") is None
    reload(ALL)
    while bench.now < at(2900):
        bench.poll(60)
    assert bench.value("hms_client_errors_total") == 2
    assert shown(bench).deliveries["success"] == 3


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_nothing_secret_or_personal_gets_anywhere(benches: Any, world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    room = world.room(name="hall")
    bench = benches(since=LONG_AGO)
    _script(world, room, random.Random(6), -3600, 0)
    session = call(world, room, -3000, -2000)
    world.client_event(session, at(-2500), data={"error_code": MARK, "agent": {"sdk": f"{MARK} phone"}})
    world.client_event(session, at(-2400), data={"error_code": [MARK]})
    world.asset(world.record(room, at(-100)), MARK, at(-50), duration=1, size=1)
    for status in (200, 500, 403):
        if status != 200:
            for route in ROUTES.values():
                bench.server.faults.add(Fault(kind="status", route=route, status=status, message=f"{MARK} in an error"))
        for _ in range(4):
            bench.poll(60)
    assert bench.value("hms_client_errors_total", error_code="unknown") == 1
    assert bench.value("hms_recording_assets_total", type="other") == 1
    assert places_of(MARK, bench, caplog) == []
    told = {str(fields["reason"]) for record in caplog.records if "reason" in (fields := getattr(record, "fields", {}))}
    assert told, "faults were told, and their messages searched"


SECRETS = ("error_description", "error_message", "devices", "user_name", "user_id", "peer_id")


def test_personal_data_and_device_data_of_a_client_get_nowhere(benches: Any, world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Each field holds a text with a mark of its own, in invalid records and in place of the counted values too."""
    caplog.set_level("DEBUG")
    room = world.room(name="hall")
    session = call(world, room, -3000, -2000)
    world.client_event(session, at(-2500), data={name: f"{MARK} {name} 203.0.113.7" for name in SECRETS})
    for number, name in enumerate(("error_code", "error_name", "agent", "session_id", "role", "action")):
        world.client_event(session, at(-2400 + number), data={name: f"{MARK} in {name}"})
        world.client_event(session, at(-2300 + number), data={name: {"name": f"{MARK} in {name}"}})
    bench = benches(since=LONG_AGO)
    for _ in range(4):
        bench.poll(60)
    assert bench.value("hms_client_errors_total", room="hall") >= 9
    assert bench.value("hms_collector_up", collector="client_errors") == 1
    assert places_of(MARK, bench, caplog) == []
    assert places_of("203.0.113.7", bench, caplog) == []


def test_the_first_hundred_codes_keep_their_label_through_a_restart_and_later_ones_share_one(benches: Any, world: World) -> None:
    rooms = [world.room(name=name) for name in ("hall", "attic")]
    first, second = call(world, rooms[0], -3000, -2000), call(world, rooms[1], 300, 310)
    for code in range(99):
        world.client_event(first, at(-2999 + code), error_code=code)
    for code in (98, 99, 500, 501, 500):
        world.client_event(second, at(301), error_code=code)
    bench = benches(since=LONG_AGO)
    for _ in range(3):
        bench.poll(60)
    bench.restart()
    for _ in range(10):
        bench.poll(60)
    codes = {dict(labels)["error_code"] for (name, labels) in bench.samples() if name == "hms_client_errors_total"}
    assert len(codes) == 101
    kept = codes - {str(code) for code in range(99)}
    assert "other" in kept
    assert len(kept) == 2
    others = bench.value("hms_client_errors_total", room="attic", error_code="other")
    assert bench.value("hms_client_errors_total", room="attic") == 5
    assert others in (2, 3), "all but 98 and the hundredth code, whichever came first"
    assert bench.value("hms_client_errors_total") == 104
