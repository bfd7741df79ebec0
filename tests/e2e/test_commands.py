"""The other commands as processes: demo, simulate, check."""

from __future__ import annotations

import hashlib
import hmac
import re
import signal
import socket
import time
from pathlib import Path

import pytest
import requests

from exporter.simulator import Fault, SimulatedApi, World, real_clock
from exporter.times import MINUTE
from tests.e2e.program import (
    ACCESS_KEY,
    PRIVATE,
    Program,
    configure,
    environment,
    parse,
    run,
    running,
    some,
    total,
    wait_until,
    workspace,
)
from tests.receiver import Receiver


def said(program: Program, pattern: str, seconds: float = 15) -> str:
    """Waits until the pattern matches the output; returns its group."""

    def found() -> str | None:
        assert program.process.poll() is None, program.log
        match = re.search(pattern, program.output)
        return match[1] if match else None

    return str(wait_until(found, seconds, f"{pattern} is not said"))


@pytest.mark.slow
def test_demo_shows_several_rooms_within_ten_seconds_and_people_coming_and_going(tmp_path: Path) -> None:
    began = time.monotonic()
    with running(tmp_path, "demo", "--web.listen-address=127.0.0.1:0", env=environment(TMPDIR=str(tmp_path))) as program:
        page = said(program, r"http://(\S+)/metrics")

        def published() -> dict[str, float]:
            samples = parse(requests.get(f"http://{page}/metrics", timeout=5).text)
            return {dict(labels)["room"]: value for labels, value in some(samples, "hms_peers_active").items() if value}

        wait_until(lambda: len(published()) >= 3, 10 - (time.monotonic() - began))
        landing = requests.get(f"http://{page}/", timeout=5).text
        assert "demo" in landing
        assert requests.get(f"http://{page}/-/ready", timeout=5).status_code == 200

        def program_total(name: str) -> float:
            return total(parse(requests.get(f"http://{page}/metrics", timeout=5).text), name)

        def moved() -> tuple[float, float]:
            samples = parse(requests.get(f"http://{page}/metrics", timeout=5).text)
            return total(samples, "hms_peers_joined_total"), total(samples, "hms_peers_left_total")

        wait_until(lambda: program_total("hms_webhooks_received_total") > 0, 40)
        assert program_total("hms_webhooks_rejected_total") == 0
        joined, left = moved()
        wait_until(lambda: moved()[0] > joined, 40)
        wait_until(lambda: moved()[1] > left, 40)
        assert program.stop() == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("hms-")] == [], "nothing is left behind"


@pytest.mark.slow
def test_demo_shows_what_is_recorded_streamed_and_delivered_and_what_goes_wrong(tmp_path: Path) -> None:
    with running(tmp_path, "demo", "--web.listen-address=127.0.0.1:0", env=environment(TMPDIR=str(tmp_path))) as program:
        page = said(program, r"http://(\S+)/metrics")

        def found(name: str, **labels: str) -> float:
            return total(parse(requests.get(f"http://{page}/metrics", timeout=5).text), name, **labels)

        # At the end of a weekend there has been no webinar yet; language practice is recorded every hour.
        wait_until(lambda: found("hms_recordings_completed_total") > 10, 60)
        # Each kind is read for itself, and its past page by page.
        wait_until(lambda: found("hms_live_streams_started_total", room="open-house") > 5, 60)
        wait_until(lambda: found("hms_recordings_requested_total") - found("hms_recordings_started_total") >= 2, 60, "none never starts")

        def some_break_off() -> bool:
            never = found("hms_recordings_requested_total") - found("hms_recordings_started_total")
            return found("hms_recordings_failed_total") > never

        wait_until(some_break_off, 60, "none breaks off")
        wait_until(lambda: found("hms_recording_asset_bytes_total", type="room-composite") > 10**9, 30)
        wait_until(lambda: found("hms_client_errors_total", type="join", error_code="4006") > 0, 60)
        wait_until(lambda: found("hms_webhook_deliveries_total", status="failed") > 300, 120, "no bad hour is seen")
        wait_until(lambda: found("hms_webhook_deliveries_total", status="success") > 1000, 60)
        assert program.stop() == 0


def test_demo_on_a_port_that_is_taken_is_exit_code_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run(tmp_path, "demo", f"--web.listen-address=127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_simulate_answers_as_100ms_does_and_the_exporter_can_be_pointed_at_it(tmp_path: Path) -> None:
    with running(tmp_path, "simulate", "--web.listen-address=127.0.0.1:0", events_only=False) as simulator:
        base_url = said(simulator, r"answers on (\S+)")
        key, secret = said(simulator, r"HMS_ACCESS_KEY=(\S+)"), said(simulator, r"HMS_SECRET=(\S+)")
        refused = requests.get(f"{base_url}/sessions", params={"active": "true"}, timeout=5)
        assert refused.status_code == 401
        assert refused.json()["code"] == 401
        folder = tmp_path / "exporter"
        folder.mkdir()
        config = configure(folder, base_url, workspace(access_key=key, secret=secret))
        with running(folder, f"--config.file={config}", events_only=False) as program:
            wait_until(lambda: total(program.metrics(), "hms_peers_active") > 10)
        assert simulator.stop(signal.SIGINT) == 0


@pytest.mark.parametrize(("given", "listens", "host"), [(":0", "0.0.0.0", "127.0.0.1"), ("[::]:0", "[::]", "[::1]")])
def test_simulate_says_when_it_listens_on_every_address(tmp_path: Path, given: str, listens: str, host: str) -> None:
    with running(tmp_path, "simulate", f"--web.listen-address={given}", events_only=False) as simulator:
        port = said(simulator, r"listens on (\S+): others").removeprefix(f"{listens}:")
        assert said(simulator, r"answers on (\S+)") == f"http://{host}:{port}/v2"
        others = socket.gethostbyname(socket.gethostname()) if host == "127.0.0.1" else host
        assert requests.get(f"http://{others}:{port}/v2/sessions", timeout=5).status_code == 401
        assert simulator.stop() == 0


def test_simulate_is_silent_about_others_when_it_answers_this_machine_alone(tmp_path: Path) -> None:
    with running(tmp_path, "simulate", "--web.listen-address=127.0.0.1:0", events_only=False) as simulator:
        said(simulator, r"HMS_SECRET=(\S+)")
        assert "others reach it" not in simulator.output
        assert simulator.stop() == 0


def test_simulate_posts_webhooks_to_a_url_with_its_secrets(tmp_path: Path) -> None:
    with Receiver() as server:
        options = ("--webhook-header=x-hms-token: t", "--webhook-signature-secret=s", f"--webhook-url={server.url}")
        with running(tmp_path, "simulate", "--web.listen-address=127.0.0.1:0", *options, events_only=False) as simulator:
            assert said(simulator, r"posts webhooks to (\S+)") == server.url
            wait_until(lambda: len(server.seen) > 0, 40)
            assert simulator.stop() == 0
    headers, body = server.seen[0]
    assert headers["x-hms-token"] == "t"
    assert headers["x-100ms-signature"] == hmac.new(b"s", body, hashlib.sha256).hexdigest()


def test_check_says_what_the_configuration_means_and_what_it_costs(tmp_path: Path) -> None:
    config = configure(tmp_path, "http://127.0.0.1:1/v2", workspace(rooms=["a", "b", {"match": "class-.*"}]), poll={"interval": "30s"})
    done = run(tmp_path, "check", f"--config.file={config}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 rooms by id; rooms named class-.*" in done.stdout
    assert "calls a poll" in done.stdout
    assert "calls an hour" in done.stdout
    assert not (tmp_path / "state.db").exists()
    assert not [private for private in PRIVATE if private in done.stdout]


def test_check_of_a_bad_configuration_is_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("workspaces: none")
    done = run(tmp_path, "check")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("hms-exporter: config.yaml: workspaces: ")
    assert done.stderr.count("\n") == 1


def test_check_live_tries_credentials_and_rooms(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    room = world.room(name="daily")
    world.open(room.id, real_clock() - MINUTE)
    config = configure(tmp_path, api, workspace(rooms=[room.id]))
    done = run(tmp_path, "check", "--live", f"--config.file={config}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the credentials are accepted" in done.stdout

    config = configure(tmp_path, api, workspace(rooms=[room.id, "65f0000000000000deadbeef"]))
    done = run(tmp_path, "check", "--live", f"--config.file={config}")
    assert done.returncode == 1
    assert "room 65f0000000000000deadbeef: 100ms does not know it" in done.stdout

    config = configure(tmp_path, api, workspace("good"), workspace("bad", access_key=f"{ACCESS_KEY}-2"))
    done = run(tmp_path, "check", "--live", f"--config.file={config}")
    assert done.returncode == 1
    assert "Workspace good: the credentials are accepted" in done.stdout
    assert "Workspace bad: /sessions: 100ms does not accept the credentials (401)" in done.stdout
    assert not [private for private in PRIVATE if private in done.stdout + done.stderr]


@pytest.mark.slow
def test_check_live_ends_whatever_the_api_does(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    config = configure(tmp_path, api, api={"timeout": "300ms", "max_retries": 1})
    for fault in (Fault(kind="stall", seconds=600), Fault(kind="status", status=429, retry_after="86400"), Fault(kind="html")):
        api.faults.clear()
        api.faults.add(fault)
        done = run(tmp_path, "check", "--live", f"--config.file={config}", timeout=10)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr


def test_no_command_writes_a_traceback_when_it_is_interrupted(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    api.faults.add(Fault(kind="stall", seconds=600))
    config = configure(tmp_path, api, api={"timeout": "60s"})
    with running(tmp_path, "check", "--live", f"--config.file={config}", events_only=False) as program:
        wait_until(lambda: api.faults.standing()[0].struck)
        program.stop(signal.SIGINT)
        assert "Traceback" not in program.log
