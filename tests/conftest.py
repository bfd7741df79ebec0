"""What all tests share: property tests that try the same examples every time, and as many as asked for."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

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
def _log_as_it_was() -> Iterator[None]:
    """A test that sets the program's log up leaves no trace of it to the next."""
    logger = logging.getLogger("exporter")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before
