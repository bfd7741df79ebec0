"""The metric families made from the ledger, each with its name, type, HELP and lines.

A family is one entry of a table below.  Adding an entry publishes it: nothing else lists the families or their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from exporter.counting.accounts import HISTOGRAM_BOUNDS, AccountState, Gauges, Histogram, RoleTotals
from exporter.counting.contribution import OVERFLOW
from exporter.counting.ledger import Ledger
from exporter.counting.rooms import KnownRoom, Rooms
from exporter.counting.usage import BudgetLine
from exporter.counting.webhooks import RECEIVED, REJECTED
from exporter.hms.webhooks import JOIN_FAILURE, LEAVE
from exporter.publish.added import CLIENT_ERROR_FAMILIES, DELIVERY_FAMILIES
from exporter.publish.beside import LISTED
from exporter.publish.collected_families import COLLECTOR_UP
from exporter.publish.family import Family
from exporter.publish.writing import escape, histogram_lines, seconds, time_lines
from exporter.times import SECOND

# -- rooms and groups -------------------------------------------------------------------------------------------------


class AccountView(NamedTuple):
    """An account and its labels, which are rendered once for all lines, with braces and a space at the end."""

    state: AccountState
    known: KnownRoom | None
    labels: str
    roles: Sequence[tuple[str, RoleTotals, str]]
    """Each role with its totals and the labels of its series."""
    bots: frozenset[str]
    """The roles whose peers are not people: their time does not count as usage."""


@dataclass(frozen=True, kw_only=True)
class AccountFamily(Family):
    """A family with `lines` for every room or group, one for each role if `by_role`."""

    lines: Callable[[AccountView], str]
    by_role: bool = False

    def text(self, of: AccountView) -> bytes:
        """An account's lines."""
        return self.lines(of).encode()


@dataclass(frozen=True, kw_only=True)
class MovingFamily(Family):
    """A family of times that grow even if nobody joins or leaves.

    Each line is one of `starts`, which change only with the labels, followed by the time at the same index in `micros`.
    """

    starts: Callable[[AccountView], list[str]]
    micros: Callable[[AccountView], list[int]]
    by_role: bool = False

    def text(self, of: AccountView) -> bytes:
        """An account's lines."""
        return time_lines([start.encode() for start in self.starts(of)], self.micros(of))


def _momentary(name: str, text: str, value: Callable[[Gauges], object]) -> AccountFamily:
    """A gauge of the last poll, absent before the first one and if the value is `None`."""

    def lines(of: AccountView) -> str:
        found = None if of.state.gauges is None else value(of.state.gauges)
        return "" if found is None else f"{name}{of.labels}{found}\n"

    return AccountFamily(name, "gauge", text, expires=True, lines=lines)


def _counter(name: str, text: str, value: Callable[[AccountState], object]) -> AccountFamily:
    return AccountFamily(name, "counter", text, lines=lambda of: f"{name}{of.labels}{value(of.state)}\n")


def _role_counter(name: str, text: str, value: Callable[[RoleTotals], object]) -> AccountFamily:
    def lines(of: AccountView) -> str:
        return "".join([f"{name}{labels}{value(totals)}\n" for _, totals, labels in of.roles])

    return AccountFamily(name, "counter", text, lines=lines, by_role=True)


def _peers_active(of: AccountView) -> str:
    gauges = of.state.gauges
    if gauges is None:
        return ""
    return "".join([f"hms_peers_active{labels}{gauges.peers[role]}\n" for role, _, labels in of.roles if role in gauges.peers])


def _room_info(of: AccountView) -> str:
    known = of.known
    if known is None or not known.answered or not known.exists:
        return ""
    enabled = "true" if known.enabled else "false"
    return (
        f'hms_room_info{of.labels[:-2]},template="{escape(known.template)}",template_id="{escape(known.template_id)}",'
        f'region="{escape(known.region)}",enabled="{enabled}"}} 1\n'
    )


def _users_of_time(of: AccountView) -> list[tuple[str, RoleTotals]]:
    """Labels and totals of the roles whose time is usage; empty for `_other`, whose time is part of the workspace's own lines."""
    return [] if of.state.account == OVERFLOW else [(labels, totals) for role, totals, labels in of.roles if role not in of.bots]


def period_lines(name: str, labels: str, day: int, month: int) -> str:
    """The lines of a day's and a month's usage (µs); `labels` include braces and a space at the end."""
    of_day, of_month = _period_starts(name, labels)
    return f"{of_day}{day / SECOND!r}\n{of_month}{month / SECOND!r}\n"


def _period_starts(name: str, labels: str) -> tuple[str, str]:
    start = f'{name}{labels[:-2]},period="'
    return f'{start}day"}} ', f'{start}month"}} '


USAGE_FAMILY = MovingFamily(
    "hms_usage_peer_seconds",
    "gauge",
    "Participant time of this UTC day or month so far; it starts over with each. Rooms without series are under _other.",
    starts=lambda of: [start for labels, _ in _users_of_time(of) for start in _period_starts("hms_usage_peer_seconds", labels)],
    micros=lambda of: [micros for _, role in _users_of_time(of) for micros in (role.usage_day, role.usage_month)],
)
ACCOUNT_FAMILIES: tuple[AccountFamily | MovingFamily, ...] = (
    _momentary("hms_sessions_active", "Sessions running in the room at the last poll.", lambda gauges: gauges.sessions),
    _momentary(
        "hms_session_start_timestamp_seconds",
        "Start of the room's longest-running session, as Unix time; absent while the room is idle.",
        lambda gauges: None if gauges.oldest_start is None else seconds(gauges.oldest_start),
    ),
    AccountFamily("hms_peers_active", "gauge", "Peers connected at the last poll.", expires=True, lines=_peers_active, by_role=True),
    _momentary(
        "hms_peers_active_peak",
        "Most people connected at one moment since the previous poll, computed from join and leave times.",
        lambda gauges: gauges.peak,
    ),
    _momentary("hms_users_active", "Distinct user ids among the people connected at the last poll.", lambda gauges: gauges.users),
    _counter("hms_sessions_started_total", "Sessions started.", lambda state: state.totals.published_started),
    _counter("hms_sessions_ended_total", "Sessions ended.", lambda state: state.totals.published_ended),
    MovingFamily(
        "hms_session_seconds_total",
        "counter",
        "Wall-clock time of sessions, running ones included up to the last poll.",
        starts=lambda of: [f"hms_session_seconds_total{of.labels}"],
        micros=lambda of: [of.state.totals.published_seconds],
    ),
    _role_counter("hms_peers_joined_total", "Peers joined, by the role they were first seen in.", lambda role: role.published_joined),
    _role_counter("hms_peers_left_total", "Peers left, by the role they were last seen in.", lambda role: role.published_left),
    MovingFamily(
        "hms_peer_seconds_total",
        "counter",
        "Participant time, which is what 100ms bills: the stays of all peers, connected ones included up to the last poll.",
        starts=lambda of: [f"hms_peer_seconds_total{labels}" for _, _, labels in of.roles],
        micros=lambda of: [totals.published_seconds for _, totals, _ in of.roles],
        by_role=True,
    ),
    AccountFamily("hms_room_info", "gauge", "The room as 100ms describes it; always 1.", lines=_room_info),
    USAGE_FAMILY,
)


# -- workspaces -------------------------------------------------------------------------------------------------------


class Overview(NamedTuple):
    """A workspace's numbers of rooms: configured, tracked, missing, overflowed."""

    configured: int
    tracked: int
    missing: int
    overflowed: int

    @classmethod
    def of(cls, rooms: Rooms, tracked: int) -> Overview:
        """The numbers of these rooms; `tracked` of them have series."""
        return cls(configured=len(rooms.scope.ids), tracked=tracked, missing=rooms.missing, overflowed=len(rooms.overflowed))


class WorkspaceView(NamedTuple):
    """A workspace and its labels, without braces; `created` adds when its histograms began."""

    labels: str
    ledger: Ledger
    overview: Overview
    created: bool


@dataclass(frozen=True, kw_only=True)
class WorkspaceFamily(Family):
    """A family with `lines` for every workspace."""

    lines: Callable[[WorkspaceView], str]


def _histogram(name: str, text: str, kept_as: str, scale: int) -> WorkspaceFamily:
    """One histogram of the workspace, present from the start, at 0."""

    def lines(of: WorkspaceView) -> str:
        found = of.ledger.histograms.get((kept_as, ""), Histogram(HISTOGRAM_BOUNDS[kept_as]))
        return histogram_lines(name, of.labels, found, scale, created=of.created)

    return WorkspaceFamily(name, "histogram", text, lines=lines)


def _role_histogram(name: str, text: str, kept_as: str, scale: int) -> WorkspaceFamily:
    """One histogram for each role that has been seen."""

    def lines(of: WorkspaceView) -> str:
        found = sorted((role, histogram) for (kept, role), histogram in of.ledger.histograms.items() if kept == kept_as)
        return "".join(
            histogram_lines(name, f'{of.labels},role="{escape(role)}"', histogram, scale, created=of.created) for role, histogram in found
        )

    return WorkspaceFamily(name, "histogram", text, lines=lines)


def _overview(name: str, text: str, value: Callable[[Overview], int]) -> WorkspaceFamily:
    return WorkspaceFamily(name, "gauge", text, lines=lambda of: f"{name}{{{of.labels}}} {value(of.overview)}\n")


WORKSPACE_FAMILIES = (
    _histogram("hms_session_duration_seconds", "Wall-clock length of ended sessions.", "session_duration", SECOND),
    _histogram("hms_session_peers", "People in an ended session, over its whole length.", "session_peers", 1),
    _role_histogram("hms_peer_duration_seconds", "Length of the stays of peers in ended sessions.", "peer_duration", SECOND),
    _overview("hms_rooms_configured", "Rooms named by their id in the configuration.", lambda of: of.configured),
    _overview("hms_rooms_tracked", "Rooms and groups of rooms with series of their own.", lambda of: of.tracked),
    _overview("hms_rooms_missing", "Configured rooms that 100ms does not know.", lambda of: of.missing),
    _overview("hms_rooms_overflowed", 'Rooms beyond limits.max_rooms, counted together under room="_other".', lambda of: of.overflowed),
)
METER_FAMILY = Family(
    "hms_usage_seconds",
    "gauge",
    "Time of recordings and streams of this UTC day or month so far; it starts over with each. Rooms without series are under _other.",
)
ELAPSED_FAMILY = Family(
    "hms_usage_period_elapsed_ratio", "gauge", "How much of this UTC day or month is over: usage divided by it is the pace."
)
COST_FAMILY = Family("hms_usage_cost", "gauge", "What this month's usage costs so far, beyond the free minutes, by the configured prices.")
UP_FAMILY = Family("hms_up", "gauge", "Whether the last poll read everything it wanted (1) or not (0).")


# -- budgets and webhooks ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BudgetFamily(Family):
    """A family with one series for every budget, with this `value`."""

    value: Callable[[BudgetLine], float]


BUDGET_FAMILIES = (
    BudgetFamily(
        "hms_budget_seconds",
        "gauge",
        "The budget: time of its meter planned for the day or month.",
        value=lambda budget: budget.seconds,
    ),
    BudgetFamily("hms_budget_used_ratio", "gauge", "How much of the budget is used; 1 is all of it.", value=lambda budget: budget.used),
    BudgetFamily(
        "hms_budget_elapsed_ratio",
        "gauge",
        "How much of the budget's day or month is over; 1 is its end.",
        value=lambda budget: budget.elapsed,
    ),
)


@dataclass(frozen=True, kw_only=True)
class WebhookFamily(Family):
    """A family with one series for every counter of webhooks named `counted_as`; `label` is the name of its own label."""

    counted_as: str
    label: str


WEBHOOK_ROOM_FAMILIES = (
    WebhookFamily(
        "hms_peer_leaves_total",
        "counter",
        "Peers that left, by the reason that 100ms's webhooks give.",
        counted_as=LEAVE,
        label="reason",
    ),
    WebhookFamily(
        "hms_join_failures_total",
        "counter",
        "Peers that could not join, by the reason that 100ms's webhooks give.",
        counted_as=JOIN_FAILURE,
        label="reason",
    ),
)
WEBHOOK_FAMILIES = (
    WebhookFamily(
        "hms_webhooks_received_total",
        "counter",
        "Webhooks received from 100ms, each event counted once.",
        counted_as=RECEIVED,
        label="type",
    ),
    WebhookFamily(
        "hms_webhooks_rejected_total",
        "counter",
        "Requests refused at the port for webhooks.",
        counted_as=REJECTED,
        label="reason",
    ),
)
FAMILIES: tuple[Family, ...] = (
    UP_FAMILY,
    *ACCOUNT_FAMILIES,
    *WEBHOOK_ROOM_FAMILIES,
    COLLECTOR_UP,
    *(family for listed in LISTED for family in listed.families),
    *CLIENT_ERROR_FAMILIES,
    *DELIVERY_FAMILIES,
    METER_FAMILY,
    ELAPSED_FAMILY,
    COST_FAMILY,
    *BUDGET_FAMILIES,
    *WORKSPACE_FAMILIES,
    *WEBHOOK_FAMILIES,
)
"""All families, in the order of the page."""


def header(family: Family, *, openmetrics: bool) -> bytes:
    """The HELP and TYPE lines of a family; in OpenMetrics a counter's name has no `_total`."""
    name = family.name
    if openmetrics and family.kind == "counter":
        name = name.removesuffix("_total")
    text = family.help.replace("\\", "\\\\").replace('"', '\\"') if openmetrics else family.help.replace("\\", "\\\\")
    return f"# HELP {name} {text}\n# TYPE {name} {family.kind}\n".encode()


def sample_names(family: Family) -> tuple[str, ...]:
    """The names of a family's samples."""
    if family.kind == "histogram":
        return (f"{family.name}_bucket", f"{family.name}_count", f"{family.name}_sum")
    return (family.name,)
