"""What webhooks alone can tell, counted once for each event: how many came, why peers left, why they could not join.

An event is counted in two steps.  First it is noted under its room's id, with the id of the event, so that it is never counted
again; that needs no knowledge of the room.  Then, when it is known who owns the room's series, it moves to that owner, for good.
Pure; times are the API's, in integer microseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from exporter.counting.contribution import Account
from exporter.hms.webhooks import OTHER, Event
from exporter.times import HOUR

REMEMBERED = 48 * HOUR
"""How long the ids of events are kept: what is sent again within this time is known."""
_MOST_TYPES = 100
"""Of one workspace: types that come later share the label `other`."""

RECEIVED, REJECTED = "received", "rejected"
WORKSPACE = Account("workspace", "")
"""The owner of the counters that belong to no room."""


def waiting(room_id: str) -> Account:
    """The owner of what has not been given to an account yet."""
    return Account("waiting", room_id)


class Key(NamedTuple):
    """A counter: its owner, its name, and the value of its own label (a type or a reason)."""

    owner: Account
    name: str
    label: str


class Counter(NamedTuple):
    """How much was counted, and when that began."""

    born: int
    value: int


class Heard:
    """One workspace's counters of webhooks.  `changed` tells the store which to write, `remembered` which events."""

    def __init__(self) -> None:
        self.counters: dict[Key, Counter] = {}
        self.waiting: dict[Account, set[Key]] = {}
        """Counters that belong to a room whose account is not known yet, by owner."""
        self.of: dict[Account, set[Key]] = {}
        """Counters of accounts."""
        self.changed: set[Key] = set()
        self.remembered: dict[bytes, int] = {}
        """Digests of the ids of new events, and until when (µs) they are to be kept."""

    def committed(self) -> None:
        """The changes are durable."""
        self.changed, self.remembered = set(), {}

    def restore(self, key: Key, counter: Counter) -> None:
        """A counter comes back from the store."""
        self.counters[key] = counter
        self._index(key)

    def take(self, events: Iterable[Event], known: Collection[bytes], now: int) -> None:
        """Counts events at the time they came; `known` are digests of those that were counted before."""
        for event in events:
            if event.digest in known or event.digest in self.remembered:
                continue
            if event.replay and event.at is not None and event.at < now - REMEMBERED:
                continue  # whether it was counted is not known any more
            happened = now if event.at is None else event.at
            self.remembered[event.digest] = max(now, happened) + REMEMBERED
            self._add(Key(WORKSPACE, RECEIVED, self._type(event.type)), 1, min(now, happened))
            if event.counts is not None and event.room_id:
                self._add(Key(waiting(event.room_id), *event.counts), 1, min(now, happened))

    def reject(self, reason: str, times: int, now: int) -> None:
        """Requests that were refused."""
        self._add(Key(WORKSPACE, REJECTED, reason), times, now)

    def assign(self, owner: Account, account: Account | None) -> None:
        """What waits under this owner belongs to an account; `None`: its room is not followed, and it is forgotten."""
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
