"""Counters that are incremented: for rooms and groups, and for a workspace as a whole.

Each event is counted once and never changes, unlike a session, whose record keeps changing; so they need not remember the
events.  Pure; times are the API's, in integer microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from exporter.counting.contribution import Account
from exporter.counting.webhooks import WORKSPACE, Counter


class Series(NamedTuple):
    """One counter of an owner: its name, and the values of its own labels."""

    name: str
    labels: tuple[str, ...] = ()


class Sums:
    """One workspace's counters by owner.  `changed` tells the store which to write."""

    def __init__(self) -> None:
        self.of: dict[Account, dict[Series, Counter]] = {}
        self.changed: set[tuple[Account, Series]] = set()
        self.version = 0
        """Increases with every change."""

    @property
    def of_workspace(self) -> Mapping[Series, Counter]:
        """The counters that belong to no room."""
        return self.of.get(WORKSPACE, {})

    def add(self, owner: Account, series: Series, value: int, at: int) -> None:
        """Adds `value` at a moment; adding 0 creates the counter."""
        counters = self.of.setdefault(owner, {})
        before = counters.get(series)
        if before is not None and value == 0:
            return
        counters[series] = Counter(at, value) if before is None else Counter(before.born, before.value + value)
        self.changed.add((owner, series))
        self.version += 1

    def restore(self, owner: Account, counters: Mapping[Series, Counter]) -> None:
        """Loads an owner's counters from the store."""
        self.of[owner] = dict(counters)
        self.version += 1

    def reset(self) -> None:
        """Clears all counters, to be loaded again."""
        self.of, self.changed = {}, set()
        self.version += 1

    def close(self, owner: Account) -> None:
        """An owner leaves memory; its counters stay in the store."""
        if self.of.pop(owner, None) is not None:
            self.version += 1

    def committed(self) -> None:
        """The changes have been stored."""
        self.changed = set()
