"""What asks for a poll before its time: the rooms in which something has happened, and when to go and see."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

APART = 2.0
"""Seconds between two early polls of a workspace."""


class Hurry:
    """The wish for an early poll of one workspace.  Its methods may be called from any thread."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._rooms: set[str] = set()
        self._not_before = float("-inf")

    def ask(self, rooms: Iterable[str]) -> None:
        """Something has happened in these rooms; the empty id stands for one that is not known."""
        with self._lock:
            self._rooms.update(rooms)

    def wait(self) -> float | None:
        """In how many seconds an early poll is due: 0 for now, `None` when nobody has asked for one."""
        with self._lock:
            return max(0.0, self._not_before - self._monotonic()) if self._rooms else None

    def is_due(self) -> bool:
        """Whether an early poll should begin now."""
        return bool(self._rooms) and self.wait() == 0

    def take(self) -> frozenset[str]:
        """A poll begins: what has been asked for so far is its business."""
        with self._lock:
            rooms = frozenset(self._rooms)
            self._rooms.clear()
            if rooms:
                self._not_before = self._monotonic() + APART
            return rooms
