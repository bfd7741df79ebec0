"""Counts that only webhooks provide, once for each event: how many came, why peers left, why they could not join.

An event is counted in two steps.  First it is counted under its room's id, and the event's id is remembered, so that it is
never counted again; this needs no knowledge of the room.  Once the owner of the room's series is known, the count moves to that
owner for good.  Pure; times are the API's, in integer microseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from exporter.counting.contribution import Account
from exporter.hms.webhooks import OTHER, Event
from exporter.times import HOUR

REMEMBERED = 48 * HOUR
"""How long the ids of events are kept: an event that is sent again within this time is recognized."""
_MOST_TYPES = 100
"""The maximum number of types in a workspace: types that come later share the label `other`."""

RECEIVED, REJECTED = "received", "rejected"
WORKSPACE = Account("workspace", "")
"""The owner of the counters that belong to no room."""


def waiting(room_id: str) -> Account:
    """The owner of a room's counts that have not been given to an account yet."""
    return Account("waiting", room_id)


class Key(NamedTuple):
    """A counter: its owner, its name, and the value of its own label (a type or a reason)."""

    owner: Account
    name: str
    label: str


class Counter(NamedTuple):
    """A counter's value, and when it began."""

    born: int
    value: int


class Heard:
    """One workspace's counters of webhooks.  `changed` tells the store which to write, `remembered` which events."""

    def __init__(self) -> None:
        self.counters: dict[Key, Counter] = {}
        self.waiting: dict[Account, set[Key]] = {}
        """Counters of rooms whose account is not known yet, by owner."""
        self.of: dict[Account, set[Key]] = {}
        """Counters of accounts."""
        self.changed: set[Key] = set()
        self.remembered: dict[bytes, int] = {}
        """Digests of the ids of new events, and until when (µs) to keep them."""

    def committed(self) -> None:
        """The changes have been stored."""
        self.changed, self.remembered = set(), {}

    def restore(self, key: Key, counter: Counter) -> None:
        """Loads a counter from the store."""
        self.counters[key] = counter
        self._index(key)

    def take(self, events: Iterable[Event], known: Collection[bytes], now: int) -> None:
        """Counts events at the time they came; `known` are the digests of those already counted."""
        for event in events:
            if event.digest in known or event.digest in self.remembered:
                continue
            if event.replay and event.at is not None and event.at < now - REMEMBERED:
                continue  # it is too old to know whether it was counted
            happened = now if event.at is None else event.at
            self.remembered[event.digest] = max(now, happened) + REMEMBERED
            self._add(Key(WORKSPACE, RECEIVED, self._type(event.type)), 1, min(now, happened))
            if event.counts is not None and event.room_id:
                self._add(Key(waiting(event.room_id), *event.counts), 1, min(now, happened))

    def reject(self, reason: str, times: int, now: int) -> None:
        """Counts refused requests."""
        self._add(Key(WORKSPACE, REJECTED, reason), times, now)

    def assign(self, owner: Account, account: Account | None) -> None:
        """Moves the waiting counts of this owner to an account; with `None` its room is not followed, and they are dropped."""
        for key in self.waiting.pop(owner, ()):
            counter = self.counters.pop(key)
            self.changed.add(key)
            if account is not None:
                self._add(Key(account, key.name, key.label), counter.value, counter.born)

    def _type(self, name: str) -> str:
        if Key(WORKSPACE, RECEIVED, name) in self.counters:
            return name
        types = sum(key.name == RECEIVED for key in self.of.get(WORKSPACE, ()))
        return name if types < _MOST_TYPES else OTHER

    def _add(self, key: Key, times: int, at: int) -> None:
        before = self.counters.get(key)
        self.counters[key] = Counter(at, times) if before is None else Counter(before.born, before.value + times)
        self.changed.add(key)
        if before is None:
            self._index(key)

    def _index(self, key: Key) -> None:
        of = self.waiting if key.owner.kind == "waiting" else self.of
        of.setdefault(key.owner, set()).add(key)
