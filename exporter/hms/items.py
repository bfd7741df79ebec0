"""Items that the API lists besides sessions, with an id, a room and a time of creation."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import msgspec

from exporter.hms.pages import BROKEN
from exporter.hms.records import Rejection, RejectionKind, plain, record_id
from exporter.times import DAY, micros

_NO_TIME = micros(datetime(1, 1, 1, tzinfo=UTC))
"""Go's zero time: no time."""
_EARLIEST = micros(datetime(2015, 1, 1, tzinfo=UTC))
"""Older than the platform itself: an earlier time is an error."""

Time = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time as the API writes it."""
Text = Annotated[str, msgspec.Meta(max_length=1_000)]
"""Characters of an id: a longer text is not an id."""


class Item(msgspec.Struct, array_like=True, gc=False):
    """One record of a list that is ordered by `created` (µs), newest first.  Subclasses add what is counted.

    Only declared fields are decoded: other fields, which may hold secrets, never reach the exporter's memory.
    """

    id: str
    room_id: str
    created: int

    @property
    def ended(self) -> int | None:
        """When it ended (µs); `None` while it is open.  An item that never changes has ended from the beginning."""
        return self.created

    @property
    def changed(self) -> int:
        """When the record last changed, as far as it shows (µs)."""
        return self.created

    @property
    def oddity(self) -> str | None:
        """A message to log once about a record that counts although a part of it is unknown."""
        return None


I = TypeVar("I", bound=Item)  # noqa: E741 (I stands for Item, and cannot be mistaken for a number here)


class Unreadable(Exception):
    """The record must be rejected; the text is the reason, without any of the record's own text."""


def moment(time: datetime | None, now: int) -> int | None:
    """A time of a record (µs); `None` for no time.  Raises `Unreadable` for an impossible one, as of `now`."""
    if time is None:
        return None
    at = micros(time)
    if at == _NO_TIME:
        return None
    if not _EARLIEST <= at <= now + 2 * DAY:  # generous, as with sessions: the API's clock may be misread by a day
        raise Unreadable("it holds an impossible time")
    return at


def decoded(kind: RejectionKind, raw: bytes | msgspec.Raw, make: Callable[[bytes | msgspec.Raw], I]) -> I | Rejection:
    """The item that `make` decodes from a record, or the reason why it is invalid."""
    try:
        item = make(raw)
        if not item.id or not item.room_id:
            raise Unreadable("no id or no room id")
        return item
    except Unreadable as error:
        reason = str(error)
    except BROKEN:
        reason = f"not a record of a {kind.replace('_', ' ')}"
    identifier = record_id(raw)
    return Rejection(kind, (identifier or str(hash(bytes(raw))),), plain(identifier) if identifier else "unknown", reason)
