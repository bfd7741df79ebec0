"""Backfilled and scraped series in one real Prometheus, and the moment where they join."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from exporter.simulator import Company, Session, SessionQuery, SimulatedApi, World, real_clock, shifted_clock, truth_of
from exporter.times import DAY, HOUR, MINUTE, SECOND, rfc3339
from lab.counters import NAMES
from tests.e2e.program import configure, run, running, wait_until, workspace
from tests.programs import require

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

_STEP = 300
_DAYS = 8


class Prometheus:
    """A real Prometheus over a folder that outlives it."""

    def __init__(self, folder: Path, target: str) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        self.data = folder / "data"
        self._config = folder / "prometheus.json"
        jobs = [{"job_name": "hms", "scrape_interval": "1s", "scrape_timeout": "1s", "static_configs": [{"targets": [target]}]}]
        self._config.write_text(json.dumps({"scrape_configs": jobs}))
        self._log = folder / "prometheus.log"

    @contextmanager
    def run(self) -> Iterator[None]:
        flags = [f"--config.file={self._config}", f"--storage.tsdb.path={self.data}", f"--web.listen-address={self.address}"]
        with self._log.open("ab") as log:
            process = subprocess.Popen([require("prometheus"), *flags, "--storage.tsdb.retention.time=1y"], stderr=log, stdout=log)
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline, self._log.read_text()
                    time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(30)

    def ask(self, query: str, at: float) -> list[dict[str, Any]]:
        parameters = urllib.parse.urlencode({"query": query, "time": at})
        with urllib.request.urlopen(f"http://{self.address}/api/v1/query?{parameters}", timeout=60) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found


def _talks(now: int) -> World:
    """A workspace with one call that began two hours ago and still runs, with peers of three roles."""
    world = World("key-of-the-restless", "secret-of-the-restless-of-enough-bytes")
    talk = world.open(world.room(name="talk").id, now - 2 * HOUR)
    for number in range(6):
        talk.join(("audience", "speaker", "host")[number % 3], now - (100 - 10 * number) * MINUTE)
    return world


@pytest.fixture(scope="module", params=["start", "ten days ago"])
def joined(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[tuple[Prometheus, Company, list[Session], int]]:
    """Eight backfilled days of a company before the exporter's first start, and some seconds scraped after it.

    In a second workspace peers change their roles, while the exporter runs and after it has ended.  The API's clock then leaps
    by three hours, because a backfill of the last hours is refused.
    """
    prometheus_program, promtool = require("prometheus"), require("promtool")
    assert prometheus_program
    folder = tmp_path_factory.mktemp("backfill")
    company, talks = Company(3, real_clock()), _talks(real_clock())
    with SimulatedApi([company, talks]) as api:
        accounts = [workspace(name, access_key=of.access_key, secret=of.secret) for name, of in (("company", company), ("talks", talks))]
        since = "start" if request.param == "start" else rfc3339(real_clock() - 10 * DAY)
        # A series that leaves the page for a while leaves a gap, and across a gap Prometheus estimates less exactly.
        config = configure(folder, api, *accounts, limits={"room_idle_expiry": "30d"}, poll={"since": since})
        with running(folder, "--config.file", str(config)) as exporter:
            for account in accounts:
                exporter.polled(3, name=account["name"])
                wait_until(lambda name=account["name"]: exporter.value("hms_exporter_catch_up_ratio", workspace=name) == 1, 60)  # type: ignore[misc]  # the default keeps the loop's value
            target = exporter.address
            prometheus = Prometheus(folder, target)
            with prometheus.run():
                scraped = 'count_over_time(hms_peer_seconds_total{{workspace="talks"}}[1m]) >= {}'
                wait_until(lambda: prometheus.ask(scraped.format(3), time.time()), 60, "nothing is scraped")
                audience, speaker, host, *others = talks.sessions[0].peers
                audience.change_role("speaker", real_clock())
                host.change_role("audience", real_clock())
                wait_until(lambda: prometheus.ask(scraped.format(8), time.time()), 60, "nothing is scraped")
        now = real_clock()
        speaker.change_role("moderator", now + HOUR)
        others[0].change_role("host", now + HOUR)
        talks.sessions[0].close(now + 2 * HOUR)
        api.clock = shifted_clock(3 * HOUR + MINUTE)
        labels = ("--label", "job=hms", "--label", f"instance={target}")
        start = ("--from", rfc3339(now - _DAYS * DAY), "--step", f"{_STEP}s")
        outputs = []
        for account in accounts:
            outputs.append(folder / f"{account['name']}.om")
            of = ("--config.file", str(config), "--workspace", account["name"], "--output", str(outputs[-1]))
            done = run(folder, "backfill", *of, *start, *labels, timeout=120)
            assert done.returncode == 0, done.stderr
        sessions = list(company.list_sessions(SessionQuery(10**9, after=now - (_DAYS + 2) * DAY), now + HOUR)) + talks.sessions
    for output in outputs:
        command = [promtool, "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=54h", str(output), str(prometheus.data)]
        loaded = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert loaded.returncode == 0, loaded.stderr
    with prometheus.run():
        yield prometheus, company, sessions, now


def _by_room(sessions: list[Session], now: float, *, recorded: bool = False) -> dict[str, float]:
    """Participant time by room, in seconds: as `recorded` at that moment, or as it was known later."""
    truth = truth_of(sessions, round(now * SECOND), recorded=recorded)
    return defaultdict(float, {room: micros / SECOND for room, micros in truth.room_peer_us.items()})


class TestIncrease:
    """increase() over a stretch of the past is ..."""

    @pytest.mark.parametrize(("length", "text"), [(3600, "1h"), (86400, "1d"), (7 * 86400, "7d")])
    def test_the_truth_within_the_step(self, joined: tuple[Prometheus, Company, list[Session], int], length: int, text: str) -> None:
        prometheus, _, sessions, now = joined
        last = (now // SECOND // _STEP - 1) * _STEP
        ends = [last - back for back in (0, 5 * 3600, 11 * 3600, 20 * 3600) if back < _DAYS * 86400 - length]
        for end in ends:
            found = {
                sample["metric"]["room_id"]: float(sample["value"][1])
                for sample in prometheus.ask(f"sum without (role) (increase(hms_peer_seconds_total[{text}]))", end)
            }
            # Prometheus extrapolates from the samples within the stretch to its ends: by a step, and by half a step where a role
            # is seen for the first time.
            early, begin, over = (_by_room(sessions, moment) for moment in (end - length, end - length + _STEP, end))
            for room, value in found.items():
                seen, whole = over[room] - begin[room], over[room] - early[room]
                assert abs(value - whole) <= (whole - seen) + whole * 1.5 * _STEP / (length - _STEP) + 0.01, (room, value, whole)
            assert sum(found.values()) > 1000, "there was something to be counted"

    def test_exact_between_two_steps(self, joined: tuple[Prometheus, Company, list[Session], int]) -> None:
        prometheus, _, sessions, now = joined
        end = (now // SECOND // _STEP - 1) * _STEP
        for begin in (end - 3600, end - 86400, end - 7 * 86400):
            query = f"sum without (role) (hms_peer_seconds_total @ {end} - hms_peer_seconds_total @ {begin})"
            found = {sample["metric"]["room_id"]: float(sample["value"][1]) for sample in prometheus.ask(query, end)}
            before, after = _by_room(sessions, begin), _by_room(sessions, end)
            assert found
            for room, value in found.items():
                assert value == pytest.approx(after[room] - before[room], abs=0.002)


class TestJoin:
    """Where the live series begin, ..."""

    def test_no_counter_falls(self, joined: tuple[Prometheus, Company, list[Session], int]) -> None:
        """No counter of a role falls either, though peers have changed their roles since."""
        prometheus, _, _, now = joined
        crossing = 0
        for name in NAMES:
            for found in prometheus.ask(f"{name}[{_DAYS}d]", now / SECOND):
                values = [float(value) for _, value in found["values"]]
                assert values == sorted(values), (name, found["metric"])
                crossing += len({float(at) % _STEP == 0 for at, _ in found["values"]}) == 2
            for found in prometheus.ask(f"resets({name}[{_DAYS}d])", now / SECOND):
                assert found["value"][1] == "0", (name, found["metric"])
        assert crossing >= 3 + 3 * 3, "the call of the second workspace at least: its own counters, and those of three roles"

    def test_each_role_goes_on_as_it_was_seen(self, joined: tuple[Prometheus, Company, list[Session], int]) -> None:
        """Compares two counters of each of three roles, at the last step and at the first scrape."""
        prometheus, _, _, now = joined
        rises = {}
        for found in prometheus.ask('hms_peer_seconds_total{workspace="talks"}[20m]', now / SECOND):
            samples = [(float(at), float(value)) for at, value in found["values"]]
            step = [sample for sample in samples if sample[0] % _STEP == 0][-1]
            scrape = next((sample for sample in samples if sample[0] > step[0]), None)
            if scrape is not None:  # nobody had one of the roles yet
                rises[found["metric"]["role"]] = scrape[1] - step[1]
                # A scrape shows the counts of the poll before it.
                assert 2 * (scrape[0] - step[0] - 3) <= scrape[1] - step[1] <= 2 * (scrape[0] - step[0])
        assert sorted(rises) == ["audience", "host", "speaker"]
        assert max(rises.values()) - min(rises.values()) < 0.01

    def test_none_jumps(self, joined: tuple[Prometheus, Company, list[Session], int]) -> None:
        prometheus, _, sessions, now = joined
        past: defaultdict[str, float] = defaultdict(float)
        live: defaultdict[str, float] = defaultdict(float)
        step = scraped = 0.0
        for found in prometheus.ask("hms_peer_seconds_total[10m]", now / SECOND + 20):
            samples = [(float(at), float(value)) for at, value in found["values"]]
            room = found["metric"]["room_id"]
            before = [sample for sample in samples if sample[0] % _STEP == 0]
            after = [sample for sample in samples if sample[0] % _STEP]
            if before:
                step = before[-1][0]
                past[room] += before[-1][1]
            if after:
                scraped = after[-1][0]
                live[room] += after[-1][1]
        # A scrape shows at least what was recorded by the poll before it: a leave recorded late does not lower it.
        sessions = [session for session in sessions if session.closed_at is None or session.closed_at > step * SECOND]
        recorded = [_by_room(sessions, scraped - back, recorded=True) for back in range(60)]
        begin = _by_room(sessions, step)
        for room, value in live.items():
            rise, low, high = value - past[room], recorded[3][room] - begin[room], max(then[room] for then in recorded) - begin[room]
            assert low - 0.01 <= rise <= high + 0.01, (room, low, rise, high)
        assert len(live) > 3
