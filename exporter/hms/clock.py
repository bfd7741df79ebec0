"""The API's clock, read from the `Date` of its answers; nothing here asks a clock of this machine."""

from __future__ import annotations

from exporter.times import SECOND

_DRIFT = 2000
"""Clocks drift apart by less than one part in so many: that is the fastest at which one is slewed to be right."""
_LEAST_DRIFT = SECOND // 100
"""Between two answers, at the least: they may come from two servers, which are never quite of one time."""


class ApiClock:
    """How far the API's clock is ahead of a steady one of ours, in microseconds.

    A `Date` D is whole seconds: the answer was made between D and D + 1, and somewhere between our sending and our
    receiving.  So each answer bounds the offset, and several narrow it.  The lower bound is used, so that nothing is
    credited too early.

    An answer that contradicts those before is believed when the next one agrees with it: a clock that was set stays so, one
    wrong `Date` does not.
    """

    def __init__(self) -> None:
        self._low: int | None = None
        self._high = 0
        self._doubted: tuple[int, int] | None = None
        self._last: int | None = None
        self._learnt_at = 0

    @property
    def offset(self) -> int | None:
        """The API's clock minus ours at the least; `None` before the first answer."""
        return self._low

    @property
    def disputed(self) -> bool:
        """Whether the last answer contradicts those before, and no other has decided between them yet."""
        return self._doubted is not None

    def learn(self, date: int, sent: int, received: int) -> None:
        """An answer of this `Date` came, between these moments of our steady clock (all in µs)."""
        low, high = date - received, date + SECOND - sent
        self._last = low
        drift = max(_LEAST_DRIFT, (received - self._learnt_at) // _DRIFT)
        self._learnt_at = received
        if self._low is None:
            self._low, self._high = low, high
            return
        # A bound must give way rather than become a lie.
        narrowed_low, narrowed_high = max(self._low - drift, low), min(self._high + drift, high)
        if narrowed_low <= narrowed_high:
            self._low, self._high, self._doubted = narrowed_low, narrowed_high, None
        elif self._doubted is not None and max(self._doubted[0] - drift, low) <= min(self._doubted[1] + drift, high):
            self._low, self._high, self._doubted = low, high, None  # one of the clocks was set: what was known is void
        else:
            self._doubted = low, high

    def at_last_told(self, moment: int) -> int | None:
        """The same by the last answer alone: what the API itself goes by when it judges a token."""
        return None if self._last is None else moment + self._last

    def at(self, moment: int) -> int | None:
        """The API's time at a moment of our steady clock, at the least; `None` before the first answer."""
        return None if self._low is None else moment + self._low
