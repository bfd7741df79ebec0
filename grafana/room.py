"""100ms / Room: the life of one room."""

from __future__ import annotations

from grafana.frame import DashboardPlan, RowPlan
from grafana.panels import FILLING, HOURS, LENGTH, PER_MINUTE, SECONDS, SHARE, grid, lines, number, steps_of
from grafana.promql import ROOM, WORKSPACE, grown, increase, minutes, nobody, now, once, per_minute, summed, zero

_LIMIT_HOURS = 12
_THIS_ROOM = ', room=~"$room"'
_START = once(f"hms_session_start_timestamp_seconds{{{ROOM}}}")
_AGE = f"(max(time() - {_START}) or {zero()})"

_NOW = RowPlan(
    "Right now: $room",
    [
        number("Sessions", "Calls running in the room at the last poll.", now("hms_sessions_active")),
        number("Peers", "Devices connected at the last poll.", now("hms_peers_active")),
        number("Users", "People connected at the last poll: distinct user ids.", now("hms_users_active")),
        number("Running for", "How long the longest of the running calls has been open; 0 while nothing runs.", _AGE, unit=LENGTH),
        number(
            "Of the 12 h limit",
            "100ms ends a session after 12 hours. At 100 % everybody is thrown out; a room may have a shorter limit set at 100ms.",
            f"{_AGE} / {_LIMIT_HOURS * 3600}",
            unit=SHARE,
            steps=(*FILLING[:2], ("red", 0.95)),
        ),
        number(
            "Participant minutes",
            "The stays of all peers added up, over the range shown: what 100ms bills.",
            f"{minutes(level='room', of=_THIS_ROOM)} or {zero()}",
        ),
    ],
)

_PEOPLE = RowPlan(
    "People",
    [
        lines(
            "Peers by role",
            "Devices connected at each poll, by the role they hold.",
            {"{{role}}": f"{summed(f'hms_peers_active{{{ROOM}}}', 'role')} or {nobody()}"},
            stacked=True,
        ),
        lines(
            "Peak between polls, and peers at the poll",
            "A poll sees who is there at that moment. The peak is worked out from times of joining and leaving: "
            "it also knows of those who came and went between two polls.",
            {"most since the poll before": now("hms_peers_active_peak"), "at the poll": now("hms_peers_active")},
        ),
        lines(
            "Joins per minute, by role",
            "Peers that come, by the role they first held.",
            {"{{role}}": per_minute("hms_peers_joined_total", ROOM, "role")},
            unit=PER_MINUTE,
        ),
        lines(
            "Leaves per minute, by role",
            "Peers that go, by the role they last held.",
            {"{{role}}": per_minute("hms_peers_left_total", ROOM, "role")},
            unit=PER_MINUTE,
        ),
    ],
)

_SESSIONS = RowPlan(
    "Sessions",
    [
        lines("Sessions running", "Calls running at each poll.", {"sessions": now("hms_sessions_active")}, width=8),
        lines(
            "How long the longest one has been open",
            "It climbs by an hour an hour and falls when the session ends. The lines: 11 h and the platform's limit of 12 h.",
            {"open for": f"{_AGE} / 3600"},
            unit=HOURS,
            steps=(("green", None), ("orange", _LIMIT_HOURS - 1), ("red", _LIMIT_HOURS)),
            width=8,
        ),
        steps_of(
            "Sessions started and ended",
            "Calls that began (up) and ended (down) in each step of the graph.",
            {"started": grown("hms_sessions_started_total"), "ended": grown("hms_sessions_ended_total")},
            below_zero="ended",
            colors={"started": "green", "ended": "orange"},
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
            f"{increase('hms_session_seconds_total')} / "
            f"clamp_min({increase('hms_sessions_ended_total')} + {summed(f'hms_sessions_active{{{ROOM}}}')}, 1) or {zero()}",
            unit=LENGTH,
        ),
        number(
            "Average stay",
            "Participant time of the range shown, divided by the number of stays; running ones count with what they have so far.",
            f"{increase('hms_peer_seconds_total')} / "
            f"clamp_min({increase('hms_peers_left_total')} + {summed(f'hms_peers_active{{{ROOM}}}')}, 1) or {zero()}",
            unit=LENGTH,
        ),
        grid(
            "Length of sessions in the whole workspace",
            "Sessions that ended, by their wall-clock length: the darker, the more. 100ms's rooms are too many for a distribution each.",
            {"{{le}}": summed(f"increase(hms_session_duration_seconds_bucket{{{WORKSPACE}}}[$__rate_interval])", "le")},
            unit=SECONDS,
            width=8,
        ),
        grid(
            "Length of stays in the whole workspace",
            "Stays of peers in sessions that ended, by their length: the darker, the more.",
            {"{{le}}": summed(f"increase(hms_peer_duration_seconds_bucket{{{WORKSPACE}}}[$__rate_interval])", "le")},
            unit=SECONDS,
            width=8,
        ),
    ],
)

PLAN = DashboardPlan(
    uid="hms-room",
    title="100ms / Room",
    description="The life of one room: who is in it, since when, how far from the platform's limit. Choose the room above.",
    since="now-6h",
    rows=(_NOW, _PEOPLE, _SESSIONS, _LENGTHS),
    rooms="one",
    recorded=True,
)
