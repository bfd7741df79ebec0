"""100ms / Overview: what is going on, against last week, and whether to believe it."""

from __future__ import annotations

from grafana.frame import DashboardPlan, RowPlan
from grafana.panels import DATA_AGE, ROOM, WORKSPACE, Column, Query, grid, lines, number, rooms_table, states, words

_BUSIEST = f"topk(25, sum by (workspace, room) (increase(hms_peer_seconds_total{{{ROOM}}}[$__range])))"


def _of_busiest(expr: str) -> str:
    return f"({expr}) and on (workspace, room) {_BUSIEST}"


_NOW = RowPlan(
    "Right now, and at this time last week",
    [
        number(
            "Sessions",
            "Calls running at the last poll. Last week's number appears after a week of collecting.",
            Query(f"sum(hms_sessions_active{{{ROOM}}})", "now", "now"),
            Query(f"sum(hms_sessions_active{{{ROOM}}} offset 1w)", "last week", "now"),
            names=True,
        ),
        number(
            "Peers",
            "People connected at the last poll, one for each device. Last week's number appears after a week of collecting.",
            Query(f"sum(hms_peers_active{{{ROOM}}})", "now", "now"),
            Query(f"sum(hms_peers_active{{{ROOM}}} offset 1w)", "last week", "now"),
            names=True,
        ),
        number(
            "Users",
            "Distinct user ids connected at the last poll, counted room by room: somebody with two devices in a room is one user there.",
            Query(f"sum(hms_users_active{{{ROOM}}})", "now", "now"),
            Query(f"sum(hms_users_active{{{ROOM}}} offset 1w)", "last week", "now"),
            names=True,
        ),
        number(
            "Most peers at once",
            "The highest number of peers in all rooms together at any poll of the range shown.",
            Query(f"max_over_time(sum(hms_peers_active{{{ROOM}}})[$__range:1m]) or sum(hms_peers_active{{{ROOM}}})", "peak", "now"),
            width=3,
        ),
        number(
            "Busiest room",
            "The room with the most peers now.",
            Query(f"topk(1, sum by (room) (hms_peers_active{{{ROOM}}}))", "{{room}}", "now"),
            width=4,
            names=True,
        ),
        number(
            "Alerts",
            "Alerts about 100ms and the exporter that are firing now. Prometheus's page of alerts shows which; each links to what to do.",
            Query(f'count(ALERTS{{{WORKSPACE}, alertname=~"Hms.+", alertstate="firing"}}) or vector(0)', "firing", "now"),
            width=2,
            steps=(("green", None), ("orange", 1)),
        ),
        number(
            "Data is this old",
            "Time since the last poll that read everything, of the workspace where that is longest. Normal is up to one poll interval.",
            Query(f"max({DATA_AGE})", "age", "now"),
            unit="s",
            width=3,
            decimals=0,
            steps=(("green", None), ("orange", 120), ("red", 600)),
        ),
    ],
)

_TIME = RowPlan(
    "Over time",
    [
        lines(
            "Peers by workspace",
            "Peers connected at each poll; dashed, all of them together a week before.",
            Query(f"sum by (workspace) (hms_peers_active{{{ROOM}}})", "{{workspace}}"),
            Query(f"sum(hms_peers_active{{{ROOM}}} offset 1w)", "all, last week"),
            dashed="all, last week",
            stacked=True,
        ),
        lines(
            "Sessions by workspace",
            "Calls running at each poll; dashed, all of them together a week before.",
            Query(f"sum by (workspace) (hms_sessions_active{{{ROOM}}})", "{{workspace}}"),
            Query(f"sum(hms_sessions_active{{{ROOM}}} offset 1w)", "all, last week"),
            dashed="all, last week",
            stacked=True,
        ),
        lines(
            "Peers by role",
            "Peers connected at each poll, by the role they hold.",
            Query(f"sum by (role) (hms_peers_active{{{ROOM}}})", "{{role}}"),
            stacked=True,
        ),
        lines(
            "Joins and leaves per minute",
            "People coming (up) and going (down). A high bar downwards without one of the sessions ending is a network that drops people. "
            "A room that Prometheus has not seen before brings its first joins uncounted here.",
            Query(f"sum(rate(hms_peers_joined_total{{{ROOM}}}[$__rate_interval])) * 60", "joins"),
            Query(f"sum(rate(hms_peers_left_total{{{ROOM}}}[$__rate_interval])) * 60", "leaves"),
            unit="cpm",
            below_zero="leaves",
        ),
    ],
)

_ROOMS = RowPlan(
    "Rooms",
    [
        rooms_table(
            "Busiest rooms",
            "The 25 rooms with the most participant minutes in the range shown. A room's name opens its own dashboard.",
            [
                Column("Participant minutes", f"{_BUSIEST} / 60", decimals=0),
                Column("Peers now", _of_busiest(f"sum by (workspace, room) (hms_peers_active{{{ROOM}}})")),
                Column("Most at once", _of_busiest(f"max by (workspace, room) (max_over_time(hms_peers_active_peak{{{ROOM}}}[$__range]))")),
                Column("Sessions now", _of_busiest(f"sum by (workspace, room) (hms_sessions_active{{{ROOM}}})")),
                Column(
                    "Running for",
                    _of_busiest(f"time() - min by (workspace, room) (hms_session_start_timestamp_seconds{{{ROOM}}})"),
                    unit="dtdurations",
                    decimals=0,
                ),
            ],
            sort_by="Participant minutes",
            width=14,
            height=12,
        ),
        grid(
            "Sessions started, hour by hour",
            "When calls begin: a column for each hour, a row for each of the 20 rooms with the most sessions in the range shown.",
            Query(
                f"round(sum by (room) (increase(hms_sessions_started_total{{{ROOM}}}[1h]))) "
                f"and on (room) topk(20, sum by (room) (increase(hms_sessions_started_total{{{ROOM}}}[$__range] @ end())))",
                "{{room}}",
            ),
            unit="string",
            cell_unit="short",
            width=10,
            height=12,
            min_step="1h",
        ),
    ],
)

_TRUST = RowPlan(
    "Can this be trusted?",
    [
        states(
            "Last poll read everything",
            "Green: the poll read all it wanted. Red: something was missing, and what is shown may be old; it catches up by itself.",
            Query(f"min by (workspace) (hms_up{{{WORKSPACE}}})", "{{workspace}}"),
            mappings=words((1, "complete", "green"), (0, "incomplete", "red")),
            width=24,
        ),
    ],
)

PLAN = DashboardPlan(
    uid="hms-overview",
    title="100ms / Overview",
    description="Sessions, peers and users in the rooms of 100ms: now, over time, room by room.",
    since="now-24h",
    refresh="30s",
    rows=(_NOW, _TIME, _ROOMS, _TRUST),
)
