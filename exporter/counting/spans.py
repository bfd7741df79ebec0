"""Sets of moments, as sorted lists of spans that do not touch; used for the unread past.

A span is a pair of moments (µs), both inclusive.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

Span = tuple[int, int]
FOREVER = 1 << 62
"""The end of a span that is still growing."""


def union(spans: Iterable[Span]) -> list[Span]:
    """The same moments, sorted and joined."""
    found: list[Span] = []
    for first, last in sorted(spans):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return found


def without(spans: Iterable[Span], first: int, last: int) -> list[Span]:
    """The moments that are not from `first` to `last`."""
    left: list[Span] = []
    for begin, end in spans:
        if end < first or begin > last:
            left.append((begin, end))
            continue
        if begin < first:
            left.append((begin, first - 1))
        if end > last:
            left.append((last + 1, end))
    return left


def contains(spans: list[Span], moment: int) -> bool:
    """Whether a moment is in one of these spans."""
    index = bisect_right(spans, (moment, FOREVER)) - 1
    return index >= 0 and moment <= spans[index][1]


def until(spans: Iterable[Span], last: int) -> list[Span]:
    """The moments up to `last`."""
    return [(begin, min(end, last)) for begin, end in spans if begin <= last]


def length(spans: Iterable[Span]) -> int:
    """How many microseconds the spans cover."""
    return sum(last - first + 1 for first, last in spans)


def common(one: Iterable[Span], other: Iterable[Span]) -> list[Span]:
    """The moments that are in both."""
    found = [(max(a, c), min(b, d)) for a, b in one for c, d in other]
    return union((first, last) for first, last in found if first <= last)
