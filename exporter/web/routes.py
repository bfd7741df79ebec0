"""Our routes: what is answered on which path, in terms of what the daemon offers as `Face`.  No sockets here."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

from exporter.publish.status import Status
from exporter.web.guard import Guard
from exporter.web.landing import content_security_policy, render
from exporter.web.server import Handler, HttpServer, Request, Response, text_response
from exporter.web.threads import Workers


class Page(Protocol):
    """A finished exposition: `length` bytes in `chunks`, already compressed when `encoding` says so."""

    @property
    def content_type(self) -> str:
        """The format that was agreed on."""

    @property
    def encoding(self) -> str | None:
        """`gzip`, or None for plain."""

    @property
    def chunks(self) -> Sequence[bytes]:
        """The body, to be written in this order."""


class Face(Protocol):
    """What the daemon shows of itself.  Called from several threads at once."""

    @property
    def lifecycle_enabled(self) -> bool:
        """Whether `POST /-/reload` is allowed."""

    def metrics(self, accept: str, accept_encoding: str, names: frozenset[str]) -> Page:
        """The exposition, as these two headers want it, of the series of these names only (none: of all)."""

    def status(self) -> Status:
        """The state of things for the landing page."""

    def unhealthy(self) -> str | None:
        """Why the process does not work, None when it does."""

    def unready(self) -> str | None:
        """Why there is nothing complete to show yet, None when there is."""

    def reload(self) -> str | None:
        """Read the configuration again: None when it is in force, else why it was refused."""


Answer = Callable[[Request], Response]
Route = tuple[frozenset[str], Callable[[Request], Awaitable[Response]]]


def routes(face: Face, *, clock: Callable[[], float] = time.time) -> Handler:
    """The handler of all paths.  `clock` gives the present as seconds since the epoch."""
    # What is always quick, what may cost CPU at a stranger's wish, and what may wait for locks and files are kept apart: thousands of
    # filtered scrapes, or a reload that hangs, hold up neither Prometheus's own scrape nor the health check; nor does a flood from
    # one address hold up another's.
    pages = Workers("page", threads=2, waiting=512, of_one=128)
    filtered = Workers("filtered", threads=1, waiting=16, of_one=8)
    lifecycle = Workers("reload", threads=1, waiting=4)

    async def metrics(request: Request) -> Response:
        names = frozenset(request.query.get("name[]", ()))
        return await (filtered if names else pages).run(lambda: _metrics(face, request, names), request.client)

    async def reload(_: Request) -> Response:
        if not face.lifecycle_enabled:
            return text_response(HTTPStatus.FORBIDDEN, "Reloading over HTTP is not enabled (web.enable_lifecycle).")
        refusal = await lifecycle.run(face.reload)
        if refusal is not None:
            return text_response(HTTPStatus.BAD_REQUEST, f"Not reloaded: {refusal}")
        return text_response(HTTPStatus.OK, "Reloaded.")

    def quick(answer: Answer) -> Route:
        return frozenset({"GET", "HEAD"}), lambda request: pages.run(lambda: answer(request), request.client)

    table: dict[str, Route] = {
        "/": quick(lambda _: _landing(face, clock())),
        "/metrics": (frozenset({"GET", "HEAD"}), metrics),
        "/-/healthy": quick(lambda _: _probe(face.unhealthy(), "Healthy.")),
        "/-/ready": quick(lambda _: _probe(face.unready(), "Ready.")),
        "/-/reload": (frozenset({"POST"}), reload),
    }

    async def handle(request: Request) -> Response:
        if request.path not in table:
            return text_response(HTTPStatus.NOT_FOUND, "Not found.")
        methods, answer = table[request.path]
        if request.method not in methods:
            return text_response(HTTPStatus.METHOD_NOT_ALLOWED, "Method not allowed.", {"Allow": ", ".join(sorted(methods))})
        return await answer(request)

    return handle


def _metrics(face: Face, request: Request, names: frozenset[str]) -> Response:
    page = face.metrics(request.headers.get("accept", ""), request.headers.get("accept-encoding", ""), names)
    headers = {"Content-Type": page.content_type, "Vary": "Accept, Accept-Encoding"}
    if page.encoding is not None:
        headers["Content-Encoding"] = page.encoding
    return Response(HTTPStatus.OK, headers, page.chunks)


def _landing(face: Face, now: float) -> Response:
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": content_security_policy(),
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    return Response(HTTPStatus.OK, headers, (render(face.status(), now).encode(),))


def _probe(fault: str | None, good: str) -> Response:
    if fault is not None:
        return text_response(HTTPStatus.SERVICE_UNAVAILABLE, fault)
    return text_response(HTTPStatus.OK, good)


def http_server(face: Face, host: str, port: int, config_file: Path | None) -> HttpServer:
    """The server of our routes, not started yet; `config_file` is a web configuration.  Raises `ConfigError` when it cannot be used."""
    handler = routes(face)
    if config_file is None:
        return HttpServer(host, port, handler)
    guard = Guard(config_file)
    return HttpServer(host, port, guard.protect(handler), tls=guard if guard.encrypts else None)
