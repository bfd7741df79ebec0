"""Decides which rooms the configuration covers, and by which entry."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from exporter.config.config import RoomById, RoomsByName, WorkspaceConfig

Names = Callable[[str], str | None]
"""A room's name by its id; `None` while it is unknown."""

EVERYTHING = "*"
"""The key of the entry that covers every room, for a configuration that names none."""


class Scope:
    """The rooms that a workspace's configuration covers.

    `keys` name its entries, and stay the same across restarts: an id is its own key, a pattern is `~` and its text, `*` is every
    room.  The state keeps all keys forever, so that even a room's entry of years ago is known.
    """

    def __init__(self, config: WorkspaceConfig) -> None:
        entries = config.rooms
        self.ids: dict[str, str | None] = {entry.id: entry.name for entry in entries or () if isinstance(entry, RoomById)}
        self.patterns: list[RoomsByName] = [entry for entry in entries or () if isinstance(entry, RoomsByName)]
        self.everything = entries is None
        self.keys: list[str] = list(dict.fromkeys([*self.ids, *(f"~{entry.match.pattern}" for entry in self.patterns)]))
        if self.everything:
            self.keys.append(EVERYTHING)

    @property
    def only_ids(self) -> bool:
        """Whether every entry names a room by its id."""
        return not self.everything and not self.patterns

    def pattern(self, name: str) -> RoomsByName | None:
        """The first pattern that a name matches as a whole."""
        return next((pattern for pattern in self.patterns if pattern.match.fullmatch(name)), None)

    def covers(self, room_id: str, name: str | None) -> bool | None:
        """Whether a room is covered; `None` while this depends on its unknown name."""
        if self.everything or room_id in self.ids:
            return True
        if not self.patterns:
            return False
        return None if name is None else self.pattern(name) is not None


def is_wide(key: str) -> bool:
    """Whether an entry may cover more than one room."""
    return key == EVERYTHING or key.startswith("~")


def matches(key: str, room_id: str, name: str | None) -> bool | None:
    """Whether an entry covers a room; `None` while this depends on its unknown name."""
    if not key.startswith("~"):
        return key in (EVERYTHING, room_id)
    if name is None:
        return None
    pattern = _compiled(key[1:])
    return pattern is not None and pattern.fullmatch(name) is not None


def may_overlap(one: str, other: str) -> bool:
    """Whether two entries, at least one of them wide, may cover the same room: patterns with different beginnings do not."""
    if EVERYTHING in (one, other):
        return True
    if not (is_wide(one) and is_wide(other)):
        return True
    first, second = _beginning(one[1:]), _beginning(other[1:])
    return first.startswith(second) or second.startswith(first)


def may_share_a_room(key: str, other: str, name_of: Names) -> bool:
    """Whether two entries, at least one of them wide, may cover the same room, as far as names are known."""
    for wide, single in ((key, other), (other, key)):
        if is_wide(wide) and not is_wide(single):
            return matches(wide, single, name_of(single)) is not False
    return may_overlap(key, other)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """A pattern of an earlier configuration; `None` if this version of Python rejects it."""
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return None


def _beginning(pattern: str) -> str:
    """The text that every match begins with, as far as the pattern shows it."""
    plain = re.match(r"[A-Za-z0-9 _-]*", pattern)
    assert plain is not None
    found = plain.group()
    # Optional or repeated characters and alternatives are not a certain beginning.
    if pattern[len(found) : len(found) + 1] in ("?", "*", "{", "+"):
        found = found[:-1]
    return "" if "|" in pattern else found
