"""Shared by all tests: the settings of property tests, the state of the log, and a real PostgreSQL."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.postgres import Server

# Examples for each property. More examples find more, and take longer.
_EXAMPLES = int(os.environ.get("HMS_EXAMPLES", "60"))

settings.register_profile(
    "exporter",
    max_examples=_EXAMPLES,
    derandomize=_EXAMPLES <= 1000,
    deadline=None,  # a busy machine must not fail a test
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("exporter")


@pytest.fixture(autouse=True)
def _log_not_set_up() -> None:
    """Resets the program's log before each test to its state after import, whatever another test or fixture did."""
    logger = logging.getLogger("exporter")
    logger.handlers[:] = []
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    """A real PostgreSQL for the tests of one module."""
    from tests.postgres import server  # imported here, because psycopg may not be installed

    with server() as running:
        yield running
