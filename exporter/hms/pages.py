"""The pages of 100ms's lists: three envelopes, how each leads on to the next page, and pages too large to be held.

Pure: this module decodes answers, the client requests them.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, NamedTuple

import msgspec

from exporter.hms.errors import MalformedAnswer, TooLarge
from exporter.hms.splitter import Splitter

MOST_RECORDS = 1_000
"""Records of one page: ten times the largest page size of 100ms. An answer of `0,0,0,…` must not become millions of objects."""
LARGEST_ANSWER = 64 * 1024 * 1024
"""Bytes of one answer that are held in memory, inflated; a hundred sessions with two thousand peers each take less."""
_PART = 8 * 1024 * 1024
"""Bytes of records that are passed on together when an answer is read as a stream."""
_SLICE = 64 * 1024

BROKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""The exceptions that decoding raises for invalid bytes."""


class Page(msgspec.Struct, frozen=True):
    """One page of a list, or a part of a page that is too large to be held.

    `data`: its records, undecoded.  `limit`: the page size that was used.  `last`: the cursor of the next page.
    `total`: how many records the whole list has, where the answer says so.

    A page of more than 64 MiB comes in several parts.  Each but the last has `ends` false and neither `limit` nor `last`;
    `before` says how many records the earlier parts held, `size` how many bytes have been read so far.
    No part is empty, unless the whole page is.
    """

    data: list[msgspec.Raw] | None
    limit: int | None = None
    last: str | None = None
    total: int | None = None
    ends: bool = True
    before: int = 0
    size: int = 0

    @property
    def count(self) -> int:
        """How many records the page holds, up to here."""
        return self.before + len(self.data or ())

    @property
    def goes_on(self) -> bool:
        """Whether another page may follow: this one is full, and has a cursor."""
        return self.ends and bool(self.last) and self.count >= (self.limit or 1)


class Envelope(NamedTuple):
    """The format of one family of lists: where its records are, and the parameter of the next page (`None`: there is none)."""

    key: str
    decode: Callable[[bytes], Page]
    following: Callable[[Page, dict[str, str]], dict[str, str] | None]


_Text = Annotated[str, msgspec.Meta(max_length=1_000)]
# A struct encoded as an array, not a list: it is the only type whose decoding ends at the first surplus element, before millions
# of them have been made.  It leaves each record undecoded, so that an invalid record costs only itself.
_Records = msgspec.defstruct(
    "_Records", [(f"record_{number}", msgspec.Raw, None) for number in range(MOST_RECORDS)], array_like=True, forbid_unknown_fields=True
)


class _Pagination(msgspec.Struct):
    total_items: int | None = None
    has_next: bool | None = None


_List = msgspec.defstruct("_List", [("data", _Records | None), ("limit", int | None, None), ("last", _Text | None, None)])
_Events = msgspec.defstruct(
    "_Events", [("events", _Records | None), ("limit", int | None, None), ("next", _Text | None, None), ("total", int | None, None)]
)
_Deliveries = msgspec.defstruct("_Deliveries", [("events", _Records | None), ("pagination", _Pagination | None, None)])

_list_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_List)
_events_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_Events)
_deliveries_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_Deliveries)
_raw_decoder = msgspec.json.Decoder(msgspec.Raw)


def _decoded(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except BROKEN as error:
        raise MalformedAnswer(f"the answer is not a list of records, {MOST_RECORDS} at most") from error


def _records(wire: Any) -> list[msgspec.Raw] | None:
    return None if wire is None else [raw for raw in msgspec.structs.astuple(wire) if raw is not None]


def decode_page(body: bytes) -> Page:
    """The answer of a list of rooms, sessions, jobs or assets, its records still undecoded.

    Raises `MalformedAnswer` when it is not a list of records at all, or holds more of them than a page ever does.
    """
    wire = _decoded(_list_decoder, body)
    return Page(_records(wire.data), wire.limit, wire.last)


def decode_events(body: bytes) -> Page:
    """The same for `/analytics/events`: the records are in `events`, the cursor is `next`."""
    wire = _decoded(_events_decoder, body)
    return Page(_records(wire.events), wire.limit, wire.next, wire.total)


def decode_deliveries(body: bytes) -> Page:
    """The same for `/analytics/webhooks`: pages have numbers; `last` is `next` if another page follows."""
    wire = _decoded(_deliveries_decoder, body)
    pagination = wire.pagination or _Pagination()
    return Page(_records(wire.events), None, "next" if pagination.has_next else None, pagination.total_items)


def _after_last(page: Page, parameters: dict[str, str]) -> dict[str, str] | None:
    return {**parameters, "start": page.last or ""} if page.goes_on else None


def _after_next(page: Page, parameters: dict[str, str]) -> dict[str, str] | None:
    # A filtered page may be short although more follow: the cursor alone decides.
    return {**parameters, "start": page.last} if page.last and page.count else None


def _after_number(page: Page, parameters: dict[str, str]) -> dict[str, str] | None:
    return {**parameters, "page": str(int(parameters.get("page", "1")) + 1)} if page.last and page.count else None


RECORDS = Envelope("data", decode_page, _after_last)
"""`/sessions`, `/rooms`, `/recordings`, `/live-streams`, `/external-streams`, `/recording-assets`: `data`, `limit`, `last`."""
EVENTS = Envelope("events", decode_events, _after_next)
"""`/analytics/events`: `events`, `limit`, `total`, `next`."""
DELIVERIES = Envelope("events", decode_deliveries, _after_number)
"""`/analytics/webhooks`: `events` and `pagination`, pages by number."""


def read_page(envelope: Envelope, chunks: Iterable[bytes], *, streams: bool) -> Iterator[Page]:
    """A page from the pieces of its answer: one `Page`, or its parts if it is too large to be held and `streams` is true.

    Raises `MalformedAnswer`, and `TooLarge` for a large answer if `streams` is false.
    """
    held = io.BytesIO()  # not a list of chunks: joining it would need twice the memory
    rest = iter(chunks)
    for chunk in rest:
        if held.tell() + len(chunk) > LARGEST_ANSWER:
            so_far = itertools.chain(_slices(held), (chunk,))
            if not streams:
                raise TooLarge(f"the answer is larger than {LARGEST_ANSWER >> 20} MiB", _record_bytes(envelope, so_far))
            yield from _parts(envelope, itertools.chain(so_far, rest))
            return
        held.write(chunk)
    body = held.getvalue()
    yield msgspec.structs.replace(envelope.decode(body), size=len(body))


def _slices(held: io.BytesIO) -> Iterator[bytes]:
    """Yields the pieces held so far, and releases them."""
    held.seek(0)
    while piece := held.read(_SLICE):
        yield piece
    held.truncate(0)


def _record_bytes(envelope: Envelope, chunks: Iterable[bytes]) -> float:
    """The average size of the records at the beginning of an answer."""
    splitter = Splitter(envelope.key)
    records = 0
    try:
        for chunk in chunks:
            records += sum(1 for _ in splitter.feed(chunk))
    except MalformedAnswer:
        pass  # a smaller page is requested in any case
    return LARGEST_ANSWER / max(1, records)


def _parts(envelope: Envelope, chunks: Iterable[bytes]) -> Iterator[Page]:
    splitter = Splitter(envelope.key)
    part: list[msgspec.Raw] = []
    before = held = size = 0
    for chunk in chunks:
        size += len(chunk)
        for record in splitter.feed(chunk):
            # A part is sent only when another record follows: the last part, which has the cursor, must not be empty.
            if held >= _PART:
                yield Page(part, ends=False, before=before, size=size)
                before += len(part)
                part, held = [], 0
            try:
                part.append(_raw_decoder.decode(record))
            except BROKEN as error:
                raise MalformedAnswer("the answer is not a list of records") from error
            held += len(record)
            if before + len(part) > MOST_RECORDS:
                raise MalformedAnswer(f"the answer is not a list of records, {MOST_RECORDS} at most")
    rest = envelope.decode(splitter.close())
    yield msgspec.structs.replace(rest, data=part if before + len(part) else rest.data, before=before, size=size)
