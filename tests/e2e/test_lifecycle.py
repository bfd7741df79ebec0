"""Start and stop: it stops within five seconds in the middle of anything, and a failed start says why, with its exit code."""

from __future__ import annotations

import shutil
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.simulator import Fault, SimulatedApi, World, real_clock
from exporter.times import DAY, MINUTE, SECOND
from tests.e2e.program import SECRET, configure, environment, run, running, total, wait_until, workspace

STALLS = {
    "a stall": Fault(kind="stall", seconds=600),
    "headers that trickle": Fault(kind="trickle_headers", seconds=0.05),
    "a body that trickles": Fault(kind="trickle_body", seconds=0.05),
    "the wait before a retry": Fault(kind="status", status=503, retry_after="25"),
    "a gigabyte": Fault(kind="huge_body", size=1 << 40),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_with_exit_code_0(tmp_path: Path, api: SimulatedApi, number: signal.Signals) -> None:
    with running(tmp_path, f"--config.file={configure(tmp_path, api)}") as program:
        program.polled()
        began = time.monotonic()
        assert program.stop(number) == 0
        assert time.monotonic() - began < 2, "with nothing to wait for, at once"
        assert "msg=stopping" in program.log


@pytest.mark.slow
@pytest.mark.parametrize("fault", STALLS.values(), ids=STALLS.keys())
def test_it_stops_in_time_in_the_middle_of(tmp_path: Path, world: World, api: SimulatedApi, fault: Fault) -> None:
    config = configure(tmp_path, api, api={"timeout": "60s", "max_requests_per_second": 1000}, poll={"interval": "30s"})
    api.faults.add(fault)
    with running(tmp_path, f"--config.file={config}") as program:
        wait_until(lambda: api.faults.standing()[0].struck)
        assert program.stop() == 0


@pytest.mark.slow
def test_it_stops_in_time_while_it_catches_up_with_the_past_and_goes_on_where_it_was(
    tmp_path: Path, world: World, api: SimulatedApi
) -> None:
    room = world.room(name="daily")
    begin = real_clock() // 1000 * 1000 - 29 * DAY
    for number in range(3000):
        session = world.open(room.id, begin + number * 5 * MINUTE)
        session.close(session.created_at + MINUTE)
    # Otherwise rooms of weeks ago would lose their series at a restart, once their past has been read.
    more: dict[str, Any] = {"poll": {"since": "30d"}, "limits": {"room_idle_expiry": "40d"}}
    config = configure(tmp_path, api, api={"max_requests_per_second": 15}, **more)
    seen = 0.0
    for _ in range(2):
        with running(tmp_path, f"--config.file={config}") as program:
            wait_until(lambda: (total(program.metrics(), "hms_sessions_ended_total") or 0) > seen, 20)  # noqa: B023 -- used at once
            assert program.stop() == 0
            seen += 1
    config = configure(tmp_path, api, **more)
    with running(tmp_path, f"--config.file={config}") as program:
        wait_until(lambda: total(program.metrics(), "hms_sessions_ended_total") == 3000)
        program.polled()
        assert total(program.metrics(), "hms_session_seconds_total") == 3000 * 60


def test_a_second_signal_changes_nothing(tmp_path: Path, api: SimulatedApi) -> None:
    with running(tmp_path, f"--config.file={configure(tmp_path, api)}") as program:
        program.polled()
        program.send(signal.SIGTERM)
        program.send(signal.SIGINT)
        assert program.stop() == 0


# --- failed starts -----


def fails(folder: Path, *arguments: str) -> str:
    """Runs the program, which must end with exit code 1 and one line on stderr besides events; returns that line."""
    done = run(folder, *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("time=")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_port_that_is_taken_is_exit_code_1(tmp_path: Path, api: SimulatedApi) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = configure(tmp_path, api)
        line = fails(tmp_path, f"--config.file={config}", f"--web.listen-address=127.0.0.1:{port}")
        configure(tmp_path, api, webhooks={"listen_address": f"127.0.0.1:{port}", "headers": {"x-hms-token": "t"}})
        other = fails(tmp_path, f"--config.file={config}")
    assert line == f"hms-exporter: cannot listen on 127.0.0.1:{port}: Address already in use"
    assert other == f"hms-exporter: cannot listen for webhooks on 127.0.0.1:{port}: Address already in use"


def test_a_state_file_in_use_by_another_exporter_is_exit_code_1_and_disturbs_it_not(tmp_path: Path, api: SimulatedApi) -> None:
    config = configure(tmp_path, api)
    with running(tmp_path, f"--config.file={config}") as program:
        program.polled()
        line = fails(tmp_path, f"--config.file={config}")
        assert line == f"hms-exporter: {tmp_path}/state.db: the state file is in use by another exporter"
        program.polled()
        assert program.value("hms_up") == 1


def of_version_99(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("PRAGMA user_version = 99")
    db.close()


def of_another_program(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE notes (text)")
    db.close()


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[1024:] = bytes(byte ^ 0x5A for byte in data[1024:])
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def text(path: Path) -> None:
    path.write_text("not a database at all\n" * 20)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (of_version_99, "has version 99"),
        (of_another_program, "a database of another program"),
        (damaged, "damaged"),
        (cut_short, "damaged"),
        (text, "not a state file of this exporter"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_state_file_that_cannot_be_used_is_exit_code_1_and_stays_as_it_is(
    tmp_path: Path, state: Path, spoil: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / "state.db"
    shutil.copy(state, path)
    spoil(path)
    before = path.read_bytes()
    line = fails(tmp_path, f"--config.file={configure(tmp_path, 'http://127.0.0.1:1/v2')}")
    assert line.startswith(f"hms-exporter: {path}: ")
    assert said in line
    assert path.read_bytes() == before


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state file of an exporter that has counted something."""
    folder = tmp_path_factory.mktemp("state")
    world = World("c4nary-access-key", SECRET)
    room = world.room(name="daily")
    for number in range(50):
        world.open(room.id, real_clock() - MINUTE + number).join("host", real_clock() - 30 * SECOND)
    with SimulatedApi([world]) as api, running(folder, f"--config.file={configure(folder, api)}") as program:
        wait_until(lambda: total(program.metrics(), "hms_sessions_started_total") == 50)
        assert program.stop() == 0
    return folder / "state.db"


def test_a_state_file_where_none_can_be_is_exit_code_1(tmp_path: Path, api: SimulatedApi) -> None:
    config = configure(tmp_path, api, storage={"path": str(tmp_path)})
    assert "is not a file" in fails(tmp_path, f"--config.file={config}")
    config = configure(tmp_path, api, storage={"path": f"{config}/state.db"})
    assert "cannot be used" in fails(tmp_path, f"--config.file={config}")


# --- bad configurations ---


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "empty"),
        ("# nothing\n", ""),
        ("workspaces: []\n", "workspaces: expected a list of one or more workspaces, found an empty one"),
        ("workspaces: [{name: a, access_key: k, secret: '${UNSET_BY_ALL}'}]\n", "UNSET_BY_ALL"),
        ("workspaces: [{name: a, access_key: k, secret: s}]\npoll: {interval: 1}\n", "poll.interval"),
        ("workspaces: [{name: a, access_key: k, secret: s}]\npool: {}\n", "pool"),
        ("workspaces: [{name: a, access_key: k, secret: s, rooms: [{match: '('}]}]\n", "workspaces[0].rooms[0].match"),
        ("workspaces: [{name: a, access_key: k, secret_file: no-such-file}]\n", "secret_file"),
        ("{", ""),
        ("\x00", ""),
        ("&a [*a]\n", ""),
    ],
)
def test_a_bad_configuration_is_exit_code_2_with_one_line(tmp_path: Path, content: str, said: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(content)
    done = run(tmp_path, f"--config.file={config}", env=environment(HMS_SECRET=SECRET))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("hms-exporter: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr
    assert not (tmp_path / "hms-exporter.db").exists(), "refused before anything starts"


@pytest.mark.parametrize("flag", ["--config.file=missing.yaml", "--web.config.file=missing.yaml", "--config.file=/"])
def test_a_file_that_is_named_and_not_there_is_exit_code_2(tmp_path: Path, api: SimulatedApi, flag: str) -> None:
    configure(tmp_path, api)
    done = run(tmp_path, flag)
    assert done.returncode == 2
    assert len([line for line in done.stderr.splitlines() if not line.startswith("time=")]) == 1
    assert flag.split("=")[1] in done.stderr


def test_the_environment_alone_is_enough(tmp_path: Path) -> None:
    env = environment(HMS_ACCESS_KEY="c4nary-access-key", HMS_SECRET=SECRET, https_proxy="http://127.0.0.1:1")
    arguments = ("--web.listen-address=127.0.0.1:0", "--log.format=logfmt")
    with running(tmp_path, *arguments, env=env) as program:
        assert program.get("/-/healthy").status_code == 200
        assert program.value("hms_exporter_poll_interval_seconds") == 30
        assert (tmp_path / "hms-exporter.db").exists()
        assert program.stop() == 0


def test_without_any_configuration_it_says_what_is_expected(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 2
    assert "HMS_ACCESS_KEY and HMS_SECRET" in done.stderr
    assert done.stderr.count("\n") == 1


# --- the API is down ---


@pytest.mark.slow
def test_with_the_api_down_it_serves_says_so_and_recovers_by_itself(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    room = world.room(name="daily")
    world.open(room.id, real_clock() - MINUTE).join("host", real_clock() - MINUTE)
    config = configure(tmp_path, api, workspace(rooms=[{"id": room.id, "name": "mine"}]))
    api.stop()
    with running(tmp_path, f"--config.file={config}") as program:
        assert program.value("hms_up") == 0
        assert program.get("/-/healthy").status_code == 200
        program.polled(2)
        assert program.value("hms_up") == 0
        assert program.get("/-/ready").status_code == 503
        samples = program.metrics()
        assert total(samples, "hms_exporter_api_requests_total", code="connection") >= 2
        assert total(samples, "hms_exporter_poll_failures_total") >= 2
        assert program.log.count('msg="poll failed"') == 1, "a fault that lasts is logged once"
        api.start()
        wait_until(lambda: program.value("hms_up") == 1)
        assert program.get("/-/ready").status_code == 200
        assert total(program.metrics(), "hms_peers_active") == 1
        assert program.log.count('msg="polls succeed again"') == 1


@pytest.mark.slow
def test_gauges_keep_their_last_good_value_for_three_intervals_and_hms_up_falls(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    room = world.room(name="daily")
    world.open(room.id, real_clock() - MINUTE).join("host", real_clock() - MINUTE)
    config = configure(tmp_path, api, api={"timeout": "1500ms", "max_retries": 0})
    with running(tmp_path, f"--config.file={config}") as program:
        wait_until(lambda: total(program.metrics(), "hms_peers_active") == 1)
        program.polled()
        polled = time.monotonic()
        before = total(program.metrics(), "hms_peer_seconds_total")
        api.faults.add(Fault(kind="stall", seconds=600))
        wait_until(lambda: not [key for key in program.metrics() if key.name == "hms_peers_active"], 8)
        assert 2 < time.monotonic() - polled < 4.5
        samples = program.metrics()
        assert not [key for key in samples if key.name in ("hms_sessions_active", "hms_peers_active_peak", "hms_users_active")]
        assert total(samples, "hms_peer_seconds_total") >= before
        assert total(samples, "hms_sessions_started_total") == 1
        wait_until(lambda: program.value("hms_up") == 0, 5)
        assert program.get("/-/healthy").status_code == 200, "a slow API is no fault of the process"
        api.faults.clear()
        wait_until(lambda: total(program.metrics(), "hms_peers_active") == 1)
