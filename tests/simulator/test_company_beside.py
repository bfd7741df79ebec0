"""The made-up company's recordings, streams, webhooks and client errors."""

from __future__ import annotations

import sys
import time
from collections import Counter

import pytest

from exporter.simulator import (
    KINDS,
    Company,
    Delivery,
    EventQuery,
    Job,
    JobQuery,
    SessionQuery,
    UnknownCursorError,
    jobs_truth_of,
    webhook_events,
)
from exporter.simulator.company_beside import BAD_HOUR
from exporter.simulator.jobs import Kind
from exporter.simulator.programme import RECORDER_ROLE
from exporter.times import DAY, HOUR, MINUTE, SECOND

MONDAY = 20_500 * DAY  # 2026-02-16
FRIDAY = MONDAY + 4 * DAY


def room_id(company: Company, name: str) -> str:
    return next(room.id for room in company.rooms if room.name_at(MONDAY) == name)


def jobs(company: Company, kind: Kind, now: int, days: int = 1) -> list[Job]:
    found = company.beside.list_jobs(JobQuery(sys.maxsize, kind), now)
    return [job for job in found if job.created_at > now - days * DAY]


@pytest.fixture(scope="module")
def company() -> Company:
    return Company(7, FRIDAY)


def test_records_pushes_and_streams_every_working_day(company: Company) -> None:
    webinar, house, practice = (room_id(company, name) for name in ("product-webinar", "open-house", "class-online-conversation"))
    assert Counter(job.room_id for job in jobs(company, "recording", FRIDAY)) == {webinar: 3, practice: 24}
    assert Counter(job.room_id for job in jobs(company, "external_stream", FRIDAY)) == {webinar: 3}
    assert Counter(job.room_id for job in jobs(company, "live_stream", FRIDAY)) == {house: 12}


def test_has_recordings_that_never_start_and_some_that_break_off(company: Company) -> None:
    truth = jobs_truth_of(jobs(company, "recording", FRIDAY), FRIDAY + HOUR)
    key: tuple[Kind, str] = "recording", room_id(company, "class-online-conversation")
    assert (truth.requested[key], truth.started[key], truth.failed[key], truth.completed[key]) == (24, 22, 4, 20)
    unlucky = next(job for job in jobs(company, "recording", FRIDAY) if job.standing(job.created_at + 5 * MINUTE).started_at is None)
    assert unlucky.standing(unlucky.created_at + 10 * MINUTE).status == "starting"
    assert unlucky.standing(unlucky.created_at + HOUR).status == "failed"


@pytest.mark.parametrize("kind", KINDS)
def test_has_jobs_only_of_calls_that_exist(company: Company, kind: Kind) -> None:
    for job in jobs(company, kind, FRIDAY):
        session = company.find_session(job.session_id, FRIDAY)
        assert session is not None
        assert session.room_id == job.room_id
        assert session.created_at <= job.created_at < (session.closed_at or FRIDAY)


def test_has_a_stream_that_outlasts_its_call(company: Company) -> None:
    longer = 0
    for job in jobs(company, "live_stream", FRIDAY):
        session = company.find_session(job.session_id, FRIDAY)
        assert session is not None
        longer += (job.standing(FRIDAY).stopped_at or 0) > (session.closed_at or FRIDAY)
    assert longer == 1


def test_has_pages_that_meet_without_gap_or_overlap(company: Company) -> None:
    whole = [job.id for job in company.beside.list_jobs(JobQuery(sys.maxsize, "recording"), FRIDAY)]
    pages: list[str] = []
    while page := company.beside.list_jobs(JobQuery(37, "recording", start=pages[-1] if pages else None), FRIDAY):
        pages += [job.id for job in page]
    assert pages == whole
    assert len(set(whole)) == len(whole) > 40 * 24
    with pytest.raises(UnknownCursorError):
        company.beside.list_jobs(JobQuery(10, "recording", start="unknown"), FRIDAY)


def test_knows_each_job_by_its_id_and_kind(company: Company) -> None:
    job = jobs(company, "recording", FRIDAY)[0]
    assert company.beside.find_job("recording", job.id, FRIDAY) is job
    assert company.beside.find_job("live_stream", job.id, FRIDAY) is None
    assert company.beside.find_job("recording", job.id, job.created_at - 1) is None
    assert company.beside.find_job("recording", "unknown", FRIDAY) is None


def test_has_an_asset_of_each_type_for_each_webinar_and_of_the_recordings_own_length(company: Company) -> None:
    assets = company.beside.list_assets(JobQuery(sys.maxsize, room_id=room_id(company, "product-webinar")), FRIDAY)
    assert [asset.order for asset in assets] == sorted((asset.order for asset in assets), reverse=True)
    recent = [asset for asset in assets if asset.created_at > FRIDAY - DAY]
    assert Counter(asset.type for asset in recent) == {"room-composite": 3, "chat": 3, "transcript": 3}
    for asset in recent:
        job = company.beside.find_job("recording", asset.job_id, FRIDAY)
        assert job is not None
        standing = job.standing(FRIDAY)
        assert asset.duration * SECOND == (standing.stopped_at or 0) - (standing.started_at or 0)
    second = company.beside.list_assets(JobQuery(1, room_id=room_id(company, "product-webinar"), start=assets[0].id), FRIDAY)
    assert second == [assets[1]]


def test_lists_jobs_without_making_up_who_was_in_the_calls() -> None:
    company = Company(1, FRIDAY)
    begun = time.perf_counter()
    assert len(company.beside.list_jobs(JobQuery(80, "external_stream"), FRIDAY)) == 80
    assert time.perf_counter() - begun < 2
    assert len(company._days) == 0


def test_is_joined_by_the_recorder_in_some_of_the_calls_that_it_records(company: Company) -> None:
    query = SessionQuery(3, active=False, room_id=room_id(company, "product-webinar"))
    seen = [any(peer.roles[0][1] == RECORDER_ROLE for peer in session.peers) for session in company.list_sessions(query, FRIDAY)]
    assert seen == [True, False, True]


def test_takes_few_webhooks_for_an_hour_and_nearly_all_at_others(company: Company) -> None:
    def share(hour: int) -> float:
        begin = FRIDAY - DAY + hour * HOUR
        sent = company.beside.deliveries(EventQuery(begin, begin + HOUR - 1))
        assert len(sent) > 100
        return sum(delivery.error is not None for delivery in sent) / len(sent)

    assert share(BAD_HOUR) > 0.5
    assert share(BAD_HOUR - 1) < 0.05
    assert share(BAD_HOUR + 1) < 0.05


def test_tells_deliveries_alike_whenever_it_is_asked(company: Company) -> None:
    begin = FRIDAY - 2 * HOUR
    whole = company.beside.deliveries(EventQuery(begin, begin + 10 * MINUTE - 1))
    parts = [company.beside.deliveries(EventQuery(begin + at * MINUTE, begin + (at + 1) * MINUTE - 1)) for at in range(10)]
    assert sorted(whole, key=lambda delivery: delivery.order) == sorted(
        (delivery for part in parts for delivery in part), key=lambda delivery: delivery.order
    )


def test_tells_of_true_deliveries_from_the_first_on() -> None:
    company = Company(1, FRIDAY)
    before = len(company.beside.deliveries(EventQuery(FRIDAY - HOUR, FRIDAY - HOUR // 2 - 1)))
    company.beside.deliver(Delivery("true", FRIDAY - HOUR // 2, company.rooms[0].id, "room.end.success", "timeout"))
    found = company.beside.deliveries(EventQuery(FRIDAY - HOUR, FRIDAY))
    assert (found[0].id, len(found)) == ("true", before + 1)


def test_has_people_who_could_not_join_and_some_of_no_known_call(company: Company) -> None:
    webinar = room_id(company, "product-webinar")
    events = company.beside.client_events(EventQuery(FRIDAY - 2 * DAY, FRIDAY, webinar))
    kinds = Counter(event.type for event in events)
    assert kinds["client.join.failed"] > 0
    assert len(kinds) == 5
    assert any(event.session_id is None for event in events)
    session_id = next(event.session_id for event in events if event.session_id is not None)
    of_one = company.beside.client_events(EventQuery(FRIDAY - 2 * DAY, FRIDAY, webinar, session_id))
    assert of_one == [event for event in events if event.session_id == session_id]
    assert company.beside.client_events(EventQuery(0, FRIDAY, room_id(company, "open-house"), session_id)) == []


def test_sends_webhooks_of_everything_that_happens(company: Company) -> None:
    events = webhook_events(company, FRIDAY - DAY + 13 * HOUR, FRIDAY - DAY + 15 * HOUR)
    assert len({event.id for event in events}) == len(events)
    assert {event.type for event in events} >= {
        "session.open.success",
        "session.close.success",
        "peer.join.success",
        "peer.leave.success",
        "peer.join.failure",
        "role.change.success",
        "beam.started.success",
        "beam.stopped.success",
        "beam.recording.success",
        "hls.started.success",
    }
    reasons = {event.data["reason"] for event in events if event.type == "peer.leave.success"}
    assert reasons == {"client request", "websocket closed", "ice connection state closed"}


def test_tells_of_the_last_second_quickly(company: Company) -> None:
    webhook_events(company, FRIDAY - SECOND, FRIDAY)
    begun = time.perf_counter()
    for tick in range(20):
        webhook_events(company, FRIDAY + (tick - 60) * SECOND, FRIDAY + tick * SECOND)
    assert (time.perf_counter() - begun) / 20 < 0.1
