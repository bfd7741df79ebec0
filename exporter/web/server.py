"""A small HTTP/1.1 server, made to stand on a port that strangers can reach.

h11 speaks the protocol, asyncio moves the bytes, one thread of its own runs both.  What a client can cost is bounded everywhere:
the size of what it may send, the time it may take, the bytes that wait for it, and the number of connections, of which those
of the address that has the most give way to new ones, so that whoever asks next is answered.  It knows nothing of metrics: a
handler answers requests.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
import socket
import ssl
import threading
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote

import h11

from exporter.web.streams import Stream, TlsStream
from exporter.web.threads import BusyError

log = logging.getLogger(__name__)

UNSENT_BYTES = 128 * 1024  # in the kernel, for one client
COMPLAINT_SECONDS = 60  # between log lines about a lack of descriptors
STALLED_SECONDS = 2  # without an event, after which a connection gives way before newer ones
ABSOLUTE_FORM = re.compile(r"[a-z][a-z0-9+.-]*://[^/?]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may cost; sizes in bytes, times in seconds."""

    connections: int = 512
    """Open at once; beyond it some are closed for each new one."""
    head_bytes: int = 16 * 1024
    """A request's line and headers."""
    body_bytes: int = 4 * 1024
    """A request's body; what comes is read and thrown away."""
    query_fields: int = 1000
    """Fields in a request's query."""
    request_seconds: float = 10
    """From a request's first byte to its last."""
    idle_seconds: float = 120
    """Without a request; above the scrape interval, so that Prometheus keeps its connection."""
    handshake_seconds: float = 10
    """For TLS to be agreed."""
    write_bytes: int = 256 * 1024
    """Of an answer, handed to the client at once."""
    write_seconds: float = 30
    """For a client to take `write_bytes`."""
    linger_seconds: float = 1
    """For a client to take its leave when the server ends the connection."""
    stop_seconds: float = 0.5
    """For answers under way when the server stops."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request, its body left out: `path` decoded, `query` each field's values, `headers` with names in lower case."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    client: str = ""
    """The client's address, without its port."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; its body is written chunk by chunk and never joined, so that many clients can share one large page."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Sequence[bytes] = ()


Handler = Callable[[Request], Awaitable[Response]]


class Tls(Protocol):
    """Which TLS to speak, asked anew for each connection."""

    def context(self) -> ssl.SSLContext:
        """The context for a connection that begins now."""

    def admits(self, certificate: Mapping[str, Any] | None) -> bool:
        """Whether a client with this certificate, as `ssl.SSLSocket.getpeercert` gives it, may ask."""


def sheltered(handler: Handler) -> Handler:
    """`handler`, whose faults become answers: 503 when it is busy, else 500 and a line in the log."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except BusyError:
            return text_response(HTTPStatus.SERVICE_UNAVAILABLE, "Busy, try again", {"Retry-After": "1"})
        except Exception as error:  # noqa: BLE001 - a fault in one answer must not end the server
            # Neither the client nor the log gets the error's text: nobody knows what it may hold.
            where = traceback.extract_tb(error.__traceback__)[-1]
            log.error("a request failed: %s in %s, line %s", type(error).__name__, where.name, where.lineno)  # noqa: TRY400 - one line
            return text_response(HTTPStatus.INTERNAL_SERVER_ERROR, _phrase(HTTPStatus.INTERNAL_SERVER_ERROR))

    return answer


def text_response(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """A plain-text answer of one line."""
    return Response(status, {"Content-Type": "text/plain; charset=utf-8", **(headers or {})}, (f"{text}\n".encode(),))


class HttpServer:
    """Serves `handler` on an address from `start` to `stop`; port 0 takes a free one, an empty host means every address."""

    def __init__(self, host: str, port: int, handler: Handler, *, tls: Tls | None = None, limits: Limits | None = None) -> None:
        self._host = host
        self._wanted_port = port
        self._handler = sheltered(handler)
        self._tls = tls
        self._limits = limits or Limits()
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._of_client: Counter[str] = Counter()
        self._silent_until = 0.0

    def start(self) -> None:
        """Listen, and serve in a thread of its own.  Raises `OSError` when the address cannot be had."""
        self._listener = _listen(self._host, self._wanted_port)
        self._bound_to: tuple[str, int] = self._listener.getsockname()[:2]
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = self._runner.get_loop()
        self._accepting = self._loop.create_task(self._accept())
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port really listened on."""
        return self._bound_to[1]

    @property
    def address(self) -> str:
        """The address really listened on, as `host:port` or `[host]:port`."""
        host, port = self._bound_to
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def stop(self) -> None:
        """Close everything and return, within about a second whatever the clients do; answers under way get a moment to end."""
        self._loop.call_soon_threadsafe(self._accepting.cancel)
        self._thread.join()

    def _run(self) -> None:
        with self._runner as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        await asyncio.wait([self._accepting])
        self._listener.close()
        busy = [task for connection, task in self._connections.items() if connection.busy]
        if busy:
            await asyncio.wait(busy, timeout=self._limits.stop_seconds)
        # The runner cancels what is left.

    async def _accept(self) -> None:
        while True:
            await self._knock()
            try:
                accepted, address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue  # gone again
            except OSError as error:
                await self._find_descriptors(error)
                continue
            self._make_room(self._limits.connections)
            self._let_in(accepted, str(address[0]))

    async def _knock(self) -> None:
        """Return when a client waits to be let in.

        Without descriptors, to accept fails whether a client waits or not; and to wait anew each time lets a loop turn pass, so that
        a crowd at the door does not starve those inside.
        """
        loop = asyncio.get_running_loop()
        knocked = asyncio.Event()
        loop.add_reader(self._listener, knocked.set)
        try:
            await knocked.wait()
        finally:
            loop.remove_reader(self._listener)

    def _let_in(self, accepted: socket.socket, client: str) -> None:
        try:
            stream = Stream(accepted) if self._tls is None else TlsStream(accepted, self._tls.context())
        except OSError:  # reset already
            accepted.close()
            return
        connection = _Connection(stream, client, self._handler, self._tls, self._limits)
        # The connection does not know its task: the two in a circle would outlive a flood until the garbage collector comes.
        task = self._loop.create_task(connection.run())
        self._connections[connection] = task
        self._of_client[client] += 1
        task.add_done_callback(lambda _: self._forget(connection))

    def _forget(self, connection: _Connection) -> asyncio.Task[None] | None:
        task = self._connections.pop(connection, None)
        if task is not None:
            self._of_client[connection.client] -= 1
            if not self._of_client[connection.client]:
                del self._of_client[connection.client]
        return task

    async def _find_descriptors(self, error: OSError) -> None:
        """File descriptors ran out: an idle connection gives up its own, and there may be one soon."""
        now = self._loop.time()
        if now >= self._silent_until:
            self._silent_until = now + COMPLAINT_SECONDS
            log.warning("cannot accept connections: %s", error.strerror)
        self._make_room(len(self._connections))
        await asyncio.sleep(0.1)

    def _make_room(self, most: int) -> None:
        """Close connections until there are fewer than `most`: of the address that has the most, so that a flood drowns itself.

        Of these first the ones that have stalled, idle or in the middle of an answer, then the idle ones, the longest first.
        """
        while self._connections and len(self._connections) >= most:
            stalled = self._loop.time() - STALLED_SECONDS
            victim = min(self._connections, key=lambda of: (-self._of_client[of.client], of.since > stalled, of.busy, of.since))
            task = self._forget(victim)
            assert task is not None
            task.cancel()


class _RefusedError(Exception):
    """The request cannot be taken; its client gets `status`, and its connection ends."""

    def __init__(self, status: int) -> None:
        self.status = status


class _Connection:
    """One client, from its handshake to its end; `since` is the loop's time of its last event, be it that it took some bytes."""

    def __init__(self, stream: Stream, client: str, handler: Handler, tls: Tls | None, limits: Limits) -> None:
        self.busy = False
        self.since = asyncio.get_running_loop().time()
        self.client = client
        self._stream = stream
        self._handler = handler
        self._tls = tls
        self._limits = limits
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
            pass  # the client went away or stalled: nobody is left to tell
        finally:
            self._stream.close()

    async def _converse(self) -> None:
        try:
            while (request := await self._next_request()) is not None:
                self.busy = True
                response = await self._handler(request)
                await self._send(response, head_only=request.method == "HEAD")
                self.busy = False
                self.since = asyncio.get_running_loop().time()
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    return
                self._http.start_next_cycle()
        except _RefusedError as refusal:
            if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self._send(text_response(refusal.status, _phrase(refusal.status), {"Connection": "close"}))

    async def _next_request(self) -> Request | None:
        """The next request, None when the client has none.  Raises `_RefusedError`."""
        if not self._http.trailing_data[0]:  # none was sent ahead
            try:
                async with asyncio.timeout(self._limits.idle_seconds):
                    self._http.receive_data(await self._stream.read())
            except TimeoutError:
                return None
        self.since = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                return await self._read_request()
        except TimeoutError:
            raise _RefusedError(HTTPStatus.REQUEST_TIMEOUT) from None
        except h11.RemoteProtocolError as error:
            raise _RefusedError(error.error_status_hint) from None

    async def _read_request(self) -> Request | None:
        head, body_bytes = None, 0
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    await self._stream.write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                self._http.receive_data(await self._stream.read())
            elif isinstance(event, h11.Request):
                head = event
                announced = next((int(value) for name, value in event.headers if name == b"content-length"), 0)
                self._check_body(announced)
            elif isinstance(event, h11.Data):
                body_bytes += len(event.data)
                self._check_body(body_bytes)
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return _request(head, self.client, self._limits.query_fields)
            else:
                return None

    def _check_body(self, body_bytes: int) -> None:
        if body_bytes > self._limits.body_bytes:
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    async def _send(self, response: Response, *, head_only: bool = False) -> None:
        headers = {
            "Date": formatdate(usegmt=True),
            "Content-Length": str(sum(map(len, response.body))),
            "X-Content-Type-Options": "nosniff",
            **response.headers,
        }
        head = h11.Response(status_code=response.status, headers=list(headers.items()), reason=_phrase(response.status))
        await self._write(self._http.send(head) or b"")
        for chunk in () if head_only else response.body:
            view = memoryview(chunk)
            for start in range(0, len(view), self._limits.write_bytes):
                piece = view[start : start + self._limits.write_bytes]
                self._http.send_with_data_passthrough(h11.Data(data=piece))  # type: ignore[arg-type]  # any buffer will do
                await self._write(piece)
        self._http.send(h11.EndOfMessage())

    async def _write(self, data: bytes | memoryview) -> None:
        async with asyncio.timeout(self._limits.write_seconds):
            await self._stream.write(data)
        self.since = asyncio.get_running_loop().time()

    async def _part(self) -> None:
        """Take what is still coming, for a moment: closed at once, the kernel would throw away the answer with the unread rest."""
        async with asyncio.timeout(self._limits.linger_seconds):
            await self._stream.end()
            while await self._stream.read():
                pass


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
        fields = parse_qs(query, errors="replace", max_num_fields=query_fields)
    except ValueError:
        raise _RefusedError(HTTPStatus.BAD_REQUEST) from None
    return Request(head.method.decode("ascii"), unquote(path, errors="replace") or "/", fields, headers, client)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; of the addresses of a name, one of IPv4 is preferred."""
    if host == "":
        if socket.has_dualstack_ipv6():
            try:
                return _bound(socket.AF_INET6, ("::", port), dualstack=True)
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # IPv6 is there, yet switched off
                    raise
        return _bound(socket.AF_INET, ("0.0.0.0", port))  # noqa: S104 - what an empty host asks for
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return _bound(family, address)


def _bound(family: int, address: tuple[Any, ...], *, dualstack: bool = False) -> socket.socket:
    listener = socket.create_server(address, family=family, backlog=1024, dualstack_ipv6=dualstack)
    listener.setblocking(False)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        # Handed down to its connections: else the kernel takes megabytes for each client that asks and does not read.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    return listener
