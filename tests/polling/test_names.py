"""Names of rooms, read beside the polls: few calls, missing rooms are told from failures, and a fault spoils no other name."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from exporter.config.config import ApiConfig, KeyPair, Secret
from exporter.counting.rooms import KnownRoom
from exporter.hms.client import Api
from exporter.hms.errors import ApiError
from exporter.hms.records import Rejection
from exporter.polling.names import NameReader, read_rooms
from exporter.publish.selfmetrics import SelfMetrics
from exporter.simulator import Fault, Room, SimulatedApi, World

ACCESS_KEY, SECRET = "key-of-the-tests", "secret-of-the-tests-which-is-long-enough"


@pytest.fixture
def world() -> World:
    world = World(ACCESS_KEY, SECRET)
    for number in range(250):
        world.room(name=f"room-{number}", template="class", region="eu", enabled=number % 10 != 9)
    return world


@pytest.fixture
def sim(world: World) -> Iterator[SimulatedApi]:
    with SimulatedApi([world]) as running:
        yield running


@pytest.fixture
def api(sim: SimulatedApi) -> Iterator[Api]:
    config = ApiConfig(base_url=sim.base_url, timeout=1.0, max_retries=1, max_requests_per_second=1000.0)
    made = Api(config, KeyPair(Secret(ACCESS_KEY), Secret(SECRET)), SelfMetrics("test", "test").workspace("w", 30.0))
    yield made
    made.stop()


def read(api: Api, wanted: list[str]) -> tuple[dict[str, KnownRoom], list[Rejection]]:
    rejected: list[Rejection] = []
    found = {room.id: room for room in read_rooms(api.client(), wanted, lambda: 17, rejected.append)}
    return found, rejected


def known(room: Room) -> KnownRoom:
    return KnownRoom(room.id, room.name_at(0), room.template, room.template_id, room.region, room.enabled, exists=True, fetched_at=17)


def test_a_few_rooms_are_asked_for_one_by_one(api: Api, sim: SimulatedApi, world: World) -> None:
    rooms = world.rooms[:3]
    found, _ = read(api, [room.id for room in rooms])
    assert found == {room.id: known(room) for room in rooms}
    assert sim.calls == {"/rooms/<id>": 3}


def test_many_rooms_are_found_in_the_list_and_those_not_listed_are_asked_for(api: Api, sim: SimulatedApi, world: World) -> None:
    """The list leaves out disabled rooms. They have names too, so they are asked for one by one."""
    found, _ = read(api, [room.id for room in world.rooms])
    assert found == {room.id: known(room) for room in world.rooms}
    assert sim.calls == {"/rooms": 3, "/rooms/<id>": 25}


def test_the_list_is_abandoned_when_it_no_longer_pays(api: Api, sim: SimulatedApi, world: World) -> None:
    oldest = [room.id for room in world.rooms if room.enabled][:30]
    found, _ = read(api, oldest)
    assert set(found) == set(oldest)
    assert sim.calls["/rooms"] == 1


def test_a_room_that_100ms_does_not_know_is_an_answer(api: Api, world: World) -> None:
    gone = "65f0000000000000deadbeef"
    found, _ = read(api, [gone, world.rooms[0].id])
    assert found[gone] == KnownRoom.missing(gone, 17)
    assert found[world.rooms[0].id].exists


@pytest.mark.parametrize("raw", [{"name": 7}, {"name": {"a": 1}}, {"enabled": "maybe"}, {"template": [1]}])
def test_a_record_of_a_room_that_makes_no_sense_costs_itself(api: Api, world: World, raw: dict[str, object]) -> None:
    odd, good = world.rooms[:2]
    odd.raw = raw
    found, rejected = read(api, [odd.id, good.id])
    assert good.id in found
    assert (odd.id in found) != (len(rejected) == 1), "it is read tolerantly, or rejected"
    assert all((rejection.kind, rejection.identity) == ("room", (odd.id,)) for rejection in rejected)


def test_a_faulty_record_in_the_list_hides_no_other(api: Api, world: World) -> None:
    odd = world.rooms[5]
    odd.raw = {"id": 17}
    found, _ = read(api, [room.id for room in world.rooms if room is not odd])
    assert len(found) == 249


def test_failures_in_a_row_raise_and_keep_what_came_before(api: Api, sim: SimulatedApi, world: World) -> None:
    sim.faults.add(Fault(kind="status", status=500, route="/rooms/<id>", after=2))
    found: list[str] = []
    answers = read_rooms(api.client(), [room.id for room in world.rooms[:9]], lambda: 1, lambda _: None)
    found.append(next(answers).id)
    found.append(next(answers).id)
    with pytest.raises(ApiError):
        next(answers)
    assert found == [room.id for room in world.rooms[:2]]
    assert sim.calls["/rooms/<id>"] < 9


def test_a_room_that_cannot_be_read_does_not_keep_others_from_their_names(api: Api, sim: SimulatedApi, world: World) -> None:
    bad, good = world.rooms[:2]
    sim.faults.add(Fault(kind="status", status=500, match=bad.id))
    found, _ = read(api, [bad.id, good.id])
    assert list(found) == [good.id]


def test_rooms_are_asked_for_one_by_one_when_the_list_cannot_be_read(api: Api, sim: SimulatedApi, world: World) -> None:
    sim.faults.add(Fault(kind="status", status=404, route="/rooms"))
    wanted = [room.id for room in world.rooms[:30]]
    found, _ = read(api, wanted)
    assert set(found) == set(wanted)


def test_a_retry_after_of_a_day_is_not_obeyed(api: Api, sim: SimulatedApi, world: World) -> None:
    """Names are read after each poll, so the next attempt comes soon without waiting."""
    sim.faults.add(Fault(kind="status", status=429, retry_after="86400"))
    began = time.monotonic()
    with pytest.raises(ApiError):
        _bounded(lambda: read(api, [world.rooms[0].id]), api)
    assert time.monotonic() - began < 2


def _bounded(work: Callable[[], object], api: Api) -> None:
    """Runs `work` in bounded time: it raises what `work` raises, and stops `work` and fails the test if it does not end."""
    guard = threading.Timer(4, api.stop)
    guard.start()
    try:
        work()
    finally:
        guard.cancel()


# --- batches, a part at a time ---


@pytest.fixture
def reader(api: Api) -> NameReader:
    return NameReader(api.client(), lambda: 17, lambda _: None)


def at_once(reader: NameReader, rooms: list[Room]) -> list[KnownRoom]:
    return reader.read([room.id for room in rooms], time.monotonic() + 10)


def test_as_much_is_read_as_the_time_allows(reader: NameReader, world: World) -> None:
    assert {room.id for room in at_once(reader, world.rooms)} == {room.id for room in world.rooms}


def test_a_batch_is_finished_before_the_next_one_begins(reader: NameReader, sim: SimulatedApi, world: World) -> None:
    """Each call has time for one answer. No room is asked for twice, and rooms added meanwhile wait for the next batch."""
    ids = [room.id for room in world.rooms[:5]]
    found = [room.id for _ in ids for room in reader.read(ids, 0.0, lambda: 0.0)]
    assert found == ids
    assert sim.calls == {"/rooms/<id>": 5}
    other = world.rooms[9].id
    assert reader.read([other], time.monotonic() + 10) == []  # the end of the previous batch
    assert [room.id for room in reader.read([other], time.monotonic() + 10)] == [other]


def test_nothing_is_asked_when_nothing_is_wanted(reader: NameReader, sim: SimulatedApi) -> None:
    assert at_once(reader, []) == []
    assert sim.calls == {}


def test_a_failure_of_the_api_ends_the_batch_and_not_the_reader(reader: NameReader, sim: SimulatedApi, world: World) -> None:
    sim.faults.add(Fault(kind="status", status=501, times=1))
    assert [room.id for room in at_once(reader, world.rooms[:3])] == [room.id for room in world.rooms[1:3]]
    sim.faults.add(Fault(kind="status", status=500))
    assert at_once(reader, world.rooms[:3]) == []
    sim.faults.clear()
    assert len(at_once(reader, world.rooms[:3])) == 3


def test_a_stopped_api_ends_the_reader_in_the_middle_of_a_stall(api: Api, sim: SimulatedApi, world: World, reader: NameReader) -> None:
    sim.faults.add(Fault(kind="stall", seconds=60))
    stop = threading.Timer(0.3, api.stop)
    stop.start()
    began = time.monotonic()
    assert at_once(reader, world.rooms[:1]) == []
    assert time.monotonic() - began < 2
