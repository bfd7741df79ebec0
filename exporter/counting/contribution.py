"""What one session contributes to the counters: a function of its record, of the roles its peers were seen in, and of now.

All times are the API's, in integer microseconds.
"""

from __future__ import annotations

from typing import NamedTuple

from exporter.counting.stays import Line, Memory, decode_memory, encode_memory, lines_of, moved, seconds_at
from exporter.hms.records import Users
from exporter.hms.steps import Change, Known, Marks


class Account(NamedTuple):
    """The owner of a set of series: a room by its id, or a group by its name."""

    kind: str
    id: str


UNKNOWN_POLLS = 3
"""A session that is not found by this many polls in a row counts as vanished."""

OVERFLOW = Account("group", "_other")
"""The account of discovered rooms beyond `limits.max_rooms`."""


def room_account(room_id: str) -> Account:
    """The account of a room with series of its own."""
    return Account("room", room_id)


def group_account(name: str) -> Account:
    """The account of a group."""
    return Account("group", name)


class SessionCounts(NamedTuple):
    """The counters of sessions but for their time, each by the last word of its metric's name.

    They are stored in this order, so a new one comes last.  Those of peers are `PeerCounts`.
    """

    started: int = 0
    ended: int = 0


class Tracked:
    """A session that has been seen and is not settled: it runs, or it has ended and is due for a second look.

    `memory` is its encoded `Memory`, in the form in which it is stored.  `observed` is the time up to which it is credited: that of
    the last poll, unless it is `behind`, which means that the last poll did not read it.  `seen_ended` is the poll that first read
    its end, `measured` says whether the distributions include it, `looked` whether it was read again after its end.  `read` is for
    a session that had ended when it was first seen, in a room that could not be decided about: the entries that had already read
    its start.  `before` is the time up to which it had been counted when it was last read; everything new in it is later.
    `worked_out` is the moment of the last sums of its account that include all of it, if it is linear from then on.  `marks` are
    those of its last record, if it runs.
    """

    __slots__ = (
        "_before",
        "account",
        "before",
        "behind",
        "connected",
        "digest",
        "ended",
        "first_joined",
        "id",
        "linear_from",
        "lines",
        "looked",
        "marks",
        "measured",
        "memory",
        "observed",
        "read",
        "roles_changed",
        "room_id",
        "seen_ended",
        "started",
        "tried",
        "unknown",
        "users",
        "worked_out",
    )

    def __init__(
        self, session_id: str, room_id: str, started: int, ended: int | None, observed: int, memory: Memory, unknown: int = 0
    ) -> None:
        self.id = session_id
        self.room_id = room_id
        self.account: Account | None = None
        self.behind = False
        self.started = started
        self.observed = observed
        self.before = started
        self.unknown = unknown
        self.digest: int | None = None
        self.users: Users = {}
        self.seen_ended: int | None = None
        self.measured = False
        self.looked = False
        self.read: frozenset[str] | None = None
        self.tried = 0
        """When a vanished session was last requested."""
        self.lines: dict[str, Line] = {}
        self.first_joined = self.linear_from = 0
        self.update(memory, ended)

    @property
    def counts(self) -> SessionCounts:
        """What it adds to the counters of sessions."""
        return SessionCounts(started=1, ended=int(self.ended is not None))

    @property
    def vanished(self) -> bool:
        """Whether the API no longer knows it: it counts as ended when it was last seen, and may come back."""
        return self.ended is not None and self.unknown >= UNKNOWN_POLLS

    def update(self, memory: Memory, ended: int | None, change: Change | None = None) -> None:
        """Takes over a new record; `change` says how it differs from the last one, if that is known and no role has changed."""
        sums = None if change is None else moved((self.lines, self.first_joined, self.linear_from), change, memory.stays)
        self.ended = ended
        self.worked_out: int | None = None
        self.marks: Marks | None = None
        self.memory = encode_memory(memory)
        self.roles_changed = bool(memory.past)
        """Whether a peer has had an earlier role."""
        self.lines, self.first_joined, self.linear_from = sums or lines_of(memory, ended)
        self._before: dict[int, dict[str, int]] = {}
        self.connected = 0 if ended is not None else sum(line.rate for line in self.lines.values())

    def recall(self) -> Memory:
        """The decoded memory."""
        return decode_memory(self.memory)

    def known(self) -> Known | None:
        """What the next record can be compared with."""
        return None if self.marks is None else Known(self.marks, self.users, lambda: self.recall().stays)

    def peer_seconds(self, now: int) -> dict[str, int]:
        """Participant time by role up to `now`, in microseconds."""
        if now >= self.linear_from:
            return {role: line.seconds + line.rate * now for role, line in self.lines.items()}
        return seconds_at(self.recall(), self.ended, now)

    def peer_seconds_before(self, moment: int) -> dict[str, int]:
        """Participant time by role up to a past moment, such as the beginning of a day, in microseconds."""
        if self.first_joined >= moment:
            return {}
        if moment not in self._before:
            self._before[moment] = seconds_at(self.recall(), self.ended, moment)
        return self._before[moment]

    def people(self, bots: frozenset[str]) -> int:
        """How many of the connected peers are people: those not in the roles `bots`."""
        count = self.connected
        for role in bots:
            line = self.lines.get(role)
            if line is not None:
                count -= line.rate
        return count

    def of_these(self, roles: frozenset[str]) -> frozenset[str]:
        """The subset of the roles that a peer of this session has or had."""
        return roles.intersection(self.lines)

    def session_seconds(self, now: int) -> int:
        """Wall-clock time up to `now`, in microseconds."""
        return max(0, (now if self.ended is None else self.ended) - self.started)
