"""Watches the pages of an exporter for counters that fall."""

from __future__ import annotations

from lab.counters import RISING, Sums, room_of, samples, sums, sums_of


class Watcher:
    """Takes in one page after another."""

    def __init__(self) -> None:
        self.pages = 0
        self.falls: list[str] = []
        """Every fall that was seen: the series, the value before, and the value after."""
        self._highest: dict[str, float] = {}

    def look(self, page: str) -> dict[str, float]:
        """Takes in a page; returns its samples."""
        found = samples(page)
        self.pages += 1
        for series, value in found.items():
            if series.partition("{")[0] in RISING:
                before = self._highest.get(series)
                if before is not None and value < before:
                    self.falls.append(f"{series} fell from {before!r} to {value!r}")
                self._highest[series] = value if before is None else max(before, value)
        return found

    def last(self, room_id: str) -> Sums:
        """The last published values of a room."""
        mark = f'room_id="{room_id}"'
        return sums({series: value for series, value in self._highest.items() if mark in series}).get(room_id, sums_of())

    def forget_workspace(self, name: str) -> None:
        """Forgets a workspace that will not be published again."""
        mark = f'workspace="{name}"'
        self._highest = {series: value for series, value in self._highest.items() if mark not in series}

    def forget(self, room_ids: frozenset[str]) -> None:
        """Forgets rooms that will not be published again."""
        self._highest = {series: value for series, value in self._highest.items() if room_of(series) not in room_ids}
