"""Shared by all tests: the settings of property tests, the log, and a real PostgreSQL."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.postgres import Server

# Examples for each property; more of them find more, and take longer.
_EXAMPLES = int(os.environ.get("HMS_EXAMPLES", "60"))

settings.register_profile(
    "exporter",
    max_examples=_EXAMPLES,
    derandomize=_EXAMPLES <= 1000,
    deadline=None,  # a busy machine is no fault of the code
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("exporter")


@pytest.fixture(autouse=True)
def _log_not_set_up() -> None:
    """Each test finds the program's log as an import leaves it, whatever a test or a longer-lived fixture did before."""
    logger = logging.getLogger("exporter")
    logger.handlers[:] = []
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    """A real PostgreSQL for the tests of one module."""
    from tests.postgres import server  # here, because psycopg may not be installed

    with server() as running:
        yield running
