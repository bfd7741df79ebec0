"""The page size: as many records as the server accepts and as memory and time allow."""

from __future__ import annotations

import time
from collections.abc import Callable

COMFORTABLE = 32 * 1024 * 1024
"""A comfortable number of bytes in a page; after a larger one, the next pages are smaller."""
_SMALLER = (50, 20, 10)
_CALM_PAGES = 10
"""After this many pages in a row that would fit twice over at the next larger size, that size is tried."""
_REFUSAL_STANDS = 3600.0
"""Seconds until a size that the server refused may be tried again: each attempt costs a call."""


class PageSizes:
    """The page size of one route: lowered at once, raised slowly."""

    def __init__(self, largest: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._all = (largest, *(size for size in _SMALLER if size < largest))
        self._monotonic = monotonic
        self._accepted = largest
        self._refused_at: float | None = None
        self._calm = 0
        self.size = largest
        """The size of the next request."""
        self.smallest = self._all[-1]

    def smaller(self, size: int, record_bytes: float | None = None) -> int | None:
        """The size to try after this one failed; `None` when there is no smaller one.

        `record_bytes` is the average size of the records, if the answer was too large or too slow.
        """
        below = [other for other in self._all if other < size]
        if not below:
            return None
        return below[0] if record_bytes is None else min(below[0], self._fitting(record_bytes))

    def refused(self, accepted: int) -> None:
        """The server refused a larger page and answered one of this size."""
        self._refused_at = self._monotonic()
        self.size = self._accepted = accepted
        self._calm = 0

    def too_large(self, smaller: int) -> None:
        """An answer was too large or too slow: this size comes next."""
        self.size = min(self.size, smaller)
        self._calm = 0

    def read(self, records: int, size: int) -> None:
        """A page was read: this many records, in this many bytes."""
        if not records:
            return
        each = size / records
        fitting = self._fitting(each)
        if fitting < self.size:
            self.too_large(fitting)
            return
        larger = self._larger()
        if larger is None or larger * each > COMFORTABLE / 2:
            self._calm = 0
            return
        self._calm += 1
        if self._calm >= _CALM_PAGES:
            self.size, self._calm = larger, 0

    def _fitting(self, record_bytes: float) -> int:
        """The largest size whose pages are comfortable."""
        return next((size for size in self._all if size * record_bytes <= COMFORTABLE), self.smallest)

    def _larger(self) -> int | None:
        """The next larger size that the server accepts or may accept."""
        if self._refused_at is not None and self._monotonic() - self._refused_at >= _REFUSAL_STANDS:
            self._refused_at, self._accepted = None, self._all[0]
        return min((size for size in self._all if self.size < size <= self._accepted), default=None)
