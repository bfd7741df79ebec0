"""The API's clock, estimated from its `Date` headers."""

from __future__ import annotations

import random

import pytest

from exporter.hms.clock import ApiClock
from exporter.times import DAY, HOUR, SECOND

MS = 1000


def test_before_the_first_answer_nothing_is_known() -> None:
    clock = ApiClock()
    assert clock.offset is None
    assert clock.at(5) is None


def test_one_answer_tells_the_time_at_the_least() -> None:
    """Its second had begun when the answer arrived, and nothing more is certain."""
    clock = ApiClock()
    clock.learn(date=1000 * SECOND, sent=40 * SECOND, received=40 * SECOND + 200 * MS)
    assert clock.at(40 * SECOND + 200 * MS) == 1000 * SECOND
    assert clock.at(41 * SECOND) == 1000 * SECOND + 800 * MS


def test_several_answers_narrow_the_estimate() -> None:
    """An answer that shows the second changing gives the time to within the answer's travel time."""
    clock = ApiClock()
    clock.learn(date=1000 * SECOND, sent=900 * MS, received=950 * MS)
    clock.learn(date=1001 * SECOND, sent=1000 * MS, received=1050 * MS)
    assert clock.at(1050 * MS) == 1001 * SECOND
    clock.learn(date=1001 * SECOND, sent=1900 * MS, received=1950 * MS)
    known = clock.at(1950 * MS)
    assert known is not None
    assert 1001 * SECOND + 850 * MS <= known <= 1001 * SECOND + 950 * MS


def test_a_slow_answer_does_not_worsen_the_estimate() -> None:
    clock = ApiClock()
    clock.learn(date=1000 * SECOND, sent=0, received=10 * MS)
    clock.learn(date=1003 * SECOND, sent=SECOND, received=9 * SECOND)
    known = clock.at(9 * SECOND)
    assert known is not None
    assert known >= 1008 * SECOND


@pytest.mark.parametrize("jump", [HOUR, -HOUR, DAY, -DAY, 3 * SECOND, -3 * SECOND])
def test_a_clock_that_is_set_is_believed_when_the_next_answer_says_so_too(jump: int) -> None:
    clock = ApiClock()
    clock.learn(date=1_000_000 * SECOND, sent=0, received=10 * MS)
    clock.learn(date=1_000_030 * SECOND + jump, sent=30 * SECOND, received=30 * SECOND + 10 * MS)
    assert clock.disputed
    assert clock.at(30 * SECOND + 10 * MS) == 1_000_030 * SECOND
    clock.learn(date=1_000_030 * SECOND + jump, sent=30 * SECOND + 20 * MS, received=30 * SECOND + 30 * MS)
    assert not clock.disputed
    assert clock.at(30 * SECOND + 30 * MS) == 1_000_030 * SECOND + jump


@pytest.mark.parametrize("jump", [HOUR, -HOUR, DAY, -DAY])
def test_one_wrong_date_is_not_believed(jump: int) -> None:
    clock = ApiClock()
    clock.learn(date=1_000_000 * SECOND, sent=0, received=10 * MS)
    clock.learn(date=1_000_010 * SECOND + jump, sent=10 * SECOND, received=10 * SECOND + 10 * MS)
    clock.learn(date=1_000_010 * SECOND, sent=10 * SECOND + 20 * MS, received=10 * SECOND + 30 * MS)
    assert not clock.disputed
    known = clock.at(10 * SECOND + 30 * MS)
    assert known == pytest.approx(1_000_010 * SECOND, abs=100 * MS)


@pytest.mark.parametrize("interval", [1.0, 30.0, 3600.0])
@pytest.mark.parametrize("drift", [0, 100e-6, -100e-6, 400e-6, -400e-6])
def test_it_is_never_ahead_of_the_api_and_hardly_a_second_behind(interval: float, drift: float) -> None:
    """Answers take any time, and the clocks drift apart."""
    chance = random.Random(interval)
    clock = ApiClock()
    steady = 0
    for _ in range(500):
        steady += round(interval * chance.uniform(0.8, 1.2) * SECOND)

        def truth(moment: int) -> int:
            return 10**15 + round(moment * (1 + drift))

        made = steady + chance.randrange(300 * MS)
        received = made + chance.randrange(300 * MS)
        clock.learn(truth(made) // SECOND * SECOND, steady, received)
        known = clock.at(received)
        assert known is not None
        assert truth(received) - 2 * SECOND <= known <= truth(received)
