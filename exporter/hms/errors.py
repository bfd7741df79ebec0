"""Errors of the 100ms API, and which status or connection fault means which.

No message contains an address, a token, or anything that the API answered.
"""

from __future__ import annotations

import requests
import urllib3

REDIRECTS = frozenset({301, 302, 303, 307, 308})


class ApiError(Exception):
    """100ms could not be read. The message says why and is safe to log.

    `transport`: nothing complete was answered.  `refused`: the credentials are not accepted, so no other request would be
    answered either.  `throttled`: 100ms asks for fewer requests.
    """

    def __init__(self, message: str, *, transport: bool = False, refused: bool = False, throttled: bool = False) -> None:
        super().__init__(message)
        self.transport = transport
        self.refused = refused
        self.throttled = throttled


class NotFound(ApiError):
    """The API does not know this record or route (404)."""


class Forbidden(ApiError):
    """The workspace may not read this route (403); its credentials are valid for other routes."""


class TooMuch(ApiError):
    """A smaller page may succeed: the server refused the request, or its answer was too large or too slow.

    `record_bytes` is the average size of the records that arrived; `None` when the server refused to answer at all.
    """

    def __init__(self, message: str, *, record_bytes: float | None = None, transport: bool = False) -> None:
        super().__init__(message, transport=transport)
        self.record_bytes = record_bytes


class MalformedAnswer(Exception):
    """An answer that differs from the API's documentation as a whole; nothing in it can be used."""


class TooLarge(MalformedAnswer):
    """An answer, or one record of it, larger than this program reads; `record_bytes` is the average size of its records."""

    def __init__(self, message: str, record_bytes: float = 0.0) -> None:
        super().__init__(message)
        self.record_bytes = record_bytes


def failure(endpoint: str, status: int, *, optional: bool = False) -> ApiError:
    """The error for a status other than 200. `optional`: a workspace may lack this route."""
    if status == 404:
        return NotFound(f"{endpoint}: not found (404)")
    if status == 400:
        return TooMuch(f"{endpoint}: 100ms refuses the request (400)")
    if status == 403 and optional:
        return Forbidden(f"{endpoint}: this workspace may not read it (403)")
    if status in (401, 403):
        return ApiError(f"{endpoint}: 100ms does not accept the credentials ({status})", refused=True)
    if status in REDIRECTS:
        return ApiError(f"{endpoint}: a redirect to another host is not followed ({status}): the token goes nowhere else")
    return ApiError(f"{endpoint}: 100ms answers {status}", throttled=status == 429)


def fault(code: str, error: Exception, timeout: float) -> str:
    """What kind of fault a connection had, as a short text for a log line; `code` is `timeout` or `connection`."""
    if code == "timeout":
        return f"nothing complete within {timeout:g} s"
    kind: BaseException = error
    while isinstance(kind, requests.RequestException | urllib3.exceptions.MaxRetryError) and kind.args:
        inner = getattr(kind.args[0], "reason", kind.args[0])
        if not isinstance(inner, BaseException):
            break
        kind = inner
    return f"the connection failed ({type(kind).__name__})"


def is_timeout(error: BaseException) -> bool:
    """Whether an error of the libraries is a timeout."""
    return isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError) or (
        isinstance(error, requests.ConnectionError) and "timed out" in str(error)
    )
