"""Families of prometheus_client whose text is rendered again only after a change.

`generate_latest` takes milliseconds for the exporter's own metrics, and between two polls hardly any of them change.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from prometheus_client import Counter, Gauge, Histogram, Metric, utils

from exporter.publish.exposition import Section
from exporter.publish.negotiation import TEXT, Format
from exporter.publish.writing import created_line, escape

_Labels = tuple[tuple[str, str], ...]
Born = Callable[[_Labels], int]
"""When the series of these labels began (µs)."""

M = TypeVar("M", Counter, Gauge, Histogram)

_number: Callable[[float], str] = utils.floatToGoString  # the library does not type this function

_CHANGING = ("inc", "dec", "set", "observe", "labels", "remove_by_labels")
"""The methods that change a metric.  `labels` is one of them, because a new series begins at 0."""


class CachedFamily:
    """A metric and its text in each format; it notices every change to the metric, by any thread."""

    def __init__(self, kind: type[Counter | Gauge | Histogram], *arguments: Any, **more: Any) -> None:
        """The arguments are those of `kind`."""
        self._version = object()
        self._kept: dict[tuple[Format, bool], tuple[object, Section]] = {}
        self._began = _now()
        self._born: dict[_Labels, int] = {}
        self._names: tuple[str, ...] = ()
        noticed = {name: self._noticing(getattr(kind, name)) for name in _CHANGING if hasattr(kind, name)}
        # A subclass for this family alone, because the library makes each series as another instance of its family's class.
        self.metric: Counter | Gauge | Histogram = type(kind.__name__, (kind,), noticed)(*arguments, **more)
        self._names = tuple(arguments[2]) if len(arguments) > 2 else ()

    def section(self, fmt: Format, *, created: bool = False) -> Section:
        """The family's current lines with their header; `created` adds when each counter began, in OpenMetrics."""
        version = self._version  # read before the values: a change in between is rendered the next time
        kept = self._kept.get((fmt, created))
        if kept is None or kept[0] is not version:
            born = self._born_at if created else None
            text = "".join(family_text(family, fmt, born) for family in self.metric.collect())
            kept = self._kept[fmt, created] = (version, Section(text.encode()))
        return kept[1]

    def _born_at(self, labels: _Labels) -> int:
        return self._born.get(labels, self._began)

    def _labelled(self, *values: str) -> None:
        """A series is requested, perhaps for the first time: then it begins now, at 0."""
        self._born.setdefault(tuple(sorted(zip(self._names, map(str, values), strict=True))), _now())

    def _removed(self, labels: Mapping[str, str]) -> None:
        """Series were removed: if they come back, they begin again."""
        self._born = {of: at for of, at in self._born.items() if not labels.items() <= set(of)}

    def _noticing(self, method: Callable[..., Any]) -> Callable[..., Any]:
        told: dict[str, Callable[..., None]] = {"labels": self._labelled, "remove_by_labels": self._removed}
        before = told.get(method.__name__)

        @functools.wraps(method)
        def changing(*arguments: Any, **more: Any) -> Any:
            try:
                if before is not None:
                    before(*arguments[1:])
                return method(*arguments, **more)
            finally:
                self._version = object()

        return changing


def family_text(family: Metric, fmt: Format, born: Born | None = None) -> str:
    """A gauge, counter or histogram in this format, exactly as the library's `generate_latest` writes it.

    With `born`, OpenMetrics also shows when each counter and histogram began.
    """
    text = fmt is TEXT
    last = {"counter": f"{family.name}_total", "histogram": f"{family.name}_sum"}.get(family.type) if born and not text else None
    name = f"{family.name}_total" if text and family.type == "counter" else family.name
    lines = [
        f"# HELP {name} {_help(family.documentation) if text else escape(family.documentation)}\n# TYPE {name} {family.type}\n",
    ]
    for sample in family.samples:
        labels = tuple(sorted(sample.labels.items()))
        lines.append(f"{sample.name}{_labels(labels)} {_number(sample.value)}\n")
        if born is not None and sample.name == last:
            lines.append(created_line(family.name, f"{_labels(labels)} ", born(labels)))
    return "".join(lines)


def _now() -> int:
    """The current time (µs) by this machine's clock, which the exporter's own metrics use."""
    return time.time_ns() // 1000


def _help(documentation: str) -> str:
    return documentation.replace("\\", "\\\\").replace("\n", "\\n")


@functools.lru_cache(maxsize=4096)
def _labels(labels: _Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in labels) + "}"
