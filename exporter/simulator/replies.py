"""The parts of every answer of the simulated API: calls, responses, errors, pages, and its manners.  No sockets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, Protocol

import msgspec

from exporter.simulator.beside import UnknownCursorError
from exporter.simulator.shape import fixed_id
from exporter.times import micros

SMALLEST_PAGE: Final = 10

Twist = Literal["repeated_cursor", "endless_pages", "repeated_item"]


@dataclass(frozen=True, slots=True)
class Manners:
    """How the API behaves where its documentation is silent or contradicts itself.

    `oversize`: whether a `limit` outside 10 to `max_page_size` is refused with 400, or silently moved into that range;
    `active_default`: the value of `active` when it is left out; `empty_data`: the value of `data` when nothing was found;
    `final_last`: the value of `last` on the last page.
    """

    max_page_size: int = 100
    oversize: Literal["refuse", "lower"] = "refuse"
    active_default: Literal["true", "all"] = "true"
    empty_data: Literal["null", "list"] = "null"
    final_last: Literal["id", "empty", "absent"] = "id"


@dataclass(frozen=True, slots=True)
class Response:
    """An answer before it goes on the wire, where length, date and encoding are added."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """A request: the path without its prefix, the last value of each query parameter, and all pairs of the query."""

    method: str
    path: str
    query: Mapping[str, str]
    authorization: str | None
    pairs: Sequence[tuple[str, str]] = ()

    def every(self, name: str) -> frozenset[str]:
        """All values of a repeatable parameter."""
        return frozenset(value for key, value in self.pairs if key == name)


class RefusedError(Exception):
    """The call gets an error as its answer."""

    def __init__(self, status: int, message: str, *details: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.response = error(status, message, *details, headers=headers)


def error(status: int, message: str, *details: str, headers: Mapping[str, str] | None = None) -> Response:
    """100ms's error document."""
    body = msgspec.json.encode({"code": status, "message": message, "details": details or (message,)})
    return Response(status, body, headers=headers or {})


def flag(query: Mapping[str, str], name: str) -> bool | None:
    """A parameter that must be `true` or `false`; `None` if it is missing."""
    text = query.get(name)
    if text is None:
        return None
    if text not in ("true", "false"):
        raise RefusedError(400, f"invalid {name}", f"{name} must be true or false")
    return text == "true"


def moment(query: Mapping[str, str], name: str) -> int | None:
    """A parameter that must be a time, in microseconds; `None` if it is missing."""
    text = query.get(name)
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            raise ValueError("a time without its zone")
        return micros(found)
    except ValueError as fault:
        raise RefusedError(400, f"invalid {name}", f"{name} must be an RFC 3339 time") from fault


class Item(Protocol):
    """An item of a list."""

    @property
    def id(self) -> str:
        """The id by which `last` and `start` refer to it."""

    def encoded(self, now: int, /) -> bytes:
        """The record as JSON."""


@dataclass(frozen=True, slots=True)
class Pages:
    """Cuts lists into pages, and breaks them if there is a twist."""

    manners: Manners
    now: int
    twist: Twist | None

    def page(
        self,
        query: Mapping[str, str],
        select: Callable[[int, str | None], Sequence[Item]],
        find: Callable[[str], Item | None],
    ) -> Response:
        """The requested page: at most `limit` of the items that `select` finds, beginning after the cursor."""
        limit = self.limit(query.get("limit"))
        start = query.get("start") or None
        try:
            # One item more than requested shows whether this is the last page.
            found = list(select(limit + 1, None if self.twist == "endless_pages" else start))
        except UnknownCursorError as unknown:
            raise RefusedError(400, "invalid start", f"no such id: {unknown}") from unknown
        if self.twist == "repeated_item" and start is not None:
            again = find(start)
            found[:0] = [again] if again is not None else []
        final = len(found) <= limit
        shown = found[:limit]
        last = shown[-1].id if shown else None
        if self.twist == "endless_pages" and shown:
            final = False
            shown = [shown[index % len(shown)] for index in range(limit)]
            last = fixed_id(f"after {start}")
        elif self.twist == "repeated_cursor" and start is not None:
            last = start
        data = b"[" + b",".join([item.encoded(self.now) for item in shown]) + b"]"
        if not shown and self.manners.empty_data == "null":
            data = b"null"
        tail = b""
        if last is not None and (not final or self.manners.final_last == "id" or self.twist is not None):
            tail = b',"last":' + msgspec.json.encode(last)
        elif self.manners.final_last == "empty":
            tail = b',"last":""'
        return Response(200, b'{"limit":%d,"data":%b%b}' % (limit, data, tail))

    def limit(self, text: str | None) -> int:
        """The size of the page, which may differ from the requested limit."""
        largest = self.manners.max_page_size
        smallest = min(SMALLEST_PAGE, largest)
        if text is None:
            return smallest
        wanted = int(text) if re.fullmatch(r"\d{1,9}", text) else -1
        if smallest <= wanted <= largest:
            return wanted
        if wanted < 0 or self.manners.oversize == "refuse":
            raise RefusedError(400, "invalid limit", f"limit must be a number from {smallest} to {largest}")
        return min(max(wanted, smallest), largest)
