"""Memory, threads and descriptors stay bounded, and a suspended process loses no count."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from exporter.simulator import Fault, SimulatedApi, World
from exporter.times import SECOND, rfc3339
from tests.e2e.program import Program, busy, comes_to, configure, expected, present, running, total, wait_until, workspace


def peak_mebibytes(program: Program) -> float:
    """The peak memory of the process."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{program.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def taken(program: Program) -> tuple[int, int]:
    """The numbers of its file descriptors and threads."""
    process = Path(f"/proc/{program.process.pid}")
    return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gzip_bomb", "huge_body", "deep_nesting", "endless_pages"])
def test_monstrous_answers_cost_a_poll_and_not_the_memory(tmp_path: Path, world: World, api: SimulatedApi, kind: Any) -> None:
    room = world.room(name="daily")
    for serial in range(30):
        world.open(room.id, present() - SECOND * (serial + 1)).join("host", present())
    config = configure(tmp_path, api, api={"timeout": "5s", "max_retries": 0, "page_size": 10})
    with running(tmp_path, f"--config.file={config}") as program:
        # Only after the first poll: a failure while the past is read does not fail the poll, as the past is read again.
        program.polled(2)
        api.faults.add(Fault(kind=kind, size=1 << 33, times=3, route="/sessions"))
        # A counter, not `hms_up`: the poll after the third answer succeeds again, perhaps before the test looks.
        wait_until(lambda: program.value("hms_exporter_poll_failures_total"), 40)
        assert peak_mebibytes(program) < 300
        api.faults.clear()
        wait_until(lambda: program.value("hms_up") == 1, 20)
        assert total(program.metrics(), "hms_sessions_active") == 30
        assert total(program.metrics(), "hms_sessions_started_total") == 30


def peers(item: str) -> str:
    """A running session with as many of these peers as an answer can hold."""
    head = f'{{"data":[{{"id":"s","room_id":"r","active":true,"created_at":"{rfc3339(present() - 60 * SECOND)}","peers":['
    return head + f"{item}," * ((60 << 20) // (len(item) + 1)) + item + "]}]}"


def records(item: str) -> str:
    """A page with as many of these records as an answer can hold."""
    return '{"data":[' + f"{item}," * ((60 << 20) // (len(item) + 1)) + item + "]}"


SWARMS: dict[str, tuple[Callable[[], str], int]] = {
    "numbers": (lambda: records("0"), 0),
    "objects": (lambda: records("{}"), 0),
    "half a million numbers": (lambda: '{"data":[' + ",".join(map(str, range(500_000))) + "]}", 0),
    "one nested list": (lambda: '{"data":[[' + "[0]," * (15 << 20) + "0]]}", 1),
    "a session of valid peers": (lambda: peers(f'{{"joined_at":"{rfc3339(present() - 30 * SECOND)}"}}'), 1),
    "a session of numbers": (lambda: peers("0"), 1),
}
"""Answers within the limit of bytes, and whether the poll accepts them."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", SWARMS)
def test_swarms_of_tiny_records_cost_neither_the_memory_nor_the_time(tmp_path: Path, world: World, api: SimulatedApi, kind: str) -> None:
    room = world.room(name="daily")
    world.open(room.id, present() - SECOND).join("host", present())
    make, useful = SWARMS[kind]
    with running(tmp_path, f"--config.file={configure(tmp_path, api, api={'timeout': '10s', 'max_retries': 0})}") as program:
        wait_until(lambda: program.value("hms_up") == 1)
        api.faults.add(Fault(kind="body", body=make(), route="/sessions"))
        # CPU time, not wall-clock time: other tests share the machine.
        spent = program.value("process_cpu_seconds_total") or 0
        polls = program.value("hms_exporter_polls_total") or 0
        while (program.value("hms_exporter_polls_total") or 0) < polls + 3:
            assert program.get("/-/healthy").status_code == 200
            assert (program.value("process_cpu_seconds_total") or 0) - spent < 20
            time.sleep(0.1)
        assert program.value("hms_up") == useful
        assert peak_mebibytes(program) < 400
        assert sum("rejected" in line for line in program.log.splitlines()) == useful
        assert total(program.metrics(), "hms_exporter_records_rejected_total") == useful
        api.faults.clear()
        # Not by `hms_up`, which is 1 all the time where the answer was useful.
        wait_until(lambda: total(program.metrics(), "hms_sessions_active") == 1, 20)


@pytest.mark.slow
def test_reloads_leave_no_threads_and_no_descriptors_behind(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    config = configure(tmp_path, api, web={"enable_lifecycle": True})
    with running(tmp_path, f"--config.file={config}") as program:
        program.polled()
        assert program.get("/-/reload", "POST").status_code == 200
        program.polled()
        before = taken(program)
        for _ in range(25):
            assert program.get("/-/reload", "POST").status_code == 200
            program.send(signal.SIGHUP)
        program.polled(2)
        wait_until(lambda: taken(program)[1] <= before[1] + 1)
        assert taken(program)[0] <= before[0] + 4


@pytest.mark.slow
def test_failed_polls_leave_no_threads_and_no_descriptors_behind(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    config = configure(tmp_path, api, api={"timeout": "100ms", "max_retries": 0})
    kinds: list[Any] = ["reset_in_body", "stall", "trickle_body", "gzip_bomb", "html"]
    with running(tmp_path, f"--config.file={config}") as program:
        program.polled(2)
        before = taken(program)
        for kind in kinds:
            api.faults.add(Fault(kind=kind, times=1))
        program.polled(len(kinds) + 2, seconds=30)
        assert taken(program)[0] <= before[0] + 2
        wait_until(lambda: taken(program)[1] <= before[1])  # the thread of a scrape ends a moment after its answer


@pytest.mark.slow
def test_a_process_that_was_suspended_goes_on_and_loses_nothing(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    room = world.room(name="daily")
    config = configure(tmp_path, api, workspace(rooms=[room.id]), poll={"since": "1h"})
    now = present()
    busy(world, [room], now, now + 6 * SECOND, seed=2)
    with running(tmp_path, f"--config.file={config}") as program:
        wait_until(lambda: program.value("hms_up") == 1)
        program.send(signal.SIGSTOP)
        wait_until(lambda: api.clock() > now + 5 * SECOND)
        program.send(signal.SIGCONT)
        wait_until(lambda: api.clock() > now + 6 * SECOND)
        comes_to(program, expected(world, now + 6 * SECOND, [room]))
        polls = program.value("hms_exporter_polls_total")
        assert polls is not None
        assert polls < 12, "missed polls are not made up for"


@pytest.mark.slow
def test_polls_keep_a_steady_beat(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    """A slow answer does not delay the next poll."""
    api.faults.add(Fault(kind="stall", seconds=0.3, route="/sessions", match="active=true"))
    with running(tmp_path, f"--config.file={configure(tmp_path, api)}") as program:
        program.polled(2)
        api.clear()
        began = time.monotonic()
        wait_until(lambda: sum("true" in request.query.get("active", "") for request in api.requests) >= 5)
        beats = [request.at / SECOND for request in api.requests if request.query.get("active") == "true"]
        assert time.monotonic() - began < 6.5
        assert all(0.6 < later - earlier < 1.4 for earlier, later in pairwise(beats))


@pytest.mark.slow
def test_a_fault_is_logged_when_it_begins_when_it_changes_and_when_it_ends(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    with running(tmp_path, f"--config.file={configure(tmp_path, api, api={'max_retries': 0})}") as program:
        wait_until(lambda: program.value("hms_up") == 1)
        # The first change is logged at once, later ones once a minute at most.
        for status in (500, 503):
            api.faults.replace(Fault(kind="status", status=status))
            program.polled(3)
        api.faults.clear()
        wait_until(lambda: program.value("hms_up") == 1)
        program.polled(2)
        told = [line.split(" ", 1)[1] for line in program.log.splitlines() if "poll failed" in line or "polls succeed" in line]
        assert told == [
            'level=warn msg="poll failed" workspace=default reason="/sessions: 100ms answers 500"',
            'level=warn msg="poll failed" workspace=default reason="/sessions: 100ms answers 503"',
            'level=info msg="polls succeed again" workspace=default',
        ]
