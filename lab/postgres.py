"""A real PostgreSQL on a free port with a folder of its own, and a connection to it that can be stalled or cut."""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

_FOLDERS = [f"/usr/lib/postgresql/{version}/bin" for version in range(20, 12, -1)]
"""The folder of PostgreSQL's programs on Debian, which is not in PATH."""


_MEMORY = "/dev/shm"  # noqa: S108 (only a new folder below it is used)


def program(name: str) -> str | None:
    """The path of a program of PostgreSQL, or `None` if it is not installed."""
    return next(filter(None, (shutil.which(name, path=folder) for folder in (*_FOLDERS, None))), None)


def _program(name: str) -> str:
    found = program(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed; `make tools` installs PostgreSQL")
    return found


class Server:
    """The server.  Its files are in memory where possible, so that a commit does not wait for a disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            names = {entry.pw_name for entry in pwd.getpwall()}
            found = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            self._user = {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
            os.chown(folder, found.pw_uid, found.pw_gid)
        self._run(_program("initdb"), "-D", str(folder / "data"), "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, timeout=60, **self._user)  # noqa: S603 (PostgreSQL's)

    def start(self) -> None:
        """Starts it, also after a `kill`."""
        command = [_program("postgres"), "-D", str(self.folder / "data"), "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder)]
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            self._process = subprocess.Popen([*command, "-c", "max_connections=50"], stdout=log, stderr=log, cwd=self.folder, **self._user)  # noqa: S603 (PostgreSQL)
        deadline = time.monotonic() + 30
        ready = [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:  # noqa: S603 (PostgreSQL's)
            assert time.monotonic() < deadline, "PostgreSQL does not start"
            time.sleep(0.05)

    def kill(self) -> None:
        """Kills all of its processes at once, like a crash: nothing is written back."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """Stops it in an orderly way, without waiting for clients."""
        self._end(signal.SIGINT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def url(self, name: str, port: int | None = None) -> str:
        """The URL of a database."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{name}"

    def database(self, name: str) -> str:
        """Creates an empty database; returns its URL."""
        self.sql("postgres", f'CREATE DATABASE "{name}"')
        return self.url(name)

    def sql(self, name: str, statement: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Runs a statement on a new connection."""
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A server within the block."""
    with tempfile.TemporaryDirectory(prefix="pg", dir=_MEMORY if Path(_MEMORY).is_dir() else None) as name:
        Path(name).chmod(0o755)
        folder = Path(name) / "server"
        folder.mkdir(mode=0o700)
        made = Server(folder)
        try:
            yield made
        finally:
            made.stop()


class Line:
    """A TCP proxy to a port.  While it is `stalled` it passes nothing on, and neither side notices."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.stalled = threading.Event()
        self._closed = threading.Event()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        self._sockets.append(near)
        while self.stalled.is_set() and not self._closed.is_set():
            time.sleep(0.05)
        try:
            far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
        except OSError:
            near.close()
            return
        self._sockets.append(far)
        with near, far, contextlib.suppress(OSError):
            while not self._closed.is_set():
                for one in select.select([near, far], [], [], 0.2)[0]:
                    while self.stalled.is_set() and not self._closed.is_set():
                        time.sleep(0.05)
                    body = one.recv(65536)
                    if not body:
                        return
                    (far if one is near else near).sendall(body)

    def cut(self) -> None:
        """Ends every connection at once."""
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stops the proxy and ends its connections."""
        self._closed.set()
        self._listener.close()
        self.cut()
