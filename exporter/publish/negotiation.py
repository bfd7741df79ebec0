"""The format and the encoding that a scraper wants: parsed strictly, but never an error.

A media range that is not understood is ignored, as RFC 9110 demands; the rest decides, and if nothing is left, the answer is
in the text format, which every scraper reads.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple

_LONGEST = 4096
"""How many characters of a header are read: no scraper sends more."""


class Format(enum.Enum):
    """The exposition's formats, by their Content-Type."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

    @property
    def content_type(self) -> str:
        """The `Content-Type` of an answer in this format."""
        return self.value


TEXT, OPENMETRICS = Format.TEXT, Format.OPENMETRICS
_VERSIONS = {
    # OpenMetrics 0.0.1 is the draft of 1.0.0; text 1.0.0 differs from 0.0.4 only in names that need quotes.
    "application/openmetrics-text": (OPENMETRICS, ("", "1.0.0", "0.0.1")),
    "text/plain": (TEXT, ("", "0.0.4", "1.0.0")),
    "text/*": (TEXT, ("",)),
    "*/*": (TEXT, ("",)),
}


class _Range(NamedTuple):
    name: str
    parameters: dict[str, str]
    quality: float


def choose_format(accept: str) -> Format:
    """The format for an `Accept` header: the highest quality wins; if two are equal, OpenMetrics."""
    best, best_quality = TEXT, 0.0
    for name, parameters, quality in _ranges(accept):
        fmt, versions = _VERSIONS.get(name, (TEXT, ()))
        if parameters.get("version", "") not in versions:
            continue
        if quality > best_quality or (quality == best_quality and quality > 0 and fmt is OPENMETRICS):
            best, best_quality = fmt, quality
    return best


def wants_gzip(accept_encoding: str) -> bool:
    """Whether an `Accept-Encoding` header allows gzip and prefers nothing else."""
    qualities = {name: quality for name, _, quality in _ranges(accept_encoding)}
    gzip = qualities.get("gzip", qualities.get("*", 0.0))
    return gzip > 0 and gzip >= qualities.get("identity", 0.0)


def _ranges(text: str) -> Iterator[_Range]:
    for item in text[:_LONGEST].lower().split(","):
        name, *rest = (part.strip() for part in item.split(";"))
        parameters = {}
        for parameter in rest:
            key, _, value = parameter.partition("=")
            parameters[key.strip()] = value.strip().strip('"')
        quality = _quality(parameters.pop("q", "1"))
        if name and quality is not None:
            yield _Range(name, parameters, quality)


def _quality(text: str) -> float | None:
    """RFC 9110: 0 to 1 with at most three decimals; `None` if the text is not a quality."""
    whole, _, fraction = text.partition(".")
    if whole not in ("0", "1") or len(fraction) > 3 or not (fraction == "" or (fraction.isascii() and fraction.isdigit())):
        return None
    quality = float(text)
    return quality if quality <= 1 else None
