"""The contribution of a session: a function of its record, of the roles in which its peers were seen, and of now."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from exporter.counting.contribution import OVERFLOW, Tracked, group_account, room_account
from exporter.counting.stays import Line, Memory, seconds_by_day
from exporter.hms.records import Stay
from exporter.times import DAY, HOUR, SECOND
from tests.harness import T0, at

MIDNIGHT = T0 + 16 * HOUR


def tracked(stays: dict[str, Stay], past: dict[str, list[tuple[str, int]]] | None = None, ended: int | None = None) -> Tracked:
    return Tracked("s", "r", T0, ended, T0, Memory(stays, past or {}))


def by_hand(memory: Memory, ended: int | None, now: int) -> dict[str, int]:
    """Participant time by role, computed naively: for each stretch between two moments, which peer had which role."""
    stays = memory.stays.values()
    moments = {now, *(stay.joined for stay in stays), *(stay.left for stay in stays if stay.left is not None)}
    moments |= {until for roles in memory.past.values() for _, until in roles}
    moments |= {ended} if ended is not None else set()
    rising = sorted(moments)
    found: dict[str, int] = {}
    for begin, end in pairwise(rising):
        for key, stay in memory.stays.items():
            left = stay.left if stay.left is not None else ended
            if begin < stay.joined or (left is not None and begin >= left) or (ended is None and begin >= now):
                continue
            role = next((role for role, until in memory.past.get(key, []) if begin < until), stay.role)
            found[role] = found.get(role, 0) + end - begin
    return found


moment = st.integers(0, 60).map(lambda seconds: at(seconds)) | st.integers(T0, at(60))


@st.composite
def memories(draw: st.DrawFn) -> Memory:
    stays: dict[str, Stay] = {}
    past: dict[str, list[tuple[str, int]]] = {}
    for number in range(draw(st.integers(0, 4))):
        joined = draw(moment)
        left = draw(st.none() | st.integers(joined, max(joined, at(60))))
        stays[f"p{number}"] = Stay(joined, left, draw(st.sampled_from("abc")))
        if draw(st.booleans()):
            until = sorted(draw(st.lists(moment, min_size=1, max_size=3)))
            past[f"p{number}"] = [(draw(st.sampled_from("abc")), max(joined, t)) for t in until]
    return Memory(stays, past)


@given(memory=memories(), now=moment, ended=st.none() | moment)
def test_the_sums_equal_those_worked_out_by_hand_at_any_moment(memory: Memory, now: int, ended: int | None) -> None:
    """The moments lie before, between and after all joins, leaves and changes of role.  An ended session always counts whole."""
    session = tracked(memory.stays, memory.past, ended)
    found = {role: us for role, us in session.peer_seconds(now).items() if us}
    assert found == by_hand(memory, ended, now)


@given(memory=memories(), ended=moment)
def test_the_days_of_an_ended_session_add_up_to_its_total(memory: Memory, ended: int) -> None:
    days = seconds_by_day(memory, ended)
    found: dict[str, int] = {}
    for (_, role), us in days.items():
        found[role] = found.get(role, 0) + us
    assert found == {role: us for role, us in tracked(memory.stays, memory.past, ended).peer_seconds(ended).items() if us}


@given(memory=memories(), ended=st.none() | moment)
def test_every_peer_joins_once_and_leaves_at_most_once(memory: Memory, ended: int | None) -> None:
    lines = tracked(memory.stays, memory.past, ended).lines.values()
    gone = sum(1 for stay in memory.stays.values() if ended is not None or stay.left is not None)
    assert sum(line.joined for line in lines) == len(memory.stays)
    assert sum(line.left for line in lines) == gone


def test_a_connected_peer_adds_the_time_up_to_now() -> None:
    session = tracked({"p": Stay(at(10), None, "host")})
    assert session.lines == {"host": Line(joined=1, left=0, seconds=-at(10), rate=1)}
    assert session.peer_seconds(at(25)) == {"host": 15 * SECOND}
    assert session.connected == 1


def test_a_peer_that_left_adds_its_stay_and_not_more_before_it_is_over() -> None:
    session = tracked({"p": Stay(at(10), at(30), "host")})
    assert session.peer_seconds(at(20)) == {"host": 10 * SECOND}
    assert session.peer_seconds(at(99)) == {"host": 20 * SECOND}


def test_a_peer_that_joins_after_now_adds_nothing_yet() -> None:
    """The time of the poll is a lower bound of the API's time, so a record may be ahead of it by a second."""
    assert tracked({"p": Stay(at(10), None, "host")}).peer_seconds(at(9)) == {"host": 0}


def test_time_belongs_to_the_role_held_a_join_to_the_first_and_a_leave_to_the_last() -> None:
    session = tracked({"p": Stay(at(0), at(100), "c")}, {"p": [("a", at(20)), ("b", at(50))]})
    assert session.peer_seconds(at(100)) == {"a": 20 * SECOND, "b": 30 * SECOND, "c": 50 * SECOND}
    assert (session.lines["a"].joined, session.lines["b"].joined, session.lines["c"].joined) == (1, 0, 0)
    assert (session.lines["a"].left, session.lines["b"].left, session.lines["c"].left) == (0, 0, 1)


def test_a_leave_recorded_before_the_last_change_of_role_takes_back_what_came_after_it() -> None:
    session = tracked({"p": Stay(at(0), at(10), "b")}, {"p": [("a", at(20))]})
    assert session.peer_seconds(at(30)) == {"a": 10 * SECOND, "b": 0}
    assert session.lines["b"].left == 1


def test_a_ghosts_stay_ends_with_its_session() -> None:
    session = tracked({"ghost": Stay(at(10), None, "host")}, ended=at(60))
    assert session.peer_seconds(at(1000)) == {"host": 50 * SECOND}
    assert session.lines["host"].left == 1
    assert session.connected == 0


def test_a_ghost_that_joined_after_its_sessions_end_adds_no_time() -> None:
    session = tracked({"ghost": Stay(at(70), None, "host")}, ended=at(60))
    assert session.peer_seconds(at(1000)) == {"host": 0}


def test_a_leave_after_the_sessions_end_counts_as_the_record_has_it() -> None:
    assert tracked({"p": Stay(at(0), at(70), "host")}, ended=at(60)).peer_seconds(at(60)) == {"host": 70 * SECOND}


def test_a_stay_over_two_midnights_is_split_into_three_days() -> None:
    stays = {"p": Stay(MIDNIGHT - HOUR, MIDNIGHT + DAY + HOUR, "host")}
    day = MIDNIGHT // DAY
    expected = {(day - 1, "host"): HOUR, (day, "host"): DAY, (day + 1, "host"): HOUR}
    assert seconds_by_day(Memory(stays, {}), MIDNIGHT + 2 * DAY) == expected


def test_a_stay_that_ends_at_midnight_adds_nothing_to_the_next_day() -> None:
    stays = {"p": Stay(MIDNIGHT - SECOND, MIDNIGHT, "host"), "q": Stay(MIDNIGHT, MIDNIGHT + 1, "host")}
    day = MIDNIGHT // DAY
    assert seconds_by_day(Memory(stays, {}), MIDNIGHT + 1) == {(day - 1, "host"): SECOND, (day, "host"): 1}


def test_roles_are_split_at_midnight_each_for_itself() -> None:
    memory = Memory({"p": Stay(MIDNIGHT - 10, MIDNIGHT + 10, "b")}, {"p": [("a", MIDNIGHT - 3)]})
    day = MIDNIGHT // DAY
    assert seconds_by_day(memory, MIDNIGHT + 10) == {(day - 1, "a"): 7, (day - 1, "b"): 3, (day, "b"): 10}


def test_the_wall_clock_time_of_a_session_never_is_negative() -> None:
    assert tracked({}).session_seconds(T0 - SECOND) == 0
    assert tracked({}).session_seconds(at(5)) == 5 * SECOND
    assert tracked({}, ended=at(60)).session_seconds(at(5)) == 60 * SECOND


def test_what_is_remembered_comes_back_as_it_was() -> None:
    memory = Memory({"p": Stay(at(1), None, "b")}, {"p": [("a", at(2))]})
    assert tracked(memory.stays, memory.past).recall() == memory


def test_rooms_and_groups_of_one_name_have_accounts_of_their_own() -> None:
    assert room_account("x") != group_account("x")
    assert group_account("_other") == OVERFLOW
