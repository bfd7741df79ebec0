"""What a scraper sees: every counter, watched for ever falling, and the sums of each room to hold against the truth."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from exporter.publish.families import FAMILIES, sample_names
from exporter.simulator import Truth
from exporter.times import SECOND

_COUNTERS = frozenset(name for family in FAMILIES if family.kind in ("counter", "histogram") for name in sample_names(family))
_LINE = re.compile(r"^([a-z_]+)(\{.*\})? (\S+)$", re.MULTILINE)
_ROOM_ID = re.compile(r'room_id="([^"]*)"')


class Sums(NamedTuple):
    """One room's counters, over all roles; times in microseconds."""

    started: int = 0
    ended: int = 0
    session_us: int = 0
    joined: int = 0
    left: int = 0
    peer_us: int = 0


_NAMES = (
    "hms_sessions_started_total",
    "hms_sessions_ended_total",
    "hms_session_seconds_total",
    "hms_peers_joined_total",
    "hms_peers_left_total",
    "hms_peer_seconds_total",
)
_SECONDS = frozenset({"hms_session_seconds_total", "hms_peer_seconds_total"})


def samples(page: str) -> dict[str, float]:
    """The values of an exposition by their series, as they are written: the name with its labels."""
    return {name + (labels or ""): float(value) for name, labels, value in _LINE.findall(page)}


def room_of(series: str) -> str | None:
    """The room id among a series' labels."""
    found = _ROOM_ID.search(series)
    return None if found is None else found[1]


def sums(found: Mapping[str, float]) -> dict[str, Sums]:
    """The published counters by room id."""
    rooms: dict[str, dict[str, int]] = {}
    for series, value in found.items():
        name = series.partition("{")[0]
        room = room_of(series)
        if room is not None and name in _NAMES:
            of = rooms.setdefault(room, {})
            of[name] = of.get(name, 0) + round(value * SECOND if name in _SECONDS else value)
    return {room_id: Sums(*(of.get(name, 0) for name in _NAMES)) for room_id, of in rooms.items()}


def true_sums(truth: Truth) -> dict[str, Sums]:
    """The truth by room id, for rooms in which there was a session."""
    joined: dict[str, int] = {}
    left: dict[str, int] = {}
    for counts, into in ((truth.joins, joined), (truth.leaves, left)):
        for (room_id, _), count in counts.items():
            into[room_id] = into.get(room_id, 0) + count
    return {
        room_id: Sums(
            started, truth.ended[room_id], truth.session_us[room_id], joined.get(room_id, 0), left.get(room_id, 0),
            truth.room_peer_us[room_id],
        )
        for room_id, started in truth.started.items()
    }  # fmt: skip


class Watcher:
    """Looks at one page after the other."""

    def __init__(self) -> None:
        self.pages = 0
        self.falls: list[str] = []
        """Every fall of a counter that was seen: the series, from what, to what."""
        self._highest: dict[str, float] = {}

    def look(self, page: str) -> dict[str, float]:
        """Takes in a page; returns its samples."""
        found = samples(page)
        self.pages += 1
        for series, value in found.items():
            if series.partition("{")[0] in _COUNTERS:
                before = self._highest.get(series)
                if before is not None and value < before:
                    self.falls.append(f"{series} fell from {before!r} to {value!r}")
                self._highest[series] = value if before is None else max(before, value)
        return found

    def last(self, room_id: str) -> Sums:
        """What was last published of a room."""
        mark = f'room_id="{room_id}"'
        return sums({series: value for series, value in self._highest.items() if mark in series}).get(room_id, Sums())

    def forget(self, room_ids: frozenset[str]) -> None:
        """These rooms will not be seen again."""
        self._highest = {series: value for series, value in self._highest.items() if room_of(series) not in room_ids}
