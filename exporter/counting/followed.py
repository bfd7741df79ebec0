"""What is remembered of an entry of the configuration or of a room, and of a catch-up: plain values; `coverage` decides."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from exporter.counting import spans
from exporter.counting.spans import FOREVER, Span

NOT_BEGUN = FOREVER
"""The `since` of a room that has been renamed and was never followed by then."""

Subject = tuple[str, str]
"""Of `entries` ("entry") or `rooms` ("room"), by key."""


class Followed(msgspec.Struct):
    """What is remembered of an entry of the configuration, or of one room that was renamed.

    Sessions that had ended by `since` do not count.  `entered` is the poll in which it came into force.  For it nothing that
    started before `floor` has been read, nor what its catch-ups (`tasks`, by number) have yet to read.  `left` is the poll in
    which it was taken out, and `parked` what was unread then; from `behind` on its own listing has failed.  `whole` is the first
    poll that had read everything that counts: from then on its series rise by the present alone.
    """

    since: int
    entered: int
    floor: int
    left: int | None = None
    behind: int | None = None
    whole: int | None = None
    parked: list[Span] = []
    tasks: list[int] = []


class CatchUp(msgspec.Struct):
    """A catch-up: sessions that started within `unread` are still to be read.

    While its last span has no end, sessions that run unseen may belong to it; the next whole poll closes it.  `cursor` is where
    a listing goes on that is too long to be read at once.
    """

    number: int
    begin: int
    unread: list[Span]
    cursor: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it still grows."""
        return bool(self.unread) and self.unread[-1][1] == FOREVER


def spans_to_read(tasks: Iterable[CatchUp], oldest_open: int) -> list[tuple[Span, list[CatchUp]]]:
    """What of the past may be read, oldest first: spans, each with the catch-ups that want it.

    Of a catch-up that is still open only what started until `oldest_open`: no session that may run is older.
    """
    found: list[tuple[Span, CatchUp]] = []
    for task in tasks:
        readable = spans.until(task.unread, oldest_open) if task.is_open else task.unread
        found += [(span, task) for span in readable]
    together: list[tuple[Span, list[CatchUp]]] = []
    for span, task in sorted(found, key=lambda item: item[0]):
        if together and together[-1][0] == span:
            together[-1][1].append(task)
        else:
            together.append((span, [task]))
    return together
