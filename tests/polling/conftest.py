"""Fixtures for most tests of polling: a world, a folder and the benches."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from exporter.simulator import World
from lab.bench import Bench
from lab.beside import BesideBench
from tests.harness import MEMORY

B = TypeVar("B", bound=Bench)


@pytest.fixture
def world() -> World:
    return World("key", "secret-of-at-least-thirty-two-bytes!")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory, so that a poll does not wait for the disk."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        yield Path(made)


@contextmanager
def _benches(kind: type[B], folder: Path, world: World) -> Iterator[Callable[..., B]]:
    made: list[B] = []

    def make(rooms: Any = None, **options: Any) -> B:
        own = folder / str(len(made))
        own.mkdir()
        made.append(kind(own, options.pop("world", world), rooms, **options))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def benches(folder: Path, world: World) -> Iterator[Callable[..., Bench]]:
    """A factory of benches that poll sessions. They are closed after the test."""
    with _benches(Bench, folder, world) as make:
        yield make


@pytest.fixture
def beside_benches(folder: Path, world: World) -> Iterator[Callable[..., BesideBench]]:
    """A factory of benches that also read collectors with each poll. They are closed after the test."""
    with _benches(BesideBench, folder, world) as make:
        yield make
