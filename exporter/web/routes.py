"""The routes: the answer on each path. The daemon provides the data as `Face`."""

from __future__ import annotations

import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

from exporter.publish.status import Status
from exporter.web.guard import Guard
from exporter.web.http import Handler, Request, Response, text_response
from exporter.web.landing import content_security_policy, render
from exporter.web.server import HttpServer
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
    """The daemon as the routes see it.  `metrics` and `reload` are called in threads, everything else in the server's event loop."""

    @property
    def lifecycle_enabled(self) -> bool:
        """Whether `POST /-/reload` is allowed."""

    def finished(self, accept: str, accept_encoding: str) -> Page | None:
        """The whole exposition in the form that these two headers request, if it is ready; must not wait or compute."""

    def metrics(self, accept: str, accept_encoding: str, names: frozenset[str]) -> Page:
        """The exposition in the form that these two headers request, limited to series of these names (none: all); may take a while."""

    def status(self) -> Status:
        """The data for the landing page."""

    def unhealthy(self) -> str | None:
        """Why the process does not work, None when it does."""

    def unready(self) -> str | None:
        """Why the exporter is not ready, None when it is."""

    def reload(self) -> str | None:
        """Read the configuration again: None when it is in force, otherwise why it was refused."""


TELEMETRY_PATH = "/metrics"

Route = tuple[frozenset[str], Callable[[Request], Awaitable[Response]]]


def routes(face: Face, *, telemetry_path: str = TELEMETRY_PATH, clock: Callable[[], float] = time.time) -> Handler:
    """The handler of all paths.  `clock` gives the present as seconds since the epoch.

    Finished answers are sent from the event loop: a thread costs more than such an answer, and while a poll computes, a thread
    waits for the interpreter.  Answers that must be computed run in threads, separate for each purpose and limited by address, so
    that neither thousands of filtered scrapes, nor a reload that hangs, nor a flood from one address delay Prometheus's own scrape.
    """
    pages = Workers("page", threads=2, waiting=512, of_one=128)
    filtered = Workers("filtered", threads=1, waiting=16, of_one=8)
    lifecycle = Workers("reload", threads=1, waiting=4)

    async def metrics(request: Request) -> Response:
        names = frozenset(request.query.get("name[]", ()))
        accept, encoding = request.headers.get("accept", ""), request.headers.get("accept-encoding", "")
        page = None if names else face.finished(accept, encoding)
        if page is None:
            page = await (filtered if names else pages).run(lambda: face.metrics(accept, encoding, names), request.client)
        return _metrics(page)

    async def reload(request: Request) -> Response:
        if not face.lifecycle_enabled:
            return text_response(HTTPStatus.FORBIDDEN, "Reloading over HTTP is not enabled (web.enable_lifecycle).")
        if not _of_same_site(request):
            return text_response(HTTPStatus.FORBIDDEN, "Reloading is not allowed from a page of another site (Origin).")
        refusal = await lifecycle.run(face.reload, request.client)
        if refusal is not None:
            return text_response(HTTPStatus.BAD_REQUEST, f"Not reloaded: {refusal}")
        return text_response(HTTPStatus.OK, "Reloaded.")

    table: dict[str, Route] = {
        "/": _quick(lambda: _landing(face, clock(), telemetry_path)),
        "/-/healthy": _quick(lambda: _probe(face.unhealthy(), "Healthy.")),
        "/-/ready": _quick(lambda: _probe(face.unready(), "Ready.")),
        "/-/reload": (frozenset({"POST"}), reload),
        telemetry_path: (frozenset({"GET", "HEAD"}), metrics),
    }

    async def handle(request: Request) -> Response:
        if request.path not in table:
            return text_response(HTTPStatus.NOT_FOUND, "Not found.")
        methods, answer = table[request.path]
        if request.method not in methods:
            return text_response(HTTPStatus.METHOD_NOT_ALLOWED, "Method not allowed.", {"Allow": ", ".join(sorted(methods))})
        return await answer(request)

    return handle


def _quick(answer: Callable[[], Response]) -> Route:
    async def answered(_: Request) -> Response:
        return answer()

    return frozenset({"GET", "HEAD"}), answered


def _of_same_site(request: Request) -> bool:
    """Whether a browser sent this from a page of our own.  Other clients send no Origin and need none."""
    origin = request.headers.get("origin")
    if origin is None:
        return True
    host = origin.partition("://")[2]
    return host != "" and host.lower() == request.headers.get("host", "").lower()


def _metrics(page: Page) -> Response:
    headers = {"Content-Type": page.content_type, "Vary": "Accept, Accept-Encoding"}
    if page.encoding is not None:
        headers["Content-Encoding"] = page.encoding
    return Response(HTTPStatus.OK, headers, page.chunks)


def _landing(face: Face, now: float, telemetry_path: str) -> Response:
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": content_security_policy(),
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    return Response(HTTPStatus.OK, headers, (render(face.status(), now, telemetry_path).encode(),))


def _probe(fault: str | None, good: str) -> Response:
    if fault is not None:
        return text_response(HTTPStatus.SERVICE_UNAVAILABLE, fault)
    return text_response(HTTPStatus.OK, good)


def http_server(
    face: Face, listeners: Sequence[socket.socket], config_file: Path | None, telemetry_path: str = TELEMETRY_PATH
) -> HttpServer:
    """The server of our routes, not started yet; `config_file` is a web configuration.  Raises `ConfigError` when it cannot be used."""
    handler = routes(face, telemetry_path=telemetry_path)
    if config_file is None:
        return HttpServer(listeners, handler)
    guard = Guard(config_file)
    return HttpServer(listeners, guard.protect(handler), tls=guard if guard.encrypts else None)
