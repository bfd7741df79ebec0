"""The counters of jobs: each rule by itself, with plain values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from exporter.counting.accounts import PeriodSums
from exporter.counting.collected import Collected
from exporter.counting.contribution import Account, room_account
from exporter.counting.jobs import RECORDINGS, Counted, standing
from exporter.hms.jobs import Job, decode_job
from exporter.hms.records import Rejection
from exporter.times import DAY, HOUR, rfc3339
from tests.harness import at, scope_of

NO_TIME = "0001-01-01T00:00:00Z"
ROOM = room_account("room")


def record(job: str = "j", status: str = "running", asked: float = 0, *, room: str = "room", **times: float) -> dict[str, Any]:
    """A job's record as the API shows it.  Times are in seconds after the beginning."""
    shown = {"id": job, "room_id": room, "status": status, "created_at": rfc3339(at(asked))}
    return shown | {f"{name}_at": rfc3339(at(seconds)) for name, seconds in times.items()}


class Reads:
    """Reads a list, each time with all of its records."""

    def __init__(self, since: float = 0) -> None:
        self.collected = Collected(RECORDINGS)
        self.since = at(since)
        self.at = -1.0

    def read(self, now: float, *records: Mapping[str, Any], complete: bool = True) -> None:
        """A read at this moment."""
        collected = self.collected
        if self.at < 0:
            collected.coverage.configure(scope_of(["*"]), self.since, at(now), str)
            collected.open(ROOM, {}, PeriodSums())
        self.at = now
        collected.begin(at(now))
        collected.coverage.begin(at(now), DAY)
        for shown in records:
            found = decode_job(json.dumps(shown).encode(), at(now))
            if isinstance(found, Rejection):
                collected.unread(str(shown["id"]))
            else:
                collected.see(found, found.room_id)
        for kept in collected.unseen() if complete else ():
            collected.absent(kept)
        collected.coverage.complete(at(now))
        collected.coverage.has_read(list(collected.coverage.tasks.values()), 0, at(now), at(now))
        for room in collected.unassigned_rooms():
            collected.assign(room, room, room_account(room))
        collected.finish(str)

    @property
    def counted(self) -> Counted:
        """The published counters of the room.  Time is in seconds."""
        tally = self.collected.holdings[ROOM].tallies.get(())
        published = Counted(*(tally.published if tally is not None else [0] * 5))
        return published._replace(time=published.time // 1_000_000)

    @property
    def active(self) -> dict[str, int]:
        """The number of open jobs by status, without zeros."""
        return {status: count for status, count in standing(self.collected.holdings[ROOM].open).active.items() if count}


@pytest.fixture
def reads() -> Reads:
    return Reads()


def test_a_job_counts_as_it_goes_on(reads: Reads) -> None:
    reads.read(10, record(status="starting", asked=5))
    assert (reads.counted, reads.active) == (Counted(1, 0, 0, 0, 0), {"starting": 1})
    reads.read(70, record(status="running", asked=5, started=11))
    assert (reads.counted, reads.active) == (Counted(1, 1, 0, 0, 59), {"running": 1})
    reads.read(130, record(status="post_processing", asked=5, started=11, stopped=100))
    assert (reads.counted, reads.active) == (Counted(1, 1, 0, 0, 89), {"post_processing": 1})
    reads.read(190, record(status="completed", asked=5, started=11, stopped=100, updated=150))
    assert (reads.counted, reads.active) == (Counted(1, 1, 1, 0, 89), {})


def test_a_record_read_again_changes_nothing(reads: Reads) -> None:
    over = record(status="completed", asked=5, started=11, stopped=100, updated=150)
    for now in (160, 220, 280, 4000, 8000, 12000):
        reads.read(now, over)
        assert reads.counted == Counted(1, 1, 1, 0, 89)
    assert reads.collected.histograms["start_delay"].total == 6_000_000
    assert reads.collected.histograms["processing"].total == 50_000_000
    assert not reads.collected.kept


def test_one_that_failed_before_it_started_has_no_time_and_no_delay(reads: Reads) -> None:
    reads.read(200, record(status="failed", asked=5, started_by=0, updated=65) | {"started_at": NO_TIME, "stopped_at": None})
    assert reads.counted == Counted(1, 0, 0, 1, 0)
    assert sum(reads.collected.histograms["start_delay"].counts) == 0


def test_one_that_fails_after_its_start_counts_until_it_stopped_else_until_its_last_change(reads: Reads) -> None:
    reads.read(
        200,
        record("a", "failed", 5, started=10, stopped=50, updated=100),
        record("b", "failed", 5, started=10, updated=100),
    )
    assert reads.counted == Counted(2, 2, 0, 2, 40 + 90)


def test_one_that_runs_without_a_start_on_record_has_not_started(reads: Reads) -> None:
    reads.read(200, record(status="running", asked=100))
    assert (reads.counted, reads.active) == (Counted(1, 0, 0, 0, 0), {"running": 1})
    assert standing(reads.collected.holdings[ROOM].open).starting_since == at(100)


def test_one_that_goes_on_after_its_rooms_call_goes_on(reads: Reads) -> None:
    """Only the job's own record counts, not that of a session."""
    reads.read(100, record(started=1) | {"session_id": "ended-long-ago"})
    reads.read(7200, record(started=1) | {"session_id": "ended-long-ago"})
    assert reads.counted.time == 7199


def test_counters_wait_when_a_record_says_less_than_before(reads: Reads) -> None:
    reads.read(100, record(started=1))
    reads.read(160, record(status="completed", started=1, stopped=61, updated=150))
    assert reads.counted == Counted(1, 1, 1, 0, 99)
    reads.read(220, record(status="completed", started=1, stopped=61, updated=150), record("k", started=170, asked=165))
    assert reads.counted.time == 60 + 50


def test_a_status_that_goes_backwards_opens_the_job_again_and_no_counter_falls(reads: Reads) -> None:
    reads.read(100, record(status="completed", started=1, stopped=61, updated=90))
    reads.read(160, record(status="running", started=1, updated=120))
    assert (reads.counted, reads.active) == (Counted(1, 1, 1, 0, 159), {"running": 1})
    reads.read(260, record(status="failed", started=1, stopped=200, updated=210))
    assert (reads.counted, reads.active) == (Counted(1, 1, 1, 1, 199), {})


def test_an_answer_from_before_the_last_one_is_left_alone(reads: Reads) -> None:
    reads.read(100, record(status="completed", started=1, stopped=61, updated=90))
    reads.read(160, record(status="running", started=1, updated=20))
    assert (reads.counted, reads.active) == (Counted(1, 1, 1, 0, 60), {})


def test_changes_within_two_minutes_after_the_end_count(reads: Reads) -> None:
    reads.read(100, record(status="completed", started=1, stopped=61, updated=90))
    reads.read(300, record(status="completed", started=1, stopped=71, updated=200))
    assert reads.counted.time == 70


def test_one_that_vanishes_counts_up_to_when_it_was_last_seen_and_is_taken_up_when_it_comes_back(reads: Reads) -> None:
    reads.read(60, record(started=10))
    for now in (120, 180):
        reads.read(now)
        assert reads.active == {"running": 1}
    reads.read(240)
    assert (reads.counted, reads.active) == (Counted(1, 1, 0, 0, 50), {})
    reads.read(5000, record(status="completed", started=10, stopped=4000, updated=4500))
    assert reads.counted == Counted(1, 1, 1, 0, 3990)


def test_one_that_is_not_in_what_was_read_of_the_list_has_not_vanished(reads: Reads) -> None:
    reads.read(60, record(started=10))
    for now in (120, 180, 240, 300):
        reads.read(now, complete=False)
    assert (reads.counted, reads.active) == (Counted(1, 1, 0, 0, 50), {"running": 1})


def test_nothing_stays_open_for_longer_than_a_day(reads: Reads) -> None:
    reads.read(60, record(status="starting", asked=50))
    reads.read(86_000, record(status="starting", asked=50))
    assert reads.active == {"starting": 1}
    reads.read(86_500, record(status="starting", asked=50))
    assert (reads.counted, reads.active) == (Counted(1, 0, 0, 0, 0), {})
    reads.read(86_600, record(status="starting", asked=50), record("new", status="starting", asked=1000))
    assert reads.counted.requested == 2


@pytest.mark.parametrize(
    ("times", "stage"), [({}, "starting"), ({"started": 10}, "running"), ({"started": 10, "stopped": 20}, "post_processing")]
)
@pytest.mark.parametrize("status", ["paused", "", None, 7, {"of": "another kind"}])
def test_a_status_that_is_not_known_counts_by_its_times(reads: Reads, status: object, times: dict[str, float], stage: str) -> None:
    reads.read(30, record(**times) | {"status": status, "of_the_future": [1, 2]})  # type: ignore[arg-type]  # a float is one
    assert reads.active == {stage: 1}
    assert reads.counted == Counted(1, int("started" in times), 0, 0, {"running": 20, "post_processing": 10}.get(stage, 0))


@pytest.mark.parametrize(
    "broken",
    [
        {"created_at": "yesterday"},
        {"created_at": NO_TIME},
        {"started_at": 7},
        {"room_id": ""},
        {"room_id": None},
        {"stopped_at": "1999-01-01T00:00:00Z"},
    ],
)
def test_an_invalid_record_is_rejected_and_its_job_keeps_its_counts(reads: Reads, broken: dict[str, Any]) -> None:
    reads.read(60, record(started=10))
    for now in (120, 180, 240, 300):
        reads.read(now, record(started=10) | broken, record("other", started=20))
    assert reads.counted.requested == 2
    assert reads.active == {"running": 2}
    reads.read(360, record(started=10), record("other", started=20))
    assert reads.counted.time == 350 + 340


def test_an_ended_job_counts_if_it_ended_after_since_and_an_open_one_in_any_case() -> None:
    reads = Reads(since=1000)
    reads.read(
        2000,
        record("before", "completed", 0, started=1, stopped=999, updated=1500),
        record("after", "completed", 0, started=1, stopped=1001, updated=1500),
        record("open", "running", 0, started=1),
    )
    assert reads.counted == Counted(2, 2, 1, 0, 1000 + 1999)


def test_time_by_day_is_split_at_midnight_and_stored_when_the_job_is_settled(reads: Reads) -> None:
    midnight = (at(0) // DAY + 1) * DAY
    start, stop = (midnight - at(0)) / 1e6 - 600, (midnight - at(0)) / 1e6 + 300
    over = record(status="completed", asked=start - 10, started=start, stopped=stop, updated=stop + 5)
    reads.read(start + 60, record(status="running", asked=start - 10, started=start))
    assert reads.collected.usage()[0][ROOM] == (60_000_000, 60_000_000)
    reads.read(stop + 10, over)
    assert reads.collected.usage()[0][ROOM] == (300_000_000, 900_000_000)
    assert not reads.collected.changes.days
    reads.read(stop + 200, over)
    reads.read(stop + 4000, over)
    day = midnight // DAY
    assert reads.collected.changes.days == {(ROOM, "room", day - 1): 600_000_000, (ROOM, "room", day): 300_000_000}
    assert reads.collected.usage()[0][ROOM] == (300_000_000, 900_000_000)


def test_the_usage_of_accounts_that_left_the_memory_is_told_apart(reads: Reads) -> None:
    over = record(status="completed", started=10, stopped=110, updated=120)
    for now in (130, 400, 4000):
        reads.read(now, over)
    reads.collected.committed()
    reads.collected.close(ROOM)
    assert reads.collected.usage() == ({}, (100_000_000, 100_000_000))


def kept_of(reads: Reads) -> Iterable[Job]:
    return [kept.item for kept in reads.collected.kept.values()]


def test_nothing_of_a_record_is_kept_but_ids_status_and_times(reads: Reads) -> None:
    secret = {"meeting_url": "secret", "rtmp_urls": ["secret"], "started_by": "secret", "status": "secret", "playback": {"url": "secret"}}
    reads.read(60, record(started=10) | secret)
    assert "secret" not in str(list(kept_of(reads)))


def test_a_job_of_a_room_whose_name_decides_waits_for_it() -> None:
    collected = Collected(RECORDINGS)
    collected.coverage.configure(scope_of(["~class-.*"]), at(-HOUR / 1e6), at(0), lambda _: None)
    for name, account in (("class-1", Account("room", "room")), ("other", None)):
        collected.begin(at(100))
        found = decode_job(json.dumps(record(name, "completed", 5, started=10, stopped=20, updated=30)).encode(), at(100))
        assert isinstance(found, Job)
        collected.see(found, None)
        assert collected.unassigned_rooms() == ["room"]
        if account is not None:
            collected.open(account, {}, PeriodSums())
        collected.assign("room", name, account)
        assert len(collected.kept) == 1
    collected.finish(str)
    assert collected.holdings[ROOM].tallies[()].published[0] == 1
