"""A real PostgreSQL for tests. Without it, a test is skipped, or fails if programs are required."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

from lab import postgres
from lab.postgres import Line, Server
from tests.programs import require

__all__ = ["Line", "Server", "fresh", "server"]

_numbers = itertools.count()


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A server within the block."""
    if postgres.program("postgres") is None:
        require("postgres")
    with postgres.server() as running:
        yield running


def fresh(running: Server) -> str:
    """The name of a new, empty database."""
    made = f"test_{next(_numbers)}"
    running.database(made)
    return made
