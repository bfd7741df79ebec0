"""HTTP as values: a client's limits, its request, the answer, and the handler."""

from __future__ import annotations

import logging
import ssl
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Protocol

from exporter.web.fairness import BusyError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one client; sizes in bytes, times in seconds."""

    connections: int = 512
    """Open at once; above it, a connection is closed for each new one."""
    head_bytes: int = 16 * 1024
    """A request's line and headers."""
    body_bytes: int = 4 * 1024
    """A request's body."""
    query_fields: int = 1000
    """Fields in a request's query."""
    request_seconds: float = 10
    """From a request's first byte to its last."""
    idle_seconds: float = 120
    """Without a request; longer than a scrape interval, so that Prometheus keeps its connection."""
    handshake_seconds: float = 10
    """For the TLS handshake."""
    write_bytes: int = 256 * 1024
    """Of an answer, handed to the client at once."""
    write_seconds: float = 30
    """For a client to take `write_bytes`."""
    linger_seconds: float = 1
    """For a client to close its side after the server has closed its own."""
    stop_seconds: float = 0.5
    """For answers in progress when the server stops."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request: `path` decoded, `query` each field's values, `headers` with names in lower case."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    client: str = ""
    """The client's address, without its port."""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; its body is written chunk by chunk and never joined, so that many clients can share one large page."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Sequence[bytes] = ()


Handler = Callable[[Request], Awaitable[Response]]
Refused = Callable[[Request, int], None]
"""Is called with a request that was refused before a handler saw it, and with the status."""


class Tls(Protocol):
    """The TLS settings, read again for each connection."""

    def context(self) -> ssl.SSLContext:
        """The context for a connection that begins now."""

    def admits(self, certificate: Mapping[str, Any] | None) -> bool:
        """Whether a client with this certificate, as from `ssl.SSLSocket.getpeercert`, is allowed."""


def sheltered(handler: Handler) -> Handler:
    """`handler` with its errors turned into answers: 503 when it is busy, otherwise 500 and a line in the log."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except BusyError:
            return text_response(HTTPStatus.SERVICE_UNAVAILABLE, "Busy, try again", {"Retry-After": "1"})
        except Exception as error:  # noqa: BLE001 - an error in one answer must not end the server
            # The error's text may hold a secret: neither the client nor the log gets it.
            where = traceback.extract_tb(error.__traceback__)[-1]
            log.error("a request failed: %s in %s, line %s", type(error).__name__, where.name, where.lineno)  # noqa: TRY400 - one line, without the error's text
            return text_response(HTTPStatus.INTERNAL_SERVER_ERROR, phrase(HTTPStatus.INTERNAL_SERVER_ERROR))

    return answer


def text_response(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """A plain-text answer of one line."""
    return Response(status, {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}, (f"{text}\n".encode(),))


def phrase(status: int) -> str:
    """The reason phrase of a status; empty for one that is not registered."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
