"""Early polls read only the rooms of the events and change no other room.  What they have read survives a restart."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from exporter.config.config import RoomById
from exporter.counting.accounts import AccountState
from exporter.counting.contribution import Account
from exporter.counting.rooms import Rooms
from exporter.hms.webhooks import LEAVE, Event
from exporter.polling.hurried import HurriedPoller
from exporter.polling.hurry import APART, Hurry
from exporter.polling.inbox import Hearing
from exporter.simulator import World
from exporter.times import SECOND
from lab.bench import Bench
from tests.harness import at


class HurriedBench(Bench):
    """A bench whose poller accepts events."""

    def make_poller(self) -> HurriedPoller:
        self.hurry = Hurry(self.monotonic)
        return HurriedPoller(
            self.workspace, self.config, self.store, self.exposition, self.metrics, self.api, monotonic=self.monotonic, hurry=self.hurry
        )

    def early(self, seconds: float, *rooms: str) -> None:
        self.clock.leap(seconds)
        self.hurry.ask(rooms)
        assert isinstance(self.poller, HurriedPoller)
        self.poller.early()
        self.look()


@pytest.fixture
def bench(tmp_path: Path, world: World) -> Iterator[HurriedBench]:
    made = HurriedBench(tmp_path, world)
    yield made
    made.close()


def test_an_early_poll_asks_for_the_room_of_the_event_alone_and_moves_nothing_of_the_others(bench: HurriedBench, world: World) -> None:
    one, two = world.room(name="one"), world.room(name="two")
    for room in (one, two):
        world.open(room.id, at=at(-10)).join("host", at=at(-10))
    bench.poll()
    bench.poll(30)
    before, asked = bench.poller.ledger.coverage.read_until, bench.metrics.asked
    world.open(one.id, at=at(35)).join("guest", at=at(35))
    bench.early(10, one.id)
    assert bench.metrics.asked == asked + 1
    assert bench.poller.ledger.coverage.read_until == before
    assert bench.value("hms_peers_active", room="one") == 2
    assert bench.value("hms_peer_seconds_total", room="one", role="host") == 50
    assert bench.value("hms_peer_seconds_total", room="two", role="host") == 40
    bench.restart()
    assert bench.value("hms_peer_seconds_total", room="one", role="host") == 50
    assert bench.value("hms_peer_seconds_total", room="two", role="host") == 40
    bench.poll(20)
    assert bench.value("hms_peer_seconds_total", room="two", role="host") == 70
    assert bench.up()


def test_a_call_that_has_ended_is_seen_by_an_early_poll_and_counted_once(bench: HurriedBench, world: World) -> None:
    room = world.room(name="r")
    session = world.open(room.id, at=at(-10))
    session.join("host", at=at(-10))
    bench.poll()
    bench.poll(30)
    session.close(at(33))
    bench.early(5, room.id)
    assert bench.value("hms_sessions_active", room="r") == 0
    assert bench.value("hms_sessions_ended_total", room="r") == 1
    bench.finish()
    assert bench.value("hms_sessions_ended_total", room="r") == 1
    assert bench.value("hms_peer_seconds_total", room="r") == 43


def test_events_of_a_room_that_is_not_followed_cost_no_request(bench: HurriedBench, world: World) -> None:
    bench.configure([RoomById(world.room(name="ours").id)])
    bench.poll()
    bench.poll(30)
    asked = bench.metrics.asked
    bench.early(1, "another-room")
    assert bench.metrics.asked == asked


def test_the_past_gives_way_to_an_early_poll_and_loses_nothing(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    room = world.room(name="r")
    for number in range(400):
        session = world.open(room.id, at=at(-90_000 + number * 100))
        session.join("host", at=at(-90_000 + number * 100))
        session.close(at(-90_000 + number * 100 + 50))
    bench = HurriedBench(tmp_path, world, since=datetime.fromtimestamp(at(-100_000) / SECOND, UTC))
    try:
        poller = bench.poller
        seen, early = [0], [0]
        see, give_way = poller._see, poller._give_way

        def seeing(*arguments: Any, **more: Any) -> None:
            seen[0] += 1
            if seen[0] % 50 == 0:
                bench.uptime += APART
                bench.hurry.ask([room.id if seen[0] % 100 else ""])
            see(*arguments, **more)

        def giving_way() -> None:
            early[0] += 1
            give_way()

        monkeypatch.setattr(poller, "_see", seeing)
        monkeypatch.setattr(poller, "_give_way", giving_way)
        for _ in range(12):
            bench.poll(30)
        assert early[0] >= 3
        assert bench.value("hms_sessions_ended_total", room="r") == 400
        assert bench.value("hms_peer_seconds_total", room="r") == 400 * 50
        assert poller.ledger.coverage.tasks == {}
        assert bench.up()
    finally:
        bench.close()


def test_early_polls_are_apart() -> None:
    now = [0.0]
    hurry = Hurry(lambda: now[0])
    assert hurry.wait() is None
    hurry.ask(["r"])
    assert hurry.is_due()
    assert hurry.take() == {"r"}
    hurry.ask(["r"])
    assert hurry.wait() == APART
    now[0] = APART
    assert hurry.is_due()


def leave(number: int, room_id: str) -> Event:
    return Event(number.to_bytes(16, "big"), "peer.leave.success", at(-5), replay=False, room_id=room_id, counts=(LEAVE, "peer kicked"))


def test_rooms_that_are_heard_of_at_once_are_placed_together(bench: HurriedBench, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Placing one takes a look at all: one by one, thousands held up an early poll for half a minute."""
    room = world.room(name="r")
    world.open(room.id, at=at(-10)).join("host", at=at(-10))
    bench.poll()
    hearing = Hearing(bench.workspace.name, bench.store, bench.api.now, lambda _: None)
    assert isinstance(bench.poller, HurriedPoller)
    bench.poller.listen(hearing)
    hearing.take([leave(number, f"{number:024x}") for number in range(300)], {})
    placed = []
    place = Rooms.place

    def counted(self: Rooms, rooms: Mapping[str, int], accounts: Mapping[Account, AccountState], now: int) -> dict[str, Account | None]:
        placed.append(len(rooms))
        return place(self, rooms, accounts, now)

    monkeypatch.setattr(Rooms, "place", counted)
    bench.early(10, room.id)
    assert [number for number in placed if number] == [300]
    assert not hearing.waits


def test_events_are_stored_while_it_is_decided_whose_the_earlier_ones_are(bench: HurriedBench) -> None:
    hearing = Hearing(bench.workspace.name, bench.store, bench.api.now, lambda _: None)
    hearing.take([leave(1, "a")], {})

    def decide(rooms: list[str]) -> dict[str, Account | None]:
        another = threading.Thread(target=hearing.take, args=([leave(2, "b")], {}), daemon=True)
        another.start()
        another.join(5)
        assert not another.is_alive()
        return dict.fromkeys(rooms)

    hearing.place(decide)
    assert hearing.waiting_rooms() == ["b"]
