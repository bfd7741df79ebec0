"""Requests for an early poll: the rooms in which something has happened, and when to poll them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

APART = 2.0
"""Seconds between two early polls of a workspace."""


class Hurry:
    """The request for an early poll of one workspace.  Its methods may be called from any thread."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._rooms: set[str] = set()
        self._not_before = float("-inf")

    def ask(self, rooms: Iterable[str]) -> None:
        """Requests a poll of these rooms; the empty id stands for an unknown room."""
        with self._lock:
            self._rooms.update(rooms)

    def wait(self) -> float | None:
        """Seconds until an early poll is due: 0 means now, `None` that none is requested."""
        with self._lock:
            return max(0.0, self._not_before - self._monotonic()) if self._rooms else None

    def is_due(self) -> bool:
        """Whether an early poll should begin now."""
        return bool(self._rooms) and self.wait() == 0

    def take(self) -> frozenset[str]:
        """A poll begins: returns the rooms requested so far, and clears the request."""
        with self._lock:
            rooms = frozenset(self._rooms)
            self._rooms.clear()
            if rooms:
                self._not_before = self._monotonic() + APART
            return rooms
