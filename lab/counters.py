"""Every exact counter by its name: its value on a page, and the truth.

The names come from the code's families, and a test compares them with those of the truth.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from exporter.counting.accounts import AccountState, RoleTotals, SessionTotals
from exporter.publish.account_families import ACCOUNT_FAMILIES
from exporter.publish.families import FAMILIES, sample_names
from exporter.simulator import Truth
from exporter.times import SECOND

BY_ROOM, BY_ROLE = tuple(Truth().by_room), tuple(Truth().by_role)
NAMES = tuple(family.name for family in ACCOUNT_FAMILIES if family.kind == "counter")
"""The counters of sessions and peers."""
RISING = frozenset(name for family in FAMILIES if family.kind in ("counter", "histogram") for name in sample_names(family))
"""The samples that may never fall."""

_LINE = re.compile(r"^([a-z_]+)(\{.*\})? (\S+)$", re.MULTILINE)
_ROOM_ID = re.compile(r'[{,]room_id="([^"]*)"')

Sums = dict[str, int]
"""A room's counters by their names, over all roles; times in microseconds."""


def unit(name: str) -> int:
    """The number of units in `Sums` per published unit of this counter."""
    return SECOND if name.endswith("_seconds_total") else 1


def field(name: str) -> str:
    """The name of this counter's field in the totals of an account."""
    return name.removesuffix("_total").rpartition("_")[2]


def sums_of(**values: int) -> Sums:
    """Sums by the short names of the counters (`peers_joined=2`).  The others are 0."""
    given = {f"hms_{short}_total": value for short, value in values.items()}
    assert given.keys() <= {*NAMES}, f"no counters: {sorted(given.keys() - {*NAMES})}"
    return {**dict.fromkeys(NAMES, 0), **given}


def added(one: Sums, other: Sums) -> Sums:
    """The sums of both."""
    return {name: one[name] + other[name] for name in NAMES}


def samples(page: str) -> dict[str, float]:
    """The values of a page by series, as it is written: the name with its labels."""
    return {name + (labels or ""): float(value) for name, labels, value in _LINE.findall(page)}


def room_of(series: str) -> str | None:
    """The room id among a series' labels."""
    found = _ROOM_ID.search(series)
    return None if found is None else found[1]


def sums(found: Mapping[str, float]) -> dict[str, Sums]:
    """The sums of samples, by room id."""
    rooms: dict[str, Sums] = {}
    for series, value in found.items():
        name, room = series.partition("{")[0], room_of(series)
        if room is not None and name in NAMES:
            rooms.setdefault(room, sums_of())[name] += round(value * unit(name))
    return rooms


def true_sums(truth: Truth) -> dict[str, Sums]:
    """The truth by room id, for rooms that have had a session."""
    rooms = {room: sums_of() for room in truth.started}
    for name, by_room in truth.by_room.items():
        for room, value in by_room.items():
            rooms[room][name] += value
    for name, by_role in truth.by_role.items():
        for (room, _), value in by_role.items():
            rooms[room][name] += value
    return rooms


def published(totals: SessionTotals | RoleTotals) -> dict[str, int]:
    """What is published of these counters, by what the totals call them."""
    return {**totals.published._asdict(), "seconds": totals.published_seconds}


def settled(state: AccountState) -> Sums:
    """The sums of an account's ended sessions."""
    found = sums_of()
    for name in BY_ROOM:
        found[name] = _settled(state.totals)[field(name)]
    for name in BY_ROLE:
        found[name] = sum(_settled(role)[field(name)] for role in state.roles.values())
    return found


def _settled(totals: SessionTotals | RoleTotals) -> dict[str, int]:
    return {**totals.counts._asdict(), "seconds": totals.seconds}
