"""Fairness by address: a count of the places that each client address holds, so that a flood from one cannot shut out another.

Connections, calls in threads and password checks are all limited by it.  A connection can be closed to make room, so there the
address that holds the most gives way; a call cannot be stopped once it runs, so there an address is refused beyond its share.
"""

from __future__ import annotations

from collections import Counter


class BusyError(Exception):
    """No place is free, or none for this address; try again later."""


class Shares:
    """Places held by address.  At most `places` are held in all and `of_one` by one address; without them, any number."""

    def __init__(self, places: int | None = None, of_one: int | None = None) -> None:
        self._places = places
        self._of_one = of_one
        self._held: Counter[str] = Counter()
        self._total = 0

    def take(self, address: str) -> None:
        """Take one more place.  Raises `BusyError` if all are held, or this address holds its share."""
        if self._places is not None and self._total >= self._places:
            raise BusyError
        if self._of_one is not None and self._held[address] >= self._of_one:
            raise BusyError
        self._held[address] += 1
        self._total += 1

    def leave(self, address: str) -> None:
        """Give a place back."""
        self._total -= 1
        self._held[address] -= 1
        if not self._held[address]:
            del self._held[address]  # an address that holds nothing takes no memory

    def held(self, address: str) -> int:
        """How many places this address holds."""
        return self._held.get(address, 0)

    def __len__(self) -> int:
        """How many places are held in all."""
        return self._total
