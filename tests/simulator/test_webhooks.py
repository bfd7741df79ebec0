"""Webhooks of the simulated API: their events, order, secrets and retries."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from exporter.simulator import (
    Room,
    SimulatedApi,
    WebhookEvent,
    WebhookSender,
    World,
    management_token,
    real_clock,
    seeds,
    webhook_events,
)
from exporter.times import MINUTE, SECOND, rfc3339
from tests.receiver import Receiver

T0 = 1_770_785_026 * SECOND


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def world() -> World:
    return World("key", "secret" * 6)


@pytest.fixture
def room(world: World) -> Room:
    return world.room(name="daily-standup")


def told(world: World, after: int = T0 - 1, until: int = T0 + MINUTE) -> list[WebhookEvent]:
    return webhook_events(world, after, until)


class TestEvents:
    """The events tell ..."""

    def test_a_call_in_the_order_in_which_it_happens(self, world: World, room: Room) -> None:
        session = world.open(room.id, T0)
        peer = session.join("guest", T0 + SECOND, user_id="u", name="A name")
        peer.change_role("host", T0 + 2 * SECOND)
        peer.leave(T0 + 3 * SECOND, recorded_at=T0 + 4 * SECOND, reason="peer kicked")
        session.close(T0 + 5 * SECOND)
        events = told(world)
        assert [(event.type, (event.at - T0) // SECOND) for event in events] == [
            ("session.open.success", 0),
            ("peer.join.success", 1),
            ("role.change.success", 2),
            ("peer.leave.success", 4),
            ("session.close.success", 5),
        ]
        opened, joined, changed, left, closed = (event.data for event in events)
        assert (opened["room_id"], opened["room_name"], opened["session_id"]) == (room.id, "daily-standup", session.id)
        assert (joined["peer_id"], joined["role"], joined["joined_at"], joined["type"]) == (
            peer.id,
            "guest",
            rfc3339(T0 + SECOND),
            "regular",
        )
        assert (changed["previous_role"], changed["role"], changed["role_changed_at"]) == ("guest", "host", rfc3339(T0 + 2 * SECOND))
        assert (left["left_at"], left["duration"], left["reason"]) == (rfc3339(T0 + 3 * SECOND), 2, "peer kicked")
        assert (closed["session_stopped_at"], closed["session_duration"]) == (rfc3339(T0 + 5 * SECOND), 5)

    def test_a_failed_join_without_a_session_and_with_the_zero_time(self, world: World, room: Room) -> None:
        world.join_failure(room, T0, "duplicate peer id")
        (event,) = told(world)
        assert event.type == "peer.join.failure"
        assert (event.data["error_message"], event.data["joined_at"]) == ("duplicate peer id", "0001-01-01T00:00:00Z")
        assert "session_id" not in event.data

    def test_jobs_as_they_start_stop_and_fail(self, world: World, room: Room) -> None:
        world.record(room, T0).start(T0 + 1).stop(T0 + 2).complete(T0 + 3)
        world.stream(room, T0).start(T0 + 4).fail(T0 + 5)
        assert [event.type for event in told(world)] == [
            "beam.started.success",
            "beam.stopped.success",
            "beam.recording.success",
            "hls.started.success",
            "hls.failure",
        ]

    def test_no_leave_of_a_ghost(self, world: World, room: Room) -> None:
        session = world.open(room.id, T0)
        session.join("guest", T0)
        session.close(T0 + SECOND)
        assert "peer.leave.success" not in [event.type for event in told(world)]

    def test_what_happens_at_one_moment_in_the_order_of_a_call(self, world: World, room: Room) -> None:
        for _ in range(8):
            session = world.open(room.id, T0)
            session.join("guest", T0).leave(T0)
            session.close(T0)
        types = [event.type for event in told(world)]
        assert types == ["session.open.success", "peer.join.success", "peer.leave.success", "session.close.success"] * 8

    def test_each_moment_once_in_windows_that_touch(self, world: World, room: Room) -> None:
        session = world.open(room.id, T0)
        for second in range(10):
            session.join("guest", T0 + second * SECOND)
        whole = [event.id for event in told(world)]
        parts = [event.id for at in range(12) for event in told(world, T0 + (at - 1) * SECOND, T0 + at * SECOND)]
        assert sorted(parts) == sorted(whole)
        assert len(set(whole)) == 11

    def test_what_must_never_be_shown(self, world: World, room: Room) -> None:
        world.join_failure(room, T0)
        world.record(room, T0).start(T0)
        assert all(seeds.MARK in json.dumps(event.data) for event in told(world))


Sending = Callable[..., WebhookSender]


@pytest.fixture
def sending(world: World, receiver: Receiver) -> Iterator[Sending]:
    """A factory of started senders to the receiver."""
    senders: list[WebhookSender] = []

    def make(**options: Any) -> WebhookSender:
        sender = WebhookSender(world, receiver.url, **{"retries": (0.05, 0.05, 0.05), **options})
        senders.append(sender)
        sender.start()
        return sender

    yield make
    for sender in senders:
        sender.stop()


class TestSender:
    """The sender ..."""

    def test_posts_what_happens_and_nothing_of_the_past(self, world: World, room: Room, receiver: Receiver, sending: Sending) -> None:
        past = world.open(room.id, real_clock() - MINUTE)
        sender = sending()
        past.join("guest", real_clock())
        assert sender.settle(5)
        assert receiver.types == ["peer.join.success"]
        body = receiver.bodies[0]
        assert body.keys() == {"version", "id", "account_id", "timestamp", "type", "data"}
        assert body["data"]["user_data"] == seeds.USER_DATA

    def test_sends_the_headers_and_a_signature_of_the_body(self, world: World, room: Room, receiver: Receiver, sending: Sending) -> None:
        sender = sending(headers={"x-hms-token": "t"}, signature_secret="s", signature_prefix="sha256=")
        world.open(room.id, real_clock())
        assert sender.settle(5)
        headers, body = receiver.seen[0]
        assert headers["x-hms-token"] == "t"
        assert headers["x-100ms-signature"] == "sha256=" + hmac.new(b"s", body, hashlib.sha256).hexdigest()

    def test_tries_again_and_says_in_the_api_that_it_arrived(self, world: World, room: Room, receiver: Receiver, sending: Sending) -> None:
        receiver.statuses = [500, 204]
        sender = sending()
        world.open(room.id, real_clock())
        assert sender.settle(5)
        assert [(attempt.number, attempt.status) for attempt in sender.attempts] == [(1, 500), (2, 204), (3, 200)]
        assert len({body["id"] for body in receiver.bodies}) == 1
        with SimulatedApi([world]) as api:
            headers = {"Authorization": f"Bearer {management_token(world, real_clock())}"}
            shown = requests.get(f"{api.base_url}/analytics/webhooks", headers=headers, timeout=5).json()
        assert [event["payload"]["original_event_name"] for event in shown["events"]] == ["session.open.success"]

    def test_gives_up_after_the_third_retry(self, world: World, room: Room, receiver: Receiver, sending: Sending) -> None:
        receiver.statuses = [503] * 4
        sender = sending()
        world.open(room.id, real_clock())
        assert sender.settle(5)
        assert [attempt.status for attempt in sender.attempts] == [503] * 4
        assert [delivery.error for delivery in world.beside.sent.by_id.values()] == ["status 503"]

    def test_waits_one_three_and_ten_seconds_unless_told_otherwise(self) -> None:
        assert WebhookSender(World("k", "s"), "http://127.0.0.1:9/")._retries == (1, 3, 10)

    def test_takes_a_server_that_is_not_there_for_a_failure(self, world: World, room: Room) -> None:
        with WebhookSender(world, "http://127.0.0.1:9/", retries=()) as sender:
            world.open(room.id, real_clock())
            assert sender.settle(5)
            assert [attempt.status for attempt in sender.attempts] == [0]

    def test_loses_doubles_and_delays_as_planned(self, world: World, room: Room, receiver: Receiver, sending: Sending) -> None:
        waits = {"session.open.success": [0.4], "peer.join.success": [0, 0.1], "session.close.success": []}
        sender = sending(plan=lambda event: waits[event.type])
        now = real_clock()
        with world.lock:
            session = world.open(room.id, now)
            session.join("guest", now)
            session.close(now)
        assert sender.settle(5)
        assert receiver.types == ["peer.join.success", "peer.join.success", "session.open.success"]

    def test_replays_the_past_as_such_with_the_same_ids(self, world: World, room: Room, receiver: Receiver, sending: Sending) -> None:
        begun = real_clock()
        sender = sending()
        world.open(room.id, begun + SECOND // 10)
        world.join_failure(room, begun + SECOND // 10)
        while len(receiver.seen) < 2:
            assert sender.settle(5)
        assert sender.replay(begun, real_clock()) == 2
        assert sender.settle(5)
        bodies = receiver.bodies
        assert [body.get("is_replay") for body in bodies] == [None, None, True, True]
        assert {body["id"] for body in bodies[:2]} == {body["id"] for body in bodies[2:]}

    def test_stopped_it_sends_no_more(self, world: World, room: Room, receiver: Receiver, sending: Sending) -> None:
        sender = sending()
        sender.stop()
        sender.stop()
        world.open(room.id, real_clock())
        assert receiver.seen == []
