"""Servers in processes of their own that report their CPU time, and a client that scrapes as Prometheus does."""

from __future__ import annotations

import itertools
import multiprocessing
import socket
import socketserver
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_SPAWN = multiprocessing.get_context("spawn")


class Aside:
    """Work in a process of its own, within a `with` block, so that its heap does not slow the garbage collection of others.

    `prepare(*args)` runs there once and returns a function.  A call of this object calls that function, which returns a figure.
    """

    def __init__(self, prepare: Callable[..., Callable[[], float]], *args: object) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_work, args=(theirs, prepare, args), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._pipe.close()
        self._process.join(5)
        self._process.kill()

    def __call__(self) -> float:
        """The next figure."""
        self._pipe.send(True)
        figure: float = self._pipe.recv()
        return figure


class Served(Aside):
    """A server in a process of its own: `start(*args)` runs there and returns the port."""

    def __init__(self, start: Callable[..., int], *args: object) -> None:
        super().__init__(_served, start, args)
        self.port = round(self())

    def cpu(self) -> float:
        """CPU seconds that the process has used, in all its threads."""
        return self()


def _work(pipe: Connection, prepare: Callable[..., Callable[[], float]], args: tuple[Any, ...]) -> None:
    measure = prepare(*args)
    pipe.send(True)
    with suppress(EOFError):
        while pipe.recv():
            pipe.send(measure())


def _served(start: Callable[..., int], args: tuple[Any, ...]) -> Callable[[], float]:
    """Sends the port first, then the CPU time on each request."""
    figures = itertools.chain([start(*args)], iter(time.process_time, None))
    return lambda: next(figures)


class Scraper:
    """Scrapes one port over one connection, which stays open if the server allows it."""

    def __init__(self, port: int, accept: str = "text/plain", encoding: str = "identity", path: str = "/metrics") -> None:
        self._address = ("127.0.0.1", port)
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: {accept}\r\nAccept-Encoding: {encoding}\r\n\r\n"
        ).encode()
        self._buffer = bytearray(1 << 18)
        self._socket: socket.socket | None = None
        self.body = b""

    def scrape(self, *, keep: bool = False) -> int:
        """Scrapes once; returns the size of the body, which `keep` stores in `body`.  Raises `OSError` or `AssertionError`."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=60)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(self._request)
        head, size = b"", -1
        while b"\r\n\r\n" not in head:
            received = self._socket.recv(4096)
            assert received, "the server closed the connection"
            head += received
        head, _, body = head.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        assert status.split()[1] == "200", status
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers["content-length"])
        parts, count = [body], len(body)
        while count < size:
            received_bytes = self._socket.recv_into(self._buffer)
            assert received_bytes, "the answer was cut short"
            count += received_bytes
            if keep:
                parts.append(bytes(self._buffer[:received_bytes]))
        if keep:
            self.body = b"".join(parts)
        if status.startswith("HTTP/1.0") or headers.get("connection") == "close":
            self.close()
        return size

    def close(self) -> None:
        """Closes the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def bare_server(body: bytes) -> int:
    """Sends the same bytes to every client by a bare socket write, the fastest way in Python; returns the port."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(4096):
                self.request.sendall(answer)

    return start_server(Handler)


def start_server(handler: type[socketserver.BaseRequestHandler]) -> int:
    """Serves in a thread for the rest of the process's life; returns the port."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port: int = server.server_address[1]
    return port


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def memory(pid: int) -> tuple[float, float]:
    """The resident memory of a process, now and at its peak (MiB)."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    now, most = (int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


def cpu_seconds(pid: int) -> float:
    """CPU seconds that a process has used, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
