"""Which listing is the cheaper one: of the whole workspace, or room by room.  Decided from what the last polls saw.

A listing of the workspace costs a call a page, whoever's sessions fill it; asking room by room costs a call a room.
"""

from __future__ import annotations

TRY_AGAIN_AFTER = 1800.0
"""Seconds after which an abandoned listing of the workspace is tried again: it may have become shorter."""


class Choice:
    """Wide or room by room, for one kind of listing.  `rooms` is `None` where only the wide one can find the rooms."""

    def __init__(self, rooms: int | None) -> None:
        self.rooms = rooms
        self._abandoned_at: float | None = None

    def wide(self, now: float) -> bool:
        """Whether to begin with the listing of the workspace (`now`: monotonic seconds)."""
        if self.rooms is None:
            return True
        if self.rooms <= 1:
            return False
        return self._abandoned_at is None or now - self._abandoned_at >= TRY_AGAIN_AFTER

    def worth_another(self, pages: int) -> bool:
        """Whether to go on with it after so many pages: no longer when asking each room would have cost no more."""
        return self.rooms is None or pages < self.rooms

    def abandoned(self, now: float) -> None:
        """It was not worth it: room by room from now on."""
        self._abandoned_at = now

    def finished(self) -> None:
        """It came to its end within bounds."""
        self._abandoned_at = None


class Stretch:
    """How much of the past is asked for at once: as much as some pages hold, learnt from how dense the sessions lie."""

    most_pages = 10
    """A stretch that needs more is given up and asked for in smaller ones: a poll must not drown in it."""

    def __init__(self) -> None:
        self._length: int | None = None

    def end(self, frontier: int, until: int) -> int:
        """Up to where to read from `frontier` (all in µs)."""
        return until if self._length is None else min(until, frontier + self._length)

    def learn(self, pages: int, frontier: int, end: int, oldest: int | None) -> None:
        """A stretch took so many pages; `oldest` is how far back it came when it was given up."""
        if oldest is not None:
            self._length = max(1, min(end - oldest, (end - frontier) // 2))
        elif pages <= self.most_pages // 4 and self._length is not None:
            self._length *= 2


def estimate(rooms: int | None, running: int, ended: int, page_size: int = 100) -> int:
    """Calls that a poll makes in a workspace of so many running sessions, so many of them ended since the last poll.

    `rooms` is the number of configured rooms, `None` for all.  It assumes the worst of what is usual: none of the ended
    sessions is among the newest that have ended, so that each is asked for by itself.
    """
    pages = running // page_size + 1
    if rooms is None:
        return pages + 1 + ended
    return min(pages, rooms) + 1 + min(ended, rooms)
