"""The made-up company: the same for the same seed, busy at any hour, with a past, and bounded in memory."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import pytest
import requests

from exporter.simulator import (
    Company,
    RoomQuery,
    Session,
    SessionQuery,
    SimulatedApi,
    UnknownCursorError,
    management_token,
    truth_of,
)
from exporter.times import DAY, HOUR, MINUTE, SECOND
from tests.marks import first_quick

MONDAY = 20_500 * DAY  # 2026-02-16


def running(company: Company, now: int) -> list[Session]:
    return company.list_sessions(SessionQuery(limit=1000, active=True), now)


def ended(company: Company, now: int, days: int) -> list[Session]:
    return company.list_sessions(SessionQuery(limit=1_000_000, active=False, after=now - days * DAY), now)


@pytest.fixture(scope="module")
def week() -> list[Session]:
    """A week of ended sessions, up to Monday's first hour."""
    return ended(Company(7, MONDAY), MONDAY, 7)


def name_of(company: Company, session: Session) -> str:
    return next(room.name_at(MONDAY) for room in company.rooms if room.id == session.room_id)


@pytest.mark.slow
def test_is_the_same_for_the_same_seed_whenever_on_a_day_it_was_made_up() -> None:
    now = MONDAY + 10 * HOUR

    def shown(seed: int, made_up_at: int) -> list[bytes]:
        return [session.encoded(now) for session in ended(Company(seed, made_up_at), now, 1)]

    assert shown(1, now) == shown(1, MONDAY)
    assert shown(1, now) != shown(2, now)


@pytest.mark.parametrize("minute", first_quick(range(3, 7 * 24 * 60, 13 * 60 + 7), quick=2))
def test_has_life_within_ten_seconds_of_any_start(minute: int) -> None:
    start = MONDAY + minute * MINUTE
    company = Company(1, start)
    begin, end = running(company, start), running(company, start + 10 * SECOND)
    assert len({session.room_id for session in end}) >= 3
    came_or_went = [
        peer
        for session in {session.id: session for session in begin + end}.values()
        for peer in session.peers
        if start < peer.joined_at <= start + 10 * SECOND or start < (peer.recorded_at or 0) <= start + 10 * SECOND
    ]
    assert came_or_went
    assert sum(len(session.connected(start)) for session in begin) >= 5


@pytest.mark.slow
def test_starts_and_ends_calls_every_two_minutes_even_at_night(week: list[Session]) -> None:
    changes = sorted(moment for session in week for moment in (session.created_at, session.closed_at or 0))
    quiet = [later - earlier for earlier, later in pairwise(changes) if MONDAY - 6 * DAY < earlier < MONDAY - DAY]
    assert max(quiet) < 2 * MINUTE + 30 * SECOND


def test_never_has_two_calls_at_once_in_a_room(week: list[Session]) -> None:
    for room_id in {session.room_id for session in week}:
        calls = sorted((session for session in week if session.room_id == room_id), key=lambda session: session.created_at)
        assert all(earlier.closed_at is not None and earlier.closed_at <= later.created_at for earlier, later in pairwise(calls))


def test_keeps_to_the_platforms_limit_and_begins_each_call_on_its_day(week: list[Session]) -> None:
    assert max((session.closed_at or 0) - session.created_at for session in week) < 12 * HOUR
    assert all(int(session.id[:8], 16) == session.created_at // SECOND for session in week)


def test_has_rooms_for_patterns_over_names_and_one_that_is_disabled() -> None:
    company = Company(1, MONDAY)
    shown = company.list_rooms(RoomQuery(limit=100), MONDAY)
    names = {room.name_at(MONDAY) for room in shown}
    schools = [found["school"] for name in names if (found := re.fullmatch(r"class-(?P<school>[a-z]+)-.*", name))]
    assert Counter(schools) == {"north": 2, "south": 3, "online": 1}
    assert {"daily-standup", "product-webinar", "support-frontline", "all-hands"} < names
    assert 12 <= len(shown) <= 20
    assert 3 <= len({room.template for room in shown}) <= 6
    assert {room.region for room in shown} == {"in", "eu"}
    assert len(company.list_rooms(RoomQuery(limit=100, enabled=False), MONDAY)) == 1


def test_has_the_irregularities_of_real_calls(week: list[Session]) -> None:
    peers = [peer for session in week for peer in session.peers]
    assert any(peer.left_at is None for peer in peers), "ghosts"
    assert any(peer.left_at != peer.recorded_at for peer in peers), "late leaves"
    assert any([role for _, role in peer.roles][:2] == ["viewer", "stage"] for peer in peers), "called on stage"
    again = [Counter(peer.user_id for peer in session.peers) for session in week]
    assert any(max(stays.values(), default=0) > 1 for stays in again), "drop-offs"
    assert any(not peer.name.isascii() for peer in peers)
    names: dict[str, set[str]] = {}
    for peer in peers:
        names.setdefault(peer.user_id, set()).add(peer.name)
    assert all(len(known) == 1 for known in names.values()), "a person keeps name and id"


def test_has_a_webinar_with_hundreds_of_viewers_and_classes_with_one_teacher(week: list[Session]) -> None:
    company = Company(7, MONDAY)
    webinars = [session for session in week if name_of(company, session) == "product-webinar"]
    assert max(sum(peer.roles[0][1] == "viewer" for peer in session.peers) for session in webinars) > 200
    for session in week:
        if name_of(company, session).startswith("class-north"):
            assert len({peer.user_id for peer in session.peers if peer.roles[0][1] == "teacher"}) == 1


def test_has_one_forgotten_peer_alone_for_hours() -> None:
    now = MONDAY + 16 * HOUR
    company = Company(1, now)
    forgotten = [session for session in running(company, now) if len(session.connected(now)) == 1 and now - session.created_at > 10 * HOUR]
    assert [name_of(company, session) for session in forgotten] == ["office-wall-screen"]


def test_is_busier_by_day_and_quieter_at_weekends(week: list[Session]) -> None:
    by_day = [0] * 7
    for (_, _, day), us in truth_of(week, MONDAY).peer_us_by_day.items():
        if 0 <= (index := day - MONDAY // DAY + 7) < 7:
            by_day[index] += us
    assert max(by_day[5:]) < min(by_day[:5])
    hours = Counter((session.created_at // HOUR) % 24 for session in week)
    assert sum(hours[hour] for hour in range(9, 16)) > 1.2 * sum(hours[hour] for hour in (22, 23, 0, 1, 2, 3, 4))


def test_has_a_past_of_more_than_a_month_and_nothing_before() -> None:
    company = Company(1, MONDAY)
    standup = next(room.id for room in company.rooms if room.name_at(MONDAY) == "daily-standup")
    past = company.list_sessions(SessionQuery(limit=1000, active=False, room_id=standup), MONDAY)
    assert MONDAY - 41 * DAY < past[-1].created_at < MONDAY - 35 * DAY
    assert len(past) >= 25


def test_pages_meet_without_gap_or_overlap() -> None:
    now = MONDAY + HOUR
    company = Company(1, now)
    after = MONDAY - 3 * HOUR
    whole = [session.id for session in company.list_sessions(SessionQuery(limit=10_000, active=False, after=after), now)]
    pages: list[str] = []
    while page := company.list_sessions(SessionQuery(limit=37, active=False, after=after, start=pages[-1] if pages else None), now):
        pages += [session.id for session in page]
    assert pages == whole
    assert len(set(whole)) == len(whole) > 100
    with pytest.raises(UnknownCursorError):
        company.list_sessions(SessionQuery(limit=10, start="0" * 24), now)


def test_knows_each_session_by_its_id_once_it_has_begun() -> None:
    now = MONDAY + HOUR
    company = Company(1, now)
    session = running(company, now)[0]
    assert company.find_session(session.id, now) is session
    assert company.find_session(session.id, session.created_at - 1) is None
    assert company.find_session("unknown", now) is None
    assert company.list_sessions(SessionQuery(limit=10, id=session.id), now) == [session]
    assert company.list_sessions(SessionQuery(limit=10, id=session.id, active=False), now) == []


@pytest.mark.slow
def test_keeps_no_more_than_a_few_days_however_long_it_runs() -> None:
    company = Company(1, MONDAY)
    for day in range(8):
        running(company, MONDAY + day * DAY)
    assert len(company._days) <= 4 * len(company.rooms)


def test_begins_with_two_days_made_up_not_forty() -> None:
    company = Company(1, MONDAY + HOUR)
    assert len(company._days) == 0
    running(company, MONDAY + HOUR)
    assert {day for _, day in company._days} == {MONDAY // DAY, MONDAY // DAY - 1}


def test_is_served_over_http() -> None:
    now = MONDAY + 10 * HOUR
    company = Company(1, now)
    with SimulatedApi([company], clock=lambda: now) as api:
        headers = {"Authorization": f"Bearer {management_token(company, now)}"}
        page = requests.get(api.base_url + "/sessions", params={"active": "true"}, headers=headers, timeout=5).json()
        room = requests.get(f"{api.base_url}/rooms/{page['data'][0]['room_id']}", headers=headers, timeout=5).json()
    assert [session["id"] for session in page["data"]] == [session.id for session in running(company, now)][:10]
    assert room["name"]
