"""The metric families that are made of the ledger: names, types, HELP."""

from __future__ import annotations

from typing import NamedTuple


class Family(NamedTuple):
    """A metric family; `expires` tells that its values are of a moment, and must not outlive it for long."""

    name: str
    kind: str
    help: str
    expires: bool = False


ACCOUNT_FAMILIES = (
    Family("hms_sessions_active", "gauge", "Sessions running in the room at the last poll.", expires=True),
    Family(
        "hms_session_start_timestamp_seconds",
        "gauge",
        "Start of the room's longest-running session, as Unix time; absent while the room is idle.",
        expires=True,
    ),
    Family("hms_peers_active", "gauge", "Peers connected at the last poll.", expires=True),
    Family(
        "hms_peers_active_peak",
        "gauge",
        "Most peers connected at one moment since the poll before, worked out from their times of joining and leaving.",
        expires=True,
    ),
    Family("hms_users_active", "gauge", "Distinct user ids among the peers connected at the last poll.", expires=True),
    Family("hms_sessions_started_total", "counter", "Sessions started."),
    Family("hms_sessions_ended_total", "counter", "Sessions ended."),
    Family("hms_session_seconds_total", "counter", "Wall-clock time of sessions, running ones included up to the last poll."),
    Family("hms_peers_joined_total", "counter", "Peers joined, by the role they were first seen in."),
    Family("hms_peers_left_total", "counter", "Peers left, by the role they were last seen in."),
    Family(
        "hms_peer_seconds_total",
        "counter",
        "Participant time, which is what 100ms bills: the stays of all peers, connected ones included up to the last poll.",
    ),
    Family("hms_room_info", "gauge", "What 100ms says of the room; always 1."),
    Family(
        "hms_usage_peer_seconds",
        "gauge",
        "Participant time of this UTC day or month so far; it starts over with each. Rooms without series are under _other.",
    ),
)
WORKSPACE_FAMILIES = (
    Family("hms_session_duration_seconds", "histogram", "Wall-clock length of ended sessions."),
    Family("hms_session_peers", "histogram", "Peers in an ended session, over its whole length."),
    Family("hms_peer_duration_seconds", "histogram", "Length of the stays of peers in ended sessions."),
    Family("hms_rooms_configured", "gauge", "Rooms named by their id in the configuration."),
    Family("hms_rooms_tracked", "gauge", "Rooms and groups of rooms with series of their own."),
    Family("hms_rooms_missing", "gauge", "Configured rooms that 100ms does not know."),
    Family("hms_rooms_overflowed", "gauge", 'Rooms beyond limits.max_rooms, counted together under room="_other".'),
)
USAGE_FAMILIES = (
    Family("hms_usage_period_elapsed_ratio", "gauge", "How much of this UTC day or month is over: usage divided by it is the pace."),
    Family("hms_usage_cost", "gauge", "What this month's usage costs so far, beyond the free minutes, by the configured prices."),
)
BUDGET_FAMILIES = (
    Family("hms_budget_peer_seconds", "gauge", "The budget: participant time planned for the day or month."),
    Family("hms_budget_used_ratio", "gauge", "How much of the budget is used; 1 is all of it."),
    Family("hms_budget_elapsed_ratio", "gauge", "How much of the budget's day or month is over; 1 is its end."),
)
WEBHOOK_ROOM_FAMILIES = (
    Family("hms_peer_leaves_total", "counter", "Peers that left, by the reason that 100ms's webhooks give."),
    Family("hms_join_failures_total", "counter", "Peers that could not join, by the reason that 100ms's webhooks give."),
)
WEBHOOK_FAMILIES = (
    Family("hms_webhooks_received_total", "counter", "Webhooks received from 100ms, each event counted once."),
    Family("hms_webhooks_rejected_total", "counter", "Requests refused at the port for webhooks."),
)
UP_FAMILY = Family("hms_up", "gauge", "Whether the last poll read everything it wanted (1) or not (0).")
FAMILIES = (
    UP_FAMILY,
    *ACCOUNT_FAMILIES,
    *WEBHOOK_ROOM_FAMILIES,
    *USAGE_FAMILIES,
    *BUDGET_FAMILIES,
    *WORKSPACE_FAMILIES,
    *WEBHOOK_FAMILIES,
)


def header(family: Family, *, openmetrics: bool) -> bytes:
    """The HELP and TYPE lines of a family; OpenMetrics names a counter without its `_total`."""
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
