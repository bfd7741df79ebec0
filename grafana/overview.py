"""100ms / Overview: the present activity compared with last week, problems, and whether the numbers are reliable."""

from __future__ import annotations

from grafana.frame import DashboardPlan, RowPlan
from grafana.links import EXPORTER, OVERVIEW_OF_CURVE, ROOM_OF_ROW, runbooks
from grafana.panels import LENGTH, PER_MINUTE, Column, Label, grid, lines, number, rows, states
from grafana.promql import (
    ALERT_LABELS,
    DATA_AGE,
    HMS_ALERTS,
    RAW,
    RECORDED,
    WORKSPACE,
    all_per_minute,
    minutes,
    now,
    once,
    over_time,
    summed,
    zero,
)

_WEEK = "Last week's number appears after a week of collecting."

_FIRING = f'ALERTS{{{HMS_ALERTS}, alertstate="firing"}}'
_FIRING_FOR = f"time() - ALERTS_FOR_STATE{{{HMS_ALERTS}}} and ignoring (alertstate) {_FIRING} or 0 * {_FIRING}"
# A line of its own when nothing fires. Without the rules nothing fires either, which must not look like peace.
_NO_RULES = 'label_replace(absent(hms:threshold:stale_seconds), "alertname", "The alert rules are not loaded", "", "")'
_NOTHING = 'label_replace(vector(0), "alertname", "No alert is firing", "", "")'
_EACH_ALERT = f"max by ({ALERT_LABELS}) ({_FIRING_FOR}) or (0 * {_NO_RULES} or on () {_NOTHING}) unless on () {_FIRING}"

_RUNBOOK, _ANCHORS = runbooks()

# The series of rooms with a running session, without those of thousands of idle rooms.
_ROOM = "workspace, room"
_RUNNING = f"on ({_ROOM}) ({summed(f'hms_sessions_active{{{WORKSPACE}}}', _ROOM)} > 0)"
_START = once(f"hms_session_start_timestamp_seconds{{{WORKSPACE}}}")

_RAW_PEERS = f"({summed(f'hms_peers_active{{{WORKSPACE}, {RAW}}}')})"
_RECORDED_PEERS = f"({summed(f'workspace:hms_peers_active:sum{{{RECORDED}}}')})"
_MOST = {
    "steps": f"max_over_time({_RAW_PEERS}[$__range:$__interval])",
    "quarters": f"max_over_time({_RAW_PEERS}[$__range:15m])",
    "minutes": f"max_over_time({_RECORDED_PEERS}[$__range:1m])",
}
# Minutes of the series of all rooms would be too many samples.
_MOST_PEERS = "max (" + " or ".join(f'label_replace({most}, "at", "{at}", "", "")' for at, most in _MOST.items()) + ")"
_BUSIEST = f"topk(20, {minutes(_ROOM, level='room')} > 0)"
_BUSIEST_AT_END = minutes(_ROOM, level="room", at=" @ end()")

_NOW = RowPlan(
    "Right now, and at this time last week",
    [
        number(
            "Sessions",
            f"Calls running at the last poll. {_WEEK}",
            {"now": now("hms_sessions_active", WORKSPACE), "last week": now("hms_sessions_active", WORKSPACE, ago="1w")},
            width=5,
        ),
        number(
            "Peers",
            f"Devices connected at the last poll. {_WEEK}",
            {"now": now("hms_peers_active", WORKSPACE), "last week": now("hms_peers_active", WORKSPACE, ago="1w")},
            width=5,
        ),
        number(
            "Users",
            f"People connected at the last poll: user ids, counted in each room. {_WEEK}",
            {"now": now("hms_users_active", WORKSPACE), "last week": now("hms_users_active", WORKSPACE, ago="1w")},
            width=5,
        ),
        number(
            "Most peers at once",
            "The most peers in all rooms together at any minute of the range shown. Where the recording rules are younger than the range, "
            "only each quarter of an hour is looked at, or each step of the graphs if that is shorter.",
            f"{_MOST_PEERS} or {zero()}",
            width=5,
        ),
        number(
            "Data is this old",
            "Time since the last complete poll, of the workspace where that is longest. Normal is up to one poll interval.",
            f"max({DATA_AGE})",
            unit=LENGTH,
            steps=(("green", None), ("orange", 120), ("red", 600)),
            link=EXPORTER,
        ),
    ],
)

_ALERTS = RowPlan(
    "What is wrong",
    [
        rows(
            "Alerts that are firing",
            "Every alert about 100ms and the exporter that is firing now, of any workspace or of none. The runbook says what to do.",
            [
                Label("alertname", "Alert", wide=True),
                Label("severity", "Severity", width=100),
                Label("workspace", "Workspace", width=160),
                Label("room", "Room", ROOM_OF_ROW, wide=True),
                Label("budget", "Budget", width=160),
                Label("runbook", "Runbook", _RUNBOOK, _ANCHORS, wide=True),
            ],
            [
                Column("For", f'label_join({_EACH_ALERT}, "runbook", "", "alertname")', LENGTH, width=100),
            ],
            width=24,
            height=6,
        ),
    ],
)

_TIME = RowPlan(
    "Over time",
    [
        lines(
            "Peers by workspace",
            "Devices connected at each poll; dashed, all of them together a week before.",
            {
                "{{workspace}}": over_time("hms_peers_active", "workspace", "workspace"),
                "all, last week": over_time("hms_peers_active", "workspace", ago="1w"),
            },
            compared="all, last week",
            stacked=True,
            link=OVERVIEW_OF_CURVE,
        ),
        lines(
            "Sessions by workspace",
            "Calls running at each poll; dashed, all of them together a week before.",
            {
                "{{workspace}}": over_time("hms_sessions_active", "workspace", "workspace"),
                "all, last week": over_time("hms_sessions_active", "workspace", ago="1w"),
            },
            compared="all, last week",
            stacked=True,
            link=OVERVIEW_OF_CURVE,
        ),
        lines(
            "Peers by role",
            "Devices connected at each poll, by the role they hold.",
            {"{{role}}": over_time("hms_peers_active", "workspace_role", "role")},
            stacked=True,
        ),
        lines(
            "Joins and leaves per minute",
            "Peers that come (up) and go (down). Many leaves at once while sessions go on are a network that drops people. "
            "The first joins of a room that Prometheus has not seen before are not in here.",
            {"joins": all_per_minute("hms_peers_joined_total"), "leaves": all_per_minute("hms_peers_left_total")},
            unit=PER_MINUTE,
            below_zero="leaves",
            colors={"joins": "green", "leaves": "orange"},
        ),
    ],
)

_ROOMS = RowPlan(
    "Rooms",
    [
        rows(
            "Rooms in use",
            "Every room with a running session. A room's name opens its own dashboard.",
            [Label("workspace", "Workspace"), Label("room", "Room", ROOM_OF_ROW, wide=True)],
            [
                Column("Peers", f"{summed(f'hms_peers_active{{{WORKSPACE}}}', _ROOM)} and {_RUNNING}", width=120),
                Column("Sessions", f"{summed(f'hms_sessions_active{{{WORKSPACE}}}', _ROOM)} > 0", width=120),
                Column("Running for", f"time() - min by ({_ROOM}) ({_START}) and {_RUNNING}", LENGTH, width=140),
            ],
            width=24,
            height=10,
        ),
        rows(
            "Busiest rooms",
            "The 20 rooms with the most participant minutes in the range shown. A room's name opens its own dashboard.",
            [Label("workspace", "Workspace"), Label("room", "Room", ROOM_OF_ROW, wide=True)],
            [Column("Minutes", _BUSIEST, bar=True)],
            width=24,
            height=12,
        ),
        grid(
            "When the busiest rooms are used",
            "Participant minutes hour by hour in the 20 busiest rooms of the range shown: the darker, the more.",
            {"{{room}}": f"{minutes(_ROOM, '1h', 'room')} and on ({_ROOM}) topk(20, {_BUSIEST_AT_END})"},
            unit="string",
            width=24,
            height=12,
            every="1h",
        ),
    ],
)

_TRUST = RowPlan(
    "Can this be trusted?",
    [
        states(
            "Last poll read everything",
            "Green: the poll read all it wanted. Red: something was missing, and what is shown may be old; it catches up by itself.",
            {"{{workspace}}": f"max by (workspace) ({once(f'hms_up{{{WORKSPACE}}}')})"},
            meanings=((1, "complete", "green"), (0, "incomplete", "red")),
            width=24,
        ),
    ],
)

PLAN = DashboardPlan(
    uid="hms-overview",
    title="100ms / Overview",
    description="Sessions, peers and users of whole workspaces: now, over time and room by room, and the alerts that are firing.",
    since="now-24h",
    rows=(_NOW, _ALERTS, _TIME, _ROOMS, _TRUST),
    rooms="hidden",
    recorded=True,
)
