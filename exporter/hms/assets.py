"""Recording assets as the API shows them, without the path to the file."""

from __future__ import annotations

from typing import Final

import msgspec

from exporter.hms.items import Item, Text, Time, Unreadable, decoded, moment
from exporter.hms.records import Rejection
from exporter.times import DAY, SECOND

OTHER: Final = "other"
"""Stands for every type and status that 100ms's documentation does not list."""
COMPLETED: Final = "completed"

_TYPES: Final = frozenset({"room-composite", "room-composite-legacy", "room-vod", "chat", "transcript", "summary", "track", "stream"})
_STATUSES: Final = frozenset({COMPLETED, "failed"})
_LONGEST: Final = 30 * DAY
_LARGEST: Final = 1 << 50
"""A petabyte, in bytes: a larger size is an error, not a file."""


class Asset(Item):
    """A file of a recording, or the failure to make one.  `length` (µs) and `size` (bytes) are 0 if it has none."""

    type: str
    status: str
    length: int = 0
    size: int = 0


class _WireAsset(msgspec.Struct, gc=False):
    id: Text
    room_id: Text
    created_at: Time
    type: str | None = None
    status: str | None = None
    duration: float | None = None
    size: float | None = None


_decoder = msgspec.json.Decoder(_WireAsset)


def decode_asset(raw: bytes | msgspec.Raw, now: int) -> Asset | Rejection:
    """Decodes one asset, checked against `now` (the API's time)."""

    def make(raw: bytes | msgspec.Raw) -> Asset:
        wire = _decoder.decode(raw)
        created = moment(wire.created_at, now)
        if created is None:
            raise Unreadable("it has no creation time")
        length, size = (wire.duration or 0.0) * SECOND, wire.size or 0.0
        if not (0 <= length <= _LONGEST and 0 <= size <= _LARGEST):
            raise Unreadable("its length or size is impossible")
        kind = wire.type if wire.type in _TYPES else OTHER
        status = wire.status if wire.status in _STATUSES else OTHER
        return Asset(wire.id, wire.room_id, created, kind, status, round(length), round(size))

    return decoded("recording_asset", raw, make)
