"""The metric families of workspaces, budgets and webhooks, and the table of all families in their order.

A family is one entry of a table here or in `account_families`.  Adding an entry publishes it: nothing else lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from exporter.counting.accounts import HISTOGRAM_BOUNDS, Histogram
from exporter.counting.ledger import Ledger
from exporter.counting.rooms import Rooms
from exporter.counting.usage import BudgetLine
from exporter.counting.webhooks import RECEIVED, REJECTED
from exporter.hms.webhooks import JOIN_FAILURE, LEAVE
from exporter.publish.account_families import ACCOUNT_FAMILIES
from exporter.publish.added import CLIENT_ERROR_FAMILIES, DELIVERY_FAMILIES
from exporter.publish.beside import LISTED
from exporter.publish.collected_families import COLLECTOR_UP
from exporter.publish.family import Family
from exporter.publish.writing import escape, histogram_lines
from exporter.times import SECOND

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
