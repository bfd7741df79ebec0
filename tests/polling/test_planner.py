"""Which listing is asked for, and how much of the past at once."""

from __future__ import annotations

import pytest

from exporter.polling.planner import TRY_AGAIN_AFTER, Choice, Stretch, estimate
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


def test_at_first_all_of_the_past_is_asked_for_at_once() -> None:
    assert Stretch().end(5, 100 * HOUR) == 100 * HOUR


def test_a_stretch_that_was_too_much_becomes_shorter_until_it_fits() -> None:
    """It ends short of the oldest session that was seen: what lies before it is known to be no more than the pages read."""
    stretch = Stretch()
    stretch.learn(10, frontier=0, end=100 * HOUR, oldest=90 * HOUR)
    assert stretch.end(0, 100 * HOUR) == 10 * HOUR
    stretch.learn(10, frontier=0, end=10 * HOUR, oldest=1 * HOUR)
    assert stretch.end(0, 100 * HOUR) == 5 * HOUR


def test_a_stretch_never_shrinks_to_nothing() -> None:
    stretch = Stretch()
    for _ in range(100):
        stretch.learn(10, frontier=0, end=stretch.end(0, HOUR), oldest=stretch.end(0, HOUR))
    assert stretch.end(0, HOUR) >= 1


def test_where_little_lies_it_grows_again() -> None:
    stretch = Stretch()
    stretch.learn(10, frontier=0, end=100 * HOUR, oldest=98 * HOUR)
    stretch.learn(1, frontier=0, end=2 * HOUR, oldest=None)
    assert stretch.end(0, 100 * HOUR) == 4 * HOUR
    stretch.learn(Stretch.most_pages, frontier=0, end=4 * HOUR, oldest=None)
    assert stretch.end(0, 100 * HOUR) == 4 * HOUR


def test_it_never_reaches_beyond_what_is_wanted() -> None:
    stretch = Stretch()
    stretch.learn(10, frontier=0, end=100 * HOUR, oldest=50 * HOUR)
    assert stretch.end(90 * HOUR, 100 * HOUR) == 100 * HOUR


@pytest.mark.parametrize(
    ("rooms", "running", "ended", "calls"),
    [(1000, 40, 0, 2), (1000, 40, 4, 6), (None, 4000, 0, 42), (None, 40, 3, 5), (1, 1, 1, 3)],
)
def test_the_estimate_of_calls(rooms: int | None, running: int, ended: int, calls: int) -> None:
    assert estimate(rooms, running, ended) == calls


def test_the_estimate_of_a_few_rooms_in_a_large_workspace() -> None:
    assert estimate(3, 4000, 0) <= 6
