"""Windows of deliveries: they touch without overlapping, and none reaches into the last minute."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exporter.counting.deliveries import LONGEST, REACH_BACK, Window, next_window
from exporter.times import DAY, HOUR, MINUTE, SECOND
from tests.harness import T0

NOW = T0 + 10 * DAY


def test_a_window_goes_on_where_the_last_one_ended_up_to_a_minute_ago() -> None:
    assert next_window(NOW - 2 * MINUTE, NOW) == Window(NOW - 2 * MINUTE, NOW - MINUTE)


def test_it_ends_with_a_whole_second() -> None:
    found = next_window(NOW - HOUR + 7, NOW + 123_456)
    assert found == Window(NOW - HOUR + 7, NOW - MINUTE)


def test_there_is_none_before_a_minute_is_over() -> None:
    assert next_window(NOW - MINUTE, NOW) is None
    assert next_window(NOW - MINUTE, NOW + SECOND - 1) is None
    assert next_window(NOW, NOW) is None


def test_a_clock_that_went_back_asks_nothing_twice() -> None:
    assert next_window(NOW, NOW - HOUR) is None


def test_a_long_pause_is_read_fourteen_days_at_a_time() -> None:
    read_until, windows = NOW - 29 * DAY, []
    while (window := next_window(read_until, NOW)) is not None:
        windows.append(window)
        read_until = window.end
    assert [window.end - window.begin for window in windows] == [LONGEST, LONGEST, DAY - MINUTE]


def test_deliveries_older_than_thirty_days_are_lost_and_reported_as_lost() -> None:
    found = next_window(NOW - 40 * DAY, NOW)
    assert found == Window(NOW - REACH_BACK, NOW - REACH_BACK + LONGEST, 10 * DAY + 5 * MINUTE)


def test_100ms_is_asked_for_both_of_its_ends() -> None:
    assert Window(T0, T0 + MINUTE).parameters == {"start_time": "2026-03-02T08:00:00Z", "end_time": "2026-03-02T08:00:59.999999Z"}


@given(st.integers(0, 60 * DAY), st.lists(st.integers(0, 3 * DAY), max_size=20))
def test_each_moment_is_in_one_window(start: int, pauses: list[int]) -> None:
    now = read_until = T0 + start
    for pause in pauses:
        now += pause
        while (window := next_window(read_until, now)) is not None:
            assert window.begin == read_until
            assert window.end % SECOND == 0
            assert window.begin < window.end <= min(now - MINUTE, window.begin + LONGEST)
            read_until = window.end
        assert read_until > now - MINUTE - SECOND
