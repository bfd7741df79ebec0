"""Moments are integer microseconds since the epoch, UTC: how to read and write one, and the calendar of days and months.

Days are counted from the epoch, months from year 0.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple

Period = Literal["day", "month"]
PERIODS: tuple[Period, Period] = ("day", "month")

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
_FIRST_DAY = EPOCH.date()


def micros(moment: datetime) -> int:
    """A time as microseconds since the epoch; one without a zone is UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (aware - EPOCH) // MICROSECOND


def rfc3339(at: int, digits: int | None = None) -> str:
    """A moment (µs) in UTC as RFC 3339, rounded down to this many fractional digits (0 to 9); `None` means as many as needed."""
    seconds, fraction = divmod(at, SECOND)
    whole = datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
    if digits is None:
        return f"{whole}.{fraction:06d}".rstrip("0").rstrip(".") + "Z"
    return f"{whole}.{fraction:06d}000"[: 20 + digits].rstrip(".") + "Z"


def whole_seconds(micros: int) -> int:
    """A length of time in seconds, rounded up.  Comparing it with a whole number of seconds gives the same answer as comparing `micros`."""
    return -(-micros // SECOND)


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
    this = _FIRST_DAY + timedelta(days=day)
    first = this.replace(day=1)
    following = (first + timedelta(days=32)).replace(day=1)
    return Calendar(day, month_of(day), day * DAY, (day + 1) * DAY, _micros(first), _micros(following))


@lru_cache(maxsize=512)
def month_of(day: int) -> int:
    """The month of a day."""
    this = _FIRST_DAY + timedelta(days=day)
    return this.year * 12 + this.month - 1


def _micros(day: date) -> int:
    return (day - _FIRST_DAY).days * DAY
