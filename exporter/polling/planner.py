"""Chooses the cheaper listing, of the whole workspace or room by room, from the results of the last polls.

A listing of the workspace costs one call per page, whatever rooms it shows; room by room costs one call per room.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from exporter.counting.followed import CatchUp
from exporter.counting.spans import Span, without
from exporter.times import MINUTE

MILLISECOND = 1000
SHORT = MINUTE
"""A stretch of the past this short (µs) is not cut further when it fails."""
TRY_FAILED_AFTER = 600.0
"""Seconds until such a stretch is tried again."""
TRY_AGAIN_AFTER = 1800.0
"""Seconds until an abandoned listing of the workspace is tried again, because it may have become shorter."""


class Choice:
    """Wide or room by room, for one kind of listing.  `rooms` is `None` if only the wide listing can find the rooms."""

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
        """Whether to read on after this many pages: no longer once reading room by room would have cost no more."""
        return self.rooms is None or pages < self.rooms

    def abandoned(self, now: float) -> None:
        """The wide listing was too long: room by room from now on."""
        self._abandoned_at = now

    def finished(self) -> None:
        """The wide listing was read to its end."""
        self._abandoned_at = None

    def rooms_only(self, now: float) -> bool:
        """Whether no listing of the workspace is read."""
        return not self.wide(now)


class Choices:
    """The choices of one workspace, kept from poll to poll: for running sessions, ended ones and the past.

    `rooms` is as in `Choice`; `page_size` is the number of records on a page.
    """

    def __init__(self, rooms: int | None, page_size: int) -> None:
        self.running = Choice(rooms)
        self.ended = Choice(rooms)
        self.past = Choice(rooms)
        self.page_size = page_size


class Stretch:
    """How much of the past is requested at once: as much as a few pages hold, estimated from the density of sessions."""

    most_pages = 10
    """A stretch that needs more pages is continued later, so that it does not delay the polls."""

    def __init__(self) -> None:
        self._length: int | None = None
        self._avoided: list[tuple[Span, float]] = []
        """Short stretches that failed, with the time of their next try (monotonic seconds)."""

    def next(self, unread: list[tuple[Span, list[CatchUp]]], now: float) -> tuple[Span, list[CatchUp]] | None:
        """The oldest unread stretch (µs) and the catch-ups that it serves; `None` if nothing can be read now."""
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
                # Spans of others that begin or end within it cut it short, so that it is unread for all of its catch-ups, or for none.
                ends = [end for (begin, end), _ in unread if begin <= first <= end <= last]
                begins = [begin - 1 for (begin, _), _ in unread if first < begin <= last]
                return (first, min([last, *ends, *begins])), tasks
        return None

    def is_shortest(self, first: int, last: int) -> bool:
        """Whether the API's filters, which use milliseconds, cannot select a shorter stretch."""
        return last - first < MILLISECOND

    def finished(self, pages: int) -> None:
        """A stretch was read in this many pages."""
        if pages <= self.most_pages // 4 and self._length is not None:
            self._length *= 2

    def too_long(self, first: int, last: int, read_from: int) -> None:
        """A stretch was left half-read: its pages showed the sessions that began from `read_from` on."""
        self._length = max(MILLISECOND - 1, min(last - read_from, (last - first) // 2))

    def failed(self, first: int, last: int, now: float) -> None:
        """A stretch could not be read: shorter ones are tried; one that is short already is skipped for a while."""
        if last - first > SHORT:
            self._length = (last - first) // 16
        else:
            self._avoided.append(((first, last), now + TRY_FAILED_AFTER))
            self._length = SHORT


def windows(wanted: Sequence[int], known: Sequence[int], page_size: int) -> list[Span]:
    """Spans of start times that hold all of `wanted`, the fullest first.

    Each span holds no more than one page of the known sessions (`known`: their start times, sorted).
    """
    found: list[list[int]] = []
    for started in sorted(wanted, reverse=True):
        if found and bisect_right(known, found[-1][0]) - bisect_left(known, started) <= page_size:
            found[-1].append(started)
        else:
            found.append([started])
    return [(starts[-1], starts[0]) for starts in sorted(found, key=len, reverse=True)]


def estimate(rooms: int | None, running: int, ended: int, page_size: int = 100) -> int:
    """The calls of a poll in a workspace with this many running sessions, and this many that ended since the last poll.

    `rooms` is the number of configured rooms, `None` for all.  It assumes the usual worst case: no session that ended is among
    the newest in the list of ended ones, so that each is requested alone.
    """
    pages = running // page_size + 1
    if rooms is None:
        return pages + 1 + ended
    return min(pages, rooms) + 1 + min(ended, rooms)
