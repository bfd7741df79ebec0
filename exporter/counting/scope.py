"""Which rooms the configuration covers, and by which entry."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from exporter.config.config import RoomById, RoomsByName, WorkspaceConfig

Names = Callable[[str], str | None]
"""A room's name by its id; `None` while it is not known."""

EVERYTHING = "*"
"""The key of a configuration that names no rooms."""


class Scope:
    """The rooms that a workspace's configuration asks for.

    `keys` name its entries, the same across restarts: an id stands for itself, a pattern is `~` and its text, `*` is every
    room.  A key is known as long as the state file is; so a room can still be told to have been in an entry of years ago.
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
        """Whether the rooms are all known beforehand."""
        return not self.everything and not self.patterns

    def pattern(self, name: str) -> RoomsByName | None:
        """The first pattern that a name matches as a whole."""
        return next((pattern for pattern in self.patterns if pattern.match.fullmatch(name)), None)

    def covers(self, room_id: str, name: str | None) -> bool | None:
        """Whether a room is asked for; `None` while that depends on its name, which is not known."""
        if self.everything or room_id in self.ids:
            return True
        if not self.patterns:
            return False
        return None if name is None else self.pattern(name) is not None


def is_wide(key: str) -> bool:
    """Whether an entry may cover rooms other than the one it names."""
    return key == EVERYTHING or key.startswith("~")


def matches(key: str, room_id: str, name: str | None) -> bool | None:
    """Whether an entry covers a room; `None` while that depends on its name, which is not known."""
    if not key.startswith("~"):
        return key in (EVERYTHING, room_id)
    if name is None:
        return None
    pattern = _compiled(key[1:])
    return pattern is not None and pattern.fullmatch(name) is not None


def may_overlap(one: str, other: str) -> bool:
    """Whether two entries, one of them wide, may cover the same room: patterns with different beginnings do not."""
    if EVERYTHING in (one, other):
        return True
    if not (is_wide(one) and is_wide(other)):
        return True
    first, second = _beginning(one[1:]), _beginning(other[1:])
    return first.startswith(second) or second.startswith(first)


def may_share_a_room(key: str, other: str, name_of: Names) -> bool:
    """Whether two entries, one of them wide, may cover the same room, as far as names are known."""
    for wide, single in ((key, other), (other, key)):
        if is_wide(wide) and not is_wide(single):
            return matches(wide, single, name_of(single)) is not False
    return may_overlap(key, other)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """A pattern of an earlier configuration; `None` where a newer Python no longer takes it."""
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return None


def _beginning(pattern: str) -> str:
    """The text that every match begins with, as far as it can be read off the pattern."""
    plain = re.match(r"[A-Za-z0-9 _-]*", pattern)
    assert plain is not None
    found = plain.group()
    # A character that is optional or repeated, and alternatives, are no certain beginning.
    if pattern[len(found) : len(found) + 1] in ("?", "*", "{", "+"):
        found = found[:-1]
    return "" if "|" in pattern else found
