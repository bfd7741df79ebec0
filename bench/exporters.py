"""The exporter as a real process, and the values of its /metrics."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from bench.servers import Scraper, cpu_seconds, free_port, memory


class Exporter:
    """A running `hms-exporter`, within a `with` block.  Its state and log are in `folder`.

    `settings` are sections of the configuration.  `interval` may be shorter than a configuration allows.
    """

    def __init__(self, folder: Path, base_url: str, secret: str, interval: float | None = None, **settings: Any) -> None:
        self.port = free_port()
        settings.setdefault("api", {}).update(base_url=base_url, allow_plain_http=True, max_requests_per_second=1000)
        rooms = settings.pop("rooms", None)
        workspace = {"name": "bench", "access_key": "key", "secret": secret} | ({"rooms": rooms} if rooms else {})
        settings |= {
            "workspaces": [workspace],
            "web": {"listen_address": f"127.0.0.1:{self.port}"},
            "storage": {"path": str(folder / "state.db")},
        }
        path = folder / "config.yaml"
        path.write_text(json.dumps(settings))  # JSON is YAML
        run = ["-m", "exporter", "--config.file", str(path)] if interval is None else ["-m", "bench.daemon", str(path), str(interval)]
        self.log_path = folder / "log.txt"
        with self.log_path.open("w") as log:
            self.started = time.perf_counter()
            self._process = subprocess.Popen([sys.executable, *run], stderr=log)  # noqa: S603 (our own program)
        self._scraper = Scraper(self.port, encoding="identity")

    def __enter__(self) -> Exporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._scraper.close()
        self.stop()

    def stop(self) -> float:
        """Sends SIGTERM; returns the seconds until the process ends."""
        before = time.perf_counter()
        self._process.terminate()
        self._process.wait(30)
        return time.perf_counter() - before

    def healthy(self) -> float:
        """Seconds from the start until `/-/healthy` answers 200.  Raises `AssertionError` when the process has ended."""
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{self.port}/-/healthy", timeout=10):
                    return time.perf_counter() - self.started
            except URLError:
                assert self._process.poll() is None, self.log_path.read_text()
                time.sleep(0.01)  # until it answers

    def scrape(self) -> tuple[str, float]:
        """The first page, and the time at which it came.  Raises `AssertionError` when the process has ended."""
        while True:
            try:
                self._scraper.scrape(keep=True)
                answered = time.perf_counter()
                return self._scraper.body.decode(), answered
            except ConnectionRefusedError:
                assert self._process.poll() is None, self.log_path.read_text()
                time.sleep(0.002)  # until it listens

    def memory(self) -> tuple[float, float]:
        """Resident memory, now and at its peak (MiB)."""
        return memory(self._process.pid)

    def cpu(self) -> float:
        """CPU seconds used so far."""
        return cpu_seconds(self._process.pid)

    def wait_for(self, name: str, least: float, timeout: float = 300) -> str:
        """The first page on which the sum of these series is at least `least`.  Raises `TimeoutError`."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            page, _ = self.scrape()
            if total(page, name) >= least:
                return page
            time.sleep(0.05)  # until the next look, within the deadline
        raise TimeoutError(f"{name} did not reach {least}: {self.log_path.read_text()[-2000:]}")


def total(page: str, name: str) -> float:
    """The sum of all series of this name."""
    return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith((f"{name}{{", f"{name} ")))
