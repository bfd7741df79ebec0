"""The rate of requests, the time for retries, and the pauses that 100ms asks for."""

from __future__ import annotations

import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from exporter.times import SECOND

_LONGEST_BACKOFF = 10.0
_SECONDS_IN_MESSAGE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(?:s\b|sec)", re.IGNORECASE)


class Rate:
    """Limits all threads together to this many requests in any second; the first requests are not delayed."""

    def __init__(self, per_second: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._count = max(1, int(per_second))
        self._window = self._count / per_second
        self._taken: deque[float] = deque(maxlen=self._count)
        self._lock = threading.Lock()
        self._monotonic = monotonic

    def take(self) -> float:
        """Takes the next place; returns how many seconds it is away."""
        with self._lock:
            now = self._monotonic()
            place = now if len(self._taken) < self._count else max(now, self._taken[0] + self._window)
            self._taken.append(place)
            return place - now


@dataclass(frozen=True, slots=True)
class Patience:
    """Until when (monotonic seconds) a request may be tried again."""

    until: float

    @classmethod
    def from_now(cls, seconds: float = 60.0) -> Patience:
        """For this many seconds from now on."""
        return cls(time.monotonic() + seconds)


def parse_date(text: str | None) -> datetime | None:
    """The time in an HTTP date; `None` if it is missing or invalid."""
    if text is None:
        return None
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def retry_after(headers: Mapping[str, str], message: str, now: int) -> float | None:
    """How many seconds 100ms asks to wait: in `Retry-After` as seconds or a date, else in the message of the answer."""
    header = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", header):
        return float(header)
    date = parse_date(header) if header else None
    if date is not None:
        return max(0.0, date.timestamp() - now / SECOND)
    found = _SECONDS_IN_MESSAGE.search(message)
    return float(found[1]) if found else None


def pause_before(retry: int, asked: float | None) -> float:
    """How many seconds to wait before a retry (the first is 0): as long as 100ms asks for, otherwise twice as long each time.

    The pause is random, so that many exporters do not retry together, and never shorter than 100ms asks for.
    """
    spread = random.uniform(0.5, 1.0)  # noqa: S311 (guards nothing)
    return min(_LONGEST_BACKOFF, 0.5 * 2**retry) * spread if asked is None else asked + spread / 10
