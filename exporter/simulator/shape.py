"""How the API writes records: ids, times, and the variants that it is known to use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, Literal

from exporter.times import SECOND

ZERO_TIME: Final = "0001-01-01T00:00:00Z"

ABSENT: Final = object()
"""A value in `raw` that removes the field from the record."""

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """The variant in which a record is written; 100ms is known to use several.

    `peers`: an object keyed by peer id, a list, `null`, or no such field (the last two hide all peers);
    `digits`: fractional digits of times, 0 to 9, or `None` for as many as needed (fewer than six truncate the timeline's times);
    `connected`: the `left_at` of a connected peer; `old_peers`: peers lack `id`, `session_id` and `user_id`.
    """

    peers: Literal["object", "list", "null", "absent"] = "object"
    digits: int | None = None
    connected: Literal["absent", "null", "zero"] = "absent"
    old_peers: bool = False


def object_id(created_at: int, serial: int) -> str:
    """An id of 24 hex digits that sorts by `created_at`, then by `serial` (44 bits)."""
    seconds, fraction = divmod(created_at, SECOND)
    return f"{seconds:08x}{fraction:05x}{serial:011x}"


def id_time(text: str) -> int | None:
    """The `created_at` in an id made by `object_id`; `None` for anything else."""
    if not re.fullmatch("[0-9a-f]{24}", text):
        return None
    return int(text[:8], 16) * SECOND + int(text[8:13], 16)


def fixed_id(name: str) -> str:
    """24 hex digits that are always the same for the same name, for ids without a time."""
    return blake2b(name.encode(), digest_size=12).hexdigest()


def fixed_uuid(name: str) -> str:
    """A UUID that is always the same for the same name."""
    digits = blake2b(name.encode(), digest_size=16).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def overridden(record: Record, raw: Mapping[str, object]) -> Record:
    """The record with its fields overridden by those of `raw`; fields that are `ABSENT` are left out."""
    return {key: value for key, value in {**record, **raw}.items() if value is not ABSENT} if raw else record
