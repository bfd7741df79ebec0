"""Usage by calendar, budgets and costs: exact, whatever the timing of polls, restarts and late records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.config.config import (
    ApiConfig,
    Budget,
    Config,
    KeyPair,
    LimitsConfig,
    Prices,
    RoomById,
    Secret,
    WorkspaceConfig,
)
from exporter.counting.accounts import PeriodSums
from exporter.counting.contribution import Account, group_account, room_account
from exporter.counting.rooms import KnownRoom
from exporter.counting.usage import MeterUse, Spent, cost, cost_of, lines, spent_of
from exporter.hms.client import Api
from exporter.polling.poller import WorkspacePoller
from exporter.publish.budgets import BudgetBoard
from exporter.publish.exposition import Exposition
from exporter.publish.selfmetrics import SelfMetrics
from exporter.simulator import Fault, SimulatedApi, World
from exporter.state.store import Store
from exporter.times import DAY, HOUR, SECOND, calendar

MINUTE = 60 * SECOND
MIDNIGHT = calendar(1_775_044_800 * SECOND).day_start
"""The first of April 2026, 00:00 UTC."""
SECRET = "a secret of thirty-two characters"


class Program:
    """A workspace's poller over real HTTP with a real state file, on a test clock."""

    def __init__(self, folder: Path, now: int, *, rooms: int = 3, limits: LimitsConfig | None = None) -> None:
        self.now = now
        self.world = World("key", SECRET)
        self.rooms = [self.world.room(name=f"room-{index}", created_at=now - 60 * DAY) for index in range(rooms)]
        self.api = SimulatedApi([self.world], clock=lambda: self.now)
        self.api.start()
        self._path = folder / "state.db"
        workspace = WorkspaceConfig("w", KeyPair(Secret("key"), Secret(SECRET)))
        self.config = Config(
            (workspace,),
            api=ApiConfig(base_url=self.api.base_url, max_requests_per_second=1000, max_retries=0, timeout=5),
            limits=limits or LimitsConfig(room_idle_expiry=400 * 86400),
        )
        self.start()

    def start(self) -> None:
        self.store = Store(self._path)
        metrics = SelfMetrics("test", "test")
        self.exposition = Exposition(metrics.render)
        own = metrics.workspace("w", 30)
        api = Api(self.config.api, self.config.workspaces[0].credentials, own, steady=lambda: self.now)
        board = BudgetBoard(self.exposition, self.config.budgets)
        self.poller = WorkspacePoller(self.config.workspaces[0], self.config, self.store, self.exposition, own, api, board)
        self.poller.restore()

    def restart(self) -> None:
        self.store.close()
        self.start()

    def poll(self, now: int) -> None:
        self.now = now
        self.poller.poll()
        self.poller.learn([KnownRoom(r.id, r.name_at(now), "", "", "", enabled=True, exists=True, fetched_at=now) for r in self.rooms])

    def values(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        text = b"".join(self.exposition.page("", "").chunks).decode()
        return {
            tuple(sorted((k, v) for k, v in sample.labels.items() if k not in ("workspace", "room_id"))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        }

    def usage(self, period: str) -> dict[tuple[str, str], float]:
        """Seconds by room and role."""
        found = {}
        for labels, value in self.values("hms_usage_peer_seconds").items():
            of = dict(labels)
            if of["period"] == period:
                found[of["room"], of["role"]] = value
        return found

    def close(self) -> None:
        self.store.close()
        self.api.stop()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path, MIDNIGHT - 2 * HOUR)
    yield program
    program.close()


def one_stay(program: Program, start: int, end: int, role: str = "guest", room: int = 0) -> None:
    session = program.world.open(program.rooms[room].id, at=start)
    session.join(role=role, at=start, user_id="u", name="Some Body").leave(at=end)
    session.close(at=end)


def test_a_running_stay_is_split_at_midnight(program: Program) -> None:
    one_stay(program, MIDNIGHT - HOUR, MIDNIGHT + HOUR)
    program.poll(MIDNIGHT - HOUR // 2)
    assert program.usage("day") == {("room-0", "guest"): pytest.approx(1800, abs=1.5)}
    program.poll(MIDNIGHT + 600 * SECOND)
    assert program.usage("day") == {("room-0", "guest"): pytest.approx(600, abs=1.5)}
    assert program.usage("month") == {("room-0", "guest"): pytest.approx(600, abs=1.5)}, "the day begins a month"


def test_an_ended_stay_is_split_at_midnight_and_survives_a_restart(program: Program) -> None:
    one_stay(program, MIDNIGHT - HOUR, MIDNIGHT + HOUR)
    program.poll(MIDNIGHT - HOUR // 2)
    program.poll(MIDNIGHT + 2 * HOUR)
    assert program.usage("day") == {("room-0", "guest"): 3600.0}
    program.restart()
    assert program.usage("day") == {("room-0", "guest"): 3600.0}, "published again before the first poll"


def test_the_usage_of_an_idle_room_starts_over_at_midnight(program: Program) -> None:
    one_stay(program, MIDNIGHT - HOUR, MIDNIGHT - HOUR // 2)
    program.poll(MIDNIGHT - HOUR + SECOND)
    program.poll(MIDNIGHT - 60 * SECOND)
    assert program.usage("day") == {("room-0", "guest"): 1800.0}
    program.poll(MIDNIGHT + 60 * SECOND)
    assert program.usage("day") == {("room-0", "guest"): 0.0}


def test_usage_divided_by_the_elapsed_share_is_the_pace(program: Program) -> None:
    program.poll(MIDNIGHT + 6 * HOUR)
    ratios = {dict(labels)["period"]: value for labels, value in program.values("hms_usage_period_elapsed_ratio").items()}
    assert ratios == {"day": pytest.approx(0.25, abs=1e-4), "month": pytest.approx(0.25 / 30, abs=1e-5)}


def test_sums_are_right_though_idle_rooms_lose_their_series(tmp_path: Path) -> None:
    program = Program(tmp_path, MIDNIGHT + HOUR, limits=LimitsConfig(room_idle_expiry=3600))
    try:
        one_stay(program, MIDNIGHT + HOUR, MIDNIGHT + 2 * HOUR)
        program.poll(MIDNIGHT + HOUR + MINUTE)
        program.poll(MIDNIGHT + 2 * HOUR)
        program.poll(MIDNIGHT + 4 * HOUR)
        program.poll(MIDNIGHT + 4 * HOUR + MINUTE)
        assert program.usage("month") == {("_other", "guest"): 3600.0}
        program.restart()
        assert program.usage("month") == {("_other", "guest"): 3600.0}
        one_stay(program, MIDNIGHT + 5 * HOUR, MIDNIGHT + 6 * HOUR)
        program.poll(MIDNIGHT + 5 * HOUR + MINUTE)
        program.poll(MIDNIGHT + 6 * HOUR)
        assert program.usage("month") == {("room-0", "guest"): 7200.0}, "it comes back with its own"
    finally:
        program.close()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_usage_equals_the_truth_across_days_restarts_downtime_faults_and_late_records(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    start = MIDNIGHT - 3 * DAY
    program = Program(tmp_path, start)
    world = program.world
    try:
        now = start
        while now < MIDNIGHT + 3 * DAY:
            for _ in range(random.randrange(3)):
                begin = now + random.randrange(HOUR)
                end = begin + random.randrange(MINUTE, 11 * HOUR)
                session = world.open(random.choice(program.rooms).id, at=begin)
                for _ in range(random.randrange(4)):
                    joined = random.randrange(begin, end)
                    left = random.randrange(joined, end + 1)
                    late = min(end, left + random.randrange(2 * MINUTE))
                    session.join(role=random.choice("ab"), at=joined, user_id="u", name="N").leave(at=left, recorded_at=late)
                session.close(at=end)
            if random.random() < 0.15:
                program.restart()
                now += random.randrange(8 * HOUR)
            if random.random() < 0.2:
                program.api.faults.add(Fault(kind="status", status=500, times=2))
            program.poll(now)
            program.api.faults.clear()
            now += random.randrange(MINUTE, 2 * HOUR)
        now = program.now + 13 * HOUR
        program.poll(now)
        program.poll(now + MINUTE)
        truth: defaultdict[tuple[str, str], int] = defaultdict(int)
        today = calendar(now)
        names = {room.id: room.name_at(now) for room in program.rooms}
        for (room, role, day), spent in world.truth(now).peer_us_by_day.items():
            if calendar(day * DAY).month == today.month:
                truth[names[room], role] += spent
        found = {key: round(value * SECOND) for key, value in program.usage("month").items() if value}
        assert found == {key: value for key, value in truth.items() if value}
    finally:
        program.close()


# -- budgets and costs ------------------------------------------------------------------------------------------------


def test_a_budget_counts_its_workspace_rooms_and_roles_only(tmp_path: Path) -> None:
    program = Program(tmp_path, MIDNIGHT + HOUR)
    budgets = (
        Budget("all", "month", 100),
        Budget("teaching", "day", 10, rooms=frozenset({"room-0"}), roles=frozenset({"teacher"})),
        Budget("by id", "day", 10, rooms=frozenset({program.rooms[1].id})),
        Budget("elsewhere", "day", 10, workspace="another"),
    )
    program.config = replace(program.config, budgets=budgets)
    program.restart()
    try:
        begin = MIDNIGHT + HOUR
        for room, role in ((0, "teacher"), (0, "student"), (1, "teacher")):
            one_stay(program, begin, begin + 5 * MINUTE, role, room)
        program.poll(begin + MINUTE)
        program.poll(begin + 6 * MINUTE)
        used = {dict(labels)["budget"]: value for labels, value in program.values("hms_budget_used_ratio").items()}
        assert used == {"all": pytest.approx(0.15), "teaching": pytest.approx(0.5), "by id": pytest.approx(0.5)}
        sizes = {dict(labels)["budget"]: value for labels, value in program.values("hms_budget_seconds").items()}
        assert sizes == {"all": 6000.0, "teaching": 600.0, "by id": 600.0}
    finally:
        program.close()


def test_a_budgets_room_counts_though_it_has_lost_its_series(tmp_path: Path) -> None:
    program = Program(tmp_path, MIDNIGHT + HOUR, limits=LimitsConfig(room_idle_expiry=600))
    program.config = replace(program.config, budgets=(Budget("room", "month", 60, rooms=frozenset({"room-0"})),))
    program.restart()
    try:
        one_stay(program, MIDNIGHT + HOUR, MIDNIGHT + HOUR + 30 * MINUTE)
        program.poll(MIDNIGHT + HOUR + MINUTE)
        program.poll(MIDNIGHT + 2 * HOUR)
        program.poll(MIDNIGHT + 5 * HOUR)
        program.restart()
        program.poll(MIDNIGHT + 6 * HOUR)
        assert list(program.values("hms_budget_used_ratio").values()) == [pytest.approx(0.5)]
        assert ("room-0", "guest") not in program.usage("month")
    finally:
        program.close()


def test_budgets_of_several_workspaces_add_up() -> None:
    budget = Budget("all", "month", 10)
    told = {"a": {"all": Spent(60 * SECOND, MIDNIGHT + HOUR)}, "b": {"all": Spent(240 * SECOND, MIDNIGHT + HOUR)}}
    (line,) = lines([budget], told)
    assert (line.seconds, line.used) == (600, 0.5)


def test_a_workspace_not_read_since_the_last_period_has_used_nothing_of_this_one() -> None:
    budget = Budget("all", "day", 10)
    told = {"a": {"all": Spent(60 * SECOND, MIDNIGHT + HOUR)}, "b": {"all": Spent(240 * SECOND, MIDNIGHT - HOUR)}}
    (line,) = lines([budget], told)
    assert line.used == 0.1


def test_a_cost_is_minutes_by_price_of_the_role_beyond_the_free_ones() -> None:
    prices = Prices("USD", {"default": 0.004, "viewer": 0.001}, free_peer_minutes=1000)
    whole = {"host": (0, 500 * MINUTE), "viewer": (0, 1500 * MINUTE)}
    costs = cost(prices, whole)
    assert costs == {"host": pytest.approx(1.0), "viewer": pytest.approx(0.75)}, "half of the minutes are free, in proportion"


def test_nothing_costs_anything_within_the_free_minutes() -> None:
    assert cost(Prices("USD", {"default": 1.0}, 100), {"host": (0, 100 * MINUTE)}) == {"host": 0.0}
    assert cost(Prices("USD", {"default": 1.0}), {}) == {}


def test_a_role_without_a_price_costs_nothing() -> None:
    assert cost(Prices("EUR", {"host": 1.0}), {"viewer": (0, MINUTE)}) == {"viewer": 0.0}


# -- recordings and streams -------------------------------------------------------------------------------------------

FILMS = MeterUse(
    {room_account("r1"): (10 * MINUTE, 100 * MINUTE), group_account("classes"): (0, 50 * MINUTE)}, elsewhere=(MINUTE, 30 * MINUTE)
)


def named(account: Account) -> str:
    return f"room {account.id}"


@pytest.mark.parametrize(
    ("rooms", "minutes"),
    [(None, 180), ({"r1"}, 100), ({"room r1"}, 100), ({"room classes"}, 50), ({"r1", "room classes"}, 150), ({"room r2"}, 0)],
)
def test_a_budget_of_recordings_counts_its_rooms_by_name_or_id(rooms: set[str] | None, minutes: int) -> None:
    budget = Budget("films", "month", recording_minutes=100, rooms=None if rooms is None else frozenset(rooms))
    assert spent_of(budget, FILMS, named) == minutes * MINUTE
    assert (
        spent_of(replace(budget, period="day"), FILMS, named) == (11 if rooms is None else 10 if {"r1", "room r1"} & rooms else 0) * MINUTE
    )


def test_each_meter_has_a_price_and_free_minutes_of_its_own() -> None:
    prices = Prices("USD", {"default": 9.0}, 7, per_recording_minute=0.5, free_recording_minutes=80, per_live_stream_minute=2)
    assert cost_of(prices, "recording", FILMS) == pytest.approx(50)
    assert cost_of(prices, "live_stream", FILMS) == pytest.approx(360)
    assert cost_of(prices, "external_stream", FILMS) == 0
    assert cost_of(replace(prices, free_recording_minutes=180), "recording", FILMS) == 0


@pytest.mark.parametrize(
    ("read", "now", "day", "month"),
    [
        (MIDNIGHT + HOUR, MIDNIGHT + 2 * HOUR, 11, 180),
        (MIDNIGHT + HOUR, MIDNIGHT + 25 * HOUR, 0, 180),
        (MIDNIGHT - SECOND, MIDNIGHT + SECOND, 0, 0),
        (MIDNIGHT - 2 * DAY, MIDNIGHT - SECOND, 0, 180),
    ],
)
def test_usage_starts_over_with_the_calendar_though_the_collector_was_last_read_before(read: int, now: int, day: int, month: int) -> None:
    """An idle collector is read rarely, and a failing one not at all."""
    assert FILMS.at(read, now).whole == (day * MINUTE, month * MINUTE)


def test_rooms_without_series_are_elsewhere_and_nowhere_for_a_configuration_of_ids_alone() -> None:
    shown = room_account("r1")
    assert FILMS.shown(lambda account: account == shown, only_those=False) == MeterUse(
        {shown: (10 * MINUTE, 100 * MINUTE)}, (MINUTE, 80 * MINUTE)
    )
    assert FILMS.shown(lambda account: account == shown, only_those=True).whole == (10 * MINUTE, 100 * MINUTE)


def test_a_budget_tells_its_period_and_meter() -> None:
    budgets = [Budget("films", "day", recording_minutes=10), Budget("all", "month", 10)]
    told = {"a": {"films": Spent(60 * SECOND, MIDNIGHT + HOUR), "all": Spent(0, MIDNIGHT + HOUR)}}
    assert [(line.name, line.period, line.meter) for line in lines(budgets, told)] == [
        ("films", "day", "recording"),
        ("all", "month", "peer"),
    ]


def test_costs_are_published_by_role_with_their_currency(program: Program) -> None:
    program.config = replace(program.config, prices=Prices("EUR", {"default": 0.5}))
    program.restart()
    one_stay(program, MIDNIGHT + HOUR, MIDNIGHT + HOUR + 10 * MINUTE, "host")
    program.poll(MIDNIGHT + HOUR + MINUTE)
    program.poll(MIDNIGHT + 2 * HOUR)
    assert program.values("hms_usage_cost") == {(("currency", "EUR"), ("meter", "peer"), ("role", "host")): pytest.approx(5.0)}


def test_configured_rooms_alone_are_the_usage_of_such_a_workspace(tmp_path: Path) -> None:
    program = Program(tmp_path, MIDNIGHT + HOUR)
    program.config = replace(program.config, workspaces=(replace(program.config.workspaces[0], rooms=(RoomById(program.rooms[0].id),)),))
    program.restart()
    try:
        for room in (0, 1):
            one_stay(program, MIDNIGHT + HOUR, MIDNIGHT + 2 * HOUR, room=room)
        program.poll(MIDNIGHT + HOUR + MINUTE)
        program.poll(MIDNIGHT + 3 * HOUR)
        assert program.usage("month") == {("room-0", "guest"): 3600.0}
    finally:
        program.close()


def test_the_usage_of_accounts_that_left_the_memory_starts_over_too() -> None:
    sums = PeriodSums()
    sums.add(calendar(MIDNIGHT - HOUR).day, 5)
    assert sums.at(calendar(MIDNIGHT)) == (0, 0)
