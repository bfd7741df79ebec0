"""The records of configuration entries, renamed rooms and catch-ups: plain values; `coverage` decides about them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from exporter.counting import spans
from exporter.counting.spans import FOREVER, Span

NOT_BEGUN = FOREVER
"""The `since` of a renamed room that had never been followed by then."""

Subject = tuple[str, str]
"""Of `entries` ("entry") or `rooms` ("room"), by key."""


class Followed(msgspec.Struct):
    """The record of an entry of the configuration, or of a room that was renamed.

    Sessions that had ended by `since` do not count.  `entered` is the poll in which it came into force.  Unread for it is
    everything that started before `floor`, and whatever its catch-ups (`tasks`, by number) still have to read.  `left` is the
    poll in which it was removed, and `parked` the spans that were unread then; from `behind` on its own listing has failed.
    `whole` is the first poll that had read everything that counts: from then on its series grow only by the present.
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

    While its last span has no end, running sessions that were not seen may belong to it; the next complete poll closes it.
    `cursor` is where a listing that is too long to be read at once continues.
    """

    number: int
    begin: int
    unread: list[Span]
    cursor: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it is still growing."""
        return bool(self.unread) and self.unread[-1][1] == FOREVER


def spans_to_read(tasks: Iterable[CatchUp], oldest_open: int) -> list[tuple[Span, list[CatchUp]]]:
    """The spans of the past that can be read, oldest first, each with the catch-ups that need it.

    An open catch-up is read only up to `oldest_open`: no session that may still run started earlier.
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
