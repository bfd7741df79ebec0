"""Webhook deliveries and client events of the simulated API, with the cursors that only they have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from exporter.simulator import Fault, Manners, Room, Session, SimulatedApi, World
from exporter.times import DAY, HOUR, MINUTE, SECOND, rfc3339
from tests.simulator.test_server import NOW, T0, Client


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


def ids(page: dict[str, Any]) -> list[str]:
    return [event.get("event_id") or event["id"] for event in page["events"] or []]


class TestDeliveries:
    """Deliveries ..."""

    def get(self, client: Client, **query: Any) -> dict[str, Any]:
        answer = client.get("/analytics/webhooks", **query)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def test_show_the_outcome_of_each_webhook(self, client: Client, world: World, room: Room) -> None:
        world.delivery(room, T0)
        lost = world.delivery(room, T0 + SECOND, "peer.join.success", error="timeout")
        record = self.get(client)["events"][0]
        assert (record["event_id"], record["room_id"], record["event_timestamp"]) == (lost.id, room.id, rfc3339(T0 + SECOND))
        assert (record["payload"]["original_event_name"], record["payload"]["error_reason"]) == ("peer.join.success", "timeout")
        assert "error_reason" not in self.get(client)["events"][1]["payload"]

    def test_are_chosen_by_every_filter(self, client: Client, world: World, room: Room) -> None:
        good = world.delivery(room, T0)
        bad = world.delivery(room, T0 + SECOND, "peer.join.success", error="timeout")
        there = world.delivery(world.room(name="other"), T0 + 2 * SECOND, "room.end.success")
        old = world.delivery(room, NOW - 2 * DAY)
        assert ids(self.get(client)) == [there.id, bad.id, good.id], "of the last 24 hours"
        assert ids(self.get(client, status="failed")) == [bad.id]
        assert ids(self.get(client, status="success")) == [there.id, good.id]
        assert ids(self.get(client, status="all", room_id=room.id)) == [bad.id, good.id]
        assert ids(self.get(client, event_names=["peer.join.success", "room.end.success"])) == [there.id, bad.id]
        assert ids(self.get(client, start_time=rfc3339(NOW - 3 * DAY), end_time=rfc3339(T0))) == [good.id, old.id]

    def test_are_pages_by_number_and_one_of_one_tells_how_many_there_are(self, client: Client, world: World, room: Room) -> None:
        sent = [world.delivery(room, T0 + at).id for at in range(7)][::-1]
        first, last = self.get(client, limit=3), self.get(client, limit=3, page=3)
        assert (ids(first), ids(last)) == (sent[:3], sent[6:])
        assert first["pagination"] == {
            "current_page": 1,
            "page_size": 3,
            "total_pages": 3,
            "total_items": 7,
            "has_next": True,
            "has_prev": False,
        }
        assert (last["pagination"]["has_next"], last["pagination"]["has_prev"]) == (False, True)
        assert self.get(client, limit=1)["pagination"]["total_items"] == 7
        assert self.get(client, page=2)["events"] is None

    @pytest.mark.parametrize(
        "query",
        [
            {"start_time": rfc3339(NOW - 31 * DAY)},
            {"start_time": rfc3339(NOW - 20 * DAY), "end_time": rfc3339(NOW - 5 * DAY)},
            {"start_time": rfc3339(NOW), "end_time": rfc3339(NOW - 1)},
            {"start_time": "yesterday"},
            {"limit": 101},
            {"page": 0},
            {"status": "lost"},
        ],
        ids=str,
    )
    def test_are_refused_beyond_the_limits(self, client: Client, query: dict[str, Any]) -> None:
        assert client.get("/analytics/webhooks", **query).status_code == 400

    def test_have_a_limit_on_how_often_one_may_ask(self, client: Client, api: SimulatedApi) -> None:
        message = "rate limit exceeded, retry after 45 seconds"
        api.faults.add(Fault(kind="status", route="/analytics/webhooks", status=429, message=message, times=1))
        refused = client.get("/analytics/webhooks")
        assert (refused.status_code, refused.json()["message"]) == (429, message)
        assert client.get("/analytics/webhooks").status_code == 200

    def test_can_have_pages_without_end(self, client: Client, api: SimulatedApi, world: World, room: Room) -> None:
        world.delivery(room, T0)
        api.faults.add(Fault(kind="endless_pages", route="/analytics/webhooks"))
        assert self.get(client, page=9)["pagination"]["has_next"] is True


class TestClientEvents:
    """Client events ..."""

    def get(self, client: Client, room: Room, **query: Any) -> dict[str, Any]:
        answer = client.get("/analytics/events", room_id=room.id, **query)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def test_are_of_one_room_that_must_be_named(self, client: Client, world: World, room: Room) -> None:
        event = world.client_event(room, T0)
        world.client_event(world.room(name="other"), T0)
        assert client.get("/analytics/events").status_code == 400
        assert ids(self.get(client, room)) == [event.id]

    def test_tell_what_went_wrong(self, client: Client, world: World, room: Room, call: Session) -> None:
        world.client_event(call, T0, "client.publish.failed", error_code=3001, error_name="NoDevice", sdk="ios", role="host")
        event = self.get(client, room)["events"][0]
        assert (event["type"], event["timestamp"]) == ("client.publish.failed", rfc3339(T0))
        data = event["data"]
        assert (data["error_code"], data["error_name"], data["agent"]["sdk"], data["role"]) == (3001, "NoDevice", "ios", "host")
        assert data["session_id"] == call.id

    def test_of_no_call_have_no_session(self, client: Client, world: World, room: Room) -> None:
        world.client_event(room, T0)
        assert "session_id" not in self.get(client, room)["events"][0]["data"]

    def test_are_chosen_by_every_filter(self, client: Client, world: World, room: Room, call: Session) -> None:
        join = world.client_event(room, T0)
        drop = world.client_event(call, T0 + 1, "client.disconnected", peer_id="p", user_id="u")
        track = world.client_event(call, T0 + 2, "track.add.success", data={"source": "screen"})
        world.client_event(room, NOW - 31 * DAY)
        assert ids(self.get(client, room)) == [track.id, drop.id, join.id]
        assert ids(self.get(client, room, error="true")) == [drop.id, join.id]
        assert ids(self.get(client, room, error="false")) == [track.id]
        assert ids(self.get(client, room, type=["client.join.failed", "client.disconnected"])) == [drop.id, join.id]
        assert ids(self.get(client, room, session_id=call.id)) == [track.id, drop.id]
        assert ids(self.get(client, room, peer_id="p")) == ids(self.get(client, room, user_id="u")) == [drop.id]
        assert self.get(client, room)["events"][0]["data"]["source"] == "screen"
        assert "error_code" not in self.get(client, room)["events"][0]["data"]

    @pytest.mark.parametrize("final_last", ["id", "empty", "absent"])
    def test_lead_through_everything_once_by_next(
        self, client: Client, api: SimulatedApi, world: World, room: Room, final_last: Any
    ) -> None:
        api.manners = Manners(final_last=final_last)
        events = [world.client_event(room, T0 + at).id for at in range(25)]
        found: list[str] = []
        start: dict[str, Any] = {}
        while True:
            page = self.get(client, room, **start)
            assert (page["limit"], page["total"]) == (10, 25)
            assert "last" not in page
            found += ids(page)
            if not page.get("next"):
                break
            start = {"start": page["next"]}
        assert found == events[::-1]

    def test_have_cursors_that_live_for_a_day(self, client: Client, api: SimulatedApi, world: World, room: Room) -> None:
        for at in range(11):
            world.client_event(room, T0 + at)
        cursor = self.get(client, room)["next"]
        api.clock = lambda: NOW + DAY + SECOND
        later = Client(api, world)
        assert later.get("/analytics/events", room_id=room.id, start=cursor).status_code == 400
        assert later.get("/analytics/events", room_id=room.id, start="nonsense").status_code == 400

    def test_can_repeat_their_cursor(self, client: Client, api: SimulatedApi, world: World, room: Room) -> None:
        for at in range(11):
            world.client_event(room, T0 + at)
        cursor = self.get(client, room)["next"]
        api.faults.add(Fault(kind="repeated_cursor", route="/analytics/events"))
        assert self.get(client, room, start=cursor)["next"] == cursor


def test_answers_show_one_moment(client: Client, world: World, room: Room) -> None:
    world.client_event(room, NOW + MINUTE)
    world.delivery(room, NOW + HOUR)
    assert client.get("/analytics/events", room_id=room.id).json()["total"] == 0
    assert client.get("/analytics/webhooks", end_time=rfc3339(NOW + DAY)).json()["pagination"]["total_items"] == 0
