"""The measured figures, and the table of all of them."""

from __future__ import annotations

import math
import os
import platform
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

_LIBRARIES = ("msgspec", "prometheus-client", "requests", "h11")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure at one size.

    `ours` and `theirs` are in `unit`, and `against` names theirs.  `per` is the size as a number, if the table shows the growth over
    the rows of the same `work`.  `met` is `None` if the goal names another size, or if there is no goal.
    """

    work: str
    size: str
    unit: str
    ours: float
    against: str = ""
    theirs: float | None = None
    per: float | None = None
    goal: str = ""
    met: bool | None = None

    def judged(self, goal: str, *, met: bool, at: bool = True) -> Row:
        """The row with its goal. The goal is judged only if the row has the goal's size (`at`)."""
        return replace(self, goal=goal, met=met) if at else self


def medians(runs: Mapping[str, Callable[[], float]], times: int) -> dict[str, float]:
    """The median of each measurement. They take turns, so that a busy moment of the machine affects all of them."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(times):
        for name, run in runs.items():
            found[name].append(run())
    return {name: statistics.median(values) for name, values in found.items()}


def cpu(work: Callable[[], object]) -> Callable[[], float]:
    """Measures the CPU time (s) that this process needs for some work."""

    def measure() -> float:
        before = time.process_time()
        work()
        return time.process_time() - before

    return measure


def growth(rows: Sequence[Row]) -> float | None:
    """The exponent of the figure's growth over the sizes, by least squares: 1 is proportional, 0 is constant."""
    points = [(math.log(row.per), math.log(row.ours)) for row in rows if row.per and row.ours > 0]
    if len({x for x, _ in points}) < 3:
        return None
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def header() -> str:
    """The machine and the versions."""
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())} · {_processor()}, {os.cpu_count()} cores, load {load}"
        f" · {platform.system()} {platform.release()}\n"
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {libraries}"
    )


def table(rows: Iterable[Row]) -> str:
    """All rows as a Markdown table, with rows of the same work together."""
    lines = [("work", "size", "ours", "compared with", "theirs", "ratio", "growth", "goal", "met")]
    for _, group in groupby(rows, key=lambda row: row.work):
        same = list(group)
        exponent = growth(same)
        for number, row in enumerate(same):
            shown = f"n^{exponent:.2f}" if exponent is not None and number == len(same) - 1 else ""
            met = "" if row.met is None else "yes" if row.met else "NO"
            theirs = "" if row.theirs is None else _figure(row.theirs, row.unit)
            lines.append((row.work, row.size, _figure(row.ours, row.unit), row.against, theirs, _ratio(row), shown, row.goal, met))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    ruled = [lines[0], tuple("-" * width for width in widths), *lines[1:]]
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in ruled)


def _ratio(row: Row) -> str:
    if not row.theirs or not row.ours:
        return ""
    ratio = row.ours / row.theirs
    return f"{ratio:.2f}" if ratio >= 0.1 else f"1/{1 / ratio:.0f}"


def _figure(value: float, unit: str) -> str:
    if unit == "s" and value < 1:
        value, unit = value * 1000, "ms"
    text = f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
    return f"{text} {unit}"


def _processor() -> str:
    """The name of the processor, if the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
