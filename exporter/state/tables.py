"""The tables of the state, one class for each.  Its fields define the columns, the SQL, and how rows are read and written.

To change a table, change a field here and add a migration; `migrations` says how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, get_type_hints

from exporter.state.schema import Column, Index, Kind, Shape

R = TypeVar("R", bound=tuple[Any, ...])

_KINDS: dict[object, tuple[Kind, bool]] = {
    int: ("integer", False),
    int | None: ("integer", True),
    str: ("text", False),
    str | None: ("text", True),
    bytes: ("blob", False),
}


class Table(Generic[R]):
    """A table of rows of class `row`, whose fields are the columns.  The first `key` of them are its key."""

    def __init__(self, name: str, row: type[R], key: int, indexes: Sequence[Index] = (), *, wide: bool = False) -> None:
        columns = tuple(Column(field, *_KINDS[kind]) for field, kind in get_type_hints(row).items())
        self.row: Callable[[Iterable[Any]], R] = row._make  # type: ignore[attr-defined]  # R is a NamedTuple, which mypy cannot express as a bound
        """Makes a row from its columns, in order."""
        self.shape = Shape(name, columns, tuple(column.name for column in columns[:key]), tuple(indexes), wide)

    @property
    def name(self) -> str:
        """Its name in the database."""
        return self.shape.name


class WorkspaceRow(NamedTuple):
    """A workspace: the API's time at its last poll, and how far has been read; `lengths_from` is as in `Ledger`."""

    name: str
    now: int | None
    read_until: int | None
    lengths_from: int


class FollowedRow(NamedTuple):
    """An entry of the configuration (`kind` "entry") or a renamed room ("room"), as in `coverage`; lists are JSON."""

    workspace: str
    kind: str
    key: str
    since: int
    entered: int
    floor: int
    left: int | None
    behind: int | None
    whole: int | None
    parked: bytes
    tasks: bytes


class CatchUpRow(NamedTuple):
    """An unread part of the past; `unread` is JSON."""

    workspace: str
    number: int
    begin: int
    unread: bytes
    cursor: str


class RoomRow(NamedTuple):
    """The last answer about a room."""

    workspace: str
    id: str
    name: str
    template: str
    template_id: str
    region: str
    enabled: int
    exists_there: int
    fetched_at: int


class AccountRow(NamedTuple):
    """An account's settled sums of sessions, and the values held above the truth, or 0; `born` is as in `AccountState`.

    `counts` and `held` are lists in JSON, in the order of `SessionCounts`, those of a role in that of `PeerCounts`.
    """

    workspace: str
    kind: str
    id: str
    counts: bytes
    us: int
    held: bytes
    held_us: int
    last_active: int
    born: int


class RoleRow(NamedTuple):
    """The same for one role of an account, with the settled time of its latest day and month."""

    workspace: str
    kind: str
    id: str
    role: str
    counts: bytes
    us: int
    held: bytes
    held_us: int
    day: int
    day_us: int
    month: int
    month_us: int
    born: int


class DayRow(NamedTuple):
    """Settled participant time of one UTC day, for reports."""

    workspace: str
    day: int
    kind: str
    id: str
    room_id: str
    role: str
    us: int


class SessionLengthsRow(NamedTuple):
    """The lengths of a room's settled sessions that began in one UTC day: whole seconds, rounded up, in JSON."""

    workspace: str
    day: int
    room_id: str
    seconds: bytes


class RunningRow(NamedTuple):
    """An unsettled session.

    `kind` and `account` are NULL until its account is known, `observed` while it is read, `seen_ended` until its end has been
    read; `measured` says whether the distributions include it.  `read` (JSON) is as in `Tracked`.
    """

    workspace: str
    id: str
    room_id: str
    kind: str | None
    account: str | None
    started: int
    ended: int | None
    observed: int | None
    unknown: int
    memory: bytes
    seen_ended: int | None
    measured: int
    read: str | None


class SettledRow(NamedTuple):
    """An ended session that a listing may still show."""

    workspace: str
    id: str
    room_id: str
    started: int


class RolesSeenRow(NamedTuple):
    """The earlier roles of the peers of a session that ran when the series began, for a backfill."""

    workspace: str
    id: str
    past: bytes


class HistogramRow(NamedTuple):
    """A distribution."""

    workspace: str
    name: str
    role: str
    counts: bytes
    total: int
    born: int


class WebhookRow(NamedTuple):
    """A counted event, by a digest of its id, and until when to remember it (µs)."""

    workspace: str
    event: bytes
    until: int


class WebhookCountRow(NamedTuple):
    """A counter of webhooks, as in `counting.webhooks`; `born` is when it began (µs)."""

    workspace: str
    kind: str
    id: str
    name: str
    label: str
    born: int
    value: int


class CollectorRow(NamedTuple):
    """A collector, as in `counting.collected`: times of the API, and its coverage as JSON."""

    workspace: str
    collector: str
    now: int | None
    newest: int
    read_until: int | None
    followed: bytes
    catch_ups: bytes
    histograms: bytes


class CollectedRow(NamedTuple):
    """An unsettled item of a collector; `memory` is a `Kept` in MessagePack."""

    workspace: str
    collector: str
    id: str
    memory: bytes


class CollectedSettledRow(NamedTuple):
    """A settled item that a list may still show."""

    workspace: str
    collector: str
    id: str
    room_id: str
    created: int


class HoldingRow(NamedTuple):
    """A collector's counters of an account: a `Stock` in MessagePack."""

    workspace: str
    collector: str
    kind: str
    id: str
    memory: bytes


class MeterDayRow(NamedTuple):
    """Settled time of one meter in one UTC day, for reports and costs."""

    workspace: str
    day: int
    meter: str
    kind: str
    id: str
    room_id: str
    us: int


class CounterRow(NamedTuple):
    """A counter, as in `counting.sums`: its owner, its name, its labels as JSON, and when it began (µs)."""

    workspace: str
    kind: str
    id: str
    name: str
    labels: str
    born: int
    value: int


class OverRow(NamedTuple):
    """An ended session whose client errors are still unread."""

    workspace: str
    id: str
    room_id: str
    kind: str
    account: str
    started: int
    ended: int


class MarkRow(NamedTuple):
    """A time that a collector remembers (µs)."""

    workspace: str
    name: str
    at: int


WORKSPACE = Table("workspace", WorkspaceRow, 1)
FOLLOWED = Table("followed", FollowedRow, 3)
CATCH_UP = Table("catch_up", CatchUpRow, 2)
ROOM = Table("room", RoomRow, 2)
ACCOUNT = Table("account", AccountRow, 3, [Index("account_by_activity", ("workspace", "last_active"))])
ROLE = Table("role", RoleRow, 4)
DAY = Table("day", DayRow, 6)
SESSION_LENGTHS = Table("session_lengths", SessionLengthsRow, 3)
RUNNING = Table("running", RunningRow, 2, wide=True)
SETTLED = Table("settled", SettledRow, 2)
ROLES_SEEN = Table("roles_seen", RolesSeenRow, 2)
HISTOGRAM = Table("histogram", HistogramRow, 3)
WEBHOOK = Table("webhook", WebhookRow, 2, [Index("webhook_by_time", ("workspace", "until"))])
WEBHOOK_COUNT = Table("webhook_count", WebhookCountRow, 5)
COLLECTOR = Table("collector", CollectorRow, 2)
COLLECTED = Table("collected", CollectedRow, 3)
COLLECTED_SETTLED = Table("collected_settled", CollectedSettledRow, 3)
HOLDING = Table("holding", HoldingRow, 4)
METER_DAY = Table("meter_day", MeterDayRow, 6)
COUNTER = Table("counter", CounterRow, 5)
OVER = Table("over_session", OverRow, 2, [Index("over_session_by_end", ("workspace", "ended"))])
MARK = Table("mark", MarkRow, 2)

TABLES: tuple[Table[Any], ...] = (
    WORKSPACE,
    FOLLOWED,
    CATCH_UP,
    ROOM,
    ACCOUNT,
    ROLE,
    DAY,
    SESSION_LENGTHS,
    RUNNING,
    SETTLED,
    ROLES_SEEN,
    HISTOGRAM,
    WEBHOOK,
    WEBHOOK_COUNT,
    COLLECTOR,
    COLLECTED,
    COLLECTED_SETTLED,
    HOLDING,
    METER_DAY,
    COUNTER,
    OVER,
    MARK,
)
