"""The most people connected at one moment between two readings, from their times of joining and leaving."""

from __future__ import annotations

from collections.abc import Iterable


class Window:
    """The people of one account since its last reading, at `start` (µs)."""

    __slots__ = ("sessions", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.sessions: dict[str, tuple[int, list[tuple[int, int]]]] = {}

    def look_at(self, session_id: str, presences: Iterable[tuple[int, int | None]]) -> None:
        """From when to when (`None`: still) people were in a session, as last read; reading it again replaces that."""
        start, constant, events = self.start, 0, []
        for joined, left in presences:
            if left is not None:
                if left <= start:
                    continue
                events.append((left, -1))
            if joined <= start:
                constant += 1
            else:
                events.append((joined, 1))
        self.sessions[session_id] = constant, events

    def stand(self, session_id: str, connected: int) -> None:
        """A session without a new record: as many people as were connected before."""
        self.sessions.setdefault(session_id, (connected, []))

    def peak(self) -> int:
        """Leaves come before joins of the same moment: those people were not there together."""
        most = count = sum(constant for constant, _ in self.sessions.values())
        for _, change in sorted(event for _, events in self.sessions.values() for event in events):
            count += change
            most = max(most, count)
        return most
