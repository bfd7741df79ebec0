"""A real Prometheus that scrapes the program."""

from __future__ import annotations

import contextlib
import json
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts import stack
from tests.e2e.program import wait_until
from tests.programs import require


class Prometheus:
    """The answers of the Prometheus that listens on `address`."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, query: str) -> float:
        """The first value of an instant query; 0 when it finds none."""
        url = f"http://{self._address}/api/v1/query?query={urllib.parse.quote(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
        return float(found[0]["value"][1]) if found else 0.0

    @property
    def scrapes(self) -> float:
        """The number of successful scrapes."""
        return self.ask("sum_over_time(up[10m])")

    def scraped(self, times: int) -> None:
        """Waits for this many more scrapes."""
        before = self.scrapes
        wait_until(lambda: self.scrapes >= before + times)


@contextlib.contextmanager
def scraping(
    folder: Path, target: str, interval: str, job: Mapping[str, Any] | None = None, features: Sequence[str] = ()
) -> Iterator[Prometheus]:
    """Scrapes the target within the block, once an `interval`, which is also the timeout of a scrape.

    `job` adds to the scrape job.  `features` are the feature flags that Prometheus gets.
    """
    executable = require("prometheus")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    settings = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "scrape_configs": [{"job_name": "hms-exporter", "static_configs": [{"targets": [target]}], **(job or {})}],
    }
    with stack.Processes(folder) as processes:
        command = stack.prometheus_command(executable, folder, address, settings)
        processes.start("prometheus", [*command, *(f"--enable-feature={feature}" for feature in features)])
        processes.wait("prometheus", f"http://{address}/-/ready")
        yield Prometheus(address)


@contextlib.contextmanager
def scraping_both(folder: Path, targets: Sequence[str], interval: str) -> Iterator[Prometheus]:
    """Scrapes a pair.  Series of workspaces get one `instance`, as in docs/scaling.md, so that a take-over makes no new series."""
    one_instance = [{"source_labels": ["workspace"], "regex": ".+", "target_label": "instance", "replacement": "hms-exporter"}]
    job = {"static_configs": [{"targets": list(targets)}], "metric_relabel_configs": one_instance}
    folder.mkdir(exist_ok=True)
    with scraping(folder, "", interval, job) as prometheus:
        yield prometheus
