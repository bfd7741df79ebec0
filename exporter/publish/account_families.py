"""The metric families of rooms and groups of rooms: names, types, help texts, and their lines by account."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from exporter.counting.accounts import AccountState, Gauges, RoleTotals
from exporter.counting.contribution import OVERFLOW, SessionCounts
from exporter.counting.rooms import KnownRoom
from exporter.counting.stays import PeerCounts
from exporter.publish.family import Family
from exporter.publish.writing import escape, seconds, time_lines
from exporter.times import SECOND


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


def _momentary(name: str, text: str, value: Callable[[Gauges], object], *, live_only: bool = False) -> AccountFamily:
    """A gauge of the last poll, absent before the first one and if the value is `None`."""

    def lines(of: AccountView) -> str:
        found = None if of.state.gauges is None else value(of.state.gauges)
        return "" if found is None else f"{name}{of.labels}{found}\n"

    return AccountFamily(name, "gauge", text, expires=True, live_only=live_only, lines=lines)


def _counter(name: str, text: str, value: Callable[[SessionCounts], int], *, live_only: bool = False) -> AccountFamily:
    return AccountFamily(
        name, "counter", text, live_only=live_only, lines=lambda of: f"{name}{of.labels}{value(of.state.totals.published)}\n"
    )


def _role_counter(name: str, text: str, value: Callable[[PeerCounts], int], *, live_only: bool = False) -> AccountFamily:
    def lines(of: AccountView) -> str:
        return "".join([f"{name}{labels}{value(totals.published)}\n" for _, totals, labels in of.roles])

    return AccountFamily(name, "counter", text, live_only=live_only, lines=lines, by_role=True)


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
    live_only=True,
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
    _counter("hms_sessions_started_total", "Sessions started.", lambda counts: counts.started),
    _counter("hms_sessions_ended_total", "Sessions ended.", lambda counts: counts.ended),
    MovingFamily(
        "hms_session_seconds_total",
        "counter",
        "Wall-clock time of sessions, running ones included up to the last poll.",
        starts=lambda of: [f"hms_session_seconds_total{of.labels}"],
        micros=lambda of: [of.state.totals.published_seconds],
    ),
    _role_counter("hms_peers_joined_total", "Peers joined, by the role they were first seen in.", lambda counts: counts.joined),
    _role_counter("hms_peers_left_total", "Peers left, by the role they were last seen in.", lambda counts: counts.left),
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
