"""A workspace's thread: it polls when told to, does one thing at a time, and stops when told to, whatever 100ms does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.config.config import ApiConfig, Config, KeyPair, PollConfig, RoomById, Secret, WorkspaceConfig
from exporter.polling.worker import Worker
from exporter.publish.budgets import BudgetBoard
from exporter.publish.exposition import Exposition
from exporter.publish.selfmetrics import SelfMetrics
from exporter.simulator import Fault, SimulatedApi, World
from exporter.state.store import Store
from lab.counters import samples


class Bench:
    """A worker on a state file of its own, and the simulated 100ms that it polls."""

    def __init__(self, folder: Path) -> None:
        self.world = World("key", "secret-of-at-least-thirty-two-bytes!")
        self.api = SimulatedApi([self.world])
        self.api.start()
        self.workspace = WorkspaceConfig("w", KeyPair(Secret("key"), Secret(self.world.secret)))
        api = ApiConfig(base_url=self.api.base_url, timeout=30.0, max_requests_per_second=1000.0, max_retries=0)
        self.config = Config((self.workspace,), api=api, poll=PollConfig(interval=30.0))
        self.store = Store(folder / "state.db")
        self.metrics = SelfMetrics("0", "test")
        self.exposition = Exposition(self.metrics.render)
        board = BudgetBoard(self.exposition, ())
        self.worker = Worker(self.workspace, self.config, self.store, self.exposition, self.metrics, board)

    def value(self, name: str, labels: str = 'workspace="w"') -> float | None:
        """One published sample."""
        page = b"".join(self.exposition.page("", "").chunks).decode()
        return samples(page).get(f"{name}{{{labels}}}")

    def polls(self) -> float:
        """Polls that have ended."""
        return self.value("hms_exporter_polls_total") or 0

    def close(self) -> None:
        self.api.faults.clear()
        self.worker.stop()
        self.worker.join(10)
        self.store.close()
        self.api.stop()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def soon(condition: Callable[[], Any]) -> None:
    """Waits for the condition, for at most a few seconds."""
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_shows_what_is_stored_at_once_and_polls_only_when_told_to(bench: Bench) -> None:
    assert bench.value("hms_up") == 0
    bench.worker.start()
    assert bench.api.requests == []
    bench.worker.poll()
    soon(lambda: bench.value("hms_up") == 1)
    assert bench.worker.stuck() is None
    soon(lambda: bench.worker.status.calls_per_hour)
    assert bench.worker.status.calls_per_hour == len(bench.api.requests) * 120


def test_a_poll_while_another_one_runs_is_skipped_and_counted(bench: Bench) -> None:
    bench.api.faults.add(Fault(kind="stall", seconds=60, after=1))
    bench.worker.start()
    bench.worker.poll()
    soon(lambda: bench.api.calls)
    bench.worker.poll()
    bench.worker.poll()
    assert bench.value("hms_exporter_polls_skipped_total") == 2
    assert bench.polls() == 0


def test_a_configuration_is_taken_over_between_two_polls(bench: Bench) -> None:
    one, two = bench.world.room(name="one"), bench.world.room(name="two")
    bench.worker.start()
    bench.worker.poll()
    soon(lambda: bench.value("hms_up") == 1)
    assert bench.value("hms_rooms_configured") == 0
    rooms = replace(bench.workspace, rooms=(RoomById(one.id), RoomById(two.id)))
    bench.worker.configure(rooms, replace(bench.config, workspaces=(rooms,), poll=PollConfig(interval=60.0)))
    bench.worker.poll()
    soon(lambda: bench.value("hms_rooms_configured") == 2)
    assert bench.value("hms_exporter_poll_interval_seconds") == 60


def test_a_command_that_fails_costs_nothing_but_itself(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("no poll today")

    poller = bench.worker._poller
    with monkeypatch.context() as broken:
        broken.setattr(poller, "poll", fail)
        bench.worker.start()
        bench.worker.poll()
        soon(lambda: bench.worker._busy_since is None)
    bench.worker.poll()
    soon(lambda: bench.value("hms_up") == 1)
    assert bench.worker.stuck() is None


def test_it_ends_at_once_though_100ms_does_not_answer_and_says_then_that_it_has(bench: Bench) -> None:
    bench.api.faults.add(Fault(kind="stall", seconds=60, after=1))
    bench.worker.start()
    bench.worker.poll()
    soon(lambda: bench.api.calls)
    began = time.monotonic()
    bench.worker.stop()
    bench.worker.join(10)
    assert time.monotonic() - began < 5
    assert bench.worker.stuck() == "its thread has ended"


def test_a_poll_without_a_sign_of_life_for_long_is_stuck(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll is stuck after five intervals, or after three times a request's deadline."""
    bench.api.faults.add(Fault(kind="stall", seconds=60, after=1))
    bench.worker.start()
    bench.worker.poll()
    soon(lambda: bench.api.calls)
    now = time.monotonic()
    monkeypatch.setattr("exporter.polling.worker.time.monotonic", lambda: now + 140)
    assert bench.worker.stuck() is None
    monkeypatch.setattr("exporter.polling.worker.time.monotonic", lambda: now + 155)
    assert bench.worker.stuck() == "its poll has shown no sign of life for more than 150 s"


def test_a_worker_that_was_never_started_is_joined_at_once_and_a_withdrawn_one_leaves_no_series(bench: Bench) -> None:
    bench.worker.stop()
    bench.worker.join(0)
    bench.worker.withdraw()
    page = b"".join(bench.exposition.page("", "").chunks).decode()
    assert 'workspace="w"' not in page
