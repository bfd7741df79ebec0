"""Which listing is the cheaper one: of the whole workspace, or room by room.  Decided from what the last polls saw.

A listing of the workspace costs one call a page, whichever rooms fill it; asking room by room costs one call a room.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from exporter.counting.followed import CatchUp
from exporter.counting.spans import Span, without
from exporter.times import MINUTE

MILLISECOND = 1000
SHORT = MINUTE
"""A stretch of the past (µs) that is not cut further when it fails."""
TRY_FAILED_AFTER = 600.0
"""Seconds after which such a stretch is tried again."""
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
        """Whether to read on after this many pages: not once asking each room would have cost no more."""
        return self.rooms is None or pages < self.rooms

    def abandoned(self, now: float) -> None:
        """It was not worth it: room by room from now on."""
        self._abandoned_at = now

    def finished(self) -> None:
        """It came to its end within bounds."""
        self._abandoned_at = None

    def rooms_only(self, now: float) -> bool:
        """Whether no listing of the workspace is read."""
        return not self.wide(now)


class Choices:
    """The choices of one workspace, kept from poll to poll: for running sessions, ended ones and the past.

    `rooms` is as in `Choice`; `page_size` is how many records a page holds.
    """

    def __init__(self, rooms: int | None, page_size: int) -> None:
        self.running = Choice(rooms)
        self.ended = Choice(rooms)
        self.past = Choice(rooms)
        self.page_size = page_size


class Stretch:
    """How much of the past is asked for at once: as much as some pages hold, learnt from how dense the sessions lie."""

    most_pages = 10
    """A stretch that needs more is left half-read, and gone on with later: a poll must not drown in it."""

    def __init__(self) -> None:
        self._length: int | None = None
        self._avoided: list[tuple[Span, float]] = []
        """Short stretches that failed, and when they are tried again (monotonic seconds)."""

    def next(self, unread: list[tuple[Span, list[CatchUp]]], now: float) -> tuple[Span, list[CatchUp]] | None:
        """The oldest stretch that is to be read (µs), and the catch-ups that it serves; `None` when there is none now."""
        self._avoided = [(span, again) for span, again in self._avoided if again > now]
        for span, _ in unread:
            wanted = [span]
            for (first, last), _ in self._avoided:
                wanted = without(wanted, first, last)
            if wanted:
                first, last = wanted[0]
                if self._length is not None:
                    last = min(last, first + self._length)
                tasks = [task for (begin, end), of in unread if begin <= first <= end for task in of]
                # Others' spans that end or begin within it cut it short: so it is unread for all that it serves, or for none.
                ends = [end for (begin, end), _ in unread if begin <= first <= end <= last]
                begins = [begin - 1 for (begin, _), _ in unread if first < begin <= last]
                return (first, min([last, *ends, *begins])), tasks
        return None

    def is_shortest(self, first: int, last: int) -> bool:
        """Whether the API's filters, which go by milliseconds, cannot ask for less."""
        return last - first < MILLISECOND

    def finished(self, pages: int) -> None:
        """A stretch was read in this many pages."""
        if pages <= self.most_pages // 4 and self._length is not None:
            self._length *= 2

    def too_long(self, first: int, last: int, read_from: int) -> None:
        """A stretch was left half-read: its pages showed what began from `read_from` on."""
        self._length = max(MILLISECOND - 1, min(last - read_from, (last - first) // 2))

    def failed(self, first: int, last: int, now: float) -> None:
        """A stretch could not be read: a shorter one may do; a short one is left out for a while, for the others' sake."""
        if last - first > SHORT:
            self._length = (last - first) // 16
        else:
            self._avoided.append(((first, last), now + TRY_FAILED_AFTER))
            self._length = SHORT


def windows(wanted: Sequence[int], known: Sequence[int], page_size: int) -> list[Span]:
    """Spans of starts that hold all of `wanted`, those with most of them first.

    Each holds no more than one page of the sessions that are known (`known`: their starts, sorted).
    """
    found: list[list[int]] = []
    for started in sorted(wanted, reverse=True):
        if found and bisect_right(known, found[-1][0]) - bisect_left(known, started) <= page_size:
            found[-1].append(started)
        else:
            found.append([started])
    return [(starts[-1], starts[0]) for starts in sorted(found, key=len, reverse=True)]


def estimate(rooms: int | None, running: int, ended: int, page_size: int = 100) -> int:
    """Calls of a poll in a workspace with this many running sessions, and this many that ended since the last poll.

    `rooms` is the number of configured rooms, `None` for all.  It assumes the worst of what is usual: none of the ended
    sessions is among the newest that have ended, so that each is asked for by itself.
    """
    pages = running // page_size + 1
    if rooms is None:
        return pages + 1 + ended
    return min(pages, rooms) + 1 + min(ended, rooms)
