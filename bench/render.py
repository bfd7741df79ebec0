"""Rendering after a poll in which everything changed: every series, in both formats, plain and compressed."""

from __future__ import annotations

import gzip
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import prometheus_client.openmetrics.exposition
from prometheus_client import CollectorRegistry, generate_latest

from bench.report import Row, cpu, medians
from bench.rig import Rig
from bench.scrape import fill
from bench.servers import Aside
from bench.traffic import PLAIN_SERIES, SERIES, Traffic

_GOAL = 100_000


def run(*, quick: bool) -> list[Row]:
    """The exporter's pages from the counted state, beside `generate_latest` over the same number of gauges."""
    text, all_four, first = [], [], []
    for series in (500, 1_000, 2_000) if quick else (1_000, 10_000, _GOAL):
        with (
            Aside(_ours, series, False) as ours,
            Aside(_ours, series, True) as ours_all,
            Aside(_first, series) as ours_first,
            Aside(_theirs, series, False) as theirs,
            Aside(_theirs, series, True) as theirs_all,
        ):
            found = medians({"ours": ours, "theirs": theirs, "ours, all": ours_all, "theirs, all": theirs_all, "first": ours_first}, 5)
        size, at_goal = f"{series:,} series", series == _GOAL
        row = Row("rendering (text)", size, "s", found["ours"], "generate_latest", found["theirs"], series)
        text.append(row.judged("1/10 of the CPU", met=found["ours"] * 10 <= found["theirs"], at=at_goal))
        row = Row(
            "rendering (both formats, plain and gzip)",
            size,
            "s",
            found["ours, all"],
            "generate_latest and gzip",
            found["theirs, all"],
            series,
        )
        all_four.append(row.judged("400 ms", met=found["ours, all"] <= 0.4, at=at_goal))
        first.append(Row("the first compressed scrape after a poll", size, "s", found["first"], per=series))
    return text + all_four + first


def _polled(series: int) -> Rig:
    traffic = Traffic(series // SERIES)
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), traffic, time.time_ns() // 1000)
        rig.bodies = traffic.pages()
        rig.poll()
        rig.close()
    return rig


def _first(series: int) -> Callable[[], float]:
    rig = _polled(series)

    def measure() -> float:
        rig.render()
        return cpu(lambda: rig.exposition.page("", "gzip"))()

    return measure


def _ours(series: int, every_page: bool) -> Callable[[], float]:
    rig = _polled(series)

    def render() -> None:
        rig.render()
        if every_page:
            rig.pages()

    return cpu(render)


def _theirs(series: int, every_page: bool) -> Callable[[], float]:
    registry = CollectorRegistry()
    fill(registry, Traffic(series // PLAIN_SERIES))

    def render() -> None:
        page = generate_latest(registry)
        if every_page:
            modern = prometheus_client.openmetrics.exposition.generate_latest(registry)  # type: ignore[no-untyped-call]  # it has no types
            for body in (page, modern):
                gzip.compress(body)  # as start_http_server does

    return cpu(render)
