"""Recordings and streams of the simulated API: their timeline, their lists over HTTP, and the truth about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from exporter.simulator import KINDS, STATUSES, Fault, Job, Manners, Room, Session, Shape, SimulatedApi, World, seeds
from exporter.simulator.jobs import Kind
from exporter.times import HOUR, MINUTE, SECOND, rfc3339
from tests.simulator.test_server import EMPTY_PAGE, NOW, T0, Client

ROUTES: dict[Kind, str] = {"recording": "/recordings", "live_stream": "/live-streams", "external_stream": "/external-streams"}


@pytest.fixture
def world() -> World:
    return World("key", "secret" * 6)


@pytest.fixture
def room(world: World) -> Room:
    return world.room(name="daily-standup")


@pytest.fixture
def call(world: World, room: Room) -> Session:
    return world.open(room.id, T0)


@pytest.fixture
def api(world: World) -> Iterator[SimulatedApi]:
    with SimulatedApi([world], clock=lambda: NOW) as running:
        yield running


@pytest.fixture
def client(api: SimulatedApi, world: World) -> Client:
    return Client(api, world)


def asked(world: World, kind: Kind, where: Session | Room, at: int, **more: Any) -> Job:
    return {"recording": world.record, "live_stream": world.stream, "external_stream": world.push}[kind](where, at, **more)


class TestLife:
    """A job ..."""

    def test_shows_at_each_moment_what_has_happened_by_then(self, world: World, call: Session) -> None:
        job = world.record(call, T0, started_by="peer-1").start(T0 + 5 * SECOND).stop(T0 + MINUTE, by="peer-2").complete(T0 + 2 * MINUTE)

        def seen(after: int) -> tuple[str, bool, bool, str]:
            record = job.record(T0 + after * SECOND)
            return record["status"], "started_at" in record, "stopped_at" in record, record["updated_at"]

        assert seen(0) == ("starting", False, False, rfc3339(T0))
        assert seen(5) == ("running", True, False, rfc3339(T0 + 5 * SECOND))
        assert seen(60) == ("post_processing", True, True, rfc3339(T0 + MINUTE))
        assert seen(500) == ("completed", True, True, rfc3339(T0 + 2 * MINUTE))
        assert {
            "id": job.id,
            "room_id": call.room_id,
            "session_id": call.id,
            "created_at": rfc3339(T0),
            "started_at": rfc3339(T0 + 5 * SECOND),
            "stopped_at": rfc3339(T0 + MINUTE),
            "started_by": "peer-1",
            "stopped_by": "peer-2",
        }.items() <= job.record(NOW).items()

    def test_does_not_exist_before_it_is_asked_for(self, world: World, call: Session) -> None:
        job = world.record(call, T0 + 1)
        assert not job.exists(T0)
        with pytest.raises(ValueError, match="was not requested"):
            job.record(T0)
        with pytest.raises(ValueError, match="cannot change"):
            job.start(T0)

    def test_can_fail_before_it_has_started_or_complete_without(self, world: World, call: Session) -> None:
        for job in (world.record(call, T0).fail(T0 + SECOND), world.record(call, T0).complete(T0 + SECOND)):
            assert "started_at" not in job.record(NOW)

    def test_can_go_backwards_and_lose_what_it_had(self, world: World, call: Session) -> None:
        job = world.stream(call, T0).start(T0 + SECOND).complete(T0 + MINUTE).change(T0 + 2 * MINUTE, status="running", started_at=None)
        assert (job.standing(T0 + MINUTE).status, job.standing(T0 + 2 * MINUTE).status) == ("completed", "running")
        assert "started_at" not in job.record(NOW)

    def test_can_be_stopped_before_that_is_recorded(self, world: World, call: Session) -> None:
        job = world.push(call, T0).start(T0).stop(T0 + MINUTE, recorded_at=T0 + 2 * MINUTE)
        assert "stopped_at" not in job.record(T0 + 2 * MINUTE - 1)
        assert job.record(T0 + 2 * MINUTE)["stopped_at"] == rfc3339(T0 + MINUTE)

    def test_can_outlast_its_call_and_be_asked_for_without_one(self, world: World, room: Room, call: Session) -> None:
        call.close(T0 + SECOND)
        assert world.stream(call, T0).start(T0).stop(T0 + HOUR).record(NOW)["stopped_at"] == rfc3339(T0 + HOUR)
        assert world.record(room, T0).record(NOW)["session_id"] == ""

    def test_can_vanish(self, client: Client, world: World, call: Session) -> None:
        job = world.record(call, T0).vanish(NOW)
        assert job.exists(NOW - 1)
        assert client.get("/recordings").json() == EMPTY_PAGE
        assert client.get(f"/recordings/{job.id}").status_code == 404

    @pytest.mark.parametrize(("connected", "shown"), [("absent", "nothing"), ("null", None), ("zero", "0001-01-01T00:00:00Z")])
    def test_writes_a_time_that_it_does_not_have_as_its_shape_says(self, connected: Any, shown: Any) -> None:
        world = World("key", "s", shape=Shape(connected=connected, digits=9))
        record = world.record(world.room(), T0).record(NOW)
        assert [record.get(name, "nothing") for name in ("started_at", "stopped_at")] == [shown, shown]
        assert record["created_at"] == rfc3339(T0, 9)

    def test_shows_raw_fields_in_place_of_its_own(self, world: World, call: Session) -> None:
        job = world.record(call, T0)
        job.raw = {"status": "dreaming", "created_at": 7}
        assert (job.record(NOW)["status"], job.record(NOW)["created_at"]) == ("dreaming", 7)


@pytest.mark.parametrize("kind", KINDS)
class TestLists:
    """Lists of jobs ..."""

    def test_are_newest_first_by_every_filter(self, client: Client, world: World, room: Room, call: Session, kind: Kind) -> None:
        old = asked(world, kind, call, T0).start(T0 + SECOND)
        new = asked(world, kind, world.room(name="other"), T0 + SECOND)
        asked(world, kind, call, NOW + 1)
        path = ROUTES[kind]
        assert client.ids(path) == [new.id, old.id]
        assert client.ids(path, room_id=room.id) == [old.id]
        assert client.ids(path, session_id=call.id) == [old.id]
        assert client.ids(path, status="starting") == [new.id]
        assert client.ids(path, start=new.id) == [old.id]
        assert client.get(f"{path}/{old.id}").json() == old.record(NOW)
        assert client.get(f"{path}/unknown").status_code == 404

    def test_know_neither_after_nor_before_nor_active(self, client: Client, world: World, call: Session, kind: Kind) -> None:
        job = asked(world, kind, call, T0)
        assert client.ids(ROUTES[kind], after=rfc3339(NOW), before=rfc3339(T0 - 1), active="false") == [job.id]

    def test_refuse_invalid_filters(self, client: Client, kind: Kind) -> None:
        for query in ({"status": "dreaming"}, {"start": "unknown"}, {"limit": 5}, {"limit": 101}):
            assert client.get(ROUTES[kind], **query).status_code == 400, query

    @pytest.mark.parametrize("count", [0, 20, 23])
    @pytest.mark.parametrize("final_last", ["id", "empty", "absent"])
    def test_lead_through_everything_once(
        self, client: Client, api: SimulatedApi, world: World, call: Session, kind: Kind, final_last: Any, count: int
    ) -> None:
        api.manners = Manners(final_last=final_last)
        jobs = [asked(world, kind, call, T0 + at).id for at in range(count)]
        assert client.walk(ROUTES[kind], limit=10) == jobs[::-1]

    def test_are_struck_by_faults_of_their_own_route(self, client: Client, api: SimulatedApi, kind: Kind) -> None:
        api.faults.add(Fault(kind="status", route=ROUTES[kind], status=403))
        assert client.get(ROUTES[kind]).status_code == 403
        assert client.get("/sessions").status_code == 200
        assert api.calls == {ROUTES[kind]: 1, "/sessions": 1}


class TestAssets:
    """Assets ..."""

    def test_are_listed_newest_first_by_every_filter(self, client: Client, world: World, room: Room, call: Session) -> None:
        job, other = world.record(call, T0), world.record(world.room(name="other"), T0)
        film = world.asset(job, "room-composite", T0 + MINUTE, duration=60.5, size=1_000)
        chat = world.asset(job, "chat", T0 + 2 * MINUTE, duration=60.5, size=10)
        broken = world.asset(other, "room-composite", T0 + 3 * MINUTE, status="failed")
        assert client.ids("/recording-assets") == [broken.id, chat.id, film.id]
        assert client.ids("/recording-assets", status="failed") == [broken.id]
        assert client.ids("/recording-assets", room_id=room.id) == [chat.id, film.id]
        assert client.ids("/recording-assets", session_id=call.id, start=chat.id) == [film.id]
        record = client.get("/recording-assets", start=chat.id).json()["data"][0]
        assert {
            "id": film.id,
            "job_id": job.id,
            "type": "room-composite",
            "status": "completed",
            "size": 1_000,
            "duration": 60.5,
            "created_at": rfc3339(T0 + MINUTE),
        }.items() <= record.items()


class TestSecrets:
    """The simulator plants secrets and personal details ..."""

    def test_wherever_100ms_has_them(self, client: Client, world: World, room: Room, call: Session) -> None:
        for kind in KINDS:
            asked(world, kind, call, T0)
        world.asset(world.record(call, T0), "chat", T0)
        world.client_event(call, T0)
        world.delivery(room, T0)
        paths = (*ROUTES.values(), "/recording-assets", f"/analytics/events?room_id={room.id}", "/analytics/webhooks", f"/rooms/{room.id}")
        assert all(seeds.MARK in client.get(path).text for path in paths)
        assert seeds.RTMP_URL in client.get("/external-streams").text
        assert seeds.ERROR_DESCRIPTION in client.get(f"/analytics/events?room_id={room.id}").text


class TestTruth:
    """The truth about jobs ..."""

    def test_is_their_sums(self, world: World, room: Room, call: Session) -> None:
        world.record(call, T0).start(T0 + 5 * SECOND).stop(T0 + 65 * SECOND).complete(T0 + 95 * SECOND)
        world.record(call, T0).fail(T0 + SECOND)
        world.record(call, T0).start(T0 + SECOND).fail(T0 + 11 * SECOND)
        world.record(call, NOW - MINUTE).start(NOW - 30 * SECOND)
        world.record(call, NOW - MINUTE)
        world.record(call, NOW + 1)
        truth = world.jobs_truth(NOW)
        key: tuple[Kind, str] = "recording", room.id
        assert (truth.requested[key], truth.started[key], truth.completed[key], truth.failed[key]) == (5, 3, 1, 2)
        assert truth.us[key] == (60 + 10 + 30) * SECOND
        assert truth.active == {(*key, "running"): 1, (*key, "starting"): 1}
        assert truth.starting_since == {key: NOW - MINUTE}
        assert sorted(truth.start_delays["recording"]) == [SECOND, 5 * SECOND, 30 * SECOND]
        assert truth.processing["recording"] == [30 * SECOND]

    def test_keeps_the_sums_of_a_vanished_one(self, world: World, room: Room, call: Session) -> None:
        world.record(call, T0).start(T0).vanish(T0 + MINUTE)
        truth = world.jobs_truth(NOW)
        assert truth.us["recording", room.id] == MINUTE - 1
        assert truth.active == {}


def test_every_status_is_one_of_the_documented(world: World, call: Session) -> None:
    job = world.record(call, T0).start(T0).change(T0, status="stopping").stop(T0).complete(T0).fail(T0)
    assert [str(fields["status"]) for _, fields in job.moments] == list(STATUSES)


def test_ten_thousand_jobs_are_a_page_as_fast_as_ten(world: World, client: Client, call: Session) -> None:
    for at in range(10_000):
        world.record(call, T0 + at).start(T0 + at).stop(T0 + at).complete(T0 + at)
    for _ in range(200):
        assert len(client.ids("/recordings", limit=10)) == 10
