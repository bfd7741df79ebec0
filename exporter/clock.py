"""The API's clock, read from the `Date` of its answers; nothing here asks a clock of this machine."""

from __future__ import annotations

from exporter.records import SECOND


class ApiClock:
    """How far the API's clock is ahead of a steady one of ours, in microseconds.

    A `Date` D is whole seconds: the answer was made between D and D + 1, and somewhere between our sending and our
    receiving.  So each answer bounds the offset, and several narrow it.  The lower bound is used, so that nothing is
    credited too early.
    """

    def __init__(self) -> None:
        self._low: int | None = None
        self._high = 0

    @property
    def offset(self) -> int | None:
        """The API's clock minus ours at the least; `None` before the first answer."""
        return self._low

    def learn(self, date: int, sent: int, received: int) -> None:
        """An answer of this `Date` came, between these moments of our steady clock (all in µs)."""
        low, high = date - received, date + SECOND - sent
        if self._low is None:
            self._low, self._high = low, high
            return
        # Clocks drift apart a little; a bound must give way rather than become a lie.
        drift = SECOND // 100
        narrowed_low, narrowed_high = max(self._low - drift, low), min(self._high + drift, high)
        if narrowed_low <= narrowed_high:
            self._low, self._high = narrowed_low, narrowed_high
        else:
            self._low, self._high = low, high  # one of the clocks was set: what was known is void

    def at(self, moment: int) -> int | None:
        """The API's time at a moment of our steady clock, at the least; `None` before the first answer."""
        return None if self._low is None else moment + self._low
