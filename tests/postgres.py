"""The real PostgreSQL of the lab, for tests: skipped, or failed, where it is not installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lab import postgres
from lab.postgres import Line, Server
from tests.programs import require

__all__ = ["Line", "Server", "server"]


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """A server within the block."""
    if postgres.program("postgres") is None:
        require("postgres")
    with postgres.server() as running:
        yield running
