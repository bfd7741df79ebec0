"""The bill by meter, over real HTTP: recordings and streams in usage, costs and budgets, across midnight and the end of a month."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from exporter import cli
from exporter.config.config import Budget, CollectConfig, Prices
from exporter.simulator import Fault, World
from exporter.times import DAY, HOUR, MINUTE, SECOND, calendar
from lab.beside import BesideBench
from tests.harness import MEMORY, T0

MIDNIGHT = calendar(T0).month_end
"""The first of April 2026, 00:00 UTC."""
EVENING = MIDNIGHT - 2 * HOUR
PRICES = Prices("EUR", {"default": 0.5}, per_recording_minute=0.25, free_recording_minutes=10, per_live_stream_minute=1)
BUDGETS = (
    Budget("films", "month", recording_minutes=100),
    Budget("today", "day", recording_minutes=100),
    Budget("school", "month", recording_minutes=100, rooms=frozenset({"school"})),
    Budget("shows", "month", live_stream_minutes=200),
    Budget("talk", "month", peer_minutes=100),
)


class Bill:
    """An exporter with prices and budgets, and two rooms."""

    def __init__(self, folder: Path) -> None:
        self.world = World("key", "secret-of-at-least-thirty-two-bytes!")
        self.school = self.world.room(name="school", created_at=EVENING - DAY)
        self.office = self.world.room(name="office", created_at=EVENING - DAY)
        self.bench = BesideBench(folder, self.world, now=EVENING)
        self.reload(prices=PRICES, budgets=BUDGETS)

    def reload(self, **changes: object) -> None:
        """A new process with these sections of the configuration."""
        self.bench.config = replace(self.bench.config, **changes)  # type: ignore[arg-type]  # sections by their names
        self.bench.restart()

    def poll_at(self, now: int) -> None:
        """Polls at this moment."""
        self.bench.poll((now - self.bench.now) / SECOND)

    def used(self, budget: str) -> float:
        found = self.bench.value("hms_budget_used_ratio", budget=budget)
        assert found is not None
        return found

    def minutes(self, meter: str, period: str, **labels: str) -> float | None:
        found = self.bench.value("hms_usage_seconds", meter=meter, period=period, **labels)
        return None if found is None else found / 60


@pytest.fixture
def bill() -> Iterator[Bill]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        bill = Bill(Path(folder))
        yield bill
        bill.bench.close()


def test_a_recording_is_usage_a_cost_and_a_part_of_its_budgets(bill: Bill) -> None:
    bill.poll_at(EVENING)
    bill.world.record(bill.school, EVENING + MINUTE).start(EVENING + MINUTE).stop(EVENING + 31 * MINUTE).complete(EVENING + 32 * MINUTE)
    bill.world.record(bill.office, EVENING + MINUTE).start(EVENING + MINUTE).stop(EVENING + 21 * MINUTE).complete(EVENING + 22 * MINUTE)
    bill.poll_at(EVENING + 11 * MINUTE)
    assert bill.minutes("recording", "month", room="school") == pytest.approx(10, abs=0.1), "a running one, up to now"
    bill.poll_at(EVENING + 40 * MINUTE)
    assert (bill.minutes("recording", "day", room="school"), bill.minutes("recording", "month", room="office")) == (30, 20)
    assert bill.bench.value("hms_usage_cost", meter="recording", currency="EUR") == pytest.approx(10), "ten of fifty minutes are free"
    assert (bill.used("films"), bill.used("today"), bill.used("school"), bill.used("talk")) == (0.5, 0.5, 0.3, 0)
    assert bill.bench.value("hms_budget_seconds", budget="films", period="month", meter="recording") == 6000


def test_each_meter_is_billed_by_itself(bill: Bill) -> None:
    bill.poll_at(EVENING)
    begin = EVENING + MINUTE
    bill.world.stream(bill.school, begin).start(begin).stop(begin + 20 * MINUTE).complete(begin + 21 * MINUTE)
    call = bill.world.open(bill.school.id, at=begin)
    call.join(role="host", at=begin, user_id="u").leave(at=begin + 10 * MINUTE)
    call.close(at=begin + 10 * MINUTE)
    bill.poll_at(begin + MINUTE)
    bill.poll_at(begin + 30 * MINUTE)
    bill.poll_at(begin + 31 * MINUTE)
    costs = {meter: bill.bench.value("hms_usage_cost", meter=meter) for meter in ("peer", "recording", "live_stream", "external_stream")}
    assert costs == {"peer": pytest.approx(5), "recording": 0, "live_stream": pytest.approx(20), "external_stream": 0}
    assert [bill.used("shows"), bill.used("films"), bill.used("talk")] == pytest.approx([0.1, 0, 0.1])


@pytest.fixture(params=["UTC", "Pacific/Kiritimati", "America/Los_Angeles"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Sets the time zone of this process."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("zone")
def test_a_recording_across_the_end_of_a_month_is_split_there(bill: Bill) -> None:
    """Days and months are UTC, whatever the time zone of the machine."""
    bill.poll_at(EVENING)
    job = bill.world.record(bill.school, MIDNIGHT - 30 * MINUTE).start(MIDNIGHT - 30 * MINUTE)
    job.stop(MIDNIGHT + 12 * MINUTE).complete(MIDNIGHT + 13 * MINUTE)
    bill.poll_at(MIDNIGHT - 10 * MINUTE)
    assert bill.used("films") == pytest.approx(0.2, abs=2e-3)
    bill.poll_at(MIDNIGHT + 5 * MINUTE)
    assert bill.used("films") == bill.used("today") == pytest.approx(0.05, abs=2e-3)
    bill.poll_at(MIDNIGHT + 30 * MINUTE)
    assert (bill.used("films"), bill.minutes("recording", "month")) == (0.12, 12)
    elapsed = bill.bench.value("hms_budget_elapsed_ratio", budget="films", period="month", meter="recording")
    assert elapsed == pytest.approx(0.5 / 24 / 30, rel=0.01)


def test_usage_starts_over_at_midnight_though_the_collector_fails(bill: Bill) -> None:
    bill.poll_at(EVENING)
    bill.world.record(bill.school, EVENING + MINUTE).start(EVENING + MINUTE).stop(EVENING + 31 * MINUTE).complete(EVENING + 32 * MINUTE)
    bill.poll_at(EVENING + 40 * MINUTE)
    bill.bench.server.faults.add(Fault(kind="status", status=403, route="/recordings"))
    bill.poll_at(EVENING + 50 * MINUTE)
    assert bill.used("films") == 0.3
    bill.poll_at(MIDNIGHT + 10 * MINUTE)
    assert (bill.used("films"), bill.minutes("recording", "month")) == (0, 0)
    assert bill.bench.value("hms_up") == 1


def test_a_restart_publishes_the_bill_as_it_was(bill: Bill) -> None:
    bill.poll_at(EVENING)
    bill.world.record(bill.school, EVENING + MINUTE).start(EVENING + MINUTE).stop(EVENING + 31 * MINUTE).complete(EVENING + 32 * MINUTE)
    bill.poll_at(EVENING + 20 * MINUTE)
    before = [bill.used("films"), bill.minutes("recording", "month"), bill.bench.value("hms_usage_cost", meter="recording")]
    bill.bench.restart()
    assert [bill.used("films"), bill.minutes("recording", "month"), bill.bench.value("hms_usage_cost", meter="recording")] == before
    bill.poll_at(EVENING + 3 * HOUR - MINUTE)
    bill.bench.restart()
    assert bill.minutes("recording", "month") == 0, "another month"


def report_of(bill: Bill, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["report", "--storage.path", str(bill.bench.state_file), "--format", "csv", *arguments]) == 0
    return capsys.readouterr().out


def test_a_report_of_recordings_is_exact_while_they_run_when_they_have_ended_and_when_they_are_settled(
    bill: Bill, capsys: pytest.CaptureFixture[str]
) -> None:
    """Days are split at midnight, and both months add up to the recorded time."""
    bill.poll_at(EVENING)
    begin = MIDNIGHT - 30 * MINUTE
    bill.world.record(bill.school, begin).start(begin).stop(begin + 90 * MINUTE).complete(begin + 91 * MINUTE)
    bill.poll_at(MIDNIGHT + 10 * MINUTE)
    running = report_of(bill, capsys, "--meter", "recording", "--month", "2026-04", "--by", "room").splitlines()
    assert running[0] == "room_id,room,seconds"
    assert float(running[1].rpartition(",")[2]) == pytest.approx(600, abs=1.5)
    for hours in (2, 4, 6):  # it has ended, and is settled an hour later
        bill.poll_at(MIDNIGHT + hours * HOUR)
        april = report_of(bill, capsys, "--meter", "recording", "--month", "2026-04", "--by", "workspace,day")
        assert april == "workspace,day,seconds\nw,2026-04-01,3600.000\n"
        assert report_of(bill, capsys, "--meter", "recording", "--month", "2026-03", "--by", "day") == "day,seconds\n2026-03-31,1800.000\n"
    assert report_of(bill, capsys, "--meter", "live_stream", "--month", "2026-04") == "room_id,room,seconds\n"


def test_a_report_says_how_far_it_reaches(bill: Bill, capsys: pytest.CaptureFixture[str]) -> None:
    bill.poll_at(EVENING)
    assert cli.main(["report", "--storage.path", str(bill.bench.state_file), "--meter", "live_stream"]) == 0
    table = capsys.readouterr().out
    assert table.startswith("Live stream minutes from 2026-03-01 to 2026-03-31 (UTC)\n")
    assert "Running live streams count up to the last read, 2026-03-31 22:00:00 UTC." in table
    assert "Knowledge begins at 2026-03-31 22:00:00 UTC: live streams that had ended by then are not in these figures." in table


def test_a_report_says_when_its_meter_was_never_collected(bill: Bill, capsys: pytest.CaptureFixture[str]) -> None:
    bill.bench.collect = CollectConfig(recordings=False, interval=30.0)
    bill.reload()
    bill.bench.end()
    bill.bench.state_file.unlink()
    bill.bench.begin()
    bill.poll_at(EVENING)
    assert cli.main(["report", "--storage.path", str(bill.bench.state_file), "--meter", "recording"]) == 0
    assert "nothing is known yet: recordings have not been read." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--meter", "recording", "--by", "role"], "--by: expected some of workspace,room,day, each at most once"),
        (["--meter", "peer", "--sessions-longer-than", "5m"], "--sessions-longer-than: expected either this option, or --meter"),
    ],
)
def test_a_report_refuses_contradicting_options(bill: Bill, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert cli.main(["report", "--storage.path", str(bill.bench.state_file), *arguments]) == 2
    assert capsys.readouterr().err == f"hms-exporter: {message}\n"


def test_a_meter_that_is_not_collected_has_no_cost_and_no_budget(bill: Bill) -> None:
    bill.bench.collect = CollectConfig(recordings=False, interval=30.0)
    bill.reload()
    bill.poll_at(EVENING + MINUTE)
    assert bill.bench.value("hms_usage_cost", meter="recording") is None
    assert bill.bench.value("hms_budget_used_ratio", budget="films") is None
    assert bill.used("shows") == 0
