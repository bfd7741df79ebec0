"""The beginning of each room's counting, and its unread past: kept by room, however the configuration asks for it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from exporter.counting.coverage import LONGEST_DOUBT, MARGIN, REACH_BACK, Coverage
from exporter.counting.scope import EVERYTHING
from exporter.times import DAY, HOUR, SECOND
from tests.harness import T0, at, scope_of

NAMES = {"a": "class-1", "b": "class-b", "c": "team-1"}
LONG = 10 * HOUR
"""A pause that is read like any other time."""


class Story:
    """A coverage and its events.  `since` is `start` by default."""

    def __init__(self, *keys: str, since: int | None = None, now: int = T0) -> None:
        self.coverage = Coverage()
        self.names: dict[str, str | None] = dict(NAMES)
        self.since = since
        self.edit(*keys, now=now)

    def edit(self, *keys: str, now: int) -> None:
        """A poll with other entries, which reads the present and all of the past."""
        self.coverage.begin(now, LONG)
        self.coverage.configure(scope_of(keys), now if self.since is None else self.since, now, self.names.get)
        self.read(now)

    def poll(self, now: int, *, whole: bool = True, failed: Iterable[str] = ()) -> None:
        self.coverage.begin(now, LONG)
        self.coverage.complete(now, whole=whole, failed=list(failed))

    def read(self, now: int) -> None:
        """A complete poll, which also reads all of the past."""
        self.poll(now)
        for (first, last), tasks in self.coverage.unread_spans(now):
            self.coverage.has_read(tasks, first, last, now)

    def rename(self, room_id: str, name: str, now: int) -> None:
        before, self.names[room_id] = self.names[room_id], name
        assert before is not None
        self.coverage.renamed(room_id, before, name, now if self.since is None else self.since, now)

    def counts(self, room_id: str, started: int, ended: int) -> bool:
        return self.coverage.counts(room_id, self.names.get(room_id), started, ended)


# -- the beginning of counting ------------------------------------------------------------------------------------


def test_with_start_a_room_counts_from_the_first_poll_with_an_entry_that_covers_it() -> None:
    story = Story("a")
    assert not story.counts("a", at(-100), T0)
    assert story.counts("a", at(-100), at(1))
    assert not story.counts("b", at(-100), at(1))


def test_with_a_time_sessions_that_ended_after_it_count_until_they_are_read() -> None:
    coverage = Coverage()
    coverage.begin(T0, LONG)
    coverage.configure(scope_of([EVERYTHING]), T0 - DAY, T0, NAMES.get)
    assert coverage.counts("a", "class-1", T0 - DAY, T0 - DAY + 1)
    assert not coverage.counts("a", "class-1", T0 - DAY - HOUR, T0 - DAY)


SAME_ROOM = [("a", "*"), ("*", "a"), ("~class-.*", "~class-[0-9]+"), ("~class-.*", "a"), ("a", "~.*-1"), ("~class-.*", "*")]


@pytest.mark.parametrize(("before", "after"), SAME_ROOM)
def test_sessions_read_for_one_entry_do_not_count_again_for_another_entry_of_the_same_room(before: str, after: str) -> None:
    story = Story(before, since=T0 - 5 * DAY)
    coverage = story.coverage
    coverage.begin(at(60), LONG)
    coverage.configure(scope_of([after]), T0 - 5 * DAY, at(60), NAMES.get)
    for ago in (5 * DAY - HOUR, DAY, HOUR):
        assert not story.counts("a", T0 - ago, T0 - ago + HOUR // 2)
    assert story.counts("a", at(10), at(20))


@pytest.mark.parametrize(("before", "after"), SAME_ROOM)
def test_sessions_between_two_configurations_count(before: str, after: str) -> None:
    story = Story(before)
    coverage = story.coverage
    coverage.begin(at(3 * 3600), HOUR)
    coverage.configure(scope_of([after]), at(3 * 3600), at(3 * 3600), NAMES.get)
    assert story.counts("a", at(3600), at(3700))
    assert any(first <= at(3600) <= last for (first, last), _ in coverage.unread_spans(at(20 * 3600)))


def test_a_counting_that_has_begun_never_begins_anew_though_since_is_edited() -> None:
    story = Story("a")
    story.since = T0 - 30 * DAY
    story.edit("*", now=at(60))
    assert not story.counts("a", T0 - DAY, T0 - DAY + HOUR)
    assert not story.counts("a", at(-7200), at(-3600))


def test_of_a_new_pattern_beside_an_old_one_each_room_counts_from_its_own_beginning() -> None:
    story = Story("~class-.*")
    story.coverage.begin(at(60), LONG)
    story.coverage.configure(scope_of(["~team-.*", "~class-.*"]), at(60), at(60), NAMES.get)
    assert story.counts("a", at(30), at(40))
    assert not story.counts("c", at(30), at(40))
    assert story.counts("c", at(30), at(70))


# -- out and back -------------------------------------------------------------------------------------------------


def test_a_room_that_comes_back_goes_on_from_where_it_was_taken_out() -> None:
    story = Story("a", since=T0 - DAY)
    story.edit("b", now=at(600))
    assert story.counts("a", at(700), at(800))
    coverage = story.coverage
    coverage.begin(at(9000), LONG)
    coverage.configure(scope_of(["a", "b"]), T0 - DAY, at(9000), NAMES.get)
    assert story.counts("a", at(700), at(800))
    assert not story.counts("a", at(-3600), at(-3000))
    tasks = [task for _, of in coverage.unread_spans(at(9000) + REACH_BACK) for task in of]
    assert coverage.rooms_of(tasks) == ["a"]


def test_the_unread_past_of_a_room_that_was_taken_out_is_read_when_it_comes_back() -> None:
    story = Story("b")
    coverage = story.coverage
    story.since = T0 - 5 * DAY
    coverage.begin(at(60), LONG)
    coverage.configure(scope_of(["a", "b"]), T0 - 5 * DAY, at(60), NAMES.get)
    coverage.complete(at(60))
    (span, tasks), *_ = coverage.unread_spans(at(60))
    coverage.has_read(tasks, span[0], T0 - 3 * DAY, at(60))
    story.edit("b", now=at(120))
    assert coverage.tasks == {}
    coverage.begin(at(180), LONG)
    coverage.configure(scope_of(["a", "b"]), T0 - 5 * DAY, at(180), NAMES.get)
    assert not story.counts("a", T0 - 4 * DAY, T0 - 4 * DAY + HOUR)
    assert story.counts("a", T0 - 2 * DAY, T0 - 2 * DAY + HOUR)


def test_a_room_that_has_never_been_covered_counts_for_nothing() -> None:
    story = Story("~class-.*")
    assert not story.coverage.has_covered("c", "team-1")
    assert not story.counts("c", at(10), at(20))


# -- names --------------------------------------------------------------------------------------------------------


def test_a_room_whose_name_decides_is_undecided_until_it_is_known() -> None:
    story = Story("~class-.*", "a")
    assert story.coverage.is_undecided("x", None)
    assert not story.coverage.is_undecided("x", "class-7")
    assert not Story("a").coverage.is_undecided("x", None)


def test_a_room_renamed_into_a_pattern_counts_from_when_that_is_learnt() -> None:
    story = Story("~class-.*")
    story.rename("c", "class-9", at(100))
    assert not story.counts("c", at(50), at(90))
    assert story.counts("c", at(50), at(110))


def test_a_room_renamed_from_one_pattern_into_another_goes_on() -> None:
    story = Story("~class-.*", "~team-.*", since=T0 - DAY)
    story.rename("a", "team-7", at(100))
    assert not story.counts("a", at(-7200), at(-3600))
    assert story.counts("a", at(110), at(120))


def test_a_room_renamed_out_of_its_pattern_counts_what_passed_meanwhile_when_it_comes_back() -> None:
    story = Story("~class-.*")
    story.read(at(100))
    story.rename("a", "elsewhere", at(100))
    story.read(at(4000))
    story.rename("a", "class-5", at(5000))
    assert story.counts("a", at(2000), at(3000))
    assert not story.counts("a", at(-300), at(-200))


def test_a_rename_that_is_learnt_after_a_reload_and_before_the_next_poll_is_judged_by_the_entries_in_force() -> None:
    """The new configuration takes effect with its first poll."""
    story = Story("~class-.*")
    story.rename("c", "office", at(100))  # no entry in force covers the room, but `office` of the reload does
    story.coverage.begin(at(200), LONG)
    story.coverage.configure(scope_of(["~class-.*", "~office"]), at(200), at(200), story.names.get)
    assert not story.counts("c", at(110), at(190))
    assert story.counts("c", at(110), at(210))


def test_a_room_renamed_into_an_entry_that_has_been_taken_out_begins_to_count_when_that_is_back() -> None:
    story = Story("~class-.*", "~team-.*")
    story.names["x"] = "office"
    story.edit("~class-.*", now=at(100))
    story.rename("x", "team-9", at(200))
    assert not story.counts("x", at(210), at(250))
    story.coverage.begin(at(400), LONG)
    story.coverage.configure(scope_of(["~class-.*", "~team-.*"]), at(400), at(400), story.names.get)
    assert not story.counts("x", at(210), at(390))
    assert story.counts("x", at(210), at(410))
    story.read(at(500))
    assert not story.counts("x", at(210), at(490))
    assert story.coverage.tasks == {}


# -- how far the reading has come ---------------------------------------------------------------------------------


def test_sessions_that_have_been_read_count_no_more_except_within_a_margin() -> None:
    story = Story("*")
    story.poll(at(1000))
    assert story.coverage.horizon == at(1000) - MARGIN
    assert not story.counts("a", at(1000) - MARGIN - 1, at(1000))
    assert story.counts("a", at(1000) - MARGIN, at(1000))


def test_a_room_whose_listing_failed_is_unread_from_there_on_and_no_other_is() -> None:
    story = Story("a", "b")
    story.poll(at(1000), failed=["a"])
    story.poll(at(5000), failed=["a"])
    assert story.counts("a", at(2000), at(2100))
    assert not story.counts("b", at(2000), at(2100))
    story.coverage.caught_up("a")
    story.poll(at(5030))
    assert not story.counts("a", at(2000), at(2100))


def test_the_front_waits_an_hour_for_running_sessions_that_cannot_be_seen_and_then_leaves_a_stretch_unread() -> None:
    story = Story("*")
    story.poll(at(1800), whole=False)
    assert story.coverage.read_until == T0
    late = T0 + LONGEST_DOUBT + 60 * SECOND
    story.poll(late, whole=False)
    assert story.coverage.read_until == late
    assert story.counts("a", at(1800), at(1900))


def test_after_a_long_pause_the_time_between_is_a_catch_up() -> None:
    story = Story("*")
    story.coverage.begin(at(20 * 3600), HOUR)
    assert story.counts("a", at(3600), at(3700))
    story.coverage.complete(at(20 * 3600))
    assert story.coverage.progress(at(20 * 3600)) is not None
    story.read(at(20 * 3600 + 30))
    assert story.coverage.progress(at(20 * 3600 + 30)) is None
    assert not story.counts("a", at(3600), at(3700))


def test_an_api_clock_that_was_ahead_has_what_it_skipped_read_again() -> None:
    story = Story("*")
    story.poll(at(7200))
    story.coverage.begin(at(60), LONG)
    assert story.coverage.horizon is not None
    assert story.coverage.horizon <= at(60)
    assert story.counts("a", at(30), at(50))


def test_an_id_is_kept_while_an_answer_may_show_its_session_again() -> None:
    story = Story("*")
    coverage = story.coverage
    story.poll(at(60))
    assert coverage.may_show_again("a", "class-1", at(30))
    story.read(at(40 * 3600))
    assert not coverage.may_show_again("a", "class-1", at(30))


def test_the_earliest_beginning_is_that_of_all_entries() -> None:
    story = Story("a", since=at(50))
    assert story.coverage.earliest == at(50)
    story.since = at(20)
    story.edit("a", "b", now=at(60))
    assert story.coverage.earliest == at(20)
    assert Coverage().earliest is None
