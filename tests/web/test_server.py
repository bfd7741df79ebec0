"""The HTTP server over real sockets: its protocol, its limits, and the attacks that it survives."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.web.fairness import BusyError
from exporter.web.http import Handler, Limits, Request, Response, text_response
from exporter.web.listeners import listen_on_all
from exporter.web.server import HttpServer
from exporter.web.threads import Workers

GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"


async def hello(_: Request) -> Response:
    return text_response(200, "hello")


@contextmanager
def serving(handler: Handler = hello, limits: Limits | None = None) -> Iterator[HttpServer]:
    server = HttpServer.at("127.0.0.1", 0, handler, limits=limits)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[HttpServer]:
    """One server for many tests.  Afterwards asyncio must have logged nothing: no task failed unseen, and nothing was left open."""
    complaints: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complaints.append(record.getMessage())

    keep = Keep(logging.WARNING)
    logging.getLogger("asyncio").addHandler(keep)
    try:
        with serving() as running:
            yield running
        gc.collect()
    finally:
        logging.getLogger("asyncio").removeHandler(keep)
    assert complaints == []


def connect(server: HttpServer, *, receive_buffer: int | None = None, source: str = "127.0.0.1") -> socket.socket:
    client = socket.socket()
    client.settimeout(10)
    client.bind((source, 0))
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(("127.0.0.1", server.port))
    return client


def read_all(client: socket.socket) -> bytes:
    received = bytearray()
    while piece := client.recv(1 << 18):
        received += piece
    return bytes(received)


def read_until(client: socket.socket, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        piece = client.recv(65536)
        assert piece, received
        received += piece
    return received


def exchange(server: HttpServer, request: bytes) -> bytes:
    """Everything that the server answers to `request` until it closes the connection."""
    with connect(server) as client:
        client.sendall(request)
        return read_all(client)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def recorded(seen: list[Request]) -> Handler:
    async def handle(request: Request) -> Response:
        seen.append(request)
        return text_response(200, "seen")

    return handle


# --- answers ---


def test_an_answer_has_length_date_and_type_and_forbids_sniffing(server: HttpServer) -> None:
    head, _, body = exchange(server, CLOSE).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert b"Content-Length: 6" in lines
    assert b"Content-Type: text/plain; charset=utf-8" in lines
    assert b"X-Content-Type-Options: nosniff" in lines
    assert any(line.startswith(b"Date: ") and line.endswith(b" GMT") for line in lines)
    assert body == b"hello\n"


def test_head_gets_the_headers_of_get_and_no_body(server: HttpServer) -> None:
    head, _, body = exchange(server, CLOSE.replace(b"GET", b"HEAD")).partition(b"\r\n\r\n")
    assert b"Content-Length: 6" in head
    assert body == b""


def test_a_connection_serves_many_requests(server: HttpServer) -> None:
    with connect(server) as client:
        for _ in range(3):
            client.sendall(GET)
            assert status_of(read_until(client, b"hello\n")) == 200


def test_requests_sent_ahead_are_answered_in_order() -> None:
    async def path(request: Request) -> Response:
        return text_response(200, request.path)

    with serving(path) as server:
        answer = exchange(server, b"".join(GET.replace(b"/ ", b"/%d " % number) for number in range(50)) + CLOSE)
    positions = [answer.index(b"\r\n\r\n/%d\n" % number) for number in range(50)]
    assert positions == sorted(positions)
    assert answer.endswith(b"\r\n\r\n/\n")


def test_a_half_closed_client_is_answered(server: HttpServer) -> None:
    with connect(server) as client:
        client.sendall(GET)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client).endswith(b"hello\n")


@pytest.mark.parametrize("headers", [b"", b"Connection: keep-alive\r\n"])
def test_http_1_0_is_answered_and_closed(server: HttpServer, headers: bytes) -> None:
    answer = exchange(server, b"GET / HTTP/1.0\r\n" + headers + b"\r\n")
    assert status_of(answer) == 200
    assert answer.endswith(b"hello\n")


def test_a_client_that_expects_100_continue_is_told_to_go_on(server: HttpServer) -> None:
    with connect(server) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
        assert read_until(client, b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        client.sendall(b"body")
        assert read_all(client).endswith(b"hello\n")


@pytest.mark.parametrize(
    "body", [b"Content-Length: 4\r\n\r\nbody", b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"], ids=["sized", "chunked"]
)
def test_a_small_body_is_read_past(server: HttpServer, body: bytes) -> None:
    answer = exchange(server, b"POST / HTTP/1.1\r\nHost: here\r\n" + body + CLOSE)
    assert answer.count(b"HTTP/1.1 200 OK") == 2


def test_a_large_page_arrives_whole_from_chunks_of_any_size() -> None:
    chunks = [b"a", b"b" * 1_000_000, b"", b"c" * 131_072, b"d" * 5]

    async def page(_: Request) -> Response:
        return Response(200, {}, chunks)

    with serving(page) as server:
        head, _, body = exchange(server, CLOSE).partition(b"\r\n\r\n")
    assert b"Content-Length: 1131078" in head
    assert body == b"".join(chunks)


# --- requests ---


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/metrics", "/metrics", {}),
        (b"/a%20b%2Fc", "/a b/c", {}),
        (b"/%ff%00", "/\ufffd\0", {}),
        (b"/?name[]=a&name[]=b%26&x=%ff", "/", {"name[]": ["a", "b&"], "x": ["\ufffd"]}),
        (b"/a?b#c", "/a", {}),
        (b"//other/path", "//other/path", {}),
        (b"http://other:1/metrics?name[]=a", "/metrics", {"name[]": ["a"]}),
        (b"http://other", "/", {}),
        (b"*", "*", {}),
        (b"other:80", "other:80", {}),
    ],
)
def test_a_target_is_split_into_path_and_query(target: bytes, path: str, query: dict[str, list[str]]) -> None:
    seen: list[Request] = []
    with serving(recorded(seen)) as server:
        exchange(server, CLOSE.replace(b"/ ", target + b" ", 1))
    assert (seen[0].path, seen[0].query) == (path, query)


def test_headers_are_named_in_lower_case_and_repeated_ones_joined() -> None:
    seen: list[Request] = []
    with serving(recorded(seen)) as server:
        exchange(server, CLOSE.replace(b"\r\n\r\n", b"\r\nACCEPT: a\r\naccept: b\r\nX: \xe9\r\n\r\n"))
    assert seen[0].headers["accept"] == "a, b"
    assert seen[0].headers["x"] == "é"
    assert seen[0].client == "127.0.0.1"


# --- refusals ---


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nbad name: b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", 400),
        (b"GET /?" + b"a=1&" * 1500 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 32768 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 10000 + b"\r\n", 431),
        (b"GET /" + b"x" * 1_000_000, 431),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000, 413),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n", 413),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"fff\r\n" + b"x" * 4095 + b"\r\n2\r\nxx\r\n0\r\n\r\n",
            413,
        ),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else None,
)
def test_a_bad_request_is_refused_in_a_few_words_and_closed(server: HttpServer, request_: bytes, status: int) -> None:
    with connect(server) as client:
        with suppress(OSError):  # the server may close before everything is sent
            client.sendall(request_)
        answer = read_until_closed_or_reset(client)
    assert status_of(answer) == status
    assert b"Connection: close" in answer


def test_a_failing_handler_is_a_500_without_its_text_and_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_: Request) -> Response:
        raise ValueError("password=hunter2")

    with serving(fail) as server, caplog.at_level(logging.DEBUG):
        answer = exchange(server, CLOSE)
    assert status_of(answer) == 500
    assert answer.endswith(b"Internal Server Error\n")
    assert b"hunter2" not in answer
    assert "hunter2" not in caplog.text
    (line,) = (record.getMessage() for record in caplog.records if record.name.startswith("exporter"))
    assert "ValueError in fail" in line


def test_a_busy_handler_is_a_503_that_says_when_to_come_back() -> None:
    async def busy(_: Request) -> Response:
        raise BusyError

    with serving(busy) as server:
        answer = exchange(server, CLOSE)
    assert status_of(answer) == 503
    assert b"Retry-After: 1" in answer


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda junk: b"GET / HTTP/1.1\r\nHost: a\r\n" + junk))
@settings(max_examples=200, deadline=None)
def test_no_bytes_of_any_kind_stop_it(server: HttpServer, junk: bytes) -> None:
    with connect(server) as client, suppress(OSError):
        client.sendall(junk)
        client.shutdown(socket.SHUT_WR)
        answer = read_all(client)
        assert answer == b"" or status_of(answer) in {100, 200, 400, 413, 431, 501, 505}
    assert status_of(exchange(server, CLOSE)) == 200


def read_until_closed_or_reset(client: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionResetError):
        while piece := client.recv(65536):
            received += piece
    return received


# --- limits ---


def test_slow_headers_end_in_time() -> None:
    with serving(limits=Limits(request_seconds=0.3)) as server, connect(server) as client:
        began = time.monotonic()
        client.sendall(b"GET / HTTP/1.1\r\n")
        with suppress(OSError):
            for _ in range(40):
                client.sendall(b"X: y\r\n")
                time.sleep(0.02)
        assert status_of(read_until_closed_or_reset(client)) == 408
        assert time.monotonic() - began < 3


def test_the_time_for_a_request_begins_with_its_first_byte() -> None:
    with serving(limits=Limits(request_seconds=0.2)) as server, connect(server) as client:
        time.sleep(0.4)  # longer than request_seconds, before the first byte
        client.sendall(GET)
        assert status_of(read_until(client, b"hello\n")) == 200
        time.sleep(0.4)  # again longer than request_seconds
        client.sendall(GET)
        assert status_of(read_until(client, b"hello\n")) == 200


def test_an_idle_connection_is_closed_without_a_word() -> None:
    with serving(limits=Limits(idle_seconds=0.1)) as server, connect(server) as client:
        assert read_all(client) == b""


def test_a_client_that_reads_nothing_is_dropped() -> None:
    async def page(_: Request) -> Response:
        return Response(200, {}, [b"x" * 1_000_000] * 30)

    with serving(page, Limits(write_seconds=0.3)) as server, connect(server, receive_buffer=4096) as client:
        client.sendall(GET)
        while server._connections == {}:
            time.sleep(0.01)
        deadline = time.monotonic() + 5
        while server._connections and time.monotonic() < deadline:
            time.sleep(0.02)
        assert server._connections == {}


def test_a_thousand_idle_connections_leave_room_for_a_scrape() -> None:
    with ExitStack() as clients, serving(limits=Limits(connections=100)) as server:
        idle = [clients.enter_context(connect(server)) for _ in range(1000)]
        began = time.monotonic()
        assert status_of(exchange(server, CLOSE)) == 200
        assert time.monotonic() - began < 2
        assert len(server._connections) <= 100
        # The first ones have been closed; the latest are still served.
        assert idle[0].recv(1) == b""
        idle[-1].sendall(CLOSE)
        assert status_of(read_all(idle[-1])) == 200


def test_a_flood_of_connections_leaves_nothing_for_the_garbage_collector() -> None:
    with ExitStack() as clients, serving(limits=Limits(connections=20)) as server:
        gc.collect()
        gc.disable()
        try:
            for _ in range(300):
                clients.enter_context(connect(server)).sendall(b"GET / HT")
            assert status_of(exchange(server, CLOSE)) == 200
            alive = sum(type(thing).__name__ == "_Connection" for thing in gc.get_objects())
        finally:
            gc.enable()
        assert alive <= 21


def test_a_connection_in_use_outlives_idle_ones() -> None:
    release = threading.Event()

    async def wait(_: Request) -> Response:
        while not release.is_set():
            await asyncio.sleep(0.01)
        return text_response(200, "hello")

    with ExitStack() as clients, serving(wait, Limits(connections=5)) as server:
        busy = clients.enter_context(connect(server))
        busy.sendall(CLOSE)
        while not any(connection.busy for connection in list(server._connections)):
            time.sleep(0.01)
        idle = [clients.enter_context(connect(server)) for _ in range(20)]
        assert idle[0].recv(1) == b""
        release.set()
        assert status_of(read_all(busy)) == 200


def test_when_all_connections_are_in_use_one_of_them_is_closed_for_a_newcomer() -> None:
    async def never(request: Request) -> Response:
        if request.path == "/never":
            await asyncio.sleep(60)
        return text_response(200, "hello")

    with ExitStack() as clients, serving(never, Limits(connections=5)) as server:
        for _ in range(5):
            clients.enter_context(connect(server)).sendall(GET.replace(b"/ ", b"/never ", 1))
        while sum(connection.busy for connection in list(server._connections)) < 5:
            time.sleep(0.01)
        assert status_of(exchange(server, CLOSE)) == 200


def test_a_newcomer_is_not_closed_for_the_sake_of_those_that_have_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that ask but do not read keep no newcomer out, even one that has not sent its request yet."""
    monkeypatch.setattr("exporter.web.server.STALLED_SECONDS", 0.1)

    async def page(request: Request) -> Response:
        return Response(200, {}, [b"x" * 10_000_000]) if request.path == "/page" else text_response(200, "hello")

    with ExitStack() as clients, serving(page, Limits(connections=5)) as server:
        for _ in range(5):
            clients.enter_context(connect(server, receive_buffer=4096)).sendall(GET.replace(b"/ ", b"/page ", 1))
        while sum(connection.busy for connection in list(server._connections)) < 5:
            time.sleep(0.01)
        time.sleep(0.3)  # these clients stall
        newcomers = [clients.enter_context(connect(server)) for _ in range(4)]
        while sum(connection.busy for connection in list(server._connections)) > 1:  # each newcomer takes the place of a stalled client
            time.sleep(0.01)
        for newcomer in newcomers:
            newcomer.sendall(CLOSE)
            assert status_of(read_all(newcomer)) == 200


def test_a_flood_from_one_address_closes_no_connection_of_another() -> None:
    with ExitStack() as clients, serving(limits=Limits(connections=20)) as server:
        quiet = clients.enter_context(connect(server))
        while not server._connections:
            time.sleep(0.01)
        for _ in range(200):
            clients.enter_context(connect(server, source="127.0.0.2")).sendall(GET)
        quiet.sendall(CLOSE)
        assert status_of(read_all(quiet)) == 200
        assert len(server._shares) == len(server._connections) <= 20


def test_running_out_of_file_descriptors_is_survived(caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as clients, serving() as server:
        spare = [clients.enter_context(connect(server)) for _ in range(20)]
        while len(server._connections) < 20:
            time.sleep(0.01)
        client = clients.enter_context(socket.socket())
        client.settimeout(10)
        used = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
        held: list[socket.socket] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, hard))
        try:
            with suppress(OSError):
                while True:
                    held.append(socket.socket())
            client.connect(("127.0.0.1", server.port))
            client.sendall(CLOSE)
            assert status_of(read_all(client)) == 200  # an idle one was closed for it
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for one in held:
                one.close()
        assert spare[0].recv(1) == b""
        assert status_of(exchange(server, CLOSE)) == 200
    assert sum("cannot accept" in record.getMessage() for record in caplog.records) == 1


def test_out_of_file_descriptors_waiting_clients_are_accepted_several_at_a_time() -> None:
    """When they were let in one by one, a scrape behind ninety clients waited for seven seconds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as clients, serving() as server:
        for _ in range(60):
            clients.enter_context(connect(server))
        while len(server._connections) < 60:
            time.sleep(0.01)
        crowd = [clients.enter_context(socket.socket()) for _ in range(91)]
        used = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
        held: list[socket.socket] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1, hard))
        try:
            with suppress(OSError):
                while True:
                    held.append(socket.socket())
            for client in crowd:
                client.settimeout(10)
                client.connect(("127.0.0.1", server.port))
            began = time.monotonic()
            crowd[-1].sendall(CLOSE)
            assert status_of(read_all(crowd[-1])) == 200
            assert time.monotonic() - began < 3
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for one in held:
                one.close()


# --- listeners ---


def test_several_addresses_are_served_by_one_server() -> None:
    listeners = listen_on_all([("127.0.0.1", 0), ("127.0.0.2", 0)])
    server = HttpServer(listeners, hello)
    server.start()
    try:
        for address in server.addresses:
            host, _, port = address.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=5) as client:
                client.sendall(CLOSE)
                assert status_of(read_all(client)) == 200
    finally:
        server.stop()
    assert all(listener.fileno() == -1 for listener in listeners)


def test_if_one_address_is_taken_none_is_kept_and_the_error_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.2", 0)) as spare:
        free, port = spare.getsockname()[1], taken.getsockname()[1]
        spare.close()
        with pytest.raises(OSError, match="in use") as raised:
            listen_on_all([("127.0.0.2", free), ("127.0.0.1", port)])
        assert raised.value.filename == f"127.0.0.1:{port}"
        socket.create_server(("127.0.0.2", free)).close()


PASSED = """
import os, sys, time
from exporter.web.http import text_response
from exporter.web.listeners import inherited
from exporter.web.listeners import listen_on_all
from exporter.web.server import HttpServer
async def hello(_): return text_response(200, "hello")
os.environ["LISTEN_PID"] = str(os.getpid()) if sys.argv[1] == "self" else sys.argv[1]
try:
    server = HttpServer(inherited(os.environ), hello)
except OSError as error:
    sys.exit(error.strerror)
server.start()
print(*server.addresses, flush=True)
sys.stdin.read()
"""


def passed(descriptor: int, *, process: str = "self", count: str = "1") -> subprocess.Popen[str]:
    """A server in a process that inherits this descriptor as from systemd."""
    script = f'exec 3<&{descriptor}; exec "$0" -c "$1" {process}'
    return subprocess.Popen(
        ["bash", "-c", script, sys.executable, PASSED],
        pass_fds=[descriptor],
        env={**os.environ, "LISTEN_FDS": count},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_socket_from_systemd_is_served() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, passed(listener.fileno()) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == f"127.0.0.1:{listener.getsockname()[1]}\n"
        with socket.create_connection(listener.getsockname(), timeout=5) as client:
            client.sendall(CLOSE)
            assert read_all(client).endswith(b"hello\n")
        program.kill()


@pytest.mark.parametrize(
    ("process", "count", "kind", "said"),
    [
        ("1", "1", socket.SOCK_STREAM, "LISTEN_PID"),
        ("self", "0", socket.SOCK_STREAM, "LISTEN_FDS"),
        ("self", "many", socket.SOCK_STREAM, "LISTEN_FDS"),
        ("self", "1", socket.SOCK_DGRAM, "not a listening TCP socket"),
        ("self", "1", socket.SOCK_STREAM, "not a listening TCP socket"),
    ],
)
def test_without_usable_sockets_from_systemd_the_error_says_why(process: str, count: str, kind: int, said: str) -> None:
    with socket.socket(type=kind) as bound:
        bound.bind(("127.0.0.1", 0))
        _, error = passed(bound.fileno(), process=process, count=count).communicate(timeout=20)
    assert said in error
    assert "Traceback" not in error


# --- life ---


def test_a_port_in_use_is_an_oserror_where_it_is_started(server: HttpServer) -> None:
    with pytest.raises(OSError, match="in use"):
        HttpServer.at("127.0.0.1", server.port, hello)


def test_a_free_port_is_found_and_told(server: HttpServer) -> None:
    assert server.port > 0
    assert server.address == f"127.0.0.1:{server.port}"


def test_an_empty_host_is_every_address() -> None:
    server = HttpServer.at("", 0, hello)
    server.start()
    try:
        for host in ["127.0.0.1", "::1"] if socket.has_dualstack_ipv6() else ["127.0.0.1"]:
            with socket.create_connection((host, server.port), timeout=5) as client:
                client.sendall(CLOSE)
                assert status_of(read_all(client)) == 200
    finally:
        server.stop()


def test_stopping_takes_about_a_second_whatever_clients_do() -> None:
    async def page(request: Request) -> Response:
        if request.path == "/never":
            await asyncio.sleep(60)
        return Response(200, {}, [b"x" * 1_000_000] * 30)

    server = HttpServer.at("127.0.0.1", 0, page)
    server.start()
    with ExitStack() as clients:
        reading, waiting, asking, idle = (clients.enter_context(connect(server, receive_buffer=4096)) for _ in range(4))
        reading.sendall(GET)
        waiting.sendall(GET.replace(b"/ ", b"/never ", 1))
        asking.sendall(b"GET / HT")
        while sum(connection.busy for connection in list(server._connections)) < 2 or len(server._connections) < 4:
            time.sleep(0.01)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 1.5
        assert idle.recv(1) == b""
        with pytest.raises(OSError, match="refused"):
            connect(server)


def test_an_answer_under_way_is_finished_when_stopping() -> None:
    asked = threading.Event()

    async def soon(_: Request) -> Response:
        asked.set()
        await asyncio.sleep(0.1)
        return text_response(200, "hello")

    server = HttpServer.at("127.0.0.1", 0, soon)
    server.start()
    with connect(server) as client:
        client.sendall(CLOSE)
        asked.wait(5)
        server.stop()
        assert read_all(client).endswith(b"hello\n")


# --- cost ---


def test_a_slow_reader_of_a_large_page_costs_no_memory_to_speak_of() -> None:
    page = [b"x" * 1_000_000] * 18

    async def scrape(_: Request) -> Response:
        return Response(200, {}, page)

    with ExitStack() as clients, serving(scrape) as server:
        exchange(server, CLOSE)
        before = resident_bytes()
        for _ in range(50):
            clients.enter_context(connect(server, receive_buffer=4096)).sendall(GET)
        while sum(connection.busy for connection in list(server._connections)) < 50:
            time.sleep(0.01)
        assert len(exchange(server, CLOSE)) > 18_000_000
        assert resident_bytes() - before < 50 * 512 * 1024 + 40_000_000  # this includes the last client's own copy of the page


@pytest.mark.slow
def test_a_large_scrape_takes_at_most_three_times_a_bare_socket() -> None:
    page = [b"x" * 1_000_000] * 18

    async def scrape(_: Request) -> Response:
        return Response(200, {}, page)

    with serving(scrape) as server, socket.create_server(("127.0.0.1", 0)) as bare:
        threading.Thread(target=send_bare, args=(bare, page), daemon=True).start()
        ours, theirs = [], []
        for _ in range(11):
            theirs.append(timed(lambda: drain(bare.getsockname()[1])))
            ours.append(timed(lambda: drain(server.port)))
    assert statistics.median(ours) < 3 * statistics.median(theirs)


# --- workers ---


def test_calls_run_beside_the_loop_and_return_or_raise() -> None:
    async def scenario() -> None:
        workers = Workers("test", threads=1, waiting=0)
        assert await workers.run(threading.get_ident) != threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await workers.run(lambda: 1 // 0)

    asyncio.run(scenario())


def test_no_more_run_at_once_than_there_are_threads_and_the_overflow_is_refused() -> None:
    running: list[int] = []
    most: list[int] = []

    def work() -> None:
        running.append(1)
        most.append(len(running))
        time.sleep(0.02)  # long enough that another call could run at the same time
        running.pop()

    async def scenario() -> list[BaseException | None]:
        workers = Workers("test", threads=2, waiting=3)
        return await asyncio.gather(*(workers.run(work) for _ in range(8)), return_exceptions=True)

    outcomes = asyncio.run(scenario())
    assert [type(outcome) for outcome in outcomes] == [type(None)] * 5 + [BusyError] * 3
    assert max(most) == 2


def test_one_client_has_no_more_calls_than_its_share() -> None:
    async def scenario() -> list[BaseException | None]:
        workers = Workers("test", threads=1, waiting=20, of_one=3)
        flood = [workers.run(lambda: time.sleep(0.01), "many") for _ in range(10)]
        return await asyncio.gather(*flood, workers.run(lambda: None, "one"), return_exceptions=True)

    outcomes = asyncio.run(scenario())
    assert [type(outcome) for outcome in outcomes] == [type(None)] * 3 + [BusyError] * 7 + [type(None)]


def test_a_call_whose_caller_has_gone_before_its_turn_is_never_made_and_leaves_its_place() -> None:
    made: list[str] = []
    release = threading.Event()

    async def scenario() -> None:
        workers = Workers("test", threads=1, waiting=1)
        first = asyncio.ensure_future(workers.run(release.wait))
        gone = asyncio.ensure_future(workers.run(lambda: made.append("gone")))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        second = asyncio.ensure_future(workers.run(lambda: made.append("second")))
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(first, second)

    asyncio.run(scenario())
    assert made == ["second"]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def drain(port: int) -> None:
    buffer = bytearray(1 << 18)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(CLOSE)
        while client.recv_into(buffer):
            pass


def send_bare(listener: socket.socket, page: list[bytes]) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                for chunk in page:
                    client.sendall(chunk)
