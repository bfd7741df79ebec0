"""The CPU and the latency of a scrape: at three sizes, in both formats, plain and compressed."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from prometheus_client import CollectorRegistry, start_http_server

from bench.plain import PlainExporter
from bench.report import Row, medians
from bench.rig import OPENMETRICS, Rig
from bench.servers import Scraper, Served, bare_server
from bench.traffic import PLAIN_SERIES, SERIES, Traffic
from exporter.publish.exposition import Exposition, Page
from exporter.web.listeners import listen
from exporter.web.routes import Face, http_server

_FORMATS = (("text", "text/plain", "identity"), ("text, gzip", "text/plain", "gzip"), ("OpenMetrics", OPENMETRICS, "identity"),
            ("OpenMetrics, gzip", OPENMETRICS, "gzip"))  # fmt: skip
_GOAL = 100_000


def run(*, quick: bool) -> list[Row]:
    """Scrapes of each size and kind, beside `start_http_server` and beside a bare socket."""
    sizes = (500, 1_000, 2_000) if quick else (1_000, 10_000, 100_000)
    times = 5 if quick else 50
    cpu: list[list[Row]] = [[] for _ in _FORMATS]
    latency: list[list[Row]] = [[] for _ in _FORMATS]
    crowd: list[Row] = []
    for series in sizes:
        with Served(our_server, series // SERIES) as ours, Served(plain_server, series // PLAIN_SERIES) as plain:
            for index, (name, accept, encoding) in enumerate(_FORMATS):
                work, size = f"a scrape ({name})", f"{series:,} series"
                scraper = Scraper(ours.port, accept, encoding)
                scraper.scrape(keep=True)
                with Served(bare_server, scraper.body) as bare:
                    used = medians(
                        {"ours": _costs(ours, scraper, times), "plain": _costs(plain, Scraper(plain.port, accept, encoding), 1)}, 3
                    )
                    row = Row(f"{work}: CPU", size, "s", used["ours"], "start_http_server", used["plain"], series)
                    cpu[index].append(row.judged("1/200 of the CPU", met=used["ours"] * 200 <= used["plain"], at=series == _GOAL))
                    found = medians({"ours": _timed(scraper), "bare": _timed(Scraper(bare.port))}, times)
                    row = Row(f"{work}: latency", size, "s", found["ours"], "bare socket write", found["bare"], series)
                    latency[index].append(row.judged("3 times a bare socket", met=found["ours"] <= 3 * found["bare"], at=series == _GOAL))
                scraper.close()
            if series == sizes[-1]:
                crowd = _crowd(ours, series)
    return [row for group in (*cpu, *latency) for row in group] + crowd


def _crowd(ours: Served, series: int) -> list[Row]:
    """The CPU of each scrape as more clients scrape at once."""
    rows: list[Row] = []
    for scrapers in (1, 4, 16, 64):
        used = medians({"ours": lambda n=scrapers: _together(ours, n)}, 3)["ours"]  # type: ignore[misc]  # bound now
        alone = rows[0].ours if rows else used
        size = f"{scrapers} scrapers, {series:,} series"
        row = Row("scrapes at once (text, gzip): CPU each", size, "s", used, "one at a time", alone, scrapers)
        rows.append(row.judged("flat", met=used <= 1.5 * alone, at=scrapers > 1))
    return rows


def _together(ours: Served, scrapers: int) -> float:
    each = max(2, 64 // scrapers)
    crowd = [Scraper(ours.port, encoding="gzip") for _ in range(scrapers)]
    threads = [threading.Thread(target=_repeat, args=(scraper, each)) for scraper in crowd]
    before = ours.cpu()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    used = ours.cpu() - before
    for scraper in crowd:
        scraper.close()
    return used / (each * scrapers)


def _repeat(scraper: Scraper, times: int) -> None:
    for _ in range(times):
        scraper.scrape()


def _costs(server: Served, scraper: Scraper, times: int) -> Callable[[], float]:
    """Measures the server's mean CPU time per scrape, over this many scrapes."""

    def measure() -> float:
        before = server.cpu()
        _repeat(scraper, times)
        return (server.cpu() - before) / times

    return measure


def _timed(scraper: Scraper) -> Callable[[], float]:
    def measure() -> float:
        before = time.perf_counter()
        scraper.scrape()
        return time.perf_counter() - before

    return measure


class _OnlyMetrics:
    """The part of a daemon that a scrape uses."""

    def __init__(self, exposition: Exposition) -> None:
        self._exposition = exposition

    def finished(self, accept: str, accept_encoding: str) -> Page | None:
        return self._exposition.finished(accept, accept_encoding)

    def metrics(self, accept: str, accept_encoding: str, names: frozenset[str]) -> Page:
        return self._exposition.page(accept, accept_encoding, names)


def our_server(rooms: int) -> int:
    """Serves the series of this many rooms by the exporter's HTTP server; returns the port."""
    traffic = Traffic(rooms)
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), traffic, time.time_ns() // 1000)
        rig.bodies = traffic.pages()
        rig.poll()
        rig.close()
    server = http_server(cast(Face, _OnlyMetrics(rig.exposition)), [listen("127.0.0.1", 0)], None)
    server.start()
    return server.port


def plain_server(rooms: int) -> int:
    """Serves the same series by `start_http_server`; returns the port."""
    registry = CollectorRegistry()
    fill(registry, Traffic(rooms))
    server, _ = start_http_server(0, "127.0.0.1", registry)
    port: int = server.server_port
    return port


def fill(registry: CollectorRegistry, traffic: Traffic) -> PlainExporter:
    """Sets the plain exporter's gauges from the same records."""
    plain = PlainExporter("http://127.0.0.1", "", traffic.rooms(), registry)
    publish(plain, [traffic.of_room(number) for number in range(len(traffic.records))])
    return plain


def publish(plain: PlainExporter, bodies: Sequence[bytes]) -> None:
    """Publishes the answers of a poll, one for each room, as the plain exporter does."""
    now = time.time()
    for room, body in zip(plain.rooms, bodies, strict=True):
        plain.publish(room, json.loads(body)["data"], now)
