"""Families of prometheus_client whose text is rendered again only after they have changed.

`generate_latest` takes milliseconds for the exporter's own metrics.  Between two polls hardly any of them change.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from prometheus_client import Counter, Gauge, Histogram, Metric, utils

from exporter.publish.exposition import Section
from exporter.publish.negotiation import TEXT, Format
from exporter.publish.writing import escape

M = TypeVar("M", Counter, Gauge, Histogram)

_number: Callable[[float], str] = utils.floatToGoString  # this side of the library has no types

_CHANGING = ("inc", "dec", "set", "observe", "labels", "remove_by_labels")
"""The methods by which the exporter changes a metric.  `labels` is one of them: a new series begins at 0."""


class CachedFamily:
    """A metric and its text in each format; every change to the metric, by any thread, is noticed."""

    def __init__(self, kind: type[Counter | Gauge | Histogram], *arguments: Any, **more: Any) -> None:
        """The arguments are those of `kind`."""
        self._version = object()
        self._kept: dict[Format, tuple[object, Section]] = {}
        noticed = {name: self._noticing(getattr(kind, name)) for name in _CHANGING if hasattr(kind, name)}
        # A subclass for this family alone: the library makes each series as another instance of its family's class.
        self.metric: Counter | Gauge | Histogram = type(kind.__name__, (kind,), noticed)(*arguments, **more)

    def section(self, fmt: Format) -> Section:
        """The family's lines as they are now, with their header."""
        version = self._version  # read before the values: a change in between is rendered the next time
        kept = self._kept.get(fmt)
        if kept is None or kept[0] is not version:
            text = "".join(family_text(family, fmt) for family in self.metric.collect())
            kept = self._kept[fmt] = (version, Section(text.encode()))
        return kept[1]

    def _noticing(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def changing(*arguments: Any, **more: Any) -> Any:
            try:
                return method(*arguments, **more)
            finally:
                self._version = object()

        return changing


def family_text(family: Metric, fmt: Format) -> str:
    """A gauge, counter or histogram in this format, exactly as `generate_latest` of the library writes it."""
    text = fmt is TEXT
    name = f"{family.name}_total" if text and family.type == "counter" else family.name
    lines = [
        f"# HELP {name} {_help(family.documentation) if text else escape(family.documentation)}\n# TYPE {name} {family.type}\n",
        *(f"{sample.name}{_labels(tuple(sample.labels.items()))} {_number(sample.value)}\n" for sample in family.samples),
    ]
    return "".join(lines)


def _help(documentation: str) -> str:
    return documentation.replace("\\", "\\\\").replace("\n", "\\n")


@functools.lru_cache(maxsize=4096)
def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in sorted(labels)) + "}"
