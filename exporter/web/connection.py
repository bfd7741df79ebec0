"""One client's connection: h11 reads its requests, the handler answers them, and every step is limited."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import parse_qs, unquote

import h11

from exporter.web.http import Handler, Limits, Refused, Request, Response, Tls, phrase, text_response
from exporter.web.streams import Stream

ABSOLUTE_FORM = re.compile(r"[a-z][a-z0-9+.-]*://[^/?]*", re.IGNORECASE)
MOST_BUFFERS = 256  # in one call of the system, which takes 1024


class RefusedError(Exception):
    """The request is refused: its client gets `status`, and its connection ends."""

    def __init__(self, status: int, request: Request | None = None) -> None:
        self.status = status
        self.request = request


class Connection:
    """One client, from its handshake to its end; `since` is the loop's time of its last event, such as bytes that it accepted."""

    def __init__(
        self, stream: Stream, client: str, handler: Handler, tls: Tls | None, limits: Limits, refused: Refused | None = None
    ) -> None:
        self._refused = refused
        self.busy = False
        self.client = client
        self._stream = stream
        self._handler = handler
        self._tls = tls
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self.since = self._loop.time()
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)

    async def run(self) -> None:
        """Serve until the client or a limit ends it."""
        try:
            async with asyncio.timeout(self._limits.handshake_seconds):
                await self._stream.handshake()
            if self._tls is None or self._tls.admits(self._stream.certificate):
                await self._converse()
                await self._part()
        except OSError:
            pass  # the client went away or stalled: there is nobody to tell
        finally:
            self._stream.close()

    async def _converse(self) -> None:
        try:
            while (request := await self._next_request()) is not None:
                self.busy = True
                response = await self._handler(request)
                await self._send(response, head_only=request.method == "HEAD")
                self.busy = False
                self.since = self._loop.time()
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    return
                self._http.start_next_cycle()
        except RefusedError as refusal:
            if self._refused is not None and refusal.request is not None:
                self._refused(refusal.request, refusal.status)
            if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self._send(text_response(refusal.status, phrase(refusal.status), {"Connection": "close"}))

    async def _next_request(self) -> Request | None:
        """The next request, None when the client has none.  Raises `RefusedError`."""
        if not self._http.trailing_data[0]:  # none was sent ahead
            try:
                async with asyncio.timeout(self._limits.idle_seconds):
                    self._http.receive_data(await self._stream.read())
            except TimeoutError:
                return None
        self.since = self._loop.time()
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                return await self._read_request()
        except TimeoutError:
            raise RefusedError(HTTPStatus.REQUEST_TIMEOUT) from None
        except h11.RemoteProtocolError as error:
            raise RefusedError(error.error_status_hint) from None

    async def _read_request(self) -> Request | None:
        request, body, body_bytes = None, [], 0
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    await self._stream.write([self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b""])
                self._http.receive_data(await self._stream.read())
            elif isinstance(event, h11.Request):
                request = _request(event, self.client, self._limits.query_fields)
                self._check_body(_announced(event), request)
            elif isinstance(event, h11.Data):
                body_bytes += len(event.data)
                self._check_body(body_bytes, request)
                body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                return replace(request, body=b"".join(body)) if body else request
            else:
                return None

    def _check_body(self, body_bytes: int, request: Request | None) -> None:
        if body_bytes > self._limits.body_bytes:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, request)

    async def _send(self, response: Response, *, head_only: bool = False) -> None:
        headers = {
            "Date": formatdate(usegmt=True),
            "Content-Length": str(sum(map(len, response.body))),
            "X-Content-Type-Options": "nosniff",
            **response.headers,
        }
        head = h11.Response(status_code=response.status, headers=list(headers.items()), reason=phrase(response.status))
        chunks = [self._http.send(head) or b""]
        if not head_only:
            for chunk in response.body:
                self._http.send_with_data_passthrough(h11.Data(data=chunk))
                chunks.append(chunk)
        for buffers in _portions(chunks, self._limits.write_bytes):
            async with asyncio.timeout(self._limits.write_seconds):
                await self._stream.write(buffers)
            self.since = self._loop.time()
        self._http.send(h11.EndOfMessage())

    async def _part(self) -> None:
        """Read what the client still sends, for a moment: if the socket closed at once, the kernel would drop the answer too."""
        async with asyncio.timeout(self._limits.linger_seconds):
            await self._stream.end()
            while await self._stream.read():
                pass


def _portions(chunks: Sequence[bytes], size: int) -> Iterator[list[memoryview]]:
    """The chunks' bytes in portions of at most `size`, each a few buffers that share the chunks' memory."""
    portion: list[memoryview] = []
    free = size
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            piece, view = view[:free], view[free:]
            portion.append(piece)
            free -= len(piece)
            if free == 0 or len(portion) == MOST_BUFFERS:
                yield portion
                portion, free = [], size
    if portion:
        yield portion


def _announced(head: h11.Request) -> int:
    """The body's length by the head, 0 when it does not say.

    Raises `RefusedError` for a head that gives two lengths: where a proxy believes the one and a server the other, a second
    request can be smuggled in as a body (RFC 9112, section 6.3).
    """
    names = {name for name, _ in head.headers}
    if {b"content-length", b"transfer-encoding"} <= names:
        raise RefusedError(HTTPStatus.BAD_REQUEST)
    return next((int(value) for name, value in head.headers if name == b"content-length"), 0)


def _request(head: h11.Request, client: str, query_fields: int) -> Request:
    target = head.target.decode("ascii")
    if not target.startswith("/"):
        target = ABSOLUTE_FORM.sub("", target, count=1)
    path, _, query = target.partition("#")[0].partition("?")
    headers: dict[str, str] = {}
    for raw_name, raw_value in head.headers:
        name, value = raw_name.decode("ascii"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    try:
        fields = parse_qs(query, errors="replace", max_num_fields=query_fields) if query else {}
    except ValueError:
        raise RefusedError(HTTPStatus.BAD_REQUEST) from None
    return Request(head.method.decode("ascii"), unquote(path, errors="replace") or "/", fields, headers, client)
