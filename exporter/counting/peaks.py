"""The highest number of people connected at once between two readings, from their join and leave times."""

from __future__ import annotations

from collections.abc import Iterable


class Window:
    """The people of one account since its last reading, at `start` (µs)."""

    __slots__ = ("sessions", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.sessions: dict[str, tuple[int, list[tuple[int, int]]]] = {}

    def look_at(self, session_id: str, presences: Iterable[tuple[int, int | None]], others: int = 0) -> None:
        """Notes from when to when (`None`: still) people were in a session; a later reading replaces this one.

        `others` more people are there all the time.
        """
        start, constant, events = self.start, others, []
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
        """Notes a session without a new record: the same number of people is still connected."""
        self.sessions.setdefault(session_id, (connected, []))

    def peak(self) -> int:
        """The peak.  At the same moment leaves come before joins, because those people were not connected together."""
        most = count = sum(constant for constant, _ in self.sessions.values())
        for _, change in sorted(event for _, events in self.sessions.values() for event in events):
            count += change
            most = max(most, count)
        return most
