"""The schedule's beat and the daemon's health.  Start, stop and reload are tested end to end."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest
import schedule

from exporter.config.config import Config, ConfigError, parse
from exporter.daemon import Cadence, Daemon, revision


class Beats:
    """A `schedule` job with a cadence on a test clock."""

    def __init__(self, seconds: float, now: float = 1000.0) -> None:
        self.scheduler = schedule.Scheduler()
        self.job = self.scheduler.every(1).seconds.do(lambda: None)
        self.cadence = Cadence(self.job, seconds, now)

    def due_in(self, now: float) -> float:
        """Seconds from `now` to the next run, as `schedule` computes it."""
        self.cadence.align(now)
        assert self.job.next_run is not None
        wait: timedelta = self.job.next_run - datetime.now()  # noqa: DTZ005 -- as schedule computes it
        return wait.total_seconds()


def about(value: float) -> object:
    return pytest.approx(value, abs=0.1)


def test_the_first_beat_is_at_once() -> None:
    assert Beats(30).due_in(1000.0) == about(0)


def test_beats_are_whole_intervals_from_the_first_however_long_the_job_takes() -> None:
    beats = Beats(30)
    beats.cadence.beat(1000.0)
    assert beats.due_in(1012.5) == about(17.5)
    beats.cadence.beat(1030.2)
    assert beats.due_in(1030.2) == about(29.8)
    assert beats.due_in(1059.0) == about(1)


@pytest.mark.parametrize(("ran_at", "next_at"), [(1030.0, 1060.0), (1059.9, 1060.0), (1060.0, 1090.0), (1061.0, 1090.0), (4601.0, 4630.0)])
def test_beats_that_were_missed_are_not_made_up_for(ran_at: float, next_at: float) -> None:
    beats = Beats(30)
    beats.cadence.beat(1000.0)
    beats.cadence.beat(ran_at)
    assert beats.due_in(ran_at) == about(next_at - ran_at)


def test_a_wall_clock_that_is_set_moves_no_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    """`schedule` uses the wall clock, so before each check the next beat is set again by that clock."""
    beats = Beats(30)
    beats.cadence.beat(1000.0)
    monkeypatch.setattr("exporter.daemon.datetime", Shifted)
    monkeypatch.setattr("schedule.datetime.datetime", Shifted)
    for hours in (-1, 1, 24, -24):
        Shifted.by = timedelta(hours=hours)
        beats.cadence.align(1010.0)
        assert not beats.job.should_run
        beats.cadence.align(1030.0)
        assert beats.job.should_run


class Shifted(datetime):
    """A wrong wall clock."""

    by = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Shifted:
        """The shifted time."""
        return super().now(tz) + cls.by


# --- health ---


@pytest.fixture
def config(tmp_path: Path) -> Config:
    text = f"workspaces: [{{name: w, access_key: k, secret: s}}]\nstorage: {{path: '{tmp_path}/state.db'}}\npoll: {{interval: 1s}}"
    return parse(text, {}, "config.yaml")


def test_a_schedule_that_stands_still_is_unhealthy(config: Config) -> None:
    daemon = Daemon(config, lambda: config)
    assert daemon.unhealthy() is None
    daemon._alive_at = time.monotonic() - 11
    assert daemon.unhealthy() == "The schedule has stood still for 11 s."


def test_a_job_that_raises_runs_again(config: Config) -> None:
    daemon = Daemon(config, lambda: config)
    runs = []

    def work() -> None:
        runs.append(1)
        raise ZeroDivisionError

    job = daemon._scheduler.every(1)
    cadence = Cadence(job, 0.001, time.monotonic())
    job.seconds.do(daemon._guarded, work, cadence)
    for _ in range(3):
        time.sleep(0.002)
        cadence.align(time.monotonic())
        daemon._scheduler.run_pending()
    assert len(runs) == 3
    assert len(daemon._scheduler.jobs) == 1


@pytest.mark.parametrize(
    ("error", "said"), [(ConfigError("config.yaml: is empty"), "config.yaml: is empty"), (ZeroDivisionError(), "a fault of the exporter")]
)
def test_a_reload_that_fails_in_any_way_is_told_and_stops_nothing(config: Config, error: Exception, said: str) -> None:
    def load() -> Config:
        raise error

    daemon = Daemon(config, load)
    refusal = daemon.reload()
    assert refusal is not None
    assert refusal.startswith(said)
    page = daemon.metrics("", "", frozenset())
    assert b"hms_exporter_config_last_reload_successful 0.0\n" in b"".join(page.chunks)


def test_the_landing_pages_state_is_there_before_anything_runs(config: Config) -> None:
    status = Daemon(config, lambda: config).status()
    assert status.poll_interval == 1
    assert [(workspace.name, workspace.state) for workspace in status.workspaces] == [("w", "waiting")]
    assert abs(status.started_at - time.time()) < 5


def test_the_revision_is_what_the_build_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HMS_EXPORTER_REVISION", raising=False)
    assert revision() == "unknown"
    monkeypatch.setenv("HMS_EXPORTER_REVISION", "3f9c2ab")
    assert revision() == "3f9c2ab"
