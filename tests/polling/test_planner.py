"""The choice of listings, and of how much of the past to read at once."""

from __future__ import annotations

import pytest

from exporter.counting.followed import CatchUp
from exporter.counting.spans import Span
from exporter.polling.planner import MILLISECOND, SHORT, TRY_AGAIN_AFTER, TRY_FAILED_AFTER, Choice, Stretch, estimate, windows
from exporter.times import HOUR


def test_all_rooms_are_only_found_by_the_listing_of_the_workspace() -> None:
    choice = Choice(None)
    assert choice.wide(0)
    assert choice.worth_another(10_000)


@pytest.mark.parametrize("rooms", [0, 1])
def test_a_single_room_is_asked_for_by_itself(rooms: int) -> None:
    assert not Choice(rooms).wide(0)


def test_the_listing_of_the_workspace_is_worth_fewer_pages_than_there_are_rooms() -> None:
    choice = Choice(3)
    assert choice.wide(0)
    assert choice.worth_another(2)
    assert not choice.worth_another(3)


def test_an_abandoned_listing_is_left_alone_for_a_while_and_then_tried_again() -> None:
    choice = Choice(3)
    choice.abandoned(100.0)
    assert not choice.wide(100.0)
    assert not choice.wide(100.0 + TRY_AGAIN_AFTER - 1)
    assert choice.wide(100.0 + TRY_AGAIN_AFTER)
    choice.finished()
    assert choice.wide(101.0)


# -- stretches of the past ----------------------------------------------------------------------------------------


def catch_up(number: int, *unread: Span) -> CatchUp:
    return CatchUp(number, unread[0][0], list(unread))


def wanted(*tasks: CatchUp) -> list[tuple[Span, list[CatchUp]]]:
    """The unread spans of these catch-ups, as the coverage lists them."""
    spans = sorted({span for task in tasks for span in task.unread})
    return [(span, [task for task in tasks if span in task.unread]) for span in spans]


def stretch_of(stretch: Stretch, first: int, last: int) -> Span | None:
    """The stretch that is asked for when a single span is unread."""
    found = stretch.next(wanted(catch_up(1, (first, last))), 0.0)
    return None if found is None else found[0]


def test_at_first_all_of_the_past_is_asked_for_at_once() -> None:
    assert stretch_of(Stretch(), 5, 100 * HOUR) == (5, 100 * HOUR)


def test_a_stretch_that_was_too_long_becomes_shorter_until_it_fits() -> None:
    """The next one is at most half as long, and no longer than its pages reached."""
    stretch = Stretch()
    stretch.too_long(0, 100 * HOUR, read_from=90 * HOUR)
    assert stretch_of(stretch, 0, 90 * HOUR) == (0, 10 * HOUR)
    stretch.too_long(0, 10 * HOUR, read_from=1 * HOUR)
    assert stretch_of(stretch, 0, HOUR) == (0, HOUR)
    assert stretch_of(stretch, 0, 90 * HOUR) == (0, 5 * HOUR)


def test_a_stretch_never_shrinks_below_what_the_filters_of_the_api_tell_apart() -> None:
    stretch = Stretch()
    for _ in range(100):
        found = stretch_of(stretch, 0, HOUR)
        assert found is not None
        stretch.too_long(*found, read_from=found[1] + 1)
    found = stretch_of(stretch, 0, HOUR)
    assert found == (0, MILLISECOND - 1)
    assert stretch.is_shortest(*found)


def test_a_stretch_grows_again_where_there_are_few_sessions() -> None:
    stretch = Stretch()
    stretch.too_long(0, 100 * HOUR, read_from=98 * HOUR)
    stretch.finished(1)
    assert stretch_of(stretch, 0, 100 * HOUR) == (0, 4 * HOUR)
    stretch.finished(Stretch.most_pages)
    assert stretch_of(stretch, 0, 100 * HOUR) == (0, 4 * HOUR)


def test_a_stretch_never_reaches_beyond_the_unread_span() -> None:
    stretch = Stretch()
    stretch.too_long(0, 100 * HOUR, read_from=50 * HOUR)
    assert stretch_of(stretch, 90 * HOUR, 100 * HOUR) == (90 * HOUR, 100 * HOUR)


def test_the_oldest_is_read_first_and_serves_all_that_want_it() -> None:
    one, two, three = catch_up(1, (0, 99), (200, 299)), catch_up(2, (0, 99)), catch_up(3, (50, 79))
    assert Stretch().next(wanted(one, two), 0.0) == ((0, 99), [one, two])
    # It ends where another span begins or ends, so that it serves each span whole or not at all.
    assert Stretch().next(wanted(one, three), 0.0) == ((0, 49), [one])
    both = catch_up(1, (50, 99))
    assert Stretch().next(wanted(both, three), 0.0) == ((50, 79), [three, both])
    assert Stretch().next([], 0.0) is None


def test_a_long_stretch_that_fails_is_tried_in_shorter_pieces() -> None:
    stretch = Stretch()
    stretch.failed(0, 16 * HOUR, 0.0)
    assert stretch_of(stretch, 0, 16 * HOUR) == (0, HOUR)


def test_a_short_stretch_that_fails_is_left_out_for_a_while_for_the_others_sake() -> None:
    stretch, unread = Stretch(), wanted(catch_up(1, (0, HOUR)))
    stretch.failed(0, SHORT - 1, 0.0)
    assert stretch.next(unread, 1.0) == ((SHORT, 2 * SHORT), [catch_up(1, (0, HOUR))])
    found = stretch.next(unread, TRY_FAILED_AFTER)
    assert found is not None
    assert found[0][0] == 0
    only = wanted(catch_up(1, (0, SHORT - 1)))
    stretch.failed(0, SHORT - 1, 1000.0)
    assert stretch.next(only, 1001.0) is None


# -- several sessions by one listing ------------------------------------------------------------------------------


def test_windows_hold_all_wanted_sessions_the_fullest_first() -> None:
    assert windows([1, 2, 3, 50, 90, 91], [1, 2, 3, 50, 90, 91], 3) == [(50, 91), (1, 3)]
    assert windows([], [1, 2], 10) == []


def test_a_window_holds_no_more_than_a_page_of_what_is_known() -> None:
    known = sorted([1, 99, *range(20, 40)])
    assert windows([1, 99], known, 10) == [(99, 99), (1, 1)]
    assert windows([1, 99], known, 100) == [(1, 99)]


# -- the estimate of calls ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rooms", "running", "ended", "calls"),
    [(1000, 40, 0, 2), (1000, 40, 4, 6), (None, 4000, 0, 42), (None, 40, 3, 5), (1, 1, 1, 3)],
)
def test_the_estimate_of_calls(rooms: int | None, running: int, ended: int, calls: int) -> None:
    assert estimate(rooms, running, ended) == calls


def test_the_estimate_of_a_few_rooms_in_a_large_workspace() -> None:
    assert estimate(3, 4000, 0) <= 6
