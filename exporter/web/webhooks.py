"""The port for 100ms's webhooks: it checks the sender and passes the body on, nothing else.

This port faces the internet: a refused request gets a status and nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Literal, Protocol

from exporter.config.config import ConfigError, WebhooksConfig
from exporter.logs import event
from exporter.web.http import Handler, Limits, Request, Response, phrase, text_response
from exporter.web.server import HttpServer

BODY_BYTES = 64 * 1024
_PATH = re.compile(r"/webhooks/([^/]+)")
_SIGNATURE = "x-100ms-signature"
_READ_AGAIN_SECONDS = 1.0
"""Seconds between two reads of the secrets' files that refused requests cause."""
UNKNOWN = "_unknown"


class Receiver(Protocol):
    """Receives the webhooks. Called in the server's event loop: must not wait."""

    def knows(self, workspace: str) -> bool:
        """Whether there is such a workspace."""

    def take(self, workspace: str, body: bytes) -> Literal["taken", "malformed", "busy"]:
        """Takes a webhook of this workspace, whose sender has been verified."""

    def reject(self, workspace: str, reason: str) -> None:
        """Counts a refused request."""


class Keys:
    """The secrets that a webhook must show.  Files are read again at a reload, and when a request does not match them."""

    def __init__(self, config: WebhooksConfig, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self.configure(config)

    def configure(self, config: WebhooksConfig) -> None:
        """Applies a configuration.  Raises `ConfigError` if a file cannot be read, after which nothing has changed."""
        found = _reveal(config)
        self._config = config
        self._headers, self._secret = found
        self._read_at = self._monotonic()

    def refuses(self, request: Request) -> Literal["secret", "signature"] | None:
        """The reason to refuse a request, if any.  The check always takes the same time."""
        reason = self._check(request)
        if reason is not None and self._renewed():
            reason = self._check(request)
        return reason

    def _check(self, request: Request) -> Literal["secret", "signature"] | None:
        headers = [_same(value, request.headers.get(name, "")) for name, value in self._headers.items()]
        signed = self._secret is None or _is_signed(self._secret, request)
        if not all(headers):
            return "secret"
        return None if signed else "signature"

    def _renewed(self) -> bool:
        """Whether the files have changed."""
        now = self._monotonic()
        if now - self._read_at < _READ_AGAIN_SECONDS:
            return False
        self._read_at = now
        try:
            found = _reveal(self._config)
        except ConfigError as error:
            event("warn", "the secrets of webhooks cannot be read again", reason=error)
            return False
        changed = found != (self._headers, self._secret)
        self._headers, self._secret = found
        return changed


def _reveal(config: WebhooksConfig) -> tuple[Mapping[str, str], str | None]:
    headers = {} if config.headers is None else config.headers.reveal()
    return headers, None if config.signature_secret is None else config.signature_secret.reveal()


def _same(expected: str, found: str) -> bool:
    """Whether two secrets are the same, in constant time."""
    return hmac.compare_digest(_digest(expected), _digest(found))


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="replace")).digest()


def _is_signed(secret: str, request: Request) -> bool:
    expected = hmac.new(secret.encode(), request.body, hashlib.sha256).hexdigest()
    return _same(expected, request.headers.get(_SIGNATURE, "").strip().lower().removeprefix("sha256="))


def webhook_routes(receiver: Receiver, keys: Keys) -> Handler:
    """The handler of the port."""

    async def handle(request: Request) -> Response:
        found = _PATH.fullmatch(request.path)
        if found is None:
            return _plain(HTTPStatus.NOT_FOUND)
        workspace = found[1]
        if not receiver.knows(workspace):
            receiver.reject(UNKNOWN, "workspace")
            return _plain(HTTPStatus.NOT_FOUND)
        if request.method != "POST":
            receiver.reject(workspace, "method")
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "POST"})
        reason = keys.refuses(request)
        if reason is not None:
            receiver.reject(workspace, reason)
            return _plain(HTTPStatus.UNAUTHORIZED)
        taken = receiver.take(workspace, request.body)
        if taken == "malformed":
            receiver.reject(workspace, "json")
            return _plain(HTTPStatus.BAD_REQUEST)
        if taken == "busy":
            return _plain(HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": "1"})
        return _plain(HTTPStatus.OK)

    return handle


def webhook_server(receiver: Receiver, keys: Keys, listeners: Sequence[socket.socket]) -> HttpServer:
    """The server of the port, not started yet."""

    def refused(request: Request, status: int) -> None:
        found = _PATH.fullmatch(request.path)
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE and found is not None and receiver.knows(found[1]):
            receiver.reject(found[1], "size")

    return HttpServer(listeners, webhook_routes(receiver, keys), limits=Limits(body_bytes=BODY_BYTES), refused=refused)


def _plain(status: HTTPStatus, headers: Mapping[str, str] | None = None) -> Response:
    return text_response(status, phrase(status), headers)
