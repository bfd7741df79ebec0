"""The measurements by name.  Each runs in a fresh process, so that none inherits another's heap."""

from __future__ import annotations

import importlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from bench.report import Row

NAMES = ("scrape", "beside", "render", "poll", "calls", "memory", "start", "state", "catchup", "jobs")


def measure(name: str, *, quick: bool) -> list[Row]:
    """The rows of one measurement.  `quick` takes small sizes, which only show that it runs."""
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        return fresh.submit(_run, name, quick).result()


def _run(name: str, quick: bool) -> list[Row]:
    rows: list[Row] = importlib.import_module(f"bench.{name}").run(quick=quick)
    return rows
