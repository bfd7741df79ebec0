"""What the end-to-end tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.simulator import SimulatedApi, World
from tests.e2e.program import ACCESS_KEY, SECRET


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs the real program is no part of `make quick`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def world() -> World:
    """A workspace with nothing in it."""
    return World(ACCESS_KEY, SECRET)


@pytest.fixture
def api(world: World) -> Iterator[SimulatedApi]:
    """The simulated 100ms of that workspace."""
    with SimulatedApi([world]) as running:
        yield running
