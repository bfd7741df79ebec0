"""The calendar of usage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.counting.accounts import PeriodSums
from exporter.times import DAY, SECOND, Calendar, calendar, month_of


def micros(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


def test_a_day_begins_and_ends_at_midnight_utc() -> None:
    found = calendar(micros("2026-02-28T23:59:59"))
    assert (found.day_start, found.day_end) == (micros("2026-02-28"), micros("2026-03-01"))
    assert (found.month_start, found.month_end) == (micros("2026-02-01"), micros("2026-03-01"))


@pytest.mark.parametrize(
    ("month", "days"), [("2026-01-31", 31), ("2026-02-10", 28), ("2028-02-29", 29), ("2026-04-30", 30), ("2026-12-31", 31)]
)
def test_a_month_has_its_own_number_of_days(month: str, days: int) -> None:
    found = calendar(micros(month))
    assert (found.month_end - found.month_start) // DAY == days


@given(st.integers(min_value=micros("2015-01-01"), max_value=micros("2100-01-01")))
def test_every_moment_lies_in_its_day_and_its_month(now: int) -> None:
    moment = datetime.fromtimestamp(now // SECOND, UTC)
    found = calendar(now)
    assert found.day_start <= now < found.day_end
    assert found.month_start <= now < found.month_end
    assert found.month == moment.year * 12 + moment.month - 1
    assert 0 <= found.elapsed("day", now) < 1
    assert 0 <= found.elapsed("month", now) < 1


def test_the_share_of_a_month_that_is_over() -> None:
    now = micros("2026-04-16")
    assert calendar(now).elapsed("month", now) == 0.5


def test_sums_start_over_with_each_day_and_month() -> None:
    sums = PeriodSums()
    last, first = calendar(micros("2026-03-31")), calendar(micros("2026-04-01"))
    sums.add(last.day - 1, 5)
    sums.add(last.day, 7)
    assert sums.at(last) == (7, 12)
    assert sums.at(first) == (0, 0)
    sums.add(first.day, 1)
    assert sums.at(first) == (1, 1)


def test_what_is_settled_late_counts_where_it_belongs() -> None:
    today = calendar(micros("2026-04-10"))
    sums = PeriodSums()
    sums.add(today.day, 10)
    sums.add(today.day - 3, 100)  # earlier this month
    sums.add(today.day - 30, 1000)  # last month
    assert sums.at(today) == (10, 110)


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 1000)), max_size=30))
def test_sums_do_not_depend_on_the_order_in_which_days_are_settled(days: list[tuple[int, int]]) -> None:
    start = calendar(micros("2026-01-01")).day
    sums = PeriodSums()
    for day, amount in days:
        sums.add(start + day, amount)
    latest = max((day for day, _ in days), default=0)
    now: Calendar = calendar((start + latest) * DAY)
    assert sums.at(now) == (
        sum(amount for day, amount in days if day == latest),
        sum(amount for day, amount in days if month_of(start + day) == now.month),
    )


def test_months_are_counted_without_gaps() -> None:
    first = calendar(micros("2026-12-31"))
    assert calendar(micros("2026-12-31") + round(timedelta(days=1).total_seconds()) * SECOND).month == first.month + 1
