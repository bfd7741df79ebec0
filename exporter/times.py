"""The calendar of usage: UTC days and months, and sums that start over with each.  Days are counted from the epoch."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec

from exporter.hms.records import DAY

Period = Literal["day", "month"]
PERIODS: tuple[Period, Period] = ("day", "month")
_EPOCH = date(1970, 1, 1)


class Calendar(NamedTuple):
    """A moment's day and month (months counted from year 0), and when each begins and ends (µs)."""

    day: int
    month: int
    day_start: int
    day_end: int
    month_start: int
    month_end: int

    def elapsed(self, period: Period, now: int) -> float:
        """How much of the period is over at `now`, from 0 to 1."""
        start, end = (self.day_start, self.day_end) if period == "day" else (self.month_start, self.month_end)
        return (now - start) / (end - start)


def calendar(now: int) -> Calendar:
    """The day and month of a moment (µs)."""
    return _calendar(now // DAY)


@lru_cache(maxsize=4)
def _calendar(day: int) -> Calendar:
    this = _EPOCH + timedelta(days=day)
    first = this.replace(day=1)
    following = (first + timedelta(days=32)).replace(day=1)
    return Calendar(day, month_of(day), day * DAY, (day + 1) * DAY, _micros(first), _micros(following))


@lru_cache(maxsize=512)
def month_of(day: int) -> int:
    """The month of a day."""
    this = _EPOCH + timedelta(days=day)
    return this.year * 12 + this.month - 1


def _micros(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000


class PeriodSums(msgspec.Struct, gc=False):
    """Time settled in the latest day and the latest month that anything was settled in (µs)."""

    day: int = 0
    in_day: int = 0
    month: int = 0
    in_month: int = 0

    def add(self, day: int, micros: int) -> None:
        """Adds time that was spent on a day; what is older than the latest day or month is no part of its sum."""
        if day > self.day:
            self.day, self.in_day = day, 0
        if day == self.day:
            self.in_day += micros
        month = month_of(day)
        if month > self.month:
            self.month, self.in_month = month, 0
        if month == self.month:
            self.in_month += micros

    def at(self, now: Calendar) -> tuple[int, int]:
        """The time of this day and of this month."""
        return (self.in_day if self.day == now.day else 0), (self.in_month if self.month == now.month else 0)
