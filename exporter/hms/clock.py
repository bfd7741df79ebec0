"""The API's clock, from the `Date` of its answers. The caller passes in this machine's times."""

from __future__ import annotations

from exporter.times import SECOND

_DRIFT = 2000
"""Two clocks drift apart by less than one part in this number, the fastest rate at which a clock is slewed."""
_LEAST_DRIFT = SECOND // 100
"""The least drift allowed between two answers (µs): they may come from two servers, whose clocks differ a little."""


class ApiClock:
    """The offset of the API's clock from this machine's steady clock, in microseconds.

    A `Date` D is in whole seconds: the answer was made between D and D + 1, and between sending the request and receiving the
    answer.  So each answer bounds the offset, and several answers narrow it.  The lower bound is used, so that nothing is credited
    too early.

    An answer that contradicts earlier ones is believed once the next one agrees with it: a clock that was set stays set, but a
    single wrong `Date` does not repeat.
    """

    def __init__(self) -> None:
        self._low: int | None = None
        self._high = 0
        self._doubted: tuple[int, int] | None = None
        self._last: int | None = None
        self._learnt_at = 0

    @property
    def offset(self) -> int | None:
        """The lower bound of the API's clock minus ours; `None` before the first answer."""
        return self._low

    @property
    def disputed(self) -> bool:
        """Whether the last answer contradicts earlier ones, and no further answer has decided between them yet."""
        return self._doubted is not None

    def learn(self, date: int, sent: int, received: int) -> None:
        """Takes in an answer with this `Date`, sent and received at these moments of our steady clock (all in µs)."""
        low, high = date - received, date + SECOND - sent
        self._last = low
        drift = max(_LEAST_DRIFT, (received - self._learnt_at) // _DRIFT)
        self._learnt_at = received
        if self._low is None:
            self._low, self._high = low, high
            return
        # A bound widens with time, so that it stays true.
        narrowed_low, narrowed_high = max(self._low - drift, low), min(self._high + drift, high)
        if narrowed_low <= narrowed_high:
            self._low, self._high, self._doubted = narrowed_low, narrowed_high, None
        elif self._doubted is not None and max(self._doubted[0] - drift, low) <= min(self._doubted[1] + drift, high):
            self._low, self._high, self._doubted = low, high, None  # one of the clocks was set: start over
        else:
            self._doubted = low, high

    def at_last_told(self, moment: int) -> int | None:
        """The same from the last answer alone: the clock that the API checks a token against."""
        return None if self._last is None else moment + self._last

    def at(self, moment: int) -> int | None:
        """The lower bound of the API's time at a moment of our steady clock; `None` before the first answer."""
        return None if self._low is None else moment + self._low
