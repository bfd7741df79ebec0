"""The real program, killed, suspended and starved: no second lost, none counted twice, no counter ever seen to fall."""

from __future__ import annotations

import contextlib
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from exporter.simulator import SECOND, Fault, SimulatedApi, World, real_clock
from soak.kills import campaign
from soak.process import Exporter, Scraper
from soak.watcher import sums, true_sums


@pytest.mark.slow
def test_killed_at_random_moments_it_loses_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
    """Ten times here; `python -m soak --kills 1000` is the long one."""
    result = campaign(tmp_path, kills=10)
    assert result.sessions > 10
    assert result.scrapes > 50
    assert (result.falls, result.lost, result.doubled, result.wrong_counts) == ([], 0, 0, 0)
    assert "Traceback" not in (tmp_path / "exporter.log").read_text()


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.02)


class Running(NamedTuple):
    """What a test has in hand."""

    world: World
    api: SimulatedApi
    exporter: Exporter
    scraper: Scraper


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Running]:
    """A program that has polled a call, which goes on, with success."""
    world = World("soak-key", "soak-secret-of-thirty-two-bytes-and-more")
    now = real_clock()
    room = world.room(name="room", created_at=now - SECOND).id
    world.open(room, now).join("host", now)
    with SimulatedApi([world]) as api:
        exporter = Exporter(folder, api.base_url, world.access_key, world.secret)
        exporter.start()
        try:
            with Scraper(exporter) as scraper:
                until(lambda: scraper.latest.get('hms_up{workspace="w"}') == 1 and bool(sums(scraper.latest)))
                yield Running(world, api, exporter, scraper)
        finally:
            exporter.kill()


def finish(found: Running) -> None:
    """The call ends; what is published in the end is the truth."""
    world, _, exporter, scraper = found
    world.sessions[0].close(real_clock() + SECOND // 2)
    until(lambda: real_clock() > (world.sessions[0].closed_at or 0))
    until(lambda: sums(scraper.latest) == true_sums(world.truth(real_clock())))
    assert scraper.watcher.falls == []
    assert exporter.stop() == 0


def polls(scraper: Scraper) -> float:
    return scraper.latest['hms_exporter_polls_total{workspace="w"}']


@pytest.mark.slow
def test_a_suspended_process_goes_on_where_time_is_and_makes_up_for_no_poll(tmp_path: Path) -> None:
    with running(tmp_path) as found:
        _, _, exporter, scraper = found
        before = polls(scraper)
        exporter.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        time.sleep(4)
        exporter.signal(signal.SIGCONT)
        until(lambda: polls(scraper) >= before + 2)
        lasted = time.monotonic() - stopped
        assert polls(scraper) - before <= lasted - 4 + 3
        finish(found)


@pytest.mark.slow
def test_without_file_descriptors_polls_fail_and_recover_once_there_are_some(tmp_path: Path) -> None:
    with running(tmp_path) as found:
        _, api, exporter, scraper = found
        seen = sums(scraper.latest)
        soft, hard = resource.prlimit(exporter.pid, resource.RLIMIT_NOFILE)
        # Not one more than are open: neither a connection to the API nor one from a scraper can be made.
        resource.prlimit(exporter.pid, resource.RLIMIT_NOFILE, (3, hard))
        api.faults.add(Fault(kind="reset", times=1))
        time.sleep(3)
        resource.prlimit(exporter.pid, resource.RLIMIT_NOFILE, (soft, hard))
        pages = scraper.watcher.pages
        until(lambda: scraper.watcher.pages > pages and scraper.latest['hms_up{workspace="w"}'] == 1)
        assert scraper.latest['hms_exporter_poll_failures_total{workspace="w"}'] >= 2
        assert all(sums(scraper.latest)[room].peer_us > of.peer_us for room, of in seen.items())
        finish(found)


@pytest.mark.slow
def test_a_state_file_removed_from_under_the_program_is_back_before_a_kill(tmp_path: Path) -> None:
    with running(tmp_path) as found:
        _, _, exporter, scraper = found
        exporter.state_file.unlink()
        until(exporter.state_file.exists)
        before = polls(scraper)
        until(lambda: polls(scraper) > before)
        exporter.kill()
        exporter.start()
        finish(found)
        assert "state file was removed while in use and has been written anew" in exporter.log.read_text()
