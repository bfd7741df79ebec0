"""What is published of a workspace's ledger: every name, HELP and label, and an account's lines in them.

An account's lines are finished bytes, made anew only when something of it has changed: most of a large exposition stays
the same from one poll to the next.  The lines are those of the text format and of OpenMetrics alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from exporter.counting.accounts import HISTOGRAM_BOUNDS, AccountState, Histogram
from exporter.counting.contribution import OVERFLOW
from exporter.counting.ledger import Ledger
from exporter.counting.rooms import KnownRoom
from exporter.counting.usage import BudgetLine
from exporter.publish.families import ACCOUNT_FAMILIES, BUDGET_FAMILIES, UP_FAMILY
from exporter.times import PERIODS, SECOND, calendar


class Overview(NamedTuple):
    """A workspace's own gauges."""

    configured: int
    tracked: int
    missing: int
    overflowed: int


def escape(value: str) -> str:
    """A label's value, as both formats want it written."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def seconds(micros: int) -> str:
    """Microseconds as seconds, with all their digits."""
    return repr(micros / SECOND)


def created_line(name: str, labels: str, born: int | None) -> str:
    """When a counter or distribution began; nothing where that is not known.  `labels` have their braces, and a space at the end."""
    return f"{name.removesuffix('_total')}_created{labels}{seconds(born)}\n" if born else ""


def _interleaved(text: bytes, after: Sequence[bytes]) -> bytes:
    """The lines, each followed by another one: OpenMetrics keeps the lines of a series together."""
    return b"".join(part for line, more in zip(text.split(b"\n"), after, strict=False) for part in (line, b"\n", more))


class AccountText:
    """An account's lines, kept from poll to poll and rendered anew only as far as something has changed.

    Of a room in which nobody came or went only the time goes on: that is what most of a large exposition does.
    """

    __slots__ = ("_created", "_key", "_lines", "_moved", "_of_role", "_of_room", "_version")

    def __init__(self) -> None:
        self._created: tuple[tuple[object, ...] | None, list[list[bytes]]] = (None, [])
        self._key: tuple[object, ...] | None = None
        self._version = self._moved = -1
        self._of_room = ""
        self._of_role: list[tuple[str, str]] = []
        self._lines: tuple[bytes, ...] = ()

    def lines(self, workspace: str, label: str, state: AccountState, known: KnownRoom | None) -> tuple[bytes, ...]:
        """One text for each of `ACCOUNT_FAMILIES`; `label` is what the account is called."""
        key = (workspace, label, known, len(state.roles))
        if key != self._key:
            self._key = key
            self._version = -1
            labels = _labels(workspace, label, state)
            self._of_room = f"{{{labels}}} "
            self._of_role = [(role, f'{{{labels},role="{escape(role)}"}} ') for role in sorted(state.roles)]
        if state.version != self._version:
            self._lines = self._all(state, known)
        elif state.moved != self._moved:
            session_seconds, peer_seconds, usage = self._moving(state)
            kept = self._lines
            self._lines = (*kept[:7], session_seconds, *kept[8:10], peer_seconds, kept[11], usage)
        self._version, self._moved = state.version, state.moved
        return self._lines

    def openmetrics(self, state: AccountState) -> tuple[bytes, ...]:
        """The last lines with those that tell when each counter began, which only OpenMetrics has."""
        kept, created = self._created
        if kept is not self._key:
            roles = [(prefix, state.roles[role].born) for role, prefix in self._of_role]
            of_room = [(self._of_room, state.born)]
            created = [
                [created_line(family.name, *of).encode() for of in (roles if "_peer" in family.name else of_room)]
                for family in ACCOUNT_FAMILIES
                if family.kind == "counter"
            ]
            self._created = self._key, created
        beginnings = iter(created)
        return tuple(
            _interleaved(text, next(beginnings)) if family.kind == "counter" else text
            for family, text in zip(ACCOUNT_FAMILIES, self._lines, strict=True)
        )

    def _moving(self, state: AccountState) -> tuple[bytes, bytes, bytes]:
        """What goes on with time alone."""
        roles = [(prefix, state.roles[role]) for role, prefix in self._of_role]
        usage = [] if state.account == OVERFLOW else [_usage(prefix, role.usage_day, role.usage_month) for prefix, role in roles]
        return (
            f"hms_session_seconds_total{self._of_room}{seconds(state.totals.published_seconds)}\n".encode(),
            "".join([f"hms_peer_seconds_total{prefix}{seconds(role.published_seconds)}\n" for prefix, role in roles]).encode(),
            "".join(usage).encode(),
        )

    def _all(self, state: AccountState, known: KnownRoom | None) -> tuple[bytes, ...]:
        of_room, totals, gauges = self._of_room, state.totals, state.gauges
        roles = [(prefix, state.roles[role]) for role, prefix in self._of_role]
        sessions = start = peers = peak = users = ""
        if gauges is not None:
            sessions = f"hms_sessions_active{of_room}{gauges.sessions}\n"
            if gauges.oldest_start is not None:
                start = f"hms_session_start_timestamp_seconds{of_room}{seconds(gauges.oldest_start)}\n"
            found = gauges.peers
            peers = "".join([f"hms_peers_active{prefix}{found[role]}\n" for role, prefix in self._of_role if role in found])
            peak = f"hms_peers_active_peak{of_room}{gauges.peak}\n"
            users = f"hms_users_active{of_room}{gauges.users}\n"
        session_seconds, peer_seconds, usage = self._moving(state)
        info = _info(of_room, known) if known is not None and known.answered and known.exists else ""
        return (
            sessions.encode(),
            start.encode(),
            peers.encode(),
            peak.encode(),
            users.encode(),
            f"hms_sessions_started_total{of_room}{totals.published_started}\n".encode(),
            f"hms_sessions_ended_total{of_room}{totals.published_ended}\n".encode(),
            session_seconds,
            "".join([f"hms_peers_joined_total{prefix}{role.published_joined}\n" for prefix, role in roles]).encode(),
            "".join([f"hms_peers_left_total{prefix}{role.published_left}\n" for prefix, role in roles]).encode(),
            peer_seconds,
            info.encode(),
            usage,
        )


def account_lines(workspace: str, label: str, state: AccountState, known: KnownRoom | None) -> tuple[bytes, ...]:
    """An account's lines, one text for each of `ACCOUNT_FAMILIES`, as they are at the moment."""
    return AccountText().lines(workspace, label, state, known)


def _labels(workspace: str, label: str, state: AccountState) -> str:
    room_id = f'room_id="{escape(state.account.id)}",' if state.account.kind == "room" else ""
    return f'workspace="{escape(workspace)}",{room_id}room="{escape(label)}"'


def usage_lines(
    workspace: str, now: int, elsewhere: Mapping[str, tuple[int, int]], costs: Mapping[str, float], currency: str
) -> tuple[bytes, bytes, bytes]:
    """The usage of rooms without series of their own by role (day and month, µs), the share of the periods that is over at
    `now`, and the costs by role: lines of `hms_usage_peer_seconds`, and of `USAGE_FAMILIES`.
    """
    label = f'workspace="{escape(workspace)}"'
    usage = [_usage(f'{{{label},room="_other",role="{escape(role)}"}} ', *sums) for role, sums in sorted(elsewhere.items()) if any(sums)]
    ratios = [f'hms_usage_period_elapsed_ratio{{{label},period="{period}"}} {calendar(now).elapsed(period, now)!r}\n' for period in PERIODS]
    of_cost = [
        f'hms_usage_cost{{{label},role="{escape(role)}",currency="{escape(currency)}"}} {cost!r}\n' for role, cost in sorted(costs.items())
    ]
    return "".join(usage).encode(), "".join(ratios).encode(), "".join(of_cost).encode()


def budget_lines(budgets: Sequence[BudgetLine]) -> tuple[bytes, ...]:
    """The budgets' lines, one text for each of `BUDGET_FAMILIES`."""
    values = [(f'{{budget="{escape(budget.name)}"}}', budget.seconds, budget.used, budget.elapsed) for budget in budgets]
    return tuple(
        "".join([f"{family.name}{line[0]} {line[index]!r}\n" for line in values]).encode()
        for index, family in enumerate(BUDGET_FAMILIES, start=1)
    )


def workspace_lines(workspace: str, ledger: Ledger, overview: Overview, *, created: bool = False) -> tuple[bytes, ...]:
    """A workspace's lines, one text for each of `WORKSPACE_FAMILIES`; `created`: with when the distributions began."""
    label = f'workspace="{escape(workspace)}"'
    found = ledger.histograms
    peer_durations = sorted((role, histogram) for (name, role), histogram in found.items() if name == "peer_duration")
    nothing_yet = Histogram(HISTOGRAM_BOUNDS["session_duration"]), Histogram(HISTOGRAM_BOUNDS["session_peers"])
    gauges = (
        ("hms_rooms_configured", overview.configured),
        ("hms_rooms_tracked", overview.tracked),
        ("hms_rooms_missing", overview.missing),
        ("hms_rooms_overflowed", overview.overflowed),
    )
    lines = (
        _histogram("hms_session_duration_seconds", label, found.get(("session_duration", ""), nothing_yet[0]), SECOND, created=created),
        _histogram("hms_session_peers", label, found.get(("session_peers", ""), nothing_yet[1]), 1, created=created),
        "".join(
            _histogram("hms_peer_duration_seconds", f'{label},role="{escape(role)}"', histogram, SECOND, created=created)
            for role, histogram in peer_durations
        ),
        *(f"{name}{{{label}}} {value}\n" for name, value in gauges),
    )
    return tuple([text.encode() for text in lines])


def up_line(workspace: str, *, up: bool) -> bytes:
    """The line of `UP_FAMILY`."""
    return f'{UP_FAMILY.name}{{workspace="{escape(workspace)}"}} {int(up)}\n'.encode()


def _info(prefix: str, known: KnownRoom) -> str:
    """The line of a room; `prefix` holds its labels, with the closing brace and a space."""
    enabled = "true" if known.enabled else "false"
    return (
        f'hms_room_info{prefix[:-2]},template="{escape(known.template)}",template_id="{escape(known.template_id)}",'
        f'region="{escape(known.region)}",enabled="{enabled}"}} 1\n'
    )


def _usage(prefix: str, day: int, month: int) -> str:
    """The lines of one role; `prefix` holds its labels, with the closing brace and a space."""
    labels = prefix[:-2]
    return (
        f'hms_usage_peer_seconds{labels},period="day"}} {seconds(day)}\nhms_usage_peer_seconds{labels},period="month"}} {seconds(month)}\n'
    )


def _histogram(name: str, labels: str, histogram: Histogram, scale: int, *, created: bool) -> str:
    lines = "".join(_histogram_lines(name, labels, histogram, scale))
    return lines + created_line(name, f"{{{labels}}} ", histogram.born) if created else lines


def _histogram_lines(name: str, labels: str, histogram: Histogram, scale: int) -> Iterable[str]:
    count = 0
    for bound, observed in zip((*histogram.bounds, None), histogram.counts, strict=True):
        count += observed
        yield f'{name}_bucket{{{labels},le="{"+Inf" if bound is None else float(bound)}"}} {count}\n'
    yield f"{name}_count{{{labels}}} {count}\n"
    yield f"{name}_sum{{{labels}}} {seconds(histogram.total) if scale == SECOND else histogram.total}\n"
