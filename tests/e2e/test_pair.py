"""Two exporters with one configuration and one PostgreSQL: whatever happens to one of them, the other goes on.

Nothing is lost or counted twice, no counter over both ever falls, and the two never poll at the same time.
"""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from exporter.simulator import SimulatedApi, World
from exporter.times import SECOND
from tests.e2e import program
from tests.e2e.program import Program, Scraper, comes_to, expected, parse, present, wait_until
from tests.e2e.prometheus import scraping_both
from tests.e2e.test_webhooks import Sender, event
from tests.postgres import Line, Server, server

pytestmark = pytest.mark.timeout(400)

TAKE_OVER = 15.0
"""Seconds within which a standby must have taken over."""


class Pair:
    """Two programs, each with its own connection to the database.  The pages of both are watched all the time."""

    def __init__(self, folder: Path, postgres: Server, database: str, api: SimulatedApi, **sections: Any) -> None:
        self.lines = [Line(postgres.port), Line(postgres.port)]
        self.folders = [folder / "a", folder / "b"]
        self.programs: list[Program] = []
        for line, home in zip(self.lines, self.folders, strict=True):
            home.mkdir()
            path = program.configure(home, api, poll={"since": "1d"}, **sections)
            config = json.loads(path.read_text())
            config["storage"] = {"url": postgres.url(database, line.port)}
            path.write_text(json.dumps(config))
            self.programs.append(Program(home))
        self.watch = Both(self.programs)

    def active(self) -> int | None:
        """The active program, if there is one."""
        found = [index for index, one in enumerate(self.programs) if self.watch.is_active(one)]
        return found[0] if len(found) == 1 else None

    def wait_active(self, seconds: float = TAKE_OVER, but: int | None = None) -> int:
        """Waits until a program is active, and returns it."""
        seen: list[int] = []

        def taken_over() -> bool:
            found = self.active()
            if found is not None and found != but:
                seen.append(found)
            return bool(seen)

        wait_until(taken_over, seconds, f"nobody takes over: {[one.log[-2000:] for one in self.programs]}")
        return seen[0]

    def replace(self, index: int) -> None:
        """Starts a new process in place of one that has ended."""
        self.programs[index].process.wait(10)
        self.programs[index] = Program(self.folders[index])

    def end(self) -> None:
        for one in self.programs:
            one.kill()
        for line in self.lines:
            line.close()


class Both(Scraper):
    """Scrapes both without a pause. No counter over both may fall, and only one of them may show workspaces."""

    def __init__(self, programs: list[Program]) -> None:
        super().__init__(programs[0])
        self.programs = programs
        self.both: list[float] = []
        self._seen: dict[int, float] = {}

    def is_active(self, one: Program) -> bool:
        if one.process.poll() is not None:
            return False
        try:
            answer = requests.get(one.url("/metrics"), timeout=1)
        except (requests.RequestException, AssertionError):
            return False
        return "hms_exporter_active 1.0" in answer.text and 'hms_up{workspace="default"}' in answer.text

    def _run(self) -> None:
        while not self._stop.is_set():
            showing = 0
            for one in list(self.programs):
                if one.process.poll() is not None or one._address is None:
                    continue
                try:
                    text = requests.get(one.url("/metrics"), timeout=1).text
                except requests.RequestException:
                    continue
                shown = 'workspace="' in text
                showing += shown
                if shown:
                    self._look(parse(text))
            if showing > 1:
                self.both.append(time.monotonic())
            self._stop.wait(0.05)


@contextmanager
def pair(folder: Path, postgres: Server, database: str, api: SimulatedApi, **sections: Any) -> Iterator[Pair]:
    postgres.database(database)
    made = Pair(folder, postgres, database, api, **sections)
    try:
        for one in made.programs:
            assert one.address
        with made.watch:
            made.wait_active()
            yield made
        assert made.watch.falls == []
        assert made.watch.both == []
        assert made.watch.scrapes > 0
    finally:
        made.end()
    for one in made.programs:
        one.check_log()


class Calls:
    """Scripts calls in three rooms, a few seconds ahead, until `end`."""

    def __init__(self) -> None:
        self.world = World(program.ACCESS_KEY, program.SECRET)
        self._until = present()
        self._rooms = [self.world.room(name=f"room-{number}", created_at=self._until - SECOND) for number in range(3)]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for seed in itertools.count():
            end = self._until + 6 * SECOND
            program.busy(self.world, self._rooms, self._until, end, seed)
            self._until = end
            if self._ended.wait(max(0, (end - present()) / SECOND - 2)):
                return

    def end(self) -> int:
        """Scripts nothing more; returns when the last call ends."""
        self._ended.set()
        self._thread.join()
        return max(call.closed_at or 0 for call in self.world.sessions)


@pytest.fixture
def busy() -> Iterator[tuple[Calls, SimulatedApi]]:
    """A world in which calls come and go."""
    calls = Calls()
    with SimulatedApi([calls.world]) as api:
        yield calls, api
    calls.end()


def all_is_counted(made: Pair, calls: Calls) -> None:
    """Waits until everything has ended and was read once more. The active one's counters then equal the truth."""
    index = made.wait_active()
    last = calls.end()
    comes_to(made.programs[index], expected(calls.world, last, calls.world.rooms), max(0, (last - present()) / SECOND) + 30)


# -- the standby --------------------------------------------------------------------------------------------------


def test_a_standby_is_healthy_not_ready_and_shows_no_workspace(tmp_path: Path, postgres: Server, busy: tuple[Calls, SimulatedApi]) -> None:
    with pair(tmp_path, postgres, "standby", busy[1]) as made:
        active = made.wait_active()
        other = made.programs[1 - active]
        wait_until(lambda: "another exporter" in other.get("/-/ready").text)
        assert other.get("/-/ready").status_code == 503
        assert other.get("/-/healthy").status_code == 200
        text = other.get("/metrics").text
        assert "hms_exporter_active 0.0" in text
        assert "workspace=" not in text
        assert other.get("/").status_code == 200
        assert made.programs[active].get("/-/ready").status_code in (200, 503)
        # A reload of a standby reads the whole configuration, and applies it.
        other.send(signal.SIGHUP)
        wait_until(lambda: "configuration reloaded" in other.log)


def test_a_webhook_that_reaches_a_standby_is_answered_503_and_counts_once_it_has_reached_the_active_one(
    tmp_path: Path, postgres: Server, busy: tuple[Calls, SimulatedApi]
) -> None:
    """100ms sends again until it gets 200, through a balancer that does not know which one is active."""
    receiver = {"webhooks": {"listen_address": "127.0.0.1:0", "headers": {"x-hms-token": "c4nary-webhook-token"}}}
    room = busy[0].world.rooms[0]
    with pair(tmp_path, postgres, "webhooks", busy[1], **receiver) as made:
        active = made.wait_active()
        made.programs[active].polled()
        # Both check the secret, so that a stranger does not learn which one is active.
        senders = [Sender(one) for one in made.programs]
        assert [sender.send(event("room.end.success"), **{"x-hms-token": "wrong"}).status_code for sender in senders] == [401, 401]
        left = [event("peer.leave.success", room.id, f"event-{number}", reason="peer kicked") for number in range(3)]
        for found in left[:2]:
            refused, taken = senders[1 - active].send(found), senders[active].send(found)
            assert (refused.status_code, taken.status_code) == (503, 200)
            assert refused.headers["Retry-After"] == "1"
        wait_until(lambda: senders[active].received("peer.leave.success") == 2)
        made.programs[active].kill()
        made.wait_active(but=active)
        other = senders[1 - active]
        wait_until(lambda: other.send(left[2]).status_code == 200)
        # The new active one knows the counts of the previous one.
        for found in left:
            assert other.send(found).status_code == 200
        page = made.programs[1 - active].metrics
        wait_until(lambda: program.total(page(), "hms_peer_leaves_total", room_id=room.id, reason="peer kicked") == 3)
        time.sleep(1)  # time in which it could be counted twice
        assert program.total(page(), "hms_peer_leaves_total", room_id=room.id, reason="peer kicked") == 3
        made.replace(active)
        assert made.programs[active].address


@pytest.mark.parametrize("round_", range(3))
def test_of_several_that_start_at_once_on_an_empty_database_one_becomes_active(
    tmp_path: Path, postgres: Server, busy: tuple[Calls, SimulatedApi], round_: int
) -> None:
    postgres.database(f"at_once_{round_}")
    with ExitStack() as stack:
        started = []
        for number in range(3):
            home = tmp_path / str(number)
            home.mkdir()
            path = program.configure(home, busy[1])
            path.write_text(json.dumps({**json.loads(path.read_text()), "storage": {"url": postgres.url(f"at_once_{round_}")}}))
            started.append(stack.enter_context(program.running(home)))
        wait_until(lambda: sorted(one.get("/-/ready").status_code for one in started) == [200, 503, 503])
        time.sleep(3)  # time in which a second one could become active
        pages = [one.get("/metrics").text for one in started]
        assert sorted("hms_exporter_active 1.0" in page for page in pages) == [False, False, True]
        assert sorted("workspace=" in page for page in pages) == [False, False, True]
        assert sum(one.log.count("tables of the state made in the database") for one in started) == 1
        assert not any("level=error" in one.log for one in started)


# -- the active one ends -----------------------------------------------------------------------------------------


def test_whatever_happens_to_the_active_one_nothing_is_lost_and_no_counter_falls(
    tmp_path: Path, postgres: Server, busy: tuple[Calls, SimulatedApi]
) -> None:
    """It is stopped, killed and paused, and its connection is stalled and cut, one after the other, while calls come and go."""
    calls, api = busy
    took: dict[str, float] = {}
    with pair(tmp_path, postgres, "failover", api) as made:
        for what in ("stop", "kill", "pause", "stall", "cut", "kill"):
            active = made.wait_active()
            wait_until(lambda active=active: "another exporter" in made.programs[1 - active].get("/-/ready").text)  # type: ignore[misc]  # now
            time.sleep(1.5)  # a few polls, of whichever is active: the one that was cut may have to begin again
            began = time.monotonic()
            victim = made.programs[active]
            if what == "stop":
                assert victim.stop() == 0
            elif what == "kill":
                victim.kill()
            elif what == "pause":
                victim.send(signal.SIGSTOP)
            elif what == "stall":
                made.lines[active].stalled.set()
            else:
                made.lines[active].cut()
            if what != "cut":  # it may take the lock again at once
                made.wait_active(but=active)
            made.wait_active()
            took[what] = time.monotonic() - began
            if what == "pause":
                victim.send(signal.SIGCONT)
                text = requests.get(victim.url("/metrics"), timeout=5).text
                assert "workspace=" not in text
            elif what == "stall":
                assert "workspace=" not in victim.get("/metrics").text
                made.lines[active].stalled.clear()
            elif what != "cut":
                made.replace(active)
                assert made.programs[active].address
        assert max(took.values()) < TAKE_OVER, took
        all_is_counted(made, calls)


def test_while_the_database_is_down_nobody_publishes_and_then_all_goes_on(tmp_path: Path, busy: tuple[Calls, SimulatedApi]) -> None:
    calls, api = busy
    with server() as own, pair(tmp_path, own, "state", api) as made:
        made.programs[made.wait_active()].polled(3)
        own.kill()
        for one in made.programs:
            wait_until(lambda one=one: "workspace=" not in one.get("/metrics").text, 10)  # type: ignore[misc]  # bound now
            wait_until(lambda one=one: "waiting for the database" in one.get("/-/ready").text, 20)  # type: ignore[misc]  # bound now
            assert one.get("/-/healthy").status_code == 200
        time.sleep(5)  # time for several attempts to connect
        assert all(one.log.count('msg="waiting for the database"') <= 2 for one in made.programs)
        own.start()
        all_is_counted(made, calls)


def test_it_starts_without_a_database_and_goes_on_when_there_is_one(tmp_path: Path, busy: tuple[Calls, SimulatedApi]) -> None:
    with server() as own:
        own.database("late")
        own.kill()
        path = program.configure(tmp_path, busy[1])
        config = json.loads(path.read_text())
        config["storage"] = {"url": own.url("late")}
        path.write_text(json.dumps(config))
        with program.running(tmp_path) as one:
            assert one.get("/-/ready").status_code == 503
            wait_until(lambda: "waiting for the database" in one.get("/-/ready").text)
            own.start()
            one.polled(2)
            assert one.stop() == 0


def test_a_state_of_a_newer_version_ends_the_program_with_1(tmp_path: Path, postgres: Server, busy: tuple[Calls, SimulatedApi]) -> None:
    postgres.database("newer")
    postgres.sql("newer", "CREATE SCHEMA hms")
    postgres.sql("newer", "CREATE TABLE hms.state AS SELECT 99 AS version")
    path = program.configure(tmp_path, busy[1])
    config = json.loads(path.read_text())
    config["storage"] = {"url": postgres.url("newer")}
    path.write_text(json.dumps(config))
    ended = program.run(tmp_path)
    assert ended.returncode == 1
    assert "version 99" in ended.stderr


def test_without_psycopg_it_ends_with_2_and_names_the_extra(tmp_path: Path) -> None:
    path = program.configure(tmp_path, "http://127.0.0.1:1")
    config = json.loads(path.read_text())
    config["storage"] = {"url": "postgresql://nobody@127.0.0.1/none"}
    path.write_text(json.dumps(config))
    code = "import sys; sys.modules['psycopg'] = None; from exporter.cli import main; sys.exit(main([]))"
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, cwd=tmp_path, env=program.environment(), capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 2
    assert "hms-exporter[postgres]" in ended.stderr


def test_a_reload_in_the_midst_of_a_take_over_is_applied_or_refused_whole(
    tmp_path: Path, postgres: Server, busy: tuple[Calls, SimulatedApi]
) -> None:
    """Reloads follow one another, from before the active one ends until the standby polls."""
    calls, api = busy
    with pair(tmp_path, postgres, "reload", api) as made:
        active = made.wait_active()
        made.programs[active].polled()
        other, home = made.programs[1 - active], made.folders[1 - active]
        wait_until(lambda: "another exporter" in other.get("/-/ready").text)
        path = home / "config.yaml"
        config = json.loads(path.read_text())
        made.programs[active].send(signal.SIGTERM)
        asked = 0
        while made.active() != 1 - active or asked % 2:
            asked += 1
            config["poll"]["interval"] = "2s" if asked % 2 else "1s"
            path.write_text(json.dumps(config))
            other.send(signal.SIGHUP)
            time.sleep(0.02)  # while reloads follow one another
            assert asked < 2000
        told = re.compile(r'msg="configuration (reloaded|not reloaded)"(?: reason="([^"]*)")?')
        found = set(told.findall(other.log))
        assert ("reloaded", "") in found
        assert found <= {("reloaded", ""), ("not reloaded", "the state is still being read; try again when the exporter is ready")}
        # Whatever those reloads did, the next one is applied once the exporter is ready, and everything has been counted.
        wait_until(lambda: other.get("/-/ready").status_code == 200)
        config["poll"]["interval"] = "3s"
        path.write_text(json.dumps(config))
        other.send(signal.SIGHUP)
        wait_until(lambda: other.value("hms_exporter_poll_interval_seconds") == 3)
        assert "hms_exporter_config_last_reload_successful 1.0" in other.get("/metrics").text
        made.replace(active)
        assert made.programs[active].address
        all_is_counted(made, calls)


# -- Prometheus ---------------------------------------------------------------------------------------------------


def test_a_prometheus_that_scrapes_both_sees_one_series_without_a_reset(
    tmp_path: Path, postgres: Server, busy: tuple[Calls, SimulatedApi]
) -> None:
    calls, api = busy
    with ExitStack() as stack:
        made = stack.enter_context(pair(tmp_path, postgres, "scraped", api))
        targets = [one.address for one in made.programs]
        prometheus = stack.enter_context(scraping_both(tmp_path / "prometheus", targets, "1s"))
        for _ in range(2):
            active = made.wait_active()
            made.programs[active].polled(2)
            prometheus.scraped(4)
            made.programs[active].send(signal.SIGSTOP)
            made.wait_active(but=active)
            made.programs[active].send(signal.SIGCONT)
        all_is_counted(made, calls)
        prometheus.scraped(4)
        assert prometheus.ask("sum(resets(hms_peers_joined_total[10m]))") == 0
        assert prometheus.ask("sum(resets(hms_peer_seconds_total[10m]))") == 0
        assert prometheus.ask("max(count by (room_id, role, workspace) (last_over_time(hms_peers_joined_total[10m])))") == 1
        truth = expected(calls.world, present(), calls.world.rooms)
        joined = sum(value for key, value in truth.items() if key.name == "hms_peers_joined_total")
        assert prometheus.ask("sum(hms_peers_joined_total)") == joined
        assert prometheus.ask("sum(hms_exporter_active)") == 1
