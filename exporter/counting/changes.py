"""The ledger's changes since the last commit, for the store to make durable."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from exporter.counting.contribution import Account
from exporter.counting.stays import Past


class Settled(NamedTuple):
    """A settled session; its id is kept as long as an answer may show it again."""

    room_id: str
    started: int


class Over(NamedTuple):
    """A settled session, for data that can be read only after its end."""

    room_id: str
    account: Account
    started: int
    ended: int


class Changes:
    """Changes that must be stored before the ledger may be published; they accumulate until `Ledger.committed`."""

    def __init__(self) -> None:
        self.accounts: set[Account] = set()
        self.tracked: set[str] = set()
        self.untracked: set[str] = set()
        self.settled: set[str] = set()
        self.forgotten: set[str] = set()
        self.days: defaultdict[tuple[Account, str, int, str], int] = defaultdict(int)
        """Microseconds to add, by account, room id, UTC day and role."""
        self.lengths: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
        """The lengths of settled sessions (seconds, rounded up), by the UTC day of their start and room id."""
        self.roles_seen: dict[str, Past] = {}
        """The earlier roles of peers in settled sessions that ran when an entry's series became complete."""
        self.histograms: set[tuple[str, str]] = set()
        self.over: dict[str, Over] = {}
        """Settled sessions by their ids, if a collector needs them."""
