"""100ms / Room: one room's life, or that of a few together."""

from __future__ import annotations

from grafana.frame import DashboardPlan, RowPlan
from grafana.panels import ROOM, WORKSPACE, Query, Step, dial, grid, lines, number

_LIMIT_SECONDS = 43200
_AGE = f"time() - min by (workspace, room) (hms_session_start_timestamp_seconds{{{ROOM}}})"
_AGE_STEPS: tuple[Step, ...] = (("green", None), ("orange", 0.8), ("red", 0.95))

_NOW = RowPlan(
    "Right now: $room",
    [
        number("Sessions", "Calls running in the room at the last poll.", Query(f"sum(hms_sessions_active{{{ROOM}}})", "sessions", "now")),
        number(
            "Peers", "People connected at the last poll, one for each device.", Query(f"sum(hms_peers_active{{{ROOM}}})", "peers", "now")
        ),
        number(
            "Users",
            "Distinct user ids connected at the last poll.",
            Query(f"sum(hms_users_active{{{ROOM}}})", "users", "now"),
        ),
        number(
            "Running for",
            "How long the longest of the running calls has been open; 0 while nothing runs.",
            Query(f"max({_AGE}) or vector(0)", "running for", "now"),
            unit="dtdurations",
            decimals=0,
        ),
        dial(
            "Of the 12 h limit",
            "100ms ends a session after 12 hours. At 100 % everybody is thrown out; a room may have a shorter limit set at 100ms.",
            Query(f"(max({_AGE}) or vector(0)) / {_LIMIT_SECONDS}", "used", "now"),
            steps=_AGE_STEPS,
        ),
        number(
            "Participant minutes",
            "The stays of all people added up, over the range shown: what 100ms bills.",
            Query(f"sum(increase(hms_peer_seconds_total{{{ROOM}}}[$__range])) / 60", "minutes", "now"),
            decimals=0,
        ),
    ],
)

_PEOPLE = RowPlan(
    "People",
    [
        lines(
            "Peers by role",
            "Peers connected at each poll, by the role they hold.",
            Query(f"sum by (role) (hms_peers_active{{{ROOM}}})", "{{role}}"),
            stacked=True,
        ),
        lines(
            "Peak between polls, and peers at the poll",
            "A poll sees who is there at that moment. The peak is worked out from times of joining and leaving: "
            "it also knows of those who came and went between two polls.",
            Query(f"sum(hms_peers_active_peak{{{ROOM}}})", "most since the poll before"),
            Query(f"sum(hms_peers_active{{{ROOM}}})", "at the poll"),
        ),
        lines(
            "Joins per minute, by role",
            "People coming, by the role they first held.",
            Query(f"sum by (role) (rate(hms_peers_joined_total{{{ROOM}}}[$__rate_interval])) * 60", "{{role}}"),
            unit="cpm",
        ),
        lines(
            "Leaves per minute, by role",
            "People going, by the role they last held.",
            Query(f"sum by (role) (rate(hms_peers_left_total{{{ROOM}}}[$__rate_interval])) * 60", "{{role}}"),
            unit="cpm",
        ),
    ],
)

_SESSIONS = RowPlan(
    "Sessions",
    [
        lines(
            "Sessions running",
            "Calls running at each poll.",
            Query(f"sum by (workspace, room) (hms_sessions_active{{{ROOM}}})", "{{room}}"),
            width=8,
        ),
        lines(
            "How long the longest one has been open",
            "It climbs by an hour an hour and falls when the session ends. The lines: 11 h and the platform's limit of 12 h.",
            Query(f"{_AGE} or sum by (workspace, room) (hms_sessions_active{{{ROOM}}} * 0)", "{{room}}"),
            unit="dtdurations",
            steps=(("green", None), ("orange", _LIMIT_SECONDS - 3600), ("red", _LIMIT_SECONDS)),
            width=8,
        ),
        lines(
            "Sessions started and ended",
            "Calls that began (up) and ended (down) in each step of the graph.",
            Query(f"sum(increase(hms_sessions_started_total{{{ROOM}}}[$__rate_interval]))", "started"),
            Query(f"sum(increase(hms_sessions_ended_total{{{ROOM}}}[$__rate_interval]))", "ended"),
            below_zero="ended",
            width=8,
        ),
    ],
)

_LENGTHS = RowPlan(
    "Lengths",
    [
        number(
            "Average session",
            "Wall-clock time of the sessions of the range shown, divided by their number; running ones count with what they have so far.",
            Query(
                f"sum(increase(hms_session_seconds_total{{{ROOM}}}[$__range])) / "
                f"clamp_min(sum(increase(hms_sessions_ended_total{{{ROOM}}}[$__range])) + sum(hms_sessions_active{{{ROOM}}}), 1)",
                "session",
                "now",
            ),
            unit="dtdurations",
            decimals=0,
        ),
        number(
            "Average stay",
            "Participant time of the range shown, divided by the number of stays; running ones count with what they have so far.",
            Query(
                f"sum(increase(hms_peer_seconds_total{{{ROOM}}}[$__range])) / "
                f"clamp_min(sum(increase(hms_peers_left_total{{{ROOM}}}[$__range])) + sum(hms_peers_active{{{ROOM}}}), 1)",
                "stay",
                "now",
            ),
            unit="dtdurations",
            decimals=0,
        ),
        grid(
            "Length of sessions in the whole workspace",
            "Sessions that ended, by their wall-clock length: the darker, the more. 100ms's rooms are too many for a distribution each.",
            Query(f"sum by (le) (increase(hms_session_duration_seconds_bucket{{{WORKSPACE}}}[$__rate_interval]))", "{{le}}", "buckets"),
            unit="s",
            cell_unit="short",
            width=8,
        ),
        grid(
            "Length of stays in the whole workspace",
            "Stays of people in sessions that ended, by their length: the darker, the more.",
            Query(f"sum by (le) (increase(hms_peer_duration_seconds_bucket{{{WORKSPACE}}}[$__rate_interval]))", "{{le}}", "buckets"),
            unit="s",
            cell_unit="short",
            width=8,
        ),
    ],
)

PLAN = DashboardPlan(
    uid="hms-room",
    title="100ms / Room",
    description="One room's life: who is in it, since when, how far from the platform's limit. Choose it above; several are added up.",
    since="now-6h",
    refresh="30s",
    rows=(_NOW, _PEOPLE, _SESSIONS, _LENGTHS),
)
