"""The most peers connected at one moment between two readings, from their times of joining and leaving."""

from __future__ import annotations

from collections.abc import Iterable

from exporter.hms.records import Stay


class Window:
    """The peers of one account since its last reading, at `start` (µs)."""

    __slots__ = ("sessions", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.sessions: dict[str, tuple[int, list[tuple[int, int]]]] = {}

    def look_at(self, session_id: str, stays: Iterable[Stay], ended: int | None) -> None:
        """A session's stays as last read; reading it again replaces them."""
        start, constant, events = self.start, 0, []
        for stay in stays:
            left = stay.left if stay.left is not None else ended
            if left is not None:
                if left <= start:
                    continue
                events.append((left, -1))
            if stay.joined <= start:
                constant += 1
            else:
                events.append((stay.joined, 1))
        self.sessions[session_id] = constant, events

    def stand(self, session_id: str, connected: int) -> None:
        """A session without a new record: as many peers as were connected before."""
        self.sessions.setdefault(session_id, (connected, []))

    def peak(self) -> int:
        """Leaves come before joins of the same moment: those peers were not there together."""
        most = count = sum(constant for constant, _ in self.sessions.values())
        for _, change in sorted(event for _, events in self.sessions.values() for event in events):
            count += change
            most = max(most, count)
        return most
