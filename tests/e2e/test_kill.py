"""The real program, killed, suspended and starved of resources: nothing is lost or counted twice, and no counter ever falls."""

from __future__ import annotations

import contextlib
import errno
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from exporter.simulator import Fault, SimulatedApi, World, real_clock
from exporter.times import SECOND
from lab.counters import sums, true_sums
from soak.account import Findings
from soak.kills import campaign
from soak.process import Exporter, Scraper
from tests.programs import require


@pytest.mark.slow
def test_killed_at_random_moments_it_loses_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
    """Ten kills here. `python -m soak --kills 1000` is the long run."""
    result = campaign(tmp_path, kills=10)
    assert result.sessions > 10
    assert result.scrapes > 50
    assert (result.falls, result.findings) == ([], Findings())
    assert "Traceback" not in (tmp_path / "exporter.log").read_text()


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.02)


class Running(NamedTuple):
    """The parts of a running test."""

    world: World
    api: SimulatedApi
    exporter: Exporter
    scraper: Scraper


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Running]:
    """A program that has successfully polled a running call."""
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
    """Ends the call, and waits until the published counters equal the truth."""
    world, _, exporter, scraper = found
    world.sessions[0].close(real_clock() + SECOND // 2)
    until(lambda: real_clock() > (world.sessions[0].closed_at or 0))
    until(lambda: sums(scraper.latest) == true_sums(world.truth(real_clock())))
    assert scraper.watcher.falls == []
    assert exporter.stop() == 0


def polls(scraper: Scraper) -> float:
    return scraper.latest['hms_exporter_polls_total{workspace="w"}']


@pytest.mark.slow
def test_a_suspended_process_continues_at_the_present_and_makes_up_for_no_poll(tmp_path: Path) -> None:
    with running(tmp_path) as found:
        _, _, exporter, scraper = found
        before = polls(scraper)
        exporter.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        time.sleep(4)  # several polls are missed
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
        # No more than are open now: the program can neither connect to the API nor accept a scraper.
        resource.prlimit(exporter.pid, resource.RLIMIT_NOFILE, (3, hard))
        api.faults.add(Fault(kind="reset", times=1, route="/sessions"))
        until(lambda: "poll failed" in exporter.log.read_text())
        time.sleep(3)  # several polls find no descriptor
        resource.prlimit(exporter.pid, resource.RLIMIT_NOFILE, (soft, hard))
        pages = scraper.watcher.pages
        until(lambda: scraper.watcher.pages > pages and scraper.latest['hms_up{workspace="w"}'] == 1)
        assert scraper.latest['hms_exporter_poll_failures_total{workspace="w"}'] >= 2
        assert all(sums(scraper.latest)[room]["hms_peer_seconds_total"] > of["hms_peer_seconds_total"] for room, of in seen.items())
        finish(found)


FAILING_WRITES = """
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* While the file FAILING_WRITES is there, what SQLite writes fails with the error whose number stands in it. */
ssize_t pwrite64(int file, const void *from, size_t much, off64_t at) {
    char number[8] = "";
    int why = open(getenv("FAILING_WRITES"), O_RDONLY);
    if (why < 0)
        return syscall(SYS_pwrite64, file, from, much, at);
    if (read(why, number, sizeof number - 1) < 0)
        abort();
    close(why);
    errno = atoi(number);
    return -1;
}

ssize_t pwrite(int file, const void *from, size_t much, off_t at) { return pwrite64(file, from, much, at); }
"""


@pytest.mark.slow
def test_while_writing_to_the_state_file_fails_counters_stand_and_then_go_on_with_nothing_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Like a file system that has become read-only or is failing."""
    library, why = tmp_path / "failing_writes.so", tmp_path / "why"
    compile_it = [require("cc"), "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), "-x", "c", "-"]
    subprocess.run(compile_it, input=FAILING_WRITES, text=True, check=True)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("FAILING_WRITES", str(why))
    with running(tmp_path) as found:
        _, _, exporter, scraper = found
        for number in (errno.EROFS, errno.EACCES, errno.EIO):
            (tmp_path / "draft").write_text(str(number))
            (tmp_path / "draft").rename(why)
            until(lambda: scraper.latest['hms_up{workspace="w"}'] == 0)
            seen, before = sums(scraper.latest), polls(scraper)
            until(lambda before=before: polls(scraper) >= before + 2)  # type: ignore[misc]  # bound now
            assert sums(scraper.latest) == seen
            why.unlink()
            until(lambda: scraper.latest['hms_up{workspace="w"}'] == 1)
            assert all(sums(scraper.latest)[room]["hms_peer_seconds_total"] > of["hms_peer_seconds_total"] for room, of in seen.items())
        exporter.kill()
        exporter.start()
        finish(found)
        assert "the state file cannot be used" in exporter.log.read_text()


@pytest.mark.slow
def test_a_log_removed_from_under_the_program_costs_nothing_when_it_is_killed_and_100ms_is_down(tmp_path: Path) -> None:
    with running(tmp_path) as found:
        _, api, exporter, scraper = found
        for name in ("-wal", "-shm"):
            Path(f"{exporter.state_file}{name}").unlink()
        before = polls(scraper)
        until(lambda: polls(scraper) >= before + 2)
        exporter.kill()
        seen = sums(scraper.latest)
        assert all(of["hms_peer_seconds_total"] > 0 for of in seen.values())
        api.faults.add(Fault(kind="status", status=503))
        pages = scraper.watcher.pages
        exporter.start()
        until(lambda: scraper.watcher.pages > pages and polls(scraper) >= 1)
        assert all(sums(scraper.latest)[room]["hms_peer_seconds_total"] >= of["hms_peer_seconds_total"] for room, of in seen.items())
        api.faults.clear()
        finish(found)
        assert "the log of the state file was removed while in use" in exporter.log.read_text()


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
        assert "state file was removed while in use and has been written again" in exporter.log.read_text()
