"""The rules of counting, one by one, with plain values.  Every poll here goes through a real state file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.counting.contribution import room_account
from exporter.counting.coverage import MARGIN, REACH_BACK
from exporter.times import DAY, HOUR, SECOND
from lab.counters import BY_ROOM, field
from tests.harness import T0, Counting, Series, at, peer, published, session, settled_seconds

NIGHT = T0 + 15 * HOUR + 59 * 60 * SECOND
"""A minute before midnight."""


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Counting]:
    made = Counting(tmp_path / "state.db")
    yield made
    made.close()


# -- 1: nothing is lost, nothing is counted twice -----------------------------------------------------------------


def test_a_session_is_counted_while_it_runs_and_equals_its_record_once_it_has_ended(counting: Counting) -> None:
    p = {"p": peer(at(0.5))}
    counting.poll(at(10), session("s", p))
    assert counting.seconds() == 9.5
    assert (counting.value("started"), counting.value("ended"), counting.value("seconds")) == (1, 0, 10 * SECOND)
    counting.poll(at(40), session("s", {"p": peer(at(0.5), at(30.123456))}, ended=at(35)))
    assert counting.seconds() == 29.623456
    assert (counting.value("started"), counting.value("ended"), counting.value("seconds")) == (1, 1, 35 * SECOND)
    assert (counting.value("joined", "guest"), counting.value("left", "guest")) == (1, 1)


def test_a_session_that_starts_and_ends_between_two_polls_is_counted(counting: Counting) -> None:
    counting.poll(at(0))
    counting.poll(at(30), session("s", {"p": peer(at(5), at(9))}, started=at(4), ended=at(10)))
    assert (counting.seconds(), counting.value("started"), counting.value("ended")) == (4, 1, 1)


def test_the_same_record_read_twice_counts_once(counting: Counting) -> None:
    running = session("s", {"p": peer(at(0))})
    ended = session("s", {"p": peer(at(0), at(20))}, ended=at(20))
    counting.poll(at(10), running, running)
    counting.poll(at(30), ended, ended, running)
    counting.poll(at(60), ended)
    assert (counting.seconds(), counting.value("started"), counting.value("ended")) == (20, 1, 1)


def test_an_ended_record_that_comes_again_after_a_restart_counts_once(counting: Counting) -> None:
    ended = session("s", {"p": peer(at(1), at(20))}, started=at(1), ended=at(20))
    counting.poll(at(0))
    counting.poll(at(30), ended)
    counting.restart()
    counting.poll(at(60), ended)
    assert (counting.seconds(), counting.value("ended")) == (19, 1)


def test_an_answer_from_before_the_end_does_not_make_a_settled_session_run_again(counting: Counting) -> None:
    """It stays settled even long after its start, when the listings of ended sessions no longer show it."""
    running = session("s", {"p": peer(at(0))})
    counting.poll(at(10), running)
    counting.poll(at(7200), session("s", {"p": peer(at(0), at(7000))}, ended=at(7000)))
    counting.poll(at(7230))
    counting.poll(at(7260), running)
    assert (counting.value("started"), counting.value("ended"), counting.seconds()) == (1, 1, 7000)
    counting.restart()
    counting.poll(at(7290), running)
    assert (counting.value("started"), counting.value("ended"), counting.seconds()) == (1, 1, 7000)


def test_an_answer_from_before_the_end_does_not_disturb_a_session_that_waits_for_its_rooms_name(counting: Counting) -> None:
    running = session("s", {"p": peer(at(0))})
    counting.begin(at(30))
    counting.see(session("s", {"p": peer(at(0), at(20))}, ended=at(20)))
    counting.see(running)
    counting.now.finish(None, 0.0)
    counting.begin(at(60))
    counting.see(running)
    counting.end()
    assert (counting.value("ended"), counting.seconds()) == (1, 20)


def test_a_session_that_passes_while_the_exporter_is_down_is_counted(counting: Counting) -> None:
    counting.poll(at(0))
    counting.restart()
    counting.poll(at(600), session("s", {"p": peer(at(100), at(200))}, started=at(100), ended=at(200)))
    assert (counting.seconds(), counting.value("ended")) == (100, 1)


def test_a_kill_before_the_commit_leaves_the_state_as_it_was(counting: Counting) -> None:
    counting.poll(at(10), session("s", {"p": peer(at(0))}))
    before = counting.committed
    counting.begin(at(40))
    counting.see(session("s", {"p": peer(at(0), at(20))}, ended=at(20)))
    counting.ledger.coverage.complete(at(40))
    counting.assign()
    counting.now.finish(None, 0.0)
    counting.restart()
    assert published(counting.ledger.accounts.values()) == before
    counting.poll(at(70), session("s", {"p": peer(at(0), at(20))}, ended=at(20)))
    assert (counting.seconds(), counting.value("ended")) == (20, 1)


# -- 2: counters never fall ---------------------------------------------------------------------------------------


def test_a_leave_recorded_late_is_not_taken_back_but_waited_for(counting: Counting) -> None:
    """Published = max(what was published before, the truth as known now)."""
    counting.poll(at(60), session("s", {"p": peer(at(0))}))
    assert counting.seconds() == 60
    left = {"p": peer(at(0), at(20))}
    counting.poll(at(70), session("s", left))
    assert counting.seconds() == 60
    counting.poll(at(100), session("s", {**left, "q": peer(at(70))}))
    assert counting.seconds() == 60
    counting.poll(at(120), session("s", {**left, "q": peer(at(70))}))
    assert counting.seconds() == 70


def test_a_counter_held_above_the_truth_is_held_across_a_restart(counting: Counting) -> None:
    counting.poll(at(60), session("s", {"p": peer(at(0))}))
    left = session("s", {"p": peer(at(0), at(20))})
    counting.poll(at(70), left)
    counting.restart()
    assert counting.seconds() == 60
    counting.poll(at(80), left)
    counting.restart()
    assert counting.seconds() == 60
    for poll in (90, 300):
        counting.poll(at(poll), session("s", {"p": peer(at(0), at(20))}, ended=at(85)))
    assert counting.seconds() == 60
    assert settled_seconds(counting.ledger) == {"room": 20 * SECOND}


def test_after_a_restart_everything_is_published_as_it_was_before_the_first_poll(counting: Counting) -> None:
    ended = session("old", {"p": peer(at(1), at(5), "host")}, started=at(1), ended=at(6))
    counting.poll(at(0), session("s", {"p": peer(at(0)), "q": peer(at(0), role="host")}))
    counting.poll(at(10), session("s", {"p": peer(at(0)), "q": peer(at(0), at(9), "host")}), ended)
    before = counting.committed
    counting.restart()
    assert published(counting.ledger.accounts.values()) == before
    assert before[Series("room", "host", "seconds")] == 13 * SECOND


def test_a_running_session_that_was_not_read_before_a_restart_is_published_as_it_was(counting: Counting) -> None:
    a, b = session("a", {"p": peer(at(0))}), session("b", {"p": peer(at(0))}, room="other")
    counting.poll(at(10), a, b)
    counting.poll(at(40), a, complete=False)
    before = counting.committed
    assert (counting.seconds(room="room"), counting.seconds(room="other")) == (40, 10)
    counting.restart()
    assert published(counting.ledger.accounts.values()) == before
    counting.poll(at(70), a, b)
    assert (counting.seconds(room="room"), counting.seconds(room="other")) == (70, 70)


# -- 3: roles, joins, ghosts --------------------------------------------------------------------------------------


def test_a_change_of_role_moves_nothing_that_was_credited_and_loses_nothing(counting: Counting) -> None:
    counting.poll(at(10), session("s", {"p": peer(at(0), role="viewer")}))
    counting.poll(at(40), session("s", {"p": peer(at(0), role="stage")}))
    assert (counting.seconds("viewer"), counting.seconds("stage")) == (10, 30)
    counting.poll(at(70), session("s", {"p": peer(at(0), at(60), "viewer")}, ended=at(60)))
    assert (counting.seconds("viewer"), counting.seconds("stage")) == (30, 30)


def test_a_join_counts_for_the_role_first_seen_and_a_leave_for_the_role_last_seen(counting: Counting) -> None:
    counting.poll(at(10), session("s", {"p": peer(at(0), role="viewer")}))
    counting.poll(at(40), session("s", {"p": peer(at(0), at(30), "stage")}))
    assert (counting.value("joined", "viewer"), counting.value("joined", "stage")) == (1, 0)
    assert (counting.value("left", "viewer"), counting.value("left", "stage")) == (0, 1)


def test_roles_are_remembered_across_a_restart(counting: Counting) -> None:
    counting.poll(at(10), session("s", {"p": peer(at(0), role="viewer")}))
    counting.restart()
    counting.poll(at(40), session("s", {"p": peer(at(0), role="stage")}))
    counting.restart()
    counting.poll(at(70), session("s", {"p": peer(at(0), at(60), "stage")}, ended=at(60)))
    assert (counting.seconds("viewer"), counting.seconds("stage")) == (10, 50)
    assert (counting.value("joined", "viewer"), counting.value("joined", "stage")) == (1, 0)


def test_a_record_that_lacks_a_peer_for_once_does_not_make_its_role_forgotten(counting: Counting) -> None:
    """A peer may be malformed in one answer, or the answer may be an old one."""
    counting.poll(at(10), session("s", {"p": peer(at(0), role="viewer")}))
    counting.poll(at(40), session("s", {}))
    counting.poll(at(70), session("s", {"p": peer(at(0), role="stage")}))
    assert (counting.seconds("viewer"), counting.seconds("stage")) == (10, 60)
    assert (counting.value("joined", "viewer"), counting.value("joined", "stage")) == (1, 0)


def test_a_ghosts_stay_ends_with_its_session(counting: Counting) -> None:
    counting.poll(at(10), session("s", {"ghost": peer(at(0))}))
    counting.poll(at(100), session("s", {"ghost": peer(at(0))}, ended=at(50)))
    assert (counting.seconds(), counting.value("left", "guest")) == (50, 1)


def test_a_person_who_comes_back_joins_twice_and_is_one_user(counting: Counting) -> None:
    twice = {"p": peer(at(0), at(5), user="u"), "q": peer(at(6), user="u"), "r": peer(at(6), user="u")}
    counting.poll(at(10), session("s", twice))
    assert counting.value("joined", "guest") == 3
    assert counting.gauges().users == 1


def test_time_is_kept_by_day_and_split_at_midnight(counting: Counting) -> None:
    counting.since = NIGHT
    counting.poll(NIGHT)
    ended = session("s", {"p": peer(NIGHT, NIGHT + 100 * SECOND, "host")}, started=NIGHT, ended=NIGHT + 100 * SECOND)
    counting.poll(NIGHT + 130 * SECOND, ended)
    counting.begin(NIGHT + 300 * SECOND)
    counting.see(ended)
    counting.now.finish(None, 0.0)
    account, day = room_account("room"), NIGHT // DAY
    expected = {(account, "room", day, "host"): 60 * SECOND, (account, "room", day + 1, "host"): 40 * SECOND}
    assert counting.ledger.changes.days == expected


# -- 4: time is the API's -----------------------------------------------------------------------------------------


def test_nothing_is_credited_beyond_the_apis_now(counting: Counting) -> None:
    """A record may be ahead of the lower bound of the API's clock."""
    counting.poll(at(10), session("s", {"p": peer(at(10.7)), "q": peer(at(0), at(10.9))}, started=at(0)))
    assert counting.seconds() == 10
    assert counting.value("seconds") == 10 * SECOND


def test_a_clock_set_back_makes_no_counter_fall(counting: Counting) -> None:
    running = session("s", {"p": peer(at(0))})
    counting.poll(at(3700), running)
    counting.poll(at(100), running)
    assert counting.seconds() == 3700
    counting.poll(at(3800), running)
    assert counting.seconds() == 3800


@pytest.mark.parametrize("ahead", [HOUR, 6 * HOUR])
def test_an_api_clock_that_was_ahead_for_once_loses_nothing_and_counts_nothing_twice(counting: Counting, ahead: int) -> None:
    """Sessions that began before the wrong time but ended since are still read."""
    before = session("before", {"p": peer(at(1), at(20))}, started=at(1), ended=at(20))
    counting.poll(at(0))
    counting.poll(at(30) + ahead, before)
    after = session("after", {"p": peer(at(70), at(80))}, started=at(70), ended=at(80))
    counting.poll(at(60), before)
    counting.poll(at(90), before, after)
    assert (counting.value("ended"), counting.seconds()) == (2, 29)


def test_an_api_clock_that_was_a_day_ahead_counts_nothing_twice(counting: Counting) -> None:
    before = session("before", {"p": peer(at(1), at(20))}, started=at(1), ended=at(20))
    counting.poll(at(0))
    counting.poll(at(30) + DAY, before)
    after = session("after", {"p": peer(at(70), at(80))}, started=at(70), ended=at(80))
    counting.poll(at(60), before)
    counting.poll(at(90), before, after)
    assert (counting.value("ended"), counting.seconds()) == (2, 29)


# -- 5: a failed poll invents nothing -----------------------------------------------------------------------------


def test_a_session_that_could_not_be_read_keeps_what_it_had_contributed(counting: Counting) -> None:
    counting.poll(at(10), session("s", {"p": peer(at(0))}))
    counting.poll(at(40), complete=False)
    assert (counting.seconds(), counting.value("started"), counting.value("ended")) == (10, 1, 0)
    counting.poll(at(70), session("s", {"p": peer(at(0), at(50))}, ended=at(50)))
    assert (counting.seconds(), counting.value("ended")) == (50, 1)


def test_gauges_are_those_of_the_last_good_reading(counting: Counting) -> None:
    counting.poll(at(10), session("s", {"p": peer(at(0))}))
    counting.begin(at(40))
    counting.end(complete=False, fresh=())
    assert counting.gauges().sessions == 1


# -- 6: malformed records -----------------------------------------------------------------------------------------


def test_a_running_session_whose_record_makes_no_sense_keeps_what_it_had_contributed(counting: Counting) -> None:
    counting.poll(at(10), session("s", {"p": peer(at(0))}))
    counting.begin(at(40))
    counting.now.unread("s")
    counting.now.unread("never-seen")
    counting.now.unread(None)
    assert counting.now.missing() == []
    counting.end()
    assert counting.seconds() == 10
    counting.poll(at(70), session("s", {"p": peer(at(0))}))
    assert counting.seconds() == 70


# -- 7: the beginning of counting ---------------------------------------------------------------------------------


def test_a_session_that_runs_at_the_first_start_counts_whole_from_its_own_start(counting: Counting) -> None:
    counting.since = at(3600)
    counting.poll(at(3600), session("s", {"p": peer(at(0)), "q": peer(at(0), at(60))}))
    assert (counting.seconds(), counting.value("joined", "guest"), counting.value("seconds")) == (3660, 2, 3600 * SECOND)


def test_a_session_that_had_ended_by_then_counts_whole_if_it_ended_after_since(counting: Counting) -> None:
    counting.since = at(100)
    before = session("before", {"p": peer(at(0), at(100))}, ended=at(100))
    after = session("after", {"p": peer(at(0), at(100.001))}, ended=at(100.001))
    counting.poll(at(3600), before, after)
    assert (counting.value("ended"), counting.seconds()) == (1, 100.001)


def test_the_beginning_is_kept_in_the_state_file(counting: Counting) -> None:
    counting.since = at(100)
    counting.poll(at(100))
    counting.restart()
    counting.since = at(5000)
    counting.poll(at(5000), session("s", {"p": peer(at(150), at(200))}, started=at(150), ended=at(200)))
    assert counting.seconds() == 50


def test_the_past_that_has_not_been_asked_for_yet_is_left_to_a_catch_up(counting: Counting) -> None:
    """The past must be read back to the start of the longest session that could have ended after the beginning."""
    counting.since = at(-DAY / SECOND)
    counting.begin(at(0))
    counting.end()
    (task,) = counting.ledger.coverage.tasks.values()
    assert task.unread == [(T0 - DAY - REACH_BACK, at(0))]
    counting.begin(at(30))
    counting.see(session("s", {"p": peer(at(-3600), at(-1800))}, started=at(-3600), ended=at(-1800)))
    counting.ledger.coverage.complete(at(30))
    counting.end(past=True)
    assert counting.seconds() == 1800
    assert counting.ledger.coverage.tasks == {}


def test_a_room_added_later_begins_at_that_moment(tmp_path: Path) -> None:
    counting = Counting(tmp_path / "s.db", ["r1"])
    counting.poll(at(0))
    counting.configure(["r1", "r2"], since=at(1000))
    counting.begin(at(1000))
    counting.see(session("early", {"p": peer(at(1), at(900))}, room="r2", started=at(1), ended=at(900)))
    counting.see(session("running", {"p": peer(at(500))}, room="r2", started=at(500)))
    counting.see(session("late", {"p": peer(at(990), at(1000.5))}, room="r2", started=at(1), ended=at(1000.5)))
    counting.end()
    assert counting.seconds(room="r2") == 500 + 10.5
    counting.close()


def test_a_room_that_comes_back_goes_on_from_where_it_was_taken_out(tmp_path: Path) -> None:
    """Nothing counts again, and sessions while the room was away count too, even with `since: start`."""
    counting = Counting(tmp_path / "s.db", ["r1", "r2"], since=T0)
    first = session("first", {"p": peer(at(1), at(50))}, room="r2", started=at(1), ended=at(50))
    counting.poll(at(100), first)
    counting.configure(["r1"])
    counting.poll(at(130))
    counting.restart()
    between = session("between", {"p": peer(at(110), at(120))}, room="r2", started=at(110), ended=at(120))
    away = session("away", {"p": peer(at(200), at(300))}, room="r2", started=at(200), ended=at(300))
    counting.configure(["r1", "r2"], since=at(1000))
    counting.poll(at(1000), first, between, away)
    assert counting.seconds(room="r2") == 49 + 10 + 100
    counting.close()


def test_after_a_long_pause_the_time_between_is_read_beside_the_polls(counting: Counting) -> None:
    counting.poll(at(0))
    counting.begin(at(3000))
    assert counting.ledger.coverage.tasks == {}
    counting.poll(at(0))
    counting.begin(at(7200))
    (task,) = counting.ledger.coverage.tasks.values()
    assert (task.begin, task.is_open) == (T0 - MARGIN, True)
    counting.see(session("s", {"p": peer(at(60), at(90))}, started=at(60), ended=at(90)))
    counting.end()
    assert counting.seconds() == 30
    assert task.unread == [(T0 - MARGIN, at(7200))]


# -- 13: an ended session is read once more -----------------------------------------------------------------------


def test_a_leave_that_is_recorded_after_the_end_was_read_is_not_over_counted_for_ever(counting: Counting) -> None:
    """The ghost of the first reading had left a minute before the end. The counter waits until the truth has caught up."""
    counting.poll(at(0))
    counting.poll(at(120), session("s", {"p": peer(at(0))}, ended=at(115)))
    assert counting.seconds() == 115
    truth = session("s", {"p": peer(at(0), at(55))}, ended=at(115))
    counting.poll(at(180), truth)
    assert [tracked.id for tracked in counting.now.to_look_at()] == []
    counting.begin(at(240))
    assert [tracked.id for tracked in counting.now.to_look_at()] == ["s"]
    counting.see(truth)
    counting.end()
    assert settled_seconds(counting.ledger) == {"room": 55 * SECOND}
    counting.poll(at(300), session("t", {"q": peer(at(240))}, started=at(240)))
    assert counting.seconds() == 115
    counting.poll(at(310), session("t", {"q": peer(at(240))}, started=at(240)))
    assert counting.seconds() == 125


def test_distributions_are_observed_when_the_end_is_first_read_and_not_again(counting: Counting) -> None:
    counting.poll(at(0))
    for poll in (120, 300, 400):
        counting.poll(at(poll), session("s", {"p": peer(at(0), at(50))}, ended=at(115)))
        counting.restart()
        assert sum(counting.ledger.histograms["session_duration", ""].counts) == 1


def test_a_session_that_ended_long_ago_is_settled_at_once(counting: Counting) -> None:
    counting.since = T0 - HOUR
    counting.poll(at(0), session("s", {"p": peer(at(-1800), at(-1200))}, started=at(-1800), ended=at(-1200)))
    assert counting.ledger.tracked == {}
    assert settled_seconds(counting.ledger) == {"room": 600 * SECOND}


def test_an_ended_session_that_cannot_be_looked_at_again_is_settled_after_a_day(counting: Counting) -> None:
    counting.poll(at(0))
    counting.poll(at(120), session("s", {"p": peer(at(0), at(50))}, ended=at(115)))
    counting.poll(at(120) + DAY)
    assert "s" in counting.ledger.tracked
    counting.poll(at(121) + DAY)
    assert counting.ledger.tracked == {}
    assert settled_seconds(counting.ledger) == {"room": 50 * SECOND}


# -- 8: sessions that the API no longer knows ---------------------------------------------------------------------


def test_a_session_unknown_in_three_polls_is_settled_as_it_was_when_last_seen(counting: Counting) -> None:
    counting.poll(at(10), session("s", {"p": peer(at(0))}))
    for poll in (40, 70):
        counting.poll(at(poll), unknown=["s"])
        assert (counting.seconds(), counting.value("ended")) == (10, 0)
    counting.poll(at(100), unknown=["s"])
    assert (counting.seconds(), counting.value("seconds"), counting.value("ended")) == (10, 10 * SECOND, 1)
    counting.poll(at(101) + 2 * DAY)
    assert counting.ledger.tracked == {}
    assert settled_seconds(counting.ledger) == {"room": 10 * SECOND}


def test_polls_in_which_it_is_unknown_are_counted_across_restarts(counting: Counting) -> None:
    counting.poll(at(10), session("s", {"p": peer(at(0))}))
    for poll in (40, 70, 100):
        counting.restart()
        counting.poll(at(poll), unknown=["s"])
    assert (counting.seconds(), counting.value("ended")) == (10, 1)


def test_a_session_that_is_known_again_was_not_gone(counting: Counting) -> None:
    running = session("s", {"p": peer(at(0))})
    counting.poll(at(10), running)
    counting.poll(at(40), unknown=["s"])
    counting.poll(at(70), unknown=["s"])
    counting.poll(at(100), running)
    counting.poll(at(130), unknown=["s"])
    counting.poll(at(160), unknown=["s"])
    assert counting.value("ended") == 0
    counting.poll(at(190), running)
    assert counting.seconds() == 190


def test_two_answers_of_one_poll_are_one_poll(counting: Counting) -> None:
    counting.poll(at(10), session("s", {"p": peer(at(0))}))
    counting.poll(at(40), unknown=["s", "s", "s"])
    assert counting.value("ended") == 0


@pytest.mark.parametrize("restarted", [False, True], ids=["at once", "after a restart"])
def test_a_session_settled_as_vanished_runs_on_when_it_reappears_and_is_counted_once(counting: Counting, restarted: bool) -> None:
    running = session("s", {"p": peer(at(0))})
    counting.poll(at(3600), running)
    for poll in (3630, 3660, 3690):
        counting.poll(at(poll), unknown=["s"])
    counting.poll(at(3720))
    assert (counting.value("started"), counting.value("ended"), counting.seconds()) == (1, 1, 3600)
    if restarted:
        counting.restart()
    counting.poll(at(3750), running)
    assert counting.gauges().sessions == 1
    assert (counting.value("started"), counting.value("ended"), counting.seconds()) == (1, 1, 3750)
    counting.poll(at(3900), session("s", {"p": peer(at(0), at(3790))}, ended=at(3800)))
    counting.poll(at(4200), session("s", {"p": peer(at(0), at(3790))}, ended=at(3800)))
    assert (counting.value("started"), counting.value("ended"), counting.seconds()) == (1, 1, 3790)


# -- gauges -------------------------------------------------------------------------------------------------------


def test_gauges_show_the_last_reading(counting: Counting) -> None:
    counting.poll(
        at(60),
        session(
            "a", {"p": peer(at(5), role="host", user="u1"), "q": peer(at(6), user="u2"), "x": peer(at(1), at(2), "ghost")}, started=at(3)
        ),
        session("b", {"r": peer(at(7), role="host", user="u1")}, started=at(1)),
    )
    gauges = counting.gauges()
    assert (gauges.sessions, gauges.oldest_start, gauges.users) == (2, at(1), 2)
    assert gauges.peers == {"host": 2, "guest": 1, "ghost": 0}


def test_an_idle_room_shows_zero_for_every_role_ever_seen(counting: Counting) -> None:
    counting.poll(at(10), session("s", {"p": peer(at(0), role="host"), "q": peer(at(0))}))
    counting.poll(at(40), session("s", {"p": peer(at(0), at(20), "host"), "q": peer(at(0), at(20))}, ended=at(30)))
    counting.poll(at(70))
    gauges = counting.gauges()
    assert (gauges.sessions, gauges.oldest_start, gauges.users, gauges.peak) == (0, None, 0, 0)
    assert gauges.peers == {"host": 0, "guest": 0}


def test_a_room_opened_without_a_session_is_at_zero(counting: Counting) -> None:
    counting.begin(at(0))
    counting.open(room_account("room"))
    counting.end()
    assert counting.gauges().sessions == 0
    assert published(counting.ledger.accounts.values()) == dict.fromkeys([Series("room", "", field(name)) for name in BY_ROOM], 0)


def test_the_peak_is_worked_out_from_the_times_of_joining_and_leaving(counting: Counting) -> None:
    """It includes peers that came and went between two polls. A peer that left when another joined was not there with it."""
    counting.poll(at(0))
    stays = {"a": peer(at(1), at(10)), "b": peer(at(5), at(20)), "c": peer(at(10), at(20)), "d": peer(at(20), at(25))}
    counting.poll(at(30), session("s", stays, started=at(1)))
    assert counting.gauges().peak == 2
    assert counting.gauges().peers == {"guest": 0}
    counting.poll(at(60), session("s", stays, started=at(1)))
    assert counting.gauges().peak == 0


def test_the_peak_is_that_of_all_sessions_of_the_room_together(counting: Counting) -> None:
    counting.poll(at(0))
    one = session("one", {"a": peer(at(1), at(10)), "b": peer(at(2), at(9))}, started=at(1), ended=at(11))
    two = session("two", {"c": peer(at(8))}, started=at(8))
    counting.poll(at(30), one, two)
    assert counting.gauges().peak == 3


def test_the_peak_counts_those_who_were_there_at_the_poll_before(counting: Counting) -> None:
    counting.poll(at(10), session("s", {"a": peer(at(0)), "b": peer(at(0))}))
    counting.poll(at(40), session("s", {"a": peer(at(0), at(11)), "b": peer(at(0), at(12)), "c": peer(at(39))}))
    assert counting.gauges().peak == 2


def test_the_peak_reaches_back_across_a_restart(counting: Counting) -> None:
    counting.poll(at(10), session("s", {}))
    counting.restart()
    counting.poll(at(70), session("s", {"a": peer(at(20), at(30)), "b": peer(at(21), at(31))}))
    assert counting.gauges().peak == 2


def test_the_peak_reaches_back_to_the_last_good_reading_of_the_room(counting: Counting) -> None:
    """It includes what was read in between, even if not all of the room could be read."""
    counting.poll(at(0), session("a"), session("b"))
    a = session("a", {"p": peer(at(5), at(8)), "q": peer(at(6), at(9))})
    ended = session("c", {"p": peer(at(5), at(8)), "q": peer(at(6), at(9))}, started=at(5), ended=at(10))
    counting.begin(at(30))
    counting.see(a)
    counting.see(ended)
    counting.end(complete=False, fresh=())
    counting.poll(at(60), a, session("b", {"r": peer(at(7))}))
    assert counting.gauges().peak == 5


# -- distributions ------------------------------------------------------------------------------------------------


def test_durations_are_observed_once_from_the_ended_sessions_record(counting: Counting) -> None:
    peers = {"p": peer(at(0), at(30), "host"), "q": peer(at(0), at(400)), "ghost": peer(at(5))}
    counting.poll(at(100), session("s", {"p": peer(at(0), role="host")}))
    assert sum(sum(of.counts) for of in counting.ledger.histograms.values()) == 0
    for poll in (1000, 1030):
        counting.poll(at(poll), session("s", peers, ended=at(605)))
    counting.restart()
    counting.poll(at(1060), session("s", peers, ended=at(605)))
    found = {key: (sum(of.counts), of.total) for key, of in counting.ledger.histograms.items()}
    assert found == {
        ("session_duration", ""): (1, 605 * SECOND),
        ("session_peers", ""): (1, 3),
        ("peer_duration", "host"): (1, 30 * SECOND),
        ("peer_duration", "guest"): (2, 1000 * SECOND),
    }


def test_a_value_on_a_bound_is_in_the_bucket_of_that_bound(counting: Counting) -> None:
    counting.poll(at(0))
    counting.poll(at(100), session("s", {"p": peer(at(1), at(61))}, started=at(1), ended=at(61)))
    durations = counting.ledger.histograms["session_duration", ""]
    assert durations.bounds[0] == 60
    assert durations.counts[0] == 1


# -- bounded memory -----------------------------------------------------------------------------------------------


def test_ended_sessions_are_forgotten_when_no_answer_can_show_them_any_more(counting: Counting) -> None:
    counting.poll(at(0))
    for poll in (30, 200):
        counting.poll(at(poll), session("s", {}, started=at(10), ended=at(20)))
    assert list(counting.ledger.settled) == ["s"]
    later = at(10) + REACH_BACK + MARGIN
    counting.poll(later)
    assert list(counting.ledger.settled) == ["s"]
    counting.poll(later + SECOND)
    assert counting.ledger.settled == {}
    counting.restart()
    assert counting.ledger.settled == {}


def test_a_session_of_a_room_that_turns_out_not_to_be_ours_is_forgotten(counting: Counting) -> None:
    counting.begin(at(10))
    counting.see(session("s", {"p": peer(at(0))}))
    counting.see(session("t", {"p": peer(at(0), at(1))}, ended=at(5)))
    counting.now.assign("room", "room", None)
    counting.end()
    assert [len(known) for known in (counting.ledger.tracked, counting.ledger.accounts, counting.ledger.settled)] == [0, 0, 0]
    counting.restart()
    assert counting.ledger.tracked == {}


def test_sessions_whose_room_has_no_account_yet_wait_for_it_across_restarts(counting: Counting) -> None:
    counting.begin(at(30))
    counting.see(session("ended", {"p": peer(at(1), at(20))}, started=at(1), ended=at(20)))
    counting.see(session("running", {"p": peer(at(0))}))
    counting.ledger.coverage.complete(at(30))
    counting.now.finish(None, 0.0)
    counting.commit()
    assert counting.committed == {}
    counting.restart()
    assert sorted(counting.ledger.unassigned) == ["ended", "running"]
    counting.poll(at(60), session("running", {"p": peer(at(0))}))
    assert (counting.seconds(), counting.value("started"), counting.value("ended")) == (79, 2, 1)


def test_a_room_that_left_the_memory_comes_back_with_its_totals(counting: Counting) -> None:
    counting.poll(at(0))
    for poll in (30, 200):
        counting.poll(at(poll), session("s", {"p": peer(at(1), at(21))}, started=at(1), ended=at(21)))
    counting.ledger.close(room_account("room"))
    assert counting.ledger.accounts == {}
    counting.poll(at(230), session("t", {"p": peer(at(220))}, started=at(220)))
    assert (counting.seconds(), counting.value("started")) == (30, 2)
