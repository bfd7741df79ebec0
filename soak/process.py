"""The real program as a process to be killed, and a scraper that asks it all the time."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from lab.watcher import Watcher

_SCRAPE_EVERY = 0.02


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Exporter:
    """The program on a port that stays the same through restarts.  Its log goes to a file in the folder."""

    def __init__(
        self,
        folder: Path,
        base_url: str,
        access_key: str,
        secret: str,
        *,
        poll: str = "{interval: 1s}",
        timeout: str = "2s",
        database: str | None = None,
    ) -> None:
        self.port = free_port()
        self.log = folder / "exporter.log"
        self.state_file = folder / "state.db"
        self._config = folder / "config.yaml"
        storage = f"{{path: '{self.state_file}'}}" if database is None else f"{{url: '{database}'}}"
        self._sections = (
            f"api: {{base_url: '{base_url}', timeout: {timeout}, max_requests_per_second: 1000, max_retries: 0}}\n"
            f"poll: {poll}\n"
            f"storage: {storage}\n"
            f"web: {{listen_address: '127.0.0.1:{self.port}', enable_lifecycle: true}}\n"
        )
        self.configure()
        self._environment = {**os.environ, "SOAK_KEY": access_key, "SOAK_SECRET": secret}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process."""
        assert self._process is not None
        return self._process.pid

    def configure(self, names: Sequence[str] = ("w",), rooms: str | None = None) -> None:
        """Writes its configuration: the workspace under each of these names, with these `rooms` (YAML) or all rooms."""
        asked = "" if rooms is None else f", rooms: {rooms}"
        workspaces = [f"{{name: {name}, access_key: '${{SOAK_KEY}}', secret: '${{SOAK_SECRET}}'{asked}}}" for name in names]
        scratch = self._config.with_suffix(".new")
        scratch.write_text(f"workspaces: [{', '.join(workspaces)}]\n{self._sections}")
        scratch.replace(self._config)

    def start(self) -> None:
        """Starts it; it listens a moment later."""
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "exporter", "--config.file", str(self._config)]
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)  # noqa: S603 (our own program)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        os.kill(self.pid, number)

    def ask_to_reload(self) -> None:
        """Sends the request for a reload without waiting for the answer."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as line:
            line.sendall(f"POST /-/reload HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Length: 0\r\n\r\n".encode())

    def kill(self) -> None:
        """Ends it as `kill -9` does.  A process that has ended is left alone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> int:
        """Stops it in an orderly way; returns its exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(timeout=10)
        self._process = None
        return code

    def scrape(self, timeout: float = 5.0) -> str | None:
        """The page; `None` if there is no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            body = answer.read()
            return body.decode() if answer.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()


class Scraper:
    """Scrapes without a pause, in a thread, within its `with` block.  `watcher` sees every page."""

    def __init__(self, exporter: Exporter) -> None:
        self.watcher = Watcher()
        self.latest: dict[str, float] = {}
        """The samples of the last page."""
        self._exporter = exporter
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scraper", daemon=True)

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(_SCRAPE_EVERY):
            page = self._exporter.scrape()
            if page is not None:
                self.latest = self.watcher.look(page)
