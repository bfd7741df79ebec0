"""Which rooms a workspace's configuration asks for."""

from __future__ import annotations

from exporter.config.config import RoomById, RoomsByName, WorkspaceConfig

EVERYTHING = "*"


class Scope:
    """The rooms that a workspace's configuration asks for.  `keys` names its entries, stably across restarts."""

    def __init__(self, config: WorkspaceConfig) -> None:
        entries = config.rooms
        self.ids: dict[str, str | None] = {entry.id: entry.name for entry in entries or () if isinstance(entry, RoomById)}
        self.patterns: list[RoomsByName] = [entry for entry in entries or () if isinstance(entry, RoomsByName)]
        self.everything = entries is None
        self.keys: list[str] = [*self.ids, *(f"~{entry.match.pattern}" for entry in self.patterns)]
        if self.everything:
            self.keys.append(EVERYTHING)

    @property
    def only_ids(self) -> bool:
        """Whether the rooms are all known beforehand."""
        return not self.everything and not self.patterns
