"""Which rooms are followed, which account has their series, and their names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from exporter.config.config import KeyPair, LimitsConfig, RoomById, RoomsByName, Secret, WorkspaceConfig
from exporter.counting.accounts import AccountState
from exporter.counting.contribution import OVERFLOW, Account, Tracked, group_account, room_account
from exporter.counting.rooms import QUIET_POLLS, KnownRoom, Rooms
from exporter.counting.scope import EVERYTHING, Scope
from exporter.counting.stays import Memory
from exporter.hms.records import Room
from exporter.times import DAY, HOUR, SECOND
from tests.harness import T0, at

PATTERN = RoomsByName(re.compile("class-(?P<school>[a-z]+)-.*"), "class-${school}")
UNGROUPED = RoomsByName(re.compile("team-.*"))


def rooms(*entries: RoomById | RoomsByName, max_rooms: int = 5000, expiry: float = 86400.0) -> Rooms:
    """The rooms of these entries of a configuration; without entries, every room."""
    workspace = WorkspaceConfig("w", KeyPair(Secret("k"), Secret("s" * 32)), entries or None)
    return Rooms(Scope(workspace), LimitsConfig(max_rooms=max_rooms, room_idle_expiry=expiry))


def answer(room_id: str, name: str = "", fetched_at: int = T0) -> KnownRoom:
    return KnownRoom.of(Room(room_id, name), fetched_at)


def place_one(found: Rooms, room_id: str, accounts: Mapping[Account, AccountState] | None = None) -> Account | None:
    return found.place({room_id: 1}, accounts or {}, T0)[room_id]


def state(account: Account, last_active: int = 0, running: int = 0) -> AccountState:
    made = AccountState(account)
    made.last_active = last_active
    for number in range(running):
        session_id = f"{account.id}-{number}"
        made.sessions[session_id] = Tracked(session_id, account.id, T0, None, T0, Memory({}, {}))
    return made


def quiet_polls(found: Rooms, accounts: Mapping[Account, AccountState]) -> None:
    """Enough polls without a change that a room no longer keeps its series for its last increase."""
    for number in range(QUIET_POLLS):
        found.end_poll(accounts, at(10 + number))


# -- which rooms --------------------------------------------------------------------------------------------------


def test_a_room_configured_by_its_id_is_followed_and_no_other() -> None:
    found = rooms(RoomById("r1"), RoomById("r2", "standup"))
    assert found.covers("r1") is True
    assert found.covers("r3") is False
    assert place_one(found, "r1") == room_account("r1")
    assert place_one(found, "r3") is None


def test_without_rooms_in_the_configuration_every_room_is_followed() -> None:
    found = rooms()
    assert found.covers("whatever") is True
    assert place_one(found, "whatever") == room_account("whatever")


def test_a_room_whose_name_decides_waits_for_it() -> None:
    found = rooms(PATTERN)
    assert found.covers("r1") is None
    assert found.place({"r1": 1}, {}, T0) == {}


def test_a_pattern_matches_the_name_as_a_whole() -> None:
    found = rooms(UNGROUPED)
    for room_id, name, ours in (("a", "team-1", True), ("b", "my team-1", False), ("c", "team-", True), ("d", "Team-1", False)):
        found.learn(answer(room_id, name))
        assert found.covers(room_id) is ours
        assert place_one(found, room_id) == (room_account(room_id) if ours else None)


def test_a_group_publishes_its_rooms_as_one() -> None:
    found = rooms(PATTERN)
    for room_id, name in (("a", "class-north-1"), ("b", "class-north-2"), ("c", "class-south-1")):
        found.learn(answer(room_id, name))
    assert place_one(found, "a") == place_one(found, "b") == group_account("class-north")
    assert place_one(found, "c") == group_account("class-south")


def test_the_first_pattern_that_matches_has_the_room() -> None:
    found = rooms(RoomsByName(re.compile("team-a.*"), "first"), RoomsByName(re.compile("team-.*"), "second"))
    found.learn(answer("r", "team-a1"))
    assert place_one(found, "r") == group_account("first")
    assert found.covers("r") is True


def test_an_id_in_the_configuration_goes_before_any_pattern() -> None:
    found = rooms(PATTERN, RoomById("r", "mine"))
    found.learn(answer("r", "class-north-1"))
    assert place_one(found, "r") == room_account("r")
    assert found.label(room_account("r")) == "mine"


def test_a_room_without_a_name_is_matched_by_its_id() -> None:
    found = rooms(RoomsByName(re.compile("[0-9a-f]{4}")))
    found.learn(answer("00ff", ""))
    assert place_one(found, "00ff") == room_account("00ff")


def test_a_room_that_the_api_does_not_know_is_in_no_pattern() -> None:
    found = rooms(PATTERN)
    found.learn(KnownRoom.missing("r", T0))
    assert found.covers("r") is False
    assert place_one(found, "r") is None


# -- overflow -----------------------------------------------------------------------------------------------------


def test_configured_rooms_never_overflow() -> None:
    found = rooms(RoomById("r1"), RoomById("r2"), max_rooms=0)
    assert place_one(found, "r1") == room_account("r1")
    assert place_one(found, "r2") == room_account("r2")
    assert found.overflowed == {}


def test_discovered_rooms_beyond_the_limit_are_counted_together_and_the_busiest_keep_their_series() -> None:
    found = rooms(max_rooms=2)
    placed = found.place({"quiet": 1, "busy": 9, "middle": 5}, {}, T0)
    assert placed == {"quiet": OVERFLOW, "busy": room_account("busy"), "middle": room_account("middle")}
    assert list(found.overflowed) == ["quiet"]


def test_a_room_that_has_series_keeps_them_though_busier_ones_come() -> None:
    found = rooms(max_rooms=1)
    assert place_one(found, "first") == room_account("first")
    accounts = {room_account("first"): state(room_account("first"), running=1)}
    assert found.place({"busier": 99, "first": 1}, accounts, at(1)) == {"busier": OVERFLOW, "first": room_account("first")}


def test_groups_do_not_overflow() -> None:
    found = rooms(PATTERN, max_rooms=0)
    found.learn(answer("a", "class-north-1"))
    assert place_one(found, "a") == group_account("class-north")


def test_a_room_that_expired_leaves_its_place_to_another() -> None:
    found = rooms(max_rooms=1, expiry=3600)
    assert place_one(found, "old") == room_account("old")
    accounts = {room_account("old"): state(room_account("old"), last_active=T0)}
    assert found.idle(accounts, at(3600)) == []
    assert found.idle(accounts, at(3601)) == [room_account("old")]
    assert found.place({"new": 1}, {}, at(3602)) == {"new": room_account("new")}


def test_a_room_that_is_only_shown_for_its_past_gives_way_to_one_in_use() -> None:
    """A catch-up with a long past must not take the series of rooms with running calls."""
    found = rooms(max_rooms=1, expiry=3600)
    found.place({"past": 0}, {}, T0)
    accounts = {room_account("past"): state(room_account("past"), last_active=T0 - DAY)}
    quiet_polls(found, accounts)
    assert found.place({"present": 3}, accounts, at(100)) == {"present": room_account("present")}
    assert not found.shown(room_account("past"))


def test_of_two_places_held_by_idle_rooms_the_one_idle_for_longest_is_given_up() -> None:
    found = rooms(max_rooms=2)
    found.place({"early": 1}, {}, T0)
    found.place({"late": 1}, {}, at(1))
    accounts = {room_account(room_id): state(room_account(room_id), last_active=T0) for room_id in ("early", "late")}
    quiet_polls(found, accounts)
    assert found.place({"lecture": 500}, accounts, at(100)) == {"lecture": room_account("lecture")}
    assert [found.shown(room_account(room_id)) for room_id in ("early", "late")] == [False, True]


def test_an_idle_room_keeps_its_series_until_its_last_increase_has_been_scraped() -> None:
    found = rooms(max_rooms=1)
    place_one(found, "idle")
    accounts = {room_account("idle"): state(room_account("idle"), last_active=T0)}
    found.end_poll(accounts, T0)
    assert place_one(found, "busy", accounts) == room_account("busy")
    assert found.shown(room_account("idle"))
    quiet_polls(found, {**accounts, room_account("busy"): state(room_account("busy"), running=1)})
    assert not found.shown(room_account("idle"))
    assert found.shown(room_account("busy"))


def test_a_room_that_overflowed_gets_its_own_series_once_there_is_a_place() -> None:
    found = rooms(max_rooms=1)
    accounts = {room_account("first"): state(room_account("first"), running=1)}
    place_one(found, "first")
    assert place_one(found, "second", accounts) == OVERFLOW
    accounts[room_account("first")] = state(room_account("first"), last_active=at(60))
    quiet_polls(found, accounts)
    assert place_one(found, "second", accounts) == room_account("second")
    assert found.overflowed == {}


def test_with_fewer_places_the_rooms_in_use_keep_their_series_until_they_have_been_quiet_for_three_polls() -> None:
    names = ("a", "b", "c")
    before = rooms(max_rooms=3)
    before.place(dict.fromkeys(names, 1), {}, T0)
    found = before.rescoped(before.scope, LimitsConfig(max_rooms=1))
    accounts = {room_account(room_id): state(room_account(room_id), running=1) for room_id in names}
    quiet_polls(found, accounts)
    assert all(found.shown(room_account(room_id)) for room_id in names)
    assert found.place({"a": 1, "new": 9}, accounts, at(100)) == {"a": room_account("a"), "new": OVERFLOW}
    for number, room_id in enumerate(names):
        accounts[room_account(room_id)] = state(room_account(room_id), last_active=at(number))
    for poll in range(QUIET_POLLS):
        assert all(found.shown(room_account(room_id)) for room_id in names), poll
        found.end_poll(accounts, at(200))
    assert [found.shown(room_account(room_id)) for room_id in names] == [False, False, True]


def test_a_room_that_is_no_longer_followed_has_no_series_at_once() -> None:
    before = rooms()
    before.learn(answer("r", "standup"))
    place_one(before, "r")
    found = before.rescoped(rooms(UNGROUPED).scope, LimitsConfig())
    assert not found.shown(room_account("r"))


def test_a_room_renamed_out_of_its_pattern_keeps_its_series_while_its_call_lasts() -> None:
    found = rooms(UNGROUPED)
    found.learn(answer("r", "team-1"))
    place_one(found, "r")
    found.learn(answer("r", "elsewhere"))
    quiet_polls(found, {room_account("r"): state(room_account("r"), running=1)})
    assert found.shown(room_account("r"))
    quiet_polls(found, {room_account("r"): state(room_account("r"), last_active=T0)})
    assert not found.shown(room_account("r"))


# -- idle rooms ---------------------------------------------------------------------------------------------------


def test_a_configured_room_is_never_too_idle() -> None:
    found = rooms(RoomById("r1"), expiry=1)
    assert found.idle({room_account("r1"): state(room_account("r1"))}, at(10 * 86400)) == []


def test_a_room_with_a_session_is_not_idle_however_long_it_runs() -> None:
    found = rooms(expiry=3600)
    place_one(found, "r")
    assert found.idle({room_account("r"): state(room_account("r"), last_active=T0, running=1)}, at(86400)) == []


def test_a_group_expires_like_a_room() -> None:
    found = rooms(PATTERN, expiry=3600)
    account = group_account("class-north")
    assert found.idle({account: state(account, last_active=T0)}, at(3601)) == [account]


def test_a_room_shown_for_its_past_stays_as_long_as_one_that_was_just_in_use() -> None:
    found = rooms(expiry=3600)
    place_one(found, "past")
    accounts = {room_account("past"): state(room_account("past"), last_active=T0 - DAY)}
    assert found.idle(accounts, at(10)) == []
    assert found.idle(accounts, at(3601)) == [room_account("past")]


def test_overflowed_rooms_are_counted_as_such_until_they_expire() -> None:
    found = rooms(max_rooms=0, expiry=3600)
    place_one(found, "r")
    found.end_poll({}, at(3600))
    assert len(found.overflowed) == 1
    found.end_poll({}, at(3601))
    assert found.overflowed == {}


def test_after_a_restart_the_rooms_in_use_keep_their_series_before_all_others() -> None:
    found = rooms(max_rooms=2)
    old, recent, running = room_account("old"), room_account("recent"), room_account("running")
    found.show([state(old, T0 - 2 * HOUR), state(recent, T0 - HOUR), state(running, running=1)], T0)
    assert [found.shown(account) for account in (running, recent, old)] == [True, True, False]


# -- names --------------------------------------------------------------------------------------------------------


def test_the_label_is_the_configured_name_else_that_of_100ms_else_the_id() -> None:
    found = rooms(RoomById("own", "mine"), RoomById("named"), RoomById("nameless"), RoomById("deleted"))
    for room in (answer("own", "theirs"), answer("named", "theirs"), answer("nameless", ""), KnownRoom.missing("deleted", T0)):
        found.learn(room)
    assert [found.label(room_account(room_id)) for room_id in ("own", "named", "nameless", "deleted")] == [
        "mine",
        "theirs",
        "nameless",
        "deleted",
    ]


def test_a_group_is_called_by_its_name() -> None:
    assert rooms(PATTERN).label(group_account("class-north")) == "class-north"


def test_series_wait_for_the_first_answer_about_the_name() -> None:
    found = rooms(RoomById("r"))
    assert found.label(room_account("r")) is None
    found.learn(answer("r", "standup"))
    assert found.label(room_account("r")) == "standup"


def test_after_three_polls_without_an_answer_the_id_serves_as_the_name() -> None:
    found = rooms(RoomById("r"))
    assert found.polled(["r"]) == found.polled(["r"]) == []
    assert found.label(room_account("r")) is None
    assert [room.id for room in found.polled(["r"])] == ["r"]
    assert found.label(room_account("r")) == "r"
    assert found.wanted(["r"], T0) == ["r"]


def test_an_answer_that_comes_late_is_taken() -> None:
    found = rooms(RoomById("r"))
    for _ in range(4):
        found.polled(["r"])
    found.learn(answer("r", "standup"))
    assert found.label(room_account("r")) == "standup"


def test_a_room_that_a_pattern_may_want_is_never_assumed_to_have_its_id_for_a_name() -> None:
    found = rooms(PATTERN)
    for _ in range(10):
        assert found.polled(["r"]) == []
    assert found.place({"r": 1}, {}, T0) == {}


def test_names_are_asked_for_once_and_then_refreshed_one_at_a_time_when_they_are_a_day_old() -> None:
    found = rooms()
    for number, room_id in enumerate(("a", "b", "c")):
        found.learn(answer(room_id, room_id, fetched_at=at(number)))
    assert found.wanted(["a", "b", "c", "new"], at(10)) == ["new"]
    assert found.wanted(["c", "b", "a"], at(10) + DAY) == ["a"]


def test_a_room_that_100ms_did_not_know_is_asked_for_again_after_an_hour() -> None:
    found = rooms(RoomById("r"))
    found.learn(KnownRoom.missing("r", T0))
    assert found.missing == 1
    assert found.wanted(["r"], T0 + HOUR) == []
    assert found.wanted(["r"], T0 + HOUR + 1) == ["r"]


def test_only_configured_rooms_are_missing() -> None:
    found = rooms()
    found.learn(KnownRoom.missing("r", T0))
    assert found.missing == 0


def test_another_configuration_keeps_what_is_known() -> None:
    before = rooms()
    before.learn(answer("r", "standup"))
    after = before.rescoped(rooms(RoomById("r")).scope, LimitsConfig())
    assert after.label(room_account("r")) == "standup"
    assert after.shown(room_account("r"))
    assert not after.shown(room_account("other"))


def test_the_entries_of_a_configuration_have_keys_that_outlive_a_restart() -> None:
    assert rooms(RoomById("r"), PATTERN).scope.keys == ["r", f"~{PATTERN.match.pattern}"]
    assert rooms().scope.keys == [EVERYTHING]
    assert rooms(RoomById("r")).scope.only_ids
    assert not rooms(PATTERN).scope.only_ids
    assert round(rooms(expiry=1.5).limits.room_idle_expiry * SECOND) == 1_500_000
