"""Fixtures and markers of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.simulator import SimulatedApi, World
from tests.e2e.program import ACCESS_KEY, SECRET


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test here as slow: `make quick` leaves out tests that run the real program."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def world() -> World:
    """An empty workspace."""
    return World(ACCESS_KEY, SECRET)


@pytest.fixture
def api(world: World) -> Iterator[SimulatedApi]:
    """The simulated 100ms of that workspace."""
    with SimulatedApi([world]) as running:
        yield running
