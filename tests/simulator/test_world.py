"""The scripted workspace: its records at each moment, its listings, and the truth."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.simulator import ABSENT, Room, RoomQuery, Session, SessionQuery, Shape, UnknownCursorError, World
from exporter.times import DAY, HOUR, MINUTE, SECOND, rfc3339

T0 = 1_770_785_026 * SECOND + 294_000  # 2026-02-11T04:43:46.294Z


@pytest.fixture
def world() -> World:
    return World("key", "secret" * 6)


@pytest.fixture
def room(world: World) -> Room:
    return world.room(id="61652b404e556e35f2179759", name="daily-standup")


def everything(world: World, now: int, **filters: Any) -> list[Session]:
    return world.list_sessions(SessionQuery(limit=10_000, **filters), now)


class TestRecord:
    """A session's record ..."""

    def test_is_the_documented_one(self, world: World, room: Room) -> None:
        session = world.open(room.id, T0, id="6205e9826d83bc36e6e761e2")
        peer = session.join("host", T0 + 12_000, user_id="the-customers-own-id", name="A person's name", id="860aa563")
        peer.leave(T0 + 7 * MINUTE)
        session.close(T0 + 8 * MINUTE)
        record = session.record(T0 + HOUR)
        assert {key: value for key, value in record.items() if key not in ("customer_id", "app_id")} == {
            "id": "6205e9826d83bc36e6e761e2",
            "room_id": "61652b404e556e35f2179759",
            "active": False,
            "peers": {
                "860aa563": {
                    "id": "860aa563",
                    "session_id": "6205e9826d83bc36e6e761e2",
                    "name": "A person's name",
                    "role": "host",
                    "user_id": "the-customers-own-id",
                    "joined_at": "2026-02-11T04:43:46.306Z",
                    "left_at": "2026-02-11T04:50:46.294Z",
                }
            },
            "created_at": "2026-02-11T04:43:46.294Z",
            "updated_at": "2026-02-11T04:51:46.294Z",
        }
        assert [len(record[key]) for key in ("customer_id", "app_id")] == [24, 24]
        assert msgspec.json.decode(session.encoded(T0 + HOUR)) == record

    def test_shows_what_has_happened_by_then_of_a_script_that_reaches_further(self, world: World, room: Room) -> None:
        session = world.open(room.id, T0)
        first = session.join("host", T0 + SECOND)
        second = session.join("guest", T0 + 10 * SECOND)
        first.leave(T0 + 20 * SECOND)
        session.close(T0 + 30 * SECOND)

        def seen(after: int) -> tuple[bool, list[tuple[str, bool]], str]:
            record = session.record(T0 + after * SECOND)
            return record["active"], [(id_, "left_at" in peer) for id_, peer in record["peers"].items()], record["updated_at"]

        assert seen(0) == (True, [], rfc3339(T0))
        assert seen(5) == (True, [(first.id, False)], rfc3339(T0 + SECOND))
        assert seen(10) == (True, [(first.id, False), (second.id, False)], rfc3339(T0 + 10 * SECOND))
        assert seen(25) == (True, [(first.id, True), (second.id, False)], rfc3339(T0 + 20 * SECOND))
        assert seen(30) == (False, [(first.id, True), (second.id, False)], rfc3339(T0 + 30 * SECOND)), "the second is a ghost"

    def test_of_a_leave_recorded_late_shows_the_peer_connected_until_then(self, world: World, room: Room) -> None:
        session = world.open(room.id, T0)
        peer = session.join("host", T0)
        peer.leave(T0 + MINUTE, recorded_at=T0 + 2 * MINUTE)
        assert "left_at" not in session.record(T0 + 2 * MINUTE - 1)["peers"][peer.id]
        assert session.record(T0 + 2 * MINUTE)["peers"][peer.id]["left_at"] == rfc3339(T0 + MINUTE)
        assert session.connected(T0 + 2 * MINUTE - 1) == [peer]
        assert session.connected(T0 + 2 * MINUTE) == []

    def test_of_an_ended_session_has_every_leave_that_happened(self, world: World, room: Room) -> None:
        session = world.open(room.id, T0)
        peer = session.join("host", T0)
        peer.leave(T0 + MINUTE, recorded_at=T0 + 5 * MINUTE)
        session.close(T0 + 2 * MINUTE)
        assert session.record(T0 + 2 * MINUTE)["peers"][peer.id]["left_at"] == rfc3339(T0 + MINUTE)

    def test_shows_the_present_role_only(self, world: World, room: Room) -> None:
        session = world.open(room.id, T0)
        peer = session.join("viewer", T0)
        peer.change_role("stage", T0 + MINUTE)
        assert session.record(T0 + MINUTE - 1)["peers"][peer.id]["role"] == "viewer"
        assert session.record(T0 + MINUTE)["peers"][peer.id]["role"] == "stage"

    def test_does_not_exist_before_the_session(self, world: World, room: Room) -> None:
        with pytest.raises(ValueError, match="not begun"):
            world.open(room.id, T0).record(T0 - 1)

    def test_encoded_follows_changes_of_the_script(self, world: World, room: Room) -> None:
        session = world.open(room.id, T0)
        before = session.encoded(T0 + HOUR)
        assert session.encoded(T0 + 2 * HOUR) is before, "nothing changed in between"
        peer = session.join("host", T0 + SECOND)
        assert msgspec.json.decode(session.encoded(T0 + HOUR))["peers"].keys() == {peer.id}
        peer.raw = {"role": 7}
        assert msgspec.json.decode(session.encoded(T0 + HOUR))["peers"][peer.id]["role"] == 7


class TestShape:
    """Forms of a record: ..."""

    @pytest.mark.parametrize(
        ("us", "digits", "written"),
        [
            (T0, None, "2026-02-11T04:43:46.294Z"),
            (T0 - 294_000, None, "2026-02-11T04:43:46Z"),
            (T0 + 1, None, "2026-02-11T04:43:46.294001Z"),
            (T0 - 94_000, None, "2026-02-11T04:43:46.2Z"),
            (T0, 0, "2026-02-11T04:43:46Z"),
            (T0, 1, "2026-02-11T04:43:46.2Z"),
            (T0, 9, "2026-02-11T04:43:46.294000000Z"),
        ],
    )
    def test_times_have_the_set_number_of_digits(self, us: int, digits: int | None, written: str) -> None:
        assert rfc3339(us, digits) == written

    def peers(self, world: World, room: Room, shape: Shape) -> Any:
        world.shape = shape
        session = world.open(room.id, T0)
        session.join("host", T0, id="p")
        return session.record(T0).get("peers", "absent")

    def test_peers_in_every_known_form(self, world: World, room: Room) -> None:
        assert list(self.peers(world, room, Shape(peers="object"))) == ["p"]
        assert [peer["id"] for peer in self.peers(world, room, Shape(peers="list"))] == ["p"]
        assert self.peers(world, room, Shape(peers="null")) is None
        assert self.peers(world, room, Shape(peers="absent")) == "absent"

    def test_connected_peers_in_every_known_form(self, world: World, room: Room) -> None:
        assert "left_at" not in self.peers(world, room, Shape())["p"]
        assert self.peers(world, room, Shape(connected="null"))["p"]["left_at"] is None
        assert self.peers(world, room, Shape(connected="zero"))["p"]["left_at"] == "0001-01-01T00:00:00Z"

    def test_old_peers_lack_their_ids(self, world: World, room: Room) -> None:
        assert self.peers(world, room, Shape(old_peers=True))["p"].keys() == {"name", "role", "joined_at"}

    def test_of_one_session_can_differ(self, world: World, room: Room) -> None:
        session = world.open(room.id, T0)
        session.shape = Shape(peers="null")
        assert session.record(T0)["peers"] is None
        assert world.open(room.id, T0).record(T0)["peers"] == {}

    def test_raw_fields_replace_or_remove_any(self, world: World, room: Room) -> None:
        session = world.open(room.id, T0)
        session.raw = {"created_at": 12, "id": ABSENT}
        assert session.record(T0)["created_at"] == 12
        assert "id" not in session.record(T0)
        room.raw = {"name": ["junk"]}
        assert room.record(T0)["name"] == ["junk"]


class TestScript:
    """A script ..."""

    def test_ids_are_24_hex_digits_that_rise_with_the_start(self, world: World, room: Room) -> None:
        later, earlier = world.open(room.id, T0 + 1), world.open(room.id, T0)
        same = world.open(room.id, T0)
        assert earlier.id < same.id < later.id
        assert len(bytes.fromhex(earlier.id)) == 12

    def test_refuses_impossible_events(self, world: World, room: Room) -> None:
        session = world.open(room.id, T0)
        with pytest.raises(ValueError, match="join"):
            session.join("host", T0 - 1)
        peer = session.join("host", T0 + SECOND)
        with pytest.raises(ValueError, match="leave"):
            peer.leave(T0)
        with pytest.raises(ValueError, match="end"):
            session.close(T0)
        session.close(T0 + MINUTE)
        with pytest.raises(ValueError, match="leave"):
            peer.leave(T0 + HOUR)
        with pytest.raises(ValueError, match="join"):
            session.join("host", T0 + HOUR)
        with pytest.raises(ValueError, match="end"):
            session.close(T0 + MINUTE)
        peer.leave(T0 + MINUTE)
        with pytest.raises(ValueError, match="role"):
            peer.change_role("guest", T0 + HOUR)

    def test_refuses_ids_that_are_taken_and_rooms_that_are_not(self, world: World, room: Room) -> None:
        with pytest.raises(ValueError, match="already"):
            world.room(id=room.id)
        world.open(room.id, T0, id="s")
        with pytest.raises(ValueError, match="already"):
            world.open(room.id, T0, id="s")
        with pytest.raises(KeyError):
            world.open("nowhere", T0)


class TestListing:
    """A listing ..."""

    def test_is_newest_first_and_tells_running_from_ended(self, world: World, room: Room) -> None:
        old, short, new = (world.open(room.id, T0 + at * MINUTE) for at in (0, 1, 2))
        short.close(T0 + 3 * MINUTE)
        assert everything(world, T0 + 5 * MINUTE) == [new, short, old]
        assert everything(world, T0 + 5 * MINUTE, active=True) == [new, old]
        assert everything(world, T0 + 5 * MINUTE, active=False) == [short]
        assert everything(world, T0 + MINUTE, active=True) == [short, old], "also when asked about an earlier moment"
        assert everything(world, T0 + MINUTE, active=False) == []

    def test_filters_by_room_id_and_start(self, world: World, room: Room) -> None:
        other = world.room(name="other")
        here, there = world.open(room.id, T0), world.open(other.id, T0 + MINUTE)
        now = T0 + HOUR
        assert everything(world, now, room_id=room.id) == [here]
        assert everything(world, now, room_id="nowhere") == []
        assert everything(world, now, id=there.id) == [there]
        assert everything(world, now, after=T0, before=T0) == [here], "both ends are included"
        assert everything(world, now, after=T0 + 1) == [there]
        assert everything(world, now, before=T0 - 1) == []

    def test_pages_begin_after_the_cursor_also_when_it_has_vanished(self, world: World, room: Room) -> None:
        sessions = [world.open(room.id, T0 + at) for at in range(5)]
        sessions[3].vanish(T0 + HOUR)
        page = world.list_sessions(SessionQuery(limit=2, start=sessions[3].id), T0 + HOUR)
        assert page == [sessions[2], sessions[1]]
        with pytest.raises(UnknownCursorError):
            world.list_sessions(SessionQuery(limit=2, start="nonsense"), T0 + HOUR)

    def test_vanished_sessions_are_gone_from_then_on(self, world: World, room: Room) -> None:
        session = world.open(room.id, T0)
        session.vanish(T0 + MINUTE)
        assert everything(world, T0 + MINUTE - 1) == [session]
        assert world.find_session(session.id, T0 + MINUTE - 1) is session
        assert everything(world, T0 + MINUTE) == []
        assert world.find_session(session.id, T0 + MINUTE) is None

    def test_vanished_sessions_are_known_again_when_they_vanish_later(self, world: World, room: Room) -> None:
        session = world.open(room.id, T0)
        session.vanish(T0 + MINUTE)
        assert everything(world, T0 + MINUTE) == []
        session.vanish(T0 + HOUR)
        assert everything(world, T0 + MINUTE) == [session]
        assert everything(world, T0 + HOUR) == []

    def test_of_a_large_world_moves_on_with_its_events(self, world: World, room: Room) -> None:
        other = world.room(name="other")
        for at in range(100):
            session = world.open((room, other)[at % 2].id, T0 + at * SECOND)
            session.close(T0 + (at + 7) * SECOND)
            if at % 5 == 0:
                session.vanish(T0 + (at + 9) * SECOND)
        for now in range(T0, T0 + 120 * SECOND, SECOND // 2):
            known = [session for session in reversed(world.sessions) if session.exists(now)]
            assert everything(world, now) == known
            assert everything(world, now, active=True) == [session for session in known if session.active(now)]
            assert everything(world, now, active=False, room_id=other.id) == [
                session for session in known if not session.active(now) and session.room_id == other.id
            ]

    def test_of_rooms_follows_names_and_lives(self, world: World, room: Room) -> None:
        off = world.room(name="off", enabled=False, created_at=T0)
        late = world.room(name="late", template="webinar", created_at=T0 + MINUTE)
        room.rename("weekly", T0 + HOUR)
        late.remove(T0 + 2 * HOUR)

        def listed(now: int, **filters: Any) -> list[Room]:
            return world.list_rooms(RoomQuery(limit=10, **filters), now)

        assert listed(T0) == [room]
        assert listed(T0 + MINUTE) == [late, room]
        assert listed(T0 + MINUTE, enabled=False) == [off]
        assert listed(T0 + MINUTE, template_id=late.template_id) == [late]
        assert listed(T0 + MINUTE, name="daily-standup") == [room]
        assert listed(T0 + HOUR, name="daily-standup") == []
        assert listed(T0 + HOUR, name="weekly") == [room]
        assert listed(T0 + 2 * HOUR) == [room]
        assert listed(T0 + HOUR, after=T0) == [late]
        assert listed(T0 + HOUR, before=T0) == [room]
        assert listed(T0 + HOUR, start=late.id) == [room]
        assert world.find_room(late.id, T0 + 2 * HOUR) is None

    def test_a_room_without_a_name_gets_a_uuid(self, world: World) -> None:
        assert len(world.room().name_at(T0)) == 36
        assert world.room(name="").name_at(T0) == ""

    def test_pages_of_a_large_world_encode_no_more_than_they_show(self, world: World, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
        for at in range(20_000):
            world.open(room.id, T0 + at * SECOND).close(T0 + at * SECOND + MINUTE)
        now = T0 + 20_000 * SECOND
        encoded: Counter[str] = Counter()
        record = Session.record
        monkeypatch.setattr(Session, "record", lambda self, now: encoded.update([self.id]) or record(self, now))
        for _ in range(3):
            page = everything(world, now, active=False, before=T0 + 500 * SECOND)[:100]
            assert [len(session.encoded(now)) > 0 for session in page] == [True] * 100
        assert encoded.total() == 100


UNIT = 6 * HOUR  # four ticks a day, so that small numbers cross midnights
TICK = 20


@dataclass(frozen=True)
class Stay:
    """A peer of a timeline, in ticks."""

    joined: int
    role: str
    changed: int | None
    left: int | None
    late: int


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, int, int | None, list[Stay]]:
    begin = draw(st.integers(0, TICK))
    end = draw(st.none() | st.integers(begin, TICK))
    stays = []
    for _ in range(draw(st.integers(0, 3))):
        joined = draw(st.integers(begin, TICK if end is None else end))
        left = draw(st.none() | st.integers(joined, TICK if end is None else end))
        horizon = left if left is not None else end if end is not None else TICK
        changed = draw(st.none() | st.integers(joined, horizon))
        stays.append(Stay(joined, draw(st.sampled_from("ab")), changed, left, draw(st.integers(0, 3))))
    return draw(st.sampled_from("rs")), begin, end, stays


def scripted(timeline: list[tuple[str, int, int | None, list[Stay]]]) -> World:
    world = World("key", "secret" * 6)
    for name in "rs":
        world.room(id=name)
    for room_id, begin, end, stays in timeline:
        session = world.open(room_id, begin * UNIT)
        for stay in stays:
            peer = session.join(stay.role, stay.joined * UNIT)
            if stay.changed is not None:
                peer.change_role("c", stay.changed * UNIT)
            if stay.left is not None:
                peer.leave(stay.left * UNIT, recorded_at=(stay.left + stay.late) * UNIT)
        if end is not None:
            session.close(end * UNIT)
    return world


@given(st.lists(calls(), max_size=4), st.integers(0, TICK + 2))
def test_truth_equals_a_count_over_every_tick(timeline: list[tuple[str, int, int | None, list[Stay]]], now: int) -> None:
    truth = scripted(timeline).truth(now * UNIT)
    peer_us: Counter[tuple[str, str, int]] = Counter()
    session_us: Counter[str] = Counter()
    for room_id, begin, end, stays in timeline:
        for tick in range(now):
            running = begin <= tick and (end is None or tick < end)
            session_us[room_id] += UNIT * running
            for stay in stays:
                if running and stay.joined <= tick and (stay.left is None or tick < stay.left):
                    role = "c" if stay.changed is not None and stay.changed <= tick else stay.role
                    peer_us[room_id, role, tick * UNIT // DAY] += UNIT
    assert +truth.peer_us_by_day == +peer_us
    assert +truth.session_us == +session_us
    for by_role in (truth.peer_us, truth.peer_us_by_day):
        for room_id in "rs":
            assert sum(us for key, us in by_role.items() if key[0] == room_id) == truth.room_peer_us[room_id]
    begun = [call for call in timeline if call[1] <= now]
    over = [call for call in begun if call[2] is not None and call[2] <= now]
    assert (truth.started.total(), truth.ended.total()) == (len(begun), len(over))
    assert truth.joins.total() == sum(stay.joined <= now for call in begun for stay in call[3])


@given(st.lists(calls(), max_size=4), st.integers(0, TICK + 2))
def test_recorded_truth_equals_the_records(timeline: list[tuple[str, int, int | None, list[Stay]]], now: int) -> None:
    world = scripted(timeline)
    truth = world.truth(now * UNIT, recorded=True)
    stamp = {rfc3339(tick * UNIT): tick * UNIT for tick in range(TICK + 3)}
    room_peer_us: Counter[str] = Counter()
    left = 0
    for session in everything(world, now * UNIT):
        record = session.record(now * UNIT)
        horizon = now * UNIT if record["active"] else stamp[record["updated_at"]]
        for peer in record["peers"].values():
            left += "left_at" in peer or not record["active"]
            until = stamp[peer["left_at"]] if "left_at" in peer else horizon
            room_peer_us[record["room_id"]] += until - stamp[peer["joined_at"]]
    assert +truth.room_peer_us == +room_peer_us
    assert truth.leaves.total() == left


def test_recorded_truth_of_an_ended_session_has_every_leave_that_happened(world: World, room: Room) -> None:
    session = world.open(room.id, T0)
    session.join("host", T0).leave(T0 + MINUTE, recorded_at=T0 + 5 * MINUTE)
    assert world.truth(T0 + 2 * MINUTE, recorded=True).peer_us == {(room.id, "host"): 2 * MINUTE}
    assert world.truth(T0 + 2 * MINUTE).peer_us == {(room.id, "host"): MINUTE}
    session.close(T0 + 3 * MINUTE)
    assert world.truth(T0 + 4 * MINUTE, recorded=True).peer_us == {(room.id, "host"): MINUTE}


def test_a_vanished_session_has_happened_all_the_same(world: World, room: Room) -> None:
    session = world.open(room.id, T0)
    session.join("host", T0)
    session.vanish(T0 + MINUTE)
    session.close(T0 + HOUR)
    assert world.truth(T0 + HOUR).peer_us == {(room.id, "host"): HOUR}
