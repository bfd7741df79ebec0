"""Misbehaviour on request: which calls a fault strikes, and how it changes a good answer."""

from __future__ import annotations

import random
import re
import threading
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, Literal

import msgspec

from exporter.simulator.replies import Response, Twist, error
from exporter.times import SECOND

Kind = Literal[
    "status",  # an error of `status`, with `message`, `retry_after`, as JSON or `html`
    "stall",  # nothing for `seconds`, then the good answer: a slow or hung server
    "reset",  # the connection is reset before the headers
    "reset_in_headers",
    "reset_in_body",
    "trickle_headers",  # a byte of the headers every `seconds`
    "trickle_body",  # a byte of the body every `seconds`, endlessly
    "cut_short",  # the connection closes half-way through the body
    "huge_body",  # `size` bytes of well-formed JSON
    "gzip_bomb",  # the same, compressed to a thousandth
    "body",  # `body`, with status 200
    "html",  # a page for people, with status 200
    "wrong_types",  # JSON in which every value has the wrong type
    "invalid_utf8",
    "deep_nesting",
    "repeated_cursor",  # `last` repeats the `start` of the request
    "endless_pages",  # there is always another page
    "repeated_item",  # a page begins with the last item of the previous page
    "redirect",  # 302 to `location`, or to the same address
    "no_date",
    "wrong_date",  # the `Date` header is `seconds` off
]

_HTML: Final = b"<!DOCTYPE html><html><head><title>%d</title></head><body><h1>%b</h1></body></html>\n"

_BODIES: Final = {
    "wrong_types": b'{"limit":"ten","data":{"id":[1,2],"active":"yes","peers":7,"created_at":false},"last":[]}',
    "invalid_utf8": b'{"limit":10,"data":[{"id":"\xff\xfe\xc3","name":"\xed\xa0\x80"}],"last":""}',
    "deep_nesting": b'{"limit":10,"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to misbehave, and the calls that it strikes.

    It strikes calls of its `route` (such as `/rooms/<id>`) whose path and query match the regular expression `match`, after the
    first `after` of them, with its `probability`, at most `times` times.  `retry_after` is sent unchanged, except that `date+5`
    becomes the HTTP date in five seconds.  Raises `ValueError` if `match` is not a regular expression.
    """

    kind: Kind
    route: str | None = None
    match: str = ""
    times: int | None = None
    after: int = 0
    probability: float = 1.0
    status: int = 503
    message: str | None = None
    retry_after: str | None = None
    html: bool = False
    seconds: float = 1.0
    size: int = 1 << 30
    body: str = ""
    location: str | None = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.match)
        except re.error as fault:
            raise ValueError(f"match is not a regular expression: {fault}") from fault

    @property
    def twist(self) -> Twist | None:
        """How this fault changes lists, if it is of that kind."""
        match self.kind:
            case "repeated_cursor" | "endless_pages" | "repeated_item":
                return self.kind
            case _:
                return None

    def concerns(self, route: str | None, target: str) -> bool:
        """Whether the fault applies to a call with this route, path and query."""
        return (self.route is None or self.route == route) and re.search(self.match, target) is not None


@dataclass(slots=True)
class Standing:
    """An active fault, with the numbers of calls that it concerned and that it struck."""

    fault: Fault
    seen: int = 0
    struck: int = 0


class Faults:
    """The active faults.  Only the first fault that strikes a call is applied, so a list of faults is a script."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 -- repeatable misbehaviour, not cryptography
        self._lock = threading.Lock()
        self._standing: list[Standing] = []

    def add(self, *faults: Fault) -> None:
        """Adds faults after the active ones."""
        with self._lock:
            self._standing.extend(Standing(fault) for fault in faults)

    def replace(self, *faults: Fault) -> None:
        """Replaces the active faults in one step."""
        with self._lock:
            self._standing[:] = [Standing(fault) for fault in faults]

    def clear(self) -> None:
        """Removes all faults."""
        with self._lock:
            self._standing.clear()

    def standing(self) -> list[Standing]:
        """The active and the used-up faults, with their counts."""
        with self._lock:
            return list(self._standing)

    def strike(self, route: str | None, target: str) -> Fault | None:
        """The fault that strikes this call, if any; the strike counts towards its `times`."""
        with self._lock:
            for standing in self._standing:
                fault = standing.fault
                if not fault.concerns(route, target):
                    continue
                standing.seen += 1
                used_up = fault.times is not None and standing.struck >= fault.times
                if used_up or standing.seen <= fault.after or self._random.random() >= fault.probability:
                    continue
                standing.struck += 1
                return fault
        return None


def distort(response: Response, fault: Fault, target: str, now: int) -> Response:
    """A good response as the fault changes it; unchanged if the fault acts only on the wire or in lists."""
    match fault.kind:
        case "status":
            headers = {} if fault.retry_after is None else {"Retry-After": _retry_after(fault.retry_after, now)}
            if fault.html:
                return Response(fault.status, _page(fault.status), "text/html; charset=utf-8", headers)
            return error(fault.status, fault.message or phrase(fault.status).lower(), headers=headers)
        case "body":
            return Response(200, fault.body.encode())
        case "html":
            return Response(200, _page(200), "text/html; charset=utf-8")
        case "wrong_types" | "invalid_utf8" | "deep_nesting":
            return Response(200, _BODIES[fault.kind])
        case "redirect":
            return Response(302, b"", "text/plain", {"Location": fault.location or target})
        case _:
            return response


def _retry_after(text: str, now: int) -> str:
    ahead = re.fullmatch(r"date\+(\d+)", text)
    return formatdate(now // SECOND + int(ahead.group(1)), usegmt=True) if ahead else text


def _page(status: int) -> bytes:
    return _HTML % (status, phrase(status).encode())


def phrase(status: int) -> str:
    """The reason phrase of a status."""
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"
