"""The simulated 100ms on a real socket."""

from __future__ import annotations

import gzip
import socket
import socketserver
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from exporter.simulator.answers import PREFIX, answer, route_of
from exporter.simulator.faults import Fault, Faults, distort
from exporter.simulator.replies import Call, Manners, Response, error
from exporter.simulator.wire import Wire
from exporter.simulator.workspace import Workspace
from exporter.times import SECOND

CONTROL: Final = "/_faults"

_REQUESTS_KEPT: Final = 10_000
_LARGEST_COMMAND: Final = 1 << 20
_SMALLEST_GZIP: Final = 200
_DATE_BEHIND: Final = SECOND // 100
"""How far the real clock's `Date` is behind the records (µs).

An exporter may run on another CPU than this server, and on some virtual machines two CPUs disagree by a millisecond.  100ms's
servers may disagree as well.  With an exact `Date`, a call could be counted as a millisecond longer than it was.
"""

Clock = Callable[[], int]


def real_clock() -> int:
    """The machine's time in microseconds since the epoch."""
    return time.time_ns() // 1000


def shifted_clock(offset: int) -> Clock:
    """The machine's time, shifted by this many microseconds."""
    return lambda: real_clock() + offset


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """A request as the server saw it, at a moment of its clock; `status` is 0 if the connection was reset before an answer."""

    at: int
    method: str
    path: str
    query: Mapping[str, str]
    authorized: bool
    status: int


class SimulatedApi:
    """100ms's API over the given workspaces, at `base_url`, from `start` to `stop` or within its `with` block.

    `clock` gives its time in microseconds; `manners` and `faults` decide how it behaves.  All three may be changed while it runs.
    Faults can also be controlled over HTTP: `POST /_faults` with one fault or a list, `GET` and `DELETE`.
    """

    def __init__(
        self,
        workspaces: Sequence[Workspace],
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        clock: Clock = real_clock,
        manners: Manners = Manners(),  # noqa: B008 -- immutable
        seed: int = 0,
    ) -> None:
        self.workspaces = list(workspaces)
        self.host = host
        self.port = port
        self.clock = clock
        self.manners = manners
        self.faults = Faults(seed)
        self.calls: Counter[str] = Counter()
        """Requests since the last `clear`, by route."""
        self._requests: deque[SeenRequest] = deque(maxlen=_REQUESTS_KEPT)
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> SimulatedApi:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        """The value for the exporter's `api.base_url`; known once started."""
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 -- named, not bound
        return f"http://[{host}]:{self.port}{PREFIX}" if ":" in host else f"http://{host}:{self.port}{PREFIX}"

    @property
    def requests(self) -> list[SeenRequest]:
        """The latest requests since the last `clear`, in the order they were answered."""
        with self._lock:
            return list(self._requests)

    def clear(self) -> None:
        """Forgets all requests and calls so far."""
        with self._lock:
            self._requests.clear()
            self.calls.clear()

    def start(self) -> None:
        """Listens; after a stop it listens on the same port again.  Raises `OSError` if it cannot."""
        self._server = _Server(self, self.host, self.port)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="simulated-api", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends every connection, even those held by a fault, and stops listening.  Calling it twice does no harm."""
        if self._server is None or self._thread is None:
            return
        self._server.stop()
        self._thread.join()
        self._server = self._thread = None

    def note(self, route: str | None, request: SeenRequest) -> None:
        """Remembers a request."""
        with self._lock:
            self._requests.append(request)
            self.calls[route or request.path] += 1


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 512

    def __init__(self, api: SimulatedApi, host: str, port: int) -> None:
        self.api = api
        self.stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def stop(self) -> None:
        """Ends every wait and every connection."""
        self.stopping.set()
        self.shutdown()
        self.server_close()
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # the client has closed it already
                continue

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Faults make clients give up, which is normal; any other error is a bug of the simulator and shows its traceback.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base class's name
        """Logs nothing: `SimulatedApi.requests` holds the requests."""

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path == CONTROL:
            self._control()
            return
        if self.command != "GET":
            self._body()
            self.close_connection = True
        api = self.server.api
        path = unquote(address.path)
        path = path.removeprefix(PREFIX) if path.startswith(PREFIX + "/") else f"/{path}"
        route = route_of(path)
        fault = api.faults.strike(route, self.path)
        if fault is not None and fault.kind == "stall" and self.server.stopping.wait(fault.seconds):
            self.close_connection = True
            return
        now = api.clock()
        pairs = parse_qsl(address.query, keep_blank_values=True)
        query = dict(pairs)
        call = Call(self.command, path, query, self.headers.get("Authorization"), pairs)
        given = answer(call, api.workspaces, api.manners, now, fault.twist if fault is not None else None)
        response = given.response if fault is None else distort(given.response, fault, self.path, now)
        status = 0 if fault is not None and fault.kind == "reset" else response.status
        api.note(route, SeenRequest(now, self.command, path, query, given.authorized, status))
        self._send(response, now, fault)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET  # noqa: N815 -- the base class's names

    def _send(self, response: Response, now: int, fault: Fault | None = None) -> None:
        headers = {"Content-Type": response.content_type, **response.headers}
        if fault is None or fault.kind != "no_date":
            shift = int(fault.seconds * SECOND) if fault is not None and fault.kind == "wrong_date" else 0
            behind = _DATE_BEHIND if self.server.api.clock is real_clock else 0
            headers["Date"] = formatdate((now - behind + shift) // SECOND, usegmt=True)
        if self.close_connection:
            headers["Connection"] = "close"
        body = response.body
        # A faulty answer is sent uncompressed, because the fault decides about its bytes and its length.
        if fault is None and len(body) >= _SMALLEST_GZIP and "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, 1, mtime=0)
            headers["Content-Encoding"] = "gzip"
        if not Wire(self.connection, self.server.stopping).send(response.status, headers, body, fault):
            self.close_connection = True

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        return self.rfile.read(min(int(length), _LARGEST_COMMAND)) if length.isdecimal() else b""

    def _control(self) -> None:
        faults = self.server.api.faults
        now = self.server.api.clock()
        try:
            match self.command:
                case "GET":
                    pass
                case "DELETE":
                    faults.clear()
                case "POST":
                    given = msgspec.json.decode(self._body(), type=Fault | list[Fault])
                    faults.add(*(given if isinstance(given, list) else [given]))
                case _:
                    self.close_connection = True
                    self._send(error(405, "method not allowed", headers={"Allow": "GET, POST, DELETE"}), now)
                    return
        except (msgspec.DecodeError, ValueError) as fault:
            self._send(error(400, "invalid fault", str(fault)), now)
            return
        standing = [{"fault": known.fault, "seen": known.seen, "struck": known.struck} for known in faults.standing()]
        self._send(Response(200, msgspec.json.encode(standing)), now)
