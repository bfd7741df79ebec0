"""The soak at its smallest size, and that it notices each kind of wrong count."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from exporter.counting.accounts import Histogram
from exporter.simulator import Session, SessionQuery, World
from exporter.times import HOUR, MINUTE, SECOND
from lab import postgres
from lab.bench import START as T0
from lab.bench import Bench
from lab.counters import BY_ROLE, samples, sums_of
from soak import __main__ as program
from soak import kills
from soak.account import Account, Findings, RoomTruth, nothing, true_distributions, true_rooms
from soak.days import Footprint, live
from soak.edits import OtherName
from soak.failovers import Failovers, TakeOver, too_soon
from soak.kills import campaign
from soak.life import Life
from tests.programs import require

ROOT = Path(__file__).parent.parent.parent
PAGE = 'hms_peer_seconds_total{{workspace="w",room_id="r",room="n",role="{role}"}} {value}\n'


@pytest.mark.slow
def test_two_hours_of_life_lose_nothing_double_nothing_and_leave_nothing_behind(tmp_path: Path) -> None:
    result = live(tmp_path, days=2 / 24, seed=3, meetings_an_hour=30)
    assert result.polls > 200
    assert result.failed > 0
    assert result.rooms > 60
    assert (result.findings, result.falls) == (Findings(), [])
    assert result.last.grown(result.first) == []


def test_a_run_ends_when_its_real_time_is_over(tmp_path: Path) -> None:
    started = time.monotonic()
    result = live(tmp_path, days=1000, hours=0.5 / 3600, meetings_an_hour=1)
    assert 0 < result.days < 1000
    assert time.monotonic() - started < 30


def test_a_life_tells_the_whole_truth_about_rooms_before_it_forgets_them() -> None:
    life, other = (Life(5, T0, meetings_an_hour=10) for _ in range(2))
    for each in (life, other):
        each.live(T0 + 3 * HOUR)
    now = T0 + 12 * HOUR
    whole = other.truth(now)
    assert len(whole) > 30
    gone = life.retire(now, 5 * MINUTE)
    assert gone
    assert {**gone, **life.truth(now)} == whole
    assert life.list_sessions(SessionQuery(1000), now) == []


# -- comparison with the truth ----------------------------------------------------------------------------------------


def world() -> World:
    """Two rooms: in one the peers keep their roles, in the other one peer changes its role."""
    made = World("soak-key", "soak-secret-of-thirty-two-bytes-and-more")
    for name, changes in (("steady", False), ("changing", True)):
        session = made.open(made.room(name=name, created_at=T0 - MINUTE).id, T0 + SECOND)
        host, guest = session.join("host", T0 + SECOND), session.join("guest", T0 + 2 * SECOND)
        session.join("guest", T0 + 3 * SECOND)  # a ghost
        host.leave(T0 + 45 * SECOND)
        if changes:
            guest.change_role("speaker", T0 + 70 * SECOND)
        guest.leave(T0 + 99 * SECOND)
        session.close(T0 + 100 * SECOND)
    return made


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """The samples that an exporter publishes of that world when everything has ended."""
    with Bench(tmp_path_factory.mktemp("page"), world(), runs=True) as bench:
        for _ in range(5):
            found = bench.poll()
            bench.clock.leap(30)
        return found


def held(found: dict[str, float]) -> Findings:
    now = T0 + HOUR
    sessions = world().sessions
    account = Account()
    account.hold(found, true_rooms(sessions, now))
    account.hold_distributions(found, true_distributions(sessions, now))
    return account.findings


def test_a_page_that_is_the_truth_agrees_with_it(page: dict[str, float]) -> None:
    assert held(page) == Findings()


def first(page: dict[str, float], name: str, *marks: str) -> str:
    return next(series for series in page if series.startswith(name + "{") and all(mark in series for mark in marks))


STEADY = 'room="steady"'
WRONG: dict[str, tuple[Callable[[dict[str, float]], tuple[str, float]], str]] = {
    "a microsecond of a peer too little": (lambda page: (first(page, "hms_peer_seconds_total"), -1e-6), "lost"),
    "a microsecond of a peer too much": (lambda page: (first(page, "hms_peer_seconds_total"), 1e-6), "doubled"),
    "a microsecond of a session too little": (lambda page: (first(page, "hms_session_seconds_total"), -1e-6), "lost"),
    "a microsecond of a session too much": (lambda page: (first(page, "hms_session_seconds_total"), 1e-6), "doubled"),
    "a session too many": (lambda page: (first(page, "hms_sessions_started_total"), 1), "wrong_counts"),
    "an end too few": (lambda page: (first(page, "hms_sessions_ended_total"), -1), "wrong_counts"),
    "a peer too many": (lambda page: (first(page, "hms_peers_joined_total"), 1), "wrong_counts"),
    "a leave too few": (lambda page: (first(page, "hms_peers_left_total"), -1), "wrong_counts"),
    "a session too many in a bucket": (
        lambda page: (first(page, "hms_session_duration_seconds_bucket", 'le="60.0"'), 1),
        "wrong_distributions",
    ),
    "a microsecond in a distribution's sum": (lambda page: (first(page, "hms_session_duration_seconds_sum"), 1e-6), "wrong_distributions"),
    "a session too few in a distribution": (lambda page: (first(page, "hms_session_peers_count"), -1), "wrong_distributions"),
    "a peer too many in a distribution": (lambda page: (first(page, "hms_session_peers_sum"), 1), "wrong_distributions"),
    "a stay too many of a role": (lambda page: (first(page, "hms_peer_duration_seconds_count", 'role="host"'), 1), "wrong_distributions"),
}


@pytest.mark.parametrize(("change", "where"), WRONG.values(), ids=WRONG)
def test_every_single_thing_that_is_wrong_is_found(
    page: dict[str, float], change: Callable[[dict[str, float]], tuple[str, float]], where: str
) -> None:
    series, much = change(page)
    assert getattr(held({**page, series: page[series] + much}), where) > 0


@pytest.mark.parametrize("name", ["hms_peer_seconds_total", "hms_peers_joined_total", "hms_peers_left_total"])
def test_time_under_a_wrong_role_is_found_even_if_the_sum_is_right(page: dict[str, float], name: str) -> None:
    host, guest = (first(page, name, STEADY, f'role="{role}"') for role in ("host", "guest"))
    findings = held({**page, host: page[host] + 1, guest: page[guest] - 1})
    assert findings == Findings(wrong_roles=1)


def test_a_peer_that_changed_roles_may_count_in_either_but_no_other_peer(page: dict[str, float]) -> None:
    seconds = "hms_peer_seconds_total"
    of = {role: first(page, seconds, 'room="changing"', f'role="{role}"') for role in ("host", "guest", "speaker")}
    assert held({**page, of["guest"]: page[of["guest"]] - 1, of["speaker"]: page[of["speaker"]] + 1}) == Findings()
    assert held({**page, of["host"]: page[of["host"]] - 1, of["speaker"]: page[of["speaker"]] + 1}) == Findings(wrong_roles=1)


def test_a_room_without_series_is_lost_and_an_extra_room_is_found() -> None:
    now = T0 + HOUR
    account = Account()
    account.hold({}, true_rooms(world().sessions, now))
    findings = account.findings
    assert findings.lost > 300
    assert (findings.wrong_counts, findings.wrong_roles) == (2, 2)
    account = Account()
    account.hold(samples(PAGE.format(role="host", value=1)), {"r": nothing()})
    assert account.findings == Findings(doubled=1, wrong_roles=1)


def test_the_truth_by_role_adds_up_to_the_whole() -> None:
    life = Life(7, T0, meetings_an_hour=10)
    life.live(T0 + 3 * HOUR)
    for room in life.truth(T0 + 12 * HOUR).values():
        for name in BY_ROLE:
            whole = room.sums[name]
            least, most = (sum(much for (_, of), much in bound.items() if of == name) for bound in (room.least, room.most))
            assert least <= whole <= most
            if room.least == room.most:
                assert least == whole == most


def test_a_room_that_there_never_was_is_found() -> None:
    account = Account()
    account.hold_rooms(samples(PAGE.format(role="host", value=1)), {"r"})
    assert account.findings == Findings()
    account.hold_rooms(samples(PAGE.format(role="host", value=1)), {"another"})
    assert account.findings == Findings(doubled=1, wrong_counts=1)


def test_a_footprint_that_grows_is_named() -> None:
    before = Footprint(memory=60 << 20, state=1 << 20, descriptors=13, threads=4)
    assert before._replace(memory=70 << 20, state=9 << 20, descriptors=15, threads=5).grown(before) == []
    assert before._replace(memory=90 << 20).grown(before) == ["memory"]
    assert before._replace(descriptors=18, threads=8).grown(before) == ["descriptors", "threads"]


@pytest.mark.parametrize(
    ("moments", "found"),
    [
        ([(0.0, 0), (1.0, 0), (9.0, 1), (10.0, 1), (18.0, 0)], 0),
        ([(9.0, 1), (0.0, 0), (1.0, 0)], 0),
        ([(0.0, 0), (9.0, 1), (9.5, 0), (10.0, 1)], 2),
        ([], 0),
    ],
)
def test_two_active_exporters_are_found(moments: list[tuple[float, int]], found: int) -> None:
    assert too_soon(moments) == found


# -- the command ------------------------------------------------------------------------------------------------------

LINES = [
    "seconds lost",
    "seconds counted twice",
    "rooms with wrong counts",
    "rooms with wrong roles",
    "wrong histogram series",
    "counters seen to fall",
]


@pytest.mark.slow
def test_the_command_kills_and_reports_and_ends_well() -> None:
    command = [sys.executable, "-m", "soak", "--kills", "2", "--seed", "3"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "seed 3"
    assert lines[2].startswith("2 kills in ")
    assert [line.rsplit(maxsplit=1) for line in lines[-6:]] == [[name, "0"] for name in LINES]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_command_lets_a_pair_take_over_and_ends_well() -> None:
    if postgres.program("postgres") is None:
        require("postgres")
    command = [sys.executable, "-m", "soak", "--failovers", "2", "--seed", "3"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert lines[4].startswith("2 events in ")
    assert [line.split()[:2] for line in lines[7:10]] == [["kill", "1"], ["pause", "1"], ["all", "2"]]
    assert [line.rsplit(maxsplit=1) for line in lines[-6:]] == [[name, "0"] for name in LINES]


NOTHING = Failovers([TakeOver("kill", 7.0)], 1, 1, 0, 0, 0, [], Findings(), 9.0)


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (NOTHING, 0),
        (NOTHING._replace(resets=None), 0),
        (NOTHING._replace(take_overs=[TakeOver("kill", 15.0)]), 1),
        (NOTHING._replace(both_published=1), 1),
        (NOTHING._replace(both_polled=1), 1),
        (NOTHING._replace(resets=1), 1),
        (NOTHING._replace(falls=["one"]), 1),
        (NOTHING._replace(findings=Findings(lost=1e-6)), 1),
    ],
)
def test_a_slow_take_over_or_two_at_once_is_not_good(result: Failovers, code: int) -> None:
    assert program._report_failovers(result) == code


@pytest.mark.slow
def test_the_command_lives_days_and_reports_and_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--days", "0.02", "--seed", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("0.0 simulated days in ")
    assert [line.rsplit(maxsplit=1) for line in lines[-6:]] == [[name, "0"] for name in LINES]


@pytest.mark.parametrize(
    ("findings", "falls"),
    [
        (Findings(lost=1e-6), []),
        (Findings(doubled=1e-6), []),
        (Findings(wrong_counts=1), []),
        (Findings(wrong_roles=1), []),
        (Findings(wrong_distributions=1), []),
        (Findings(), ["hms_peer_seconds_total fell from 2.0 to 1.0"]),
    ],
    ids=LINES,
)
def test_the_verdict_is_bad_when_one_figure_is_bad(findings: Findings, falls: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert program._verdict(findings, falls) == 1
    out = capsys.readouterr().out
    assert sum(not line.endswith(" 0") for line in out.splitlines()[:6]) == 1
    assert all(fall in out for fall in falls)


def test_the_verdict_is_good_when_everything_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert program._verdict(Findings(), []) == 0
    assert capsys.readouterr().out.count(" 0\n") == 6


@pytest.mark.slow
def test_days_find_a_wrong_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Histogram.observe
    monkeypatch.setattr(Histogram, "observe", lambda self, value, scale=1: right(self, value + 1, scale))
    result = live(tmp_path, days=0.01, seed=4, meetings_an_hour=10)
    assert result.findings.wrong_distributions > 0
    assert result.findings == Findings(wrong_distributions=result.findings.wrong_distributions)


@pytest.mark.slow
def test_counts_under_another_name_are_compared_with_the_truth_from_then_on(tmp_path: Path) -> None:
    life = Life(4, T0)
    account, right = Account(), life.truth_of_quiet
    with Bench(tmp_path, life, runs=True) as bench:
        for _ in range(60):
            life.live(bench.clock())
            bench.poll()
            bench.clock.leap(30)
        bench.configure(None, name="another")
        other = OtherName("another", "start")
        held = 0
        for _ in range(60):
            life.live(bench.clock())
            found = bench.poll()
            held += other.check(account, life, found, bench.clock())
            bench.clock.leap(30)
        assert held > 100
        assert account.findings == Findings()
        now = bench.clock()
        wrong = {**right(now, MINUTE, now, now), "no such room": RoomTruth(sums_of(sessions_started=1), Counter(), Counter())}
        life.truth_of_quiet = lambda *given: wrong  # type: ignore[method-assign]  # the false truth that must be noticed
        other.check(account, life, found, now)
        assert account.findings.wrong_counts > 1
        assert account.findings.doubled > 0


@pytest.mark.slow
def test_kills_into_reloads_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    result = campaign(tmp_path, kills=8, seed=5)
    assert result.reloads > 2
    assert result.sessions > 2
    assert (result.findings, result.falls) == (Findings(), [])


@pytest.mark.slow
def test_kills_find_a_wrong_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_more(sessions: Iterable[Session], now: int) -> dict[str, RoomTruth]:
        return {
            room: truth._replace(sums={**truth.sums, "hms_peers_joined_total": truth.sums["hms_peers_joined_total"] + 1})
            for room, truth in true_rooms(sessions, now).items()
        }

    monkeypatch.setattr(kills, "true_rooms", one_more)
    monkeypatch.setattr(kills, "_CATCH_UP", 8.0)
    result = campaign(tmp_path, kills=2, seed=3)
    assert result.sessions > 0
    assert result.findings.wrong_counts > 0
