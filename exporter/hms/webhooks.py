"""Decodes an event of 100ms from a webhook's body.

Only fields that are counted, or that name the room to poll, are decoded: no person's name, user id or free text leaves this
module.  Times are integer microseconds since the epoch, UTC.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime

import msgspec

from exporter.times import micros

OTHER = "other"
"""Stands for every type or reason that 100ms's documentation does not list."""

_TYPES = frozenset(
    {
        "session.open.success",
        "session.close.success",
        "peer.join.success",
        "peer.leave.success",
        "peer.join.failure",
        "role.change.success",
        "room.end.success",
        "recording.success",
        "recording.failed",
    }
)
_FAMILIES = re.compile(r"(beam|hls|stream\.recording|transcription|ingest)(\.[a-z]{1,20}){1,3}")
"""The prefixes of type families, to which 100ms adds types from time to time."""

LEAVE, JOIN_FAILURE = "leave", "join_failure"
_LEAVE_REASONS = frozenset({"client request", "peer kicked", "websocket closed", "ice connection state closed", "server removed peer"})
_FAILURES = frozenset({"role not allowed", "network disconnection", "duplicate peer id"})
_LONGEST_ID = 200


class MalformedEvent(ValueError):
    """The body is not an event of 100ms."""


class Event(msgspec.Struct, frozen=True):
    """One event.  `digest` stands for its id; `at` is when it happened, `None` if unknown; an empty text is an unknown id.

    `counts` is the counter of its room that it adds to, besides that of events: the counter's name and the reason, or nothing.
    """

    digest: bytes
    type: str
    at: int | None
    replay: bool
    room_id: str = ""
    session_id: str = ""
    counts: tuple[str, str] | None = None


class _Body(msgspec.Struct):
    id: str
    type: str
    data: msgspec.Raw = msgspec.Raw(b"{}")
    timestamp: msgspec.Raw = msgspec.Raw(b"null")
    is_replay: msgspec.Raw = msgspec.Raw(b"false")


class _Data(msgspec.Struct):
    room_id: str | None = None
    session_id: str | None = None
    reason: str | None = None
    error_message: str | None = None


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_data = msgspec.json.Decoder(_Data).decode
_decode_time = msgspec.json.Decoder(datetime | None).decode


def decode_event(body: bytes) -> Event:
    """The event in a webhook's body.  Raises `MalformedEvent`."""
    try:
        body.decode()  # the decoder does not check texts that it skips
        found = _decode_body(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedEvent from error
    if not found.id or not found.type:
        raise MalformedEvent
    data = _data(found.data)
    return Event(
        digest=hashlib.sha256(found.id.encode(errors="replace")).digest()[:16],
        type=found.type if found.type in _TYPES or _FAMILIES.fullmatch(found.type) else OTHER,
        at=_time(found.timestamp),
        replay=bytes(found.is_replay).strip() == b"true",
        room_id=_identifier(data.room_id),
        session_id=_identifier(data.session_id),
        counts=_counts(found.type, data),
    )


def _data(raw: msgspec.Raw) -> _Data:
    """The details of an event; one with invalid details still shows that something happened."""
    try:
        return _decode_data(raw)
    except (msgspec.MsgspecError, RecursionError):
        return _Data()


def _time(raw: msgspec.Raw) -> int | None:
    try:
        found = _decode_time(raw)
    except msgspec.MsgspecError:
        return None
    return None if found is None else micros(found)


def _identifier(found: str | None) -> str:
    return found if found is not None and len(found) <= _LONGEST_ID else ""


def _counts(kind: str, data: _Data) -> tuple[str, str] | None:
    if kind == "peer.leave.success":
        return LEAVE, _one_of(_LEAVE_REASONS, data.reason)
    if kind == "peer.join.failure":
        return JOIN_FAILURE, _one_of(_FAILURES, data.error_message)
    return None


def _one_of(known: frozenset[str], found: str | None) -> str:
    reason = (found or "").strip().lower()
    return reason if reason in known else OTHER
