"""Backfill over real HTTP: it writes the past as the live exporter would have published it, and resumes after an interruption."""

from __future__ import annotations

import io
import os
import random
import re
import sqlite3
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from exporter import cli, logs
from exporter.commands.backfill import series, write
from exporter.commands.backfill.arrange import Owners
from exporter.commands.backfill.command import block_hours
from exporter.commands.backfill.progress import Progress
from exporter.commands.backfill.series import Base, Event, Grid
from exporter.commands.backfill.work import SessionRow
from exporter.config.config import LimitsConfig, WorkspaceConfig, parse
from exporter.counting.accounts import Histogram
from exporter.counting.rooms import KnownRoom
from exporter.counting.scope import Scope
from exporter.publish.account_families import ACCOUNT_FAMILIES
from exporter.publish.families import Overview, sample_names
from exporter.publish.text import account_lines, workspace_lines
from exporter.simulator import Fault, SimulatedApi, World
from exporter.times import DAY, HOUR, MINUTE, SECOND, rfc3339
from tests.harness import T0, Counting
from tests.programs import require

START = T0 + DAY
END = START + 2 * HOUR
NOW = END + 4 * HOUR
STEP = 60
_SAMPLE = re.compile(r"(\S+?\{.*\}) (\S+) (\d+)")


def people(world: World, seed: int = 0) -> None:
    """Scripts calls of every kind in three rooms, from a day before the range to after it: ghosts, empty sessions, one over midnight."""
    chance = random.Random(seed)
    rooms = [world.room(name=name) for name in ("alpha", "beta", 'gamma "3"')]
    for room in rooms:
        at = START - chance.randrange(2 * HOUR)
        while at < END + HOUR:
            over = at + chance.randrange(1, 40 * MINUTE)
            session = world.open(room.id, at)
            for number in range(chance.randrange(8)):
                joined = chance.randrange(at, over)
                peer = session.join(chance.choice(("host", "guest")), joined, user_id=f"user-{number % 3}")
                if chance.random() < 0.8:
                    peer.leave(chance.randrange(joined, over + 1))
            session.close(over)
            at = over + chance.randrange(10 * MINUTE)
    long = world.open(rooms[0].id, START - 11 * HOUR)
    long.join("host", START - 11 * HOUR, user_id="user-0")
    long.close(START + 30 * MINUTE)


class Bench:
    """A simulated 100ms at a fixed time, a configuration, and the command."""

    def __init__(self, folder: Path, world: World, api: SimulatedApi) -> None:
        self.folder, self.world, self.api = folder, world, api
        self.output = folder / "past.om"

    def config(self, more: str = "", rooms: str = "", page_size: int = 10) -> Path:
        path = self.folder / "config.yaml"
        path.write_text(
            f"workspaces: [{{name: w, access_key: {self.world.access_key}, secret: {self.world.secret}{rooms}}}]\n"
            f"api: {{base_url: '{self.api.base_url}', max_requests_per_second: 1000, page_size: {page_size}, max_retries: 0}}\n"
            f"storage: {{path: '{self.folder}/state.db'}}\n{more}"
        )
        return path

    def run(self, *arguments: str, rooms: str = "", more: str = "", start: int = START, end: int | None = END) -> int:
        path = self.config(more, rooms)
        span = ["--from", rfc3339(start), *(["--to", rfc3339(end)] if end is not None else [])]
        return cli.main(
            ["backfill", "--config.file", os.fspath(path), *span, "--output", os.fspath(self.output), "--step", f"{STEP}s", *arguments]
        )

    def samples(self) -> dict[int, dict[str, float]]:
        """The written samples, by step and series."""
        found: dict[int, dict[str, float]] = defaultdict(dict)
        for line in self.output.read_text().splitlines():
            if not line.startswith("#"):
                match = _SAMPLE.fullmatch(line)
                assert match is not None, line
                found[int(match[3])][match[1]] = float(match[2])
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    world = World("key", "secret" * 6)
    people(world)
    with SimulatedApi([world], clock=lambda: NOW) as api:
        yield Bench(tmp_path, world, api)


def page(world: World, counting: Counting, now: int) -> dict[str, float]:
    """The samples that the live exporter's own code publishes, by series."""
    rooms = {room.id: room for room in world.rooms}
    text = b"".join(workspace_lines("w", counting.ledger, Overview(*[0] * len(Overview._fields))).values())
    for account, state in counting.ledger.accounts.items():
        room = rooms[account.id]
        known = KnownRoom(room.id, room.name_at(now), room.template, room.template_id, room.region, room.enabled, True, 1)
        text += b"".join(account_lines("w", known.name, state, known))
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.decode().splitlines()}


def live(world: World, path: Path, since: int, steps: range, bots: frozenset[str]) -> Iterator[tuple[int, dict[str, float]]]:
    """The samples that the live exporter publishes at each of these steps when it counts from `since`."""
    counting = Counting(path, since=since, bots=bots)
    for step in steps:
        now = step * SECOND
        counting.poll(now, *(session.encoded(now) for session in world.sessions if session.exists(now)))
        yield step, page(world, counting, now)
    counting.close()


_WRITTEN = {name for family in write.FAMILIES for name in sample_names(family)}


class TestSameAsLive:
    """At every step the file holds what the live exporter would have published then ..."""

    def compare(self, bench: Bench, since: int, offsets: dict[str, float], bots: frozenset[str] = frozenset()) -> None:
        written = bench.samples()
        steps = range(START // SECOND, END // SECOND, STEP)
        assert sorted(written) == list(steps)
        compared = 0
        for step, published in live(bench.world, bench.folder / "live.db", since, steps, bots):
            for key, value in published.items():
                if key.partition("{")[0] not in _WRITTEN or (key.startswith("hms_peers_active_peak") and step == steps[0]):
                    continue  # the first poll follows no other poll
                assert written[step][key] == pytest.approx(value + offsets.get(key, 0.0), abs=1e-6), (step, key)
                compared += 1
            # A series may have one sample more before its first value, so that increase() sees it rise.
            for key in written[step].keys() - published.keys():
                assert written[step][key] == pytest.approx(offsets.get(key, 0.0)), (step, key)
        assert compared > 5000

    def test_with_since_at_the_beginning(self, bench: Bench) -> None:
        assert bench.run() == 0
        self.compare(bench, START, {})

    def test_also_where_a_role_is_no_peoples(self, bench: Bench) -> None:
        assert bench.run(more="bots: {roles: [host]}") == 0
        self.compare(bench, START, {}, frozenset({"host"}))

    def test_with_since_before_it_as_the_configuration_says(self, bench: Bench) -> None:
        since = START - HOUR
        assert bench.run(more=f"poll: {{since: '{rfc3339(since)}'}}") == 0
        self.compare(bench, since, {})

    def test_but_for_a_constant_with_since_after_it(self, bench: Bench) -> None:
        """The constant is the part that the live counters never counted, so that the curves meet."""
        since = END - MINUTE // 2
        assert bench.run(more=f"poll: {{since: '{rfc3339(since)}'}}") == 0
        written, last = bench.samples(), END // SECOND - STEP
        whole = dict(live(bench.world, bench.folder / "a.db", START, range(START // SECOND, END // SECOND, STEP), frozenset()))[last]
        offsets = {
            key: written[last][key] - value for key, value in whole.items() if key in written[last] and not key.startswith(("hms_usage",))
        }
        self.compare(bench, START, offsets)
        (_, joined), *_ = live(bench.world, bench.folder / "b.db", since, range(END // SECOND, END // SECOND + 1), frozenset())
        truth, before = bench.world.truth(END), bench.world.truth(last * SECOND)
        rooms = 0
        for key, value in joined.items():
            found = re.match(r'hms_session_seconds_total\{.*room_id="(\w+)"', key)
            if found is not None:
                rise = (truth.session_us[found[1]] - before.session_us[found[1]]) / SECOND
                assert value - written[last][key] == pytest.approx(rise), key
                rooms += 1
        assert rooms == 3

    def test_for_every_family_that_can_be_computed_from_records(self) -> None:
        names = {family.name for family in write.FAMILIES}
        assert {family.name for family in ACCOUNT_FAMILIES if family.name not in names} == {
            family.name for family in ACCOUNT_FAMILIES if family.live_only
        }


class TestFile:
    """The file ..."""

    def test_is_openmetrics_as_promtool_wants_it(self, bench: Bench) -> None:
        assert bench.run("--label", "job=hms", "--label", 'instance=a"b') == 0
        lines = bench.output.read_text().splitlines()
        assert lines[-1] == "# EOF"
        assert not [line for line in lines if "_created" in line]
        families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
        assert len(families) == len(set(families)) == len(write.FAMILIES)
        seen: dict[str, int] = {}
        previous = ""
        for line in lines:
            if not line.startswith("#"):
                key, _, step = _SAMPLE.fullmatch(line).groups()  # type: ignore[union-attr]  # `None` also fails the test
                assert key.endswith(',job="hms",instance="a\\"b"}') or "le=" in key
                assert int(step) > seen.get(key, 0), f"not in order of time: {line}"
                if "_bucket" not in key and "_count" not in key and "_sum" not in key:
                    assert key == previous or key not in seen, f"not at one place: {line}"
                seen[key], previous = int(step), key

    def test_is_accepted_by_promtool(self, bench: Bench) -> None:
        promtool = require("promtool")
        assert bench.run() == 0
        done = subprocess.run(
            [promtool, "tsdb", "create-blocks-from", "openmetrics", os.fspath(bench.output), os.fspath(bench.folder / "data")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def test_is_the_only_file_that_is_left(self, bench: Bench) -> None:
        assert bench.run() == 0
        assert sorted(path.name for path in bench.folder.iterdir()) == ["config.yaml", "past.om"]

    def test_holds_the_configured_rooms_only_under_their_own_names_idle_or_not(self, bench: Bench) -> None:
        idle = bench.world.room(name="idle")
        alpha = next(room for room in bench.world.rooms if room.name_at(NOW) == "alpha")
        assert bench.run(rooms=f", rooms: [{idle.id}, {{id: {alpha.id}, name: mine}}]") == 0
        rooms = {name for step in bench.samples().values() for key in step for name in re.findall('room="([^"]*)"', key)}
        assert rooms == {"idle", "mine"}
        assert all(
            step[f'hms_sessions_started_total{{workspace="w",room_id="{idle.id}",room="idle"}}'] == 0 for step in bench.samples().values()
        )

    def test_holds_groups_without_room_ids(self, bench: Bench) -> None:
        assert bench.run(rooms=", rooms: [{match: '(?P<first>.).*a', group: '$${first}'}]".replace("$$", "$")) == 0
        keys = {key for step in bench.samples().values() for key in step if key.startswith("hms_sessions_started_total")}
        assert keys == {f'hms_sessions_started_total{{workspace="w",room="{group}"}}' for group in "ab"}

    def test_counts_the_rest_under_other(self, bench: Bench) -> None:
        assert bench.run(more="limits: {max_rooms: 1}") == 0
        rooms = {name for step in bench.samples().values() for key in step for name in re.findall('room="([^"]*)"', key)}
        assert rooms == {"alpha", "_other"}

    def test_counts_users_also_where_some_are_unknown(self, bench: Bench) -> None:
        room = bench.world.room(name="delta")
        session = bench.world.open(room.id, START + MINUTE)
        for role, user in (("host", "one"), ("guest", None), ("guest", "one")):
            session.join(role, START + 2 * MINUTE).raw = {"user_id": user}
        session.close(START + 5 * MINUTE)  # all of them at once, in two roles
        assert bench.run() == 0
        step, labels = bench.samples()[(START + 3 * MINUTE) // SECOND], f'{{workspace="w",room_id="{room.id}",room="delta"}}'
        assert (step[f"hms_users_active{labels}"], step[f"hms_peers_active_peak{labels}"]) == (1, 3)


class TestInterruption:
    """An interrupted run ..."""

    def test_continues_where_it_was(self, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
        assert bench.run() == 0
        whole = bench.output.read_bytes()
        calls = bench.api.calls["/sessions"]
        bench.output.unlink()
        bench.api.clear()
        runs = 0
        while not bench.output.exists():
            bench.api.faults.clear()
            bench.api.faults.add(Fault(kind="status", route="/sessions", status=500, after=3))
            code = bench.run()
            runs += 1
            assert code in (0, 1)
            assert runs < 50
        assert runs > 2
        assert bench.output.read_bytes() == whole
        assert "run the same command again to continue from here" in capsys.readouterr().err
        assert bench.api.calls["/sessions"] < 2 * calls + 3 * runs, "sessions that had been read were not read again"

    def test_continues_writing_too(self, bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        assert bench.run() == 0
        whole = bench.output.read_bytes()
        bench.output.unlink()
        bench.api.clear()
        monkeypatch.setattr(write, "_KEEP_EVERY", 20_000)
        tell, stops = Progress.tell, [len(whole) // 4, len(whole) // 2, len(whole) * 3 // 4]

        def interrupted(progress: Progress, done: int, total: int) -> None:
            tell(progress, done, total)
            if stops and done > stops[0]:  # only bytes reach such a number
                del stops[0]
                raise KeyboardInterrupt

        monkeypatch.setattr(Progress, "tell", interrupted)
        for _ in range(3):
            assert bench.run() == 0, "stopped by a signal"
            assert not bench.output.exists()
            assert capsys.readouterr().err.endswith("hms-exporter: interrupted; run the same command again to continue from here\n")
        assert bench.run() == 0
        assert bench.output.read_bytes() == whole
        assert bench.api.calls["/rooms/<id>"] == len(bench.world.rooms), "nothing was asked twice"

    def test_of_other_options_is_refused(self, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
        bench.api.faults.add(Fault(kind="status", route="/sessions", status=500))
        assert bench.run() == 1
        capsys.readouterr()
        assert bench.run(start=START + HOUR) == 2
        assert "past.om.work belongs to another backfill" in capsys.readouterr().err

    def test_keeps_no_user_id(self, bench: Bench) -> None:
        bench.api.faults.add(Fault(kind="status", route="/rooms", status=500), Fault(kind="status", route="/rooms/<id>", status=500))
        assert bench.run() == 1
        work = bench.folder / "past.om.work"
        with closing(sqlite3.connect(work)) as db:
            assert db.execute("SELECT count(*) FROM session").fetchone()[0] > 5
        assert b"user-" not in work.read_bytes()
        assert work.stat().st_mode & 0o077 == 0


class TestRefusals:
    """Refused in one line, with exit code 2: ..."""

    def refused(self, capsys: pytest.CaptureFixture[str], code: int) -> str:
        err = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("time=")]
        assert code == 2
        (line,) = err
        return line.removeprefix("hms-exporter: ")

    def test_the_last_three_hours(self, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
        code = bench.run(end=NOW - 3 * HOUR + SECOND)
        assert self.refused(capsys, code).startswith("--to: expected a time more than three hours ago")

    def test_a_range_that_reaches_into_the_live_series(self, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
        counting = Counting(bench.folder / "state.db", since=END - HOUR)
        counting.poll(END - HOUR)
        counting.close()
        assert self.refused(capsys, bench.run()).startswith("--to: expected at most 2026-03-03T09:00:00Z, where the live series begin")
        assert bench.run(end=None) == 0, "by default it ends there"
        assert max(bench.samples()) == (END - HOUR) // SECOND - STEP

    def test_no_end_when_nothing_says_where(self, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.refused(capsys, bench.run(end=None)).startswith("--to: expected a time")

    def test_an_output_that_is_there(self, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
        bench.output.touch()
        assert "exists already" in self.refused(capsys, bench.run())

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--step", "10m"], "--step: expected a duration from 1s to 5m"),
            (["--step", "1500ms"], "--step: expected whole seconds"),
            (["--label", "job"], "--label: expected name=value"),
            (["--label", "room=x"], "--label: expected each label once, and not one of the exporter's own, found room"),
            (["--label", "a=x", "--label", "a=y"], "--label: expected each label once"),
            (["--workspace", "x"], "--workspace: expected one of w"),
            (["--from", "2026-03-09"], "--from: expected a time before 2026-03-03T10:00:00Z"),
            (["--from", "last week"], "--from: expected a day such as 2026-11-15, or a time"),
            (["--from", "2026-03-01T00:00:00"], "--from: expected a day such as 2026-11-15, or a time"),
        ],
    )
    def test_invalid_options(self, bench: Bench, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
        assert self.refused(capsys, bench.run(*arguments)).startswith(message)


class TestArithmetic:
    """The sweep over beginnings and ends ..."""

    GRID = Grid(100 * SECOND, 200 * SECOND, 10)

    def test_shows_a_span_and_one_step_before_it(self) -> None:
        spans = [(125 * SECOND, 131 * SECOND), (140 * SECOND, 140 * SECOND), (190 * SECOND, 500 * SECOND)]
        assert [step for steps in self.GRID.steps(spans) for step in steps] == [120, 130, 140, 180, 190]

    def test_counts_from_the_base(self) -> None:
        events = [Event(105 * SECOND, 1, 105 * SECOND), Event(112 * SECOND, -1, 112 * SECOND)]
        found = [(step, *tally) for run, tally in series.tallies(events, Base(2, 30 * SECOND), [range(100, 130, 10)]) for step in run]
        assert found[0] == (100, -2, -2, -30 * SECOND, 0)
        assert found[1][:3] == (110, -1, -2)
        assert found[2] == (120, -1, -1, -23 * SECOND, 0)

    def test_a_change_of_role_is_no_joining_and_no_leaving(self) -> None:
        at, turn = 105 * SECOND, 115 * SECOND
        before = [Event(at, 1, at), Event(turn, -1, turn, None, 0)]
        after = [Event(turn, 1, turn, None, 0)]
        sums = {}
        for name, events in (("before", before), ("after", after)):
            for run, tally in series.tallies(events, Base(0, 0), [range(100, 130, 10)]):
                sums.update({(name, step): (tally.began, tally.ended, tally.active, tally.at(step) // SECOND) for step in run})
        assert [sums["before", step] for step in (110, 120)] == [(1, 0, 1, 5), (1, 0, 0, 10)]
        assert [sums["after", step] for step in (110, 120)] == [(0, 0, 0, 0), (0, 0, 1, 5)]

    def test_finds_the_most_between_two_steps_ends_before_beginnings(self) -> None:
        moments = [(101, 1), (102, 1), (103, -1), (103, 1), (104, -1), (119, -1)]
        events = [Event(at * SECOND, change, at * SECOND) for at, change in moments]
        found = {step: most for run, most in series.peaks(events, [range(100, 140, 10)]) for step in run}
        assert found == {100: 0, 110: 2, 120: 1, 130: 0}

    def test_counts_users_once(self) -> None:
        events = [
            Event(101, 1, 0, 7),
            Event(102, 1, 0, 7),
            Event(103, 1, 0, None),
            Event(15 * SECOND, -1, 0, 7),
            Event(16 * SECOND, -1, 0, 7),
        ]
        found = {step: count for run, count in series.users(events, [range(0, 30, 10)]) for step in run}
        assert found == {0: 0, 10: 1, 20: 0}

    def test_adds_up_distributions(self) -> None:
        found = list(series.histograms([(5 * SECOND, 3), (15 * SECOND, 30)], Histogram((10,)), 1, [range(0, 30, 10)]))
        assert [(run.start, counts, total) for run, counts, total in found] == [(0, [0, 0], 0), (10, [1, 1], 3), (20, [1, 2], 33)]

    def test_places_are_given_up_by_rooms_that_are_idle(self) -> None:
        workspace: WorkspaceConfig = parse("workspaces: [{name: w, access_key: k, secret: s}]", {}, "test").workspaces[0]
        owners = Owners(Scope(workspace), LimitsConfig(max_rooms=1, room_idle_expiry=60.0), lambda room: room)
        sessions = [("a", 0, 10), ("b", 20, 30), ("a", 60, 70), ("b", 131, 140), ("a", 150, 160)]
        owned = [owners.owner(SessionRow("", room, start * SECOND, end * SECOND, [])) for room, start, end in sessions]
        assert [found.id for found in owned if found is not None] == ["a", "_other", "a", "b", "_other"]

    @pytest.mark.parametrize(("days", "hours"), [(1, 2), (2, 6), (7, 18), (31, 54), (92, 162), (366, 486)])
    def test_few_blocks_for_a_long_range(self, days: int, hours: int) -> None:
        assert block_hours(days * DAY) == hours


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestProgress:
    """While it works ..."""

    def test_a_terminal_shows_a_bar_and_what_is_left(self) -> None:
        out, now = _Terminal(), [0.0]
        progress = Progress(out, lambda: now[0])
        progress.begin("reading")
        for done in (1, 2, 5):
            now[0] += 10
            progress.tell(done, 10)
        progress.end()
        assert "reading" in out.getvalue()
        assert out.getvalue().endswith("[###############               ]  50%  30 s left\r\x1b[K")

    def test_elsewhere_a_line_now_and_then(self, capsys: pytest.CaptureFixture[str]) -> None:
        logs.set_up("info", "logfmt")
        now = [0.0]
        progress = Progress(io.StringIO(), lambda: now[0])
        progress.begin("writing", 200)
        for _ in range(100):
            now[0] += 1.0
            progress.tell(200 + int(now[0]), 1000)
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 7
        assert lines[1].endswith('msg=writing done=22% left="13 min left"')
