"""The running program over HTTP: pages, probes, reload, several workspaces, and secrets that must appear nowhere."""

from __future__ import annotations

import base64
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from exporter.publish.families import WORKSPACE_FAMILIES, sample_names
from exporter.simulator import Fault, Room, SimulatedApi, World
from exporter.times import MINUTE, SECOND
from tests.e2e.program import (
    ACCESS_KEY,
    PRIVATE,
    SECRET,
    Program,
    busy,
    comes_to,
    configure,
    counted,
    environment,
    expected,
    present,
    running,
    some,
    total,
    wait_until,
    workspace,
)
from tests.e2e.prometheus import scraping


def test_every_path_answers_as_promised(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    room = world.room(name="daily")
    world.open(room.id, present() - MINUTE)
    with running(tmp_path, f"--config.file={configure(tmp_path, api)}") as program:
        wait_until(lambda: program.get("/-/ready").status_code == 200)
        assert program.get("/-/healthy").status_code == 200
        landing = program.get("/")
        assert landing.status_code == 200
        assert landing.headers["Content-Type"].startswith("text/html")
        assert "default" in landing.text
        assert 'href="/metrics"' in landing.text
        for path in ("/", "/metrics", "/-/healthy", "/-/ready"):
            head = program.get(path, "HEAD")
            assert (head.status_code, head.content) == (200, b"")
            for method in ("POST", "PUT", "DELETE", "PATCH"):
                refused = program.get(path, method)
                assert refused.status_code == 405
                assert set(refused.headers["Allow"].replace(" ", "").split(",")) == {"GET", "HEAD"}
        for path in ("/nowhere", "/metrics/", "/-/", "/favicon.ico", "/-/quit", "/sessions", "//"):
            assert program.get(path).status_code == 404
        reload = program.get("/-/reload")
        assert (reload.status_code, reload.headers["Allow"]) == (405, "POST")
        assert program.get("/-/reload", "POST").status_code == 403, "not enabled"
        text = program.get("/metrics", **{"Accept-Encoding": "identity"})
        assert text.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        modern = program.get("/metrics", Accept="application/openmetrics-text; version=1.0.0", **{"Accept-Encoding": "gzip"})
        assert modern.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        assert modern.headers["Content-Encoding"] == "gzip"
        assert modern.text.endswith("# EOF\n")
        for odd in ("application/openmetrics-text;version=abc", ";;;", "\x7f", "q=1;q=0"):
            assert program.get("/metrics", Accept=odd).status_code == 200
        one = program.get("/metrics?name[]=hms_up&name%5B%5D=hms_exporter_polls_total").text
        assert {line.split("{")[0] for line in one.splitlines() if not line.startswith("#")} == {"hms_up", "hms_exporter_polls_total"}


def test_a_scrape_causes_no_call_to_100ms(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    config = configure(tmp_path, api, poll={"interval": "1h"})
    with running(tmp_path, f"--config.file={config}") as program:
        wait_until(lambda: program.value("hms_up") == 1)
        wait_until(lambda: total(program.metrics(), "hms_collector_up") == 3)
        before = len(api.requests)
        for _ in range(50):
            program.metrics()
            program.get("/")
        assert len(api.requests) == before


def test_the_metrics_about_itself_are_there_from_the_first_scrape(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    with running(tmp_path, f"--config.file={configure(tmp_path, api)}") as program:
        wait_until(lambda: program.value("hms_up") == 1)
        samples = program.metrics()
        names = {key.name for key in samples}
        for name in (
            "hms_exporter_polls_total", "hms_exporter_poll_failures_total", "hms_exporter_polls_skipped_total",
            "hms_exporter_poll_duration_seconds_bucket", "hms_exporter_last_success_timestamp_seconds",
            "hms_exporter_poll_interval_seconds", "hms_exporter_api_requests_total", "hms_exporter_api_request_duration_seconds_count",
            "hms_exporter_api_retries_total", "hms_exporter_api_throttled_seconds_total", "hms_exporter_records_rejected_total",
            "hms_exporter_token_expiry_timestamp_seconds", "hms_exporter_token_minted", "hms_exporter_clock_skew_seconds",
            "hms_exporter_config_last_reload_successful", "hms_exporter_config_last_reload_success_timestamp_seconds",
            "hms_exporter_build_info", "process_cpu_seconds_total", "process_open_fds", "python_info",
        ):  # fmt: skip
            assert name in names, name
        assert names >= {sample for family in WORKSPACE_FAMILIES if family.kind == "gauge" for sample in sample_names(family)}
        [build] = some(samples, "hms_exporter_build_info")
        assert {label for label, _ in build} == {"version", "revision", "pythonversion"}
        [success] = some(samples, "hms_exporter_last_success_timestamp_seconds").values()
        assert abs(success - time.time()) < 10
        endpoints = {dict(labels)["endpoint"] for labels in some(samples, "hms_exporter_api_requests_total")}
        assert all(endpoint.startswith("/") and world.access_key not in endpoint for endpoint in endpoints)


# --- flags and formats ---


def test_flags_win_over_the_file(tmp_path: Path, api: SimulatedApi) -> None:
    config = configure(tmp_path, api)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = (
        f"--config.file={config}",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--storage.path={tmp_path}/elsewhere/other.db",
        "--log.level=info",
        "--log.format=json",
    )
    with running(tmp_path, "run", *flags, events_only=False) as program:
        wait_until(lambda: "listening" in program.log)
        event = json.loads(program.log.splitlines()[0])
        assert event["address"] == f"127.0.0.1:{port}"
        assert (tmp_path / "elsewhere" / "other.db").exists()
        assert not (tmp_path / "state.db").exists()
        assert program.stop() == 0
        assert all(json.loads(line)["level"] != "debug" for line in program.log.splitlines())


# --- several workspaces ---


@pytest.mark.slow
def test_a_workspace_that_hangs_and_one_with_a_bad_secret_leave_the_third_untouched(tmp_path: Path) -> None:
    worlds = [World(f"{ACCESS_KEY}-{name}", SECRET) for name in ("hangs", "refused", "good")]
    for world in worlds:
        world.open(world.room(name="daily").id, present() - MINUTE).join("host", present() - MINUTE)
    # All workspaces share one address, and each world numbers its rooms alike: only the hanging workspace has a second room.
    of_its_own = worlds[0].room(name="of its own").id
    with SimulatedApi(worlds) as api:
        api.faults.add(Fault(kind="stall", seconds=600, match=of_its_own))
        config = configure(
            tmp_path,
            api,
            workspace("hangs", access_key=worlds[0].access_key, rooms=[of_its_own]),
            workspace("refused", access_key=worlds[1].access_key, secret="c4nary-secret-that-is-wrong-but-long"),
            workspace("good", access_key=worlds[2].access_key),
            api={"timeout": "30s"},
        )
        with running(tmp_path, f"--config.file={config}") as program:
            wait_until(lambda: program.value("hms_up", workspace="good") == 1)
            program.polled(4, "good", seconds=10)
            samples = program.metrics()
            assert total(samples, "hms_up", workspace="good") == 1
            assert total(samples, "hms_peers_active", workspace="good") == 1
            assert total(samples, "hms_exporter_polls_skipped_total", workspace="good") <= 1
            assert total(samples, "hms_up", workspace="refused") == 0
            assert total(samples, "hms_exporter_api_requests_total", workspace="refused", code="401") >= 2
            assert total(samples, "hms_up", workspace="hangs") == 0
            assert total(samples, "hms_exporter_polls_skipped_total", workspace="hangs") >= 2
            assert program.get("/-/ready").status_code == 503
            page = program.get("/").text
            assert "credentials" in page
            assert program.log.count('msg="poll failed" workspace=refused') == 1
            assert program.stop() == 0


@pytest.mark.slow
def test_a_secret_replaced_in_its_file_mends_a_refused_workspace(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    secret = tmp_path / "secret"
    secret.write_text("c4nary-secret-of-yesterday-long-enough")
    given = {"name": "default", "access_key": ACCESS_KEY, "secret_file": "secret"}
    with running(tmp_path, f"--config.file={configure(tmp_path, api, given)}") as program:
        program.polled()
        assert program.value("hms_up") == 0
        secret.write_text(SECRET)
        wait_until(lambda: program.value("hms_up") == 1)


def test_keys_replaced_in_their_files_are_read_at_a_reload_though_the_old_ones_still_serve(
    tmp_path: Path, world: World, api: SimulatedApi
) -> None:
    """During a rotation 100ms accepts both key pairs for a while.  The new pair opens another world, which shows that it is in use."""
    successor = World("c4nary-access-key-of-tomorrow", "c4nary-secret-of-tomorrow-long-enough")
    successor.open(successor.room(name="tomorrow").id, present() - MINUTE)
    api.workspaces.append(successor)
    (tmp_path / "key").write_text(ACCESS_KEY)
    (tmp_path / "secret").write_text(SECRET)
    given = {"name": "default", "access_key_file": "key", "secret_file": "secret"}
    with running(tmp_path, f"--config.file={configure(tmp_path, api, given)}") as program:
        wait_until(lambda: program.value("hms_up") == 1)
        (tmp_path / "key").write_text(successor.access_key)
        (tmp_path / "secret").write_text(successor.secret)
        program.send(signal.SIGHUP)
        wait_until(lambda: some(program.metrics(), "hms_sessions_active", room="tomorrow"))
        assert total(program.metrics(), "hms_exporter_api_requests_total", code="401") == 0


# --- reload ---


@pytest.mark.slow
@pytest.mark.parametrize("way", ["SIGHUP", "POST"])
def test_a_reload_is_taken_over_whole_or_refused_whole_and_loses_no_count(
    tmp_path: Path, world: World, api: SimulatedApi, way: str
) -> None:
    rooms = [world.room(name=f"room-{number}") for number in range(3)]
    web = {"enable_lifecycle": True}

    def write(*ids: Room, interval: str = "1s") -> Path:
        return configure(tmp_path, api, workspace(rooms=[room.id for room in ids]), web=web, poll={"interval": interval})

    def reload(program: Program, *, good: bool = True) -> None:
        before = program.log.count('msg="configuration reloaded"'), program.log.count('msg="configuration not reloaded"')
        if way == "SIGHUP":
            program.send(signal.SIGHUP)
        else:
            answer = program.get("/-/reload", "POST")
            assert answer.status_code == (200 if good else 400)
            assert good or "interval" in answer.text
        which = 0 if good else 1
        wait_until(
            lambda: (
                (program.log.count('msg="configuration reloaded"'), program.log.count('msg="configuration not reloaded"'))[which]
                > before[which]
            )
        )

    config = write(rooms[0], rooms[1])
    now = present()
    busy(world, rooms[:1], now, now + 8 * SECOND, seed=5)
    throughout = world.open(rooms[1].id, now - MINUTE)
    throughout.join("host", now - MINUTE)
    throughout.close(now + 8 * SECOND)
    with running(tmp_path, f"--config.file={config}") as program:
        wait_until(lambda: program.value("hms_up") == 1)
        # refused: nothing changes
        write(rooms[0], interval="none")
        reload(program, good=False)
        samples = program.metrics()
        assert total(samples, "hms_exporter_config_last_reload_successful") == 0
        assert total(samples, "hms_rooms_configured") == 2
        program.polled()
        # a room added, one taken away
        write(rooms[0], rooms[2])
        reload(program)
        assert total(program.metrics(), "hms_exporter_config_last_reload_successful") == 1
        wait_until(lambda: some(program.metrics(), "hms_sessions_active", room_id=rooms[2].id))
        assert not some(program.metrics(), "hms_sessions_active", room_id=rooms[1].id)
        # the first room taken away while calls go on, and added again
        write(rooms[2])
        reload(program)
        wait_until(lambda: not some(program.metrics(), "hms_sessions_started_total", room_id=rooms[0].id))
        write(*rooms)
        reload(program)
        wait_until(lambda: some(program.metrics(), "hms_sessions_started_total", room_id=rooms[0].id))
        wait_until(lambda: api.clock() > now + 8 * SECOND)
        program.polled(2)
        found, wanted = counted(program.metrics()), expected(world, now + 8 * SECOND, rooms)
        for key in found:
            if ("room_id", rooms[0].id) in key.labels:
                assert found[key] <= wanted[key], "a call within the time without the room need not count, all others count once"
            else:
                assert found[key] == wanted[key], "a call that ran on while the room was not wanted counts whole"


@pytest.mark.slow
def test_a_reload_that_leaves_the_rooms_alone_changes_no_count(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    rooms = [world.room(name=f"room-{number}") for number in range(3)]
    since = {"since": "1h"}
    config = configure(tmp_path, api, workspace(rooms=[room.id for room in rooms]), poll=since)
    now = present()
    busy(world, rooms, now, now + 6 * SECOND, seed=6)
    with running(tmp_path, f"--config.file={config}") as program:
        _ = program.address
        for number in range(5):
            configure(tmp_path, api, workspace(rooms=[room.id for room in rooms]), limits={"max_rooms": 10 + number}, poll=since)
            program.send(signal.SIGHUP)
            program.polled()
        wait_until(lambda: api.clock() > now + 6 * SECOND)
        comes_to(program, expected(world, now + 6 * SECOND, rooms))
        assert program.log.count('msg="configuration reloaded"') == 5


@pytest.mark.slow
@pytest.mark.parametrize("way", ["SIGHUP", "POST"])
def test_workspaces_come_go_and_come_back_by_reload(tmp_path: Path, world: World, way: str) -> None:
    second = World(f"{ACCESS_KEY}-2", SECRET)
    room = second.room(name="second")
    web: dict[str, Any] = {"enable_lifecycle": True}
    with SimulatedApi([world, second]) as api:
        first, other = workspace("first"), workspace("second", access_key=second.access_key)
        now = present()
        session = second.open(room.id, now - MINUTE)
        session.join("host", now - MINUTE)
        with running(tmp_path, f"--config.file={configure(tmp_path, api, first, other, web=web)}") as program:

            def reload() -> None:
                if way == "SIGHUP":
                    program.send(signal.SIGHUP)
                else:
                    assert program.get("/-/reload", "POST").status_code == 200

            wait_until(lambda: total(program.metrics(), "hms_sessions_active", workspace="second") == 1)
            configure(tmp_path, api, first, web=web)
            reload()
            wait_until(lambda: not [key for key in program.metrics() if ("workspace", "second") in key.labels])
            assert program.process.poll() is None
            program.polled(1, "first")
            session.close(present())
            missed = second.open(room.id, present())
            missed.close(missed.created_at + SECOND // 10)
            wait_until(lambda: api.clock() > missed.created_at + SECOND // 5)
            configure(tmp_path, api, first, other, web=web)
            reload()
            wait_until(lambda: total(program.metrics(), "hms_up", workspace="second") == 1)
            wait_until(lambda: total(program.metrics(), "hms_sessions_ended_total", workspace="second") == 2)
            peers = total(program.metrics(), "hms_peer_seconds_total", workspace="second")
            assert session.closed_at is not None
            assert round(peers * 1000) == (session.closed_at - session.created_at) // 1000
            assert program.stop() == 0


@pytest.mark.parametrize("section", [{"storage": {"path": "elsewhere.db"}}, {"web": {"listen_address": "127.0.0.1:1"}}])
def test_what_cannot_change_while_running_is_refused(tmp_path: Path, api: SimulatedApi, section: dict[str, Any]) -> None:
    with running(tmp_path, f"--config.file={configure(tmp_path, api)}") as program:
        program.polled()
        configure(tmp_path, api, **section)
        program.send(signal.SIGHUP)
        wait_until(lambda: 'msg="configuration not reloaded"' in program.log)
        assert "restart" in program.log
        program.polled()


# --- secrets and personal data -------


@pytest.mark.slow
def test_no_secret_user_id_or_name_of_a_person_in_any_log_page_or_file(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    """At debug level, through good polls, rejected records, faults that repeat what was sent, refusals and a reload."""
    room = world.room(name="daily")
    now = present()
    busy(world, [room], now - 10 * SECOND, now + 3 * SECOND)
    running_on = world.open(room.id, now - MINUTE)
    running_on.join("host", now - MINUTE, "c4nary-user-1", "C4nary Person 1")
    odd = running_on.join("guest", now - MINUTE, "c4nary-user-2", "C4nary Person 2", id="C4nary Person 2")
    odd.raw = {"joined_at": "C4nary Person 2"}
    broken = world.open(room.id, now - MINUTE, id="c4nary-user-3 is my id")
    broken.raw = {"active": "C4nary Person 3", "created_at": SECRET}
    config = configure(tmp_path, api)
    with running(tmp_path, f"--config.file={config}") as program:
        wait_until(lambda: program.value("hms_up") == 1)
        program.polled(2)
        pages = [program.get(path).text for path in ("/", "/metrics", "/-/ready", "/-/healthy")]
        echo = f"bearer eyJhbGciOiJIUzI1NiJ9 {SECRET} c4nary-user-9 C4nary Person 9"
        api.faults.add(
            Fault(kind="status", status=401, message=echo, times=2),
            Fault(kind="status", status=500, message=echo, times=2),
            Fault(kind="body", body=json.dumps({"data": echo}), times=1),
            Fault(kind="body", body=json.dumps({"data": [echo, {"id": echo, "room_id": echo}]}), times=1),
            Fault(kind="redirect", location=f"http://{echo.split()[1]}.invalid/{SECRET}", times=1),
        )
        while any(standing.struck < (standing.fault.times or 0) for standing in api.faults.standing()):
            program.polled()
            pages += [program.get(path).text for path in ("/", "/metrics", "/-/ready")]
        (tmp_path / "config.yaml").write_text(f"workspaces: [{{name: a, access_key: {ACCESS_KEY}, secret: {SECRET}, sceret: {SECRET}}}]")
        program.send(signal.SIGHUP)
        wait_until(lambda: "not reloaded" in program.log)
        command = Path(f"/proc/{program.process.pid}/cmdline").read_text()
        files = [path.read_bytes() for path in tmp_path.glob("state.db*")]
        assert program.stop() == 0
        files += [path.read_bytes() for path in tmp_path.glob("state.db*")]
        seen = "\n".join([*pages, program.log, command])
    assert len(seen) > 10_000
    assert sum(map(len, files)) > 10_000
    for private in PRIVATE:
        assert private not in seen
        assert not any(private.encode() in data for data in files)


def test_a_crash_tells_where_and_nothing_private(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    """Once by a signal that dumps every thread's stack, once by an unexpected exception."""
    now = present()
    busy(world, [world.room(name="daily")], now - 10 * SECOND, now + SECOND)
    config = configure(tmp_path, api)
    with running(tmp_path, f"--config.file={config}", env=environment(PYTHONFAULTHANDLER="1"), events_only=False) as program:
        wait_until(lambda: program.value("hms_up") == 1)
        assert program.stop(signal.SIGABRT) == -signal.SIGABRT
        dumped = program.log
    script = (
        "from exporter import cli; from exporter.polling import poller; poller.WorkspacePoller.restore = lambda self: {}[self]; cli.main()"
    )
    command = [sys.executable, "-c", script, f"--config.file={config}"]
    died = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=20, check=False)
    assert "Fatal Python error: Aborted" in dumped
    assert "KeyError" in died.stderr
    assert not [private for private in PRIVATE if private in dumped + died.stderr + died.stdout]


def test_a_web_configuration_stands_before_everything(tmp_path: Path, api: SimulatedApi) -> None:
    hashed = bcrypt.hashpw(b"a-password-of-the-tests", bcrypt.gensalt(4)).decode()
    (tmp_path / "web.yml").write_text(f"basic_auth_users: {{prometheus: {hashed}}}")
    config = configure(tmp_path, api)
    with running(tmp_path, f"--config.file={config}", f"--web.config.file={tmp_path}/web.yml") as program:
        for path in ("/", "/metrics", "/-/healthy", "/-/ready", "/-/reload", "/nowhere"):
            assert program.get(path).status_code == 401
        credentials = base64.b64encode(b"prometheus:a-password-of-the-tests").decode()
        assert program.get("/metrics", Authorization=f"Basic {credentials}").status_code == 200


@pytest.mark.slow
def test_a_real_prometheus_reads_every_character_in_every_label_in_the_format_that_it_prefers(
    tmp_path: Path, world: World, api: SimulatedApi
) -> None:
    """Names of rooms and roles hold control characters, quotes, backslashes, all line ends, and characters beyond 16 bits."""
    characters = "".join(map(chr, [*range(1, 0x300), 0x2028, 0x2029, 0xFEFF, 0xFFFD, 0xFFFF, 0x1F600, 0x10FFFF]))
    names = [f"a{characters[start : start + 10]}b" for start in range(0, len(characters), 10)]
    for name in names:
        world.open(world.room(name=name).id, present() - MINUTE).join(f"{name} role", present() - MINUTE)
    config = configure(tmp_path, api)
    with running(tmp_path, f"--config.file={config}") as program, scraping(tmp_path, program.address, "1s") as prometheus:
        wait_until(lambda: prometheus.ask("count(hms_peers_active == 1)") == len(names), 30, "Prometheus does not accept all characters")
        for name in names:
            asked = "".join(f"\\U{ord(character):08x}" for character in name)
            assert prometheus.ask(f'hms_peers_active{{room="{asked}",role="{asked} role"}}') == 1
