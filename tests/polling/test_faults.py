"""Faults of 100ms and of the network: each alone, in a burst, and all of them at random.

Each time: the poll is over in bounded time, `hms_up` and the error's code tell, no value is invented, the next good poll
recovers, and the totals are exact in the end.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from exporter.config.config import ApiConfig
from exporter.simulator import ABSENT, Fault, Manners, Session, Shape, World
from exporter.times import MINUTE, SECOND, rfc3339
from lab.bench import START as T0
from lab.bench import Bench
from lab.counters import Sums, sums, sums_of, true_sums

pytestmark = pytest.mark.slow

TIMEOUT = 0.25
QUICK = ApiConfig(timeout=TIMEOUT, page_size=10, max_requests_per_second=1000.0, max_retries=0)
PATIENT = ApiConfig(timeout=5.0, page_size=10, max_requests_per_second=1000.0, max_retries=0)
GAUGES = ("hms_sessions_active", "hms_peers_active", "hms_users_active", "hms_session_start_timestamp_seconds")


def world() -> World:
    """More than two pages of rooms, each with a call of 25 minutes, and short calls in between."""
    made = World("key", "secret-of-at-least-thirty-two-bytes!")
    rooms = [made.room(name=f"room-{index}", created_at=T0 - MINUTE) for index in range(24)]
    rng = random.Random(7)
    for index, room in enumerate(rooms):
        script(made.open(room.id, T0 - index * SECOND), 1500, rng)
    for _ in range(60):
        script(made.open(rng.choice(rooms).id, T0 + rng.randrange(1200 * SECOND)), rng.choice((5, 20, 70, 250)), rng)
    return made


def script(session: Session, length: int, rng: random.Random) -> None:
    """Scripts a call: peers come and go, one changes its role, and one is left as a ghost."""
    end = session.created_at + length * SECOND
    for index in range(rng.randrange(1, 6)):
        joined = rng.randrange(session.created_at, end - SECOND)
        peer = session.join(rng.choice(("host", "guest")), joined, user_id=f"user-{rng.randrange(4)}")
        if index == 1:
            peer.change_role("speaker", rng.randrange(joined, end))
        elif index != 2:
            peer.leave(rng.randrange(joined, end + 1))
    session.close(end)


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    """An exporter that has polled that world three times, half a minute apart."""
    with Bench(tmp_path, world(), runs=True, api=PATIENT) as made:
        for _ in range(3):
            assert good(made)
            made.clock.leap(30)
        yield made


def up(found: dict[str, float]) -> bool:
    return found['hms_up{workspace="w"}'] == 1


def good(bench: Bench) -> bool:
    return up(bench.poll())


def truth(bench: Bench) -> dict[str, Sums]:
    return true_sums(bench.world.truth(bench.clock()))


def answered(found: dict[str, float], code: str) -> float:
    """The number of requests that ended with this code."""
    return sum(
        value for series, value in found.items() if series.startswith("hms_exporter_api_requests_total") and f'code="{code}"' in series
    )


def rejected(found: dict[str, float], kind: str) -> float:
    """The number of rejected records of this kind."""
    return found[f'hms_exporter_records_rejected_total{{kind="{kind}",workspace="w"}}']


def gauges(found: dict[str, float]) -> dict[str, float]:
    return {series: value for series, value in found.items() if series.startswith(GAUGES)}


def invents_nothing(bench: Bench, found: dict[str, float]) -> None:
    """No counter is ahead of the truth, and no counter has fallen."""
    assert bench.watcher.falls == []
    limits = truth(bench)
    for room, seen in sums(found).items():
        assert all(value <= limit for value, limit in ((seen[name], limit) for name, limit in limits.get(room, sums_of()).items())), room


def finish(bench: Bench) -> None:
    """Ends everything.  The page equals the truth, and each session and stay is in the histograms once."""
    settle(bench)
    found, expected = bench.look(), truth(bench)
    assert sums(found) == expected
    ended, left = (sum(room[name] for room in expected.values()) for name in ("hms_sessions_ended_total", "hms_peers_left_total"))
    assert published(found, "hms_session_duration_seconds_count") == published(found, "hms_session_peers_count") == ended
    assert published(found, "hms_session_peers_sum") == published(found, "hms_peer_duration_seconds_count") == left


def published(found: dict[str, float], name: str) -> float:
    """The sum over all series of this name."""
    return sum(value for series, value in found.items() if series.partition("{")[0] == name)


def present(bench: Bench) -> dict[str, tuple[int, int]]:
    """The true number of running sessions and connected peers, by room id."""
    now, found = bench.clock(), dict[str, tuple[int, int]]()
    for session in bench.world.sessions:
        sessions, peers = found.get(session.room_id, (0, 0))
        if session.active(now):
            found[session.room_id] = (sessions + 1, peers + len(session.connected(now)))
    return found


def shown(found: dict[str, float]) -> dict[str, tuple[float, float]]:
    """The published number of active sessions and peers, by room id."""
    rooms = {room[1] for series in found if series.startswith("hms_sessions_active{") and (room := re.search(r'room_id="([^"]*)"', series))}
    return {room: (of(found, "hms_sessions_active", room), of(found, "hms_peers_active", room)) for room in rooms}


def of(found: dict[str, float], name: str, room: str) -> float:
    return sum(value for series, value in found.items() if series.startswith(f"{name}{{") and f'room_id="{room}"' in series)


def settle(bench: Bench) -> None:
    """Waits until everything has ended and has been read."""
    bench.server.faults.clear()
    bench.use(bench.ask_here(PATIENT))
    bench.clock.leap(3600)
    bench.poll()
    assert good(bench)
    assert bench.watcher.falls == []


@dataclass(frozen=True)
class Case:
    """A fault, the code of its requests, and whether a poll succeeds when the fault strikes `once` or `always`."""

    fault: Fault
    code: str
    once: bool = False
    always: bool = False
    seconds: float = 5.0


def status(number: int, retry_after: str | None = None, message: str | None = None) -> Case:
    # A refused token is replaced at once.
    return Case(Fault(kind="status", status=number, retry_after=retry_after, message=message), str(number), once=number in (401, 403))


CASES = {
    **{str(number): status(number) for number in (400, 401, 403, 404, 408, 429, 500, 502, 503, 504)},
    "429 for 30 s": status(429, "30"),
    "429 until a date": status(429, "date+30"),
    "429 for nonsense": status(429, "soon, \x80"),
    "429 for a day": status(429, "86400"),
    "429 in words": status(429, None, "try again in 5 seconds"),
    "503 as a page": Case(Fault(kind="status", status=503, html=True), "503"),
    "stall": Case(Fault(kind="stall", seconds=60), "timeout"),
    "reset": Case(Fault(kind="reset"), "connection"),
    "reset in the headers": Case(Fault(kind="reset_in_headers"), "connection"),
    "reset in the body": Case(Fault(kind="reset_in_body"), "connection"),
    "trickling headers": Case(Fault(kind="trickle_headers", seconds=0.05), "timeout"),
    "trickling body": Case(Fault(kind="trickle_body", seconds=0.05), "timeout"),
    "cut short": Case(Fault(kind="cut_short"), "connection"),
    "HTML": Case(Fault(kind="html"), "malformed"),
    "wrong types": Case(Fault(kind="wrong_types"), "malformed"),
    "invalid UTF-8": Case(Fault(kind="invalid_utf8", route="/sessions"), "200", once=True, always=True),
    "a swarm of records": Case(Fault(kind="body", body='{"data": [' + "{}," * 1_000_000 + "{}]}"), "malformed"),
    "deep nesting": Case(Fault(kind="deep_nesting"), "malformed"),
    "repeated cursor": Case(Fault(kind="repeated_cursor"), "200", once=True),
    "endless pages": Case(Fault(kind="endless_pages"), "200"),
    "repeated item": Case(Fault(kind="repeated_item"), "200", once=True, always=True),
    "redirect to itself": Case(Fault(kind="redirect"), "302", once=True),
    "redirect elsewhere": Case(Fault(kind="redirect", location="http://localhost:1/v2/sessions"), "302"),
    "no date": Case(Fault(kind="no_date"), "200", once=True, always=True),
    "not a list": Case(Fault(kind="body", body="[1, 2]"), "malformed"),
    "empty": Case(Fault(kind="body", body=""), "malformed"),
    "null": Case(Fault(kind="body", body="null"), "malformed"),
    "a number out of range": Case(Fault(kind="body", body='{"limit": 1e999, "data": []}'), "malformed"),
    "a number of a thousand digits": Case(Fault(kind="body", body='{"limit": ' + "9" * 1000 + "}"), "malformed"),
    "a body of a gigabyte": Case(Fault(kind="huge_body", size=1 << 30), "malformed", seconds=15.0),
    "a gigabyte in a small gzip": Case(Fault(kind="gzip_bomb", size=1 << 30), "malformed", seconds=15.0),
}


def struck(bench: Bench, case: Case) -> dict[str, float]:
    """A poll under the fault: it ends in bounded time and invents nothing."""
    before = bench.look()
    # Timeouts are short only where the test needs it, because the machine may be slow.
    bench.use(bench.ask_here(QUICK if case.code == "timeout" else PATIENT))
    seen, begun, started = shown(before), present(bench), time.monotonic()
    found = bench.poll()
    bench.use(bench.ask_here(PATIENT))
    assert time.monotonic() - started < case.seconds
    ended = present(bench)
    for room, gauges_of_room in shown(found).items():
        # The present value or, where the room could not be read, the previous one.
        possible = [known.get(room, (0, 0)) for known in (seen, begun, ended)]
        assert all(value <= max(most) for value, most in zip(gauges_of_room, zip(*possible, strict=True), strict=True)), room
    assert answered(found, case.code) > answered(before, case.code) or case.once
    invents_nothing(bench, found)
    if not up(found) and case.fault.times is None and case.code != "200":
        assert gauges(found) == gauges(before)  # nothing could be read: everything stays as it was
    return found


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_each_fault_alone_in_a_burst_and_the_recovery(bench: Bench, case: Case) -> None:
    strikes = bench.server.faults
    strikes.add(Fault(**{name: getattr(case.fault, name) for name in Fault.__struct_fields__} | {"times": 1}))
    assert up(struck(bench, case)) == case.once
    strikes.clear()
    bench.clock.leap(30)
    assert good(bench)
    bench.clock.leap(30)
    strikes.add(case.fault)
    for _ in range(2):
        assert up(struck(bench, case)) == case.always
        bench.clock.leap(30)
    strikes.clear()
    assert good(bench)
    finish(bench)


@pytest.mark.parametrize("name", ["a body of a gigabyte", "a gigabyte in a small gzip"])
def test_a_gigabyte_takes_no_more_memory_than_an_answer_may(bench: Bench, name: str) -> None:
    bench.server.faults.add(CASES[name].fault)
    tracemalloc.start()
    try:
        assert not up(bench.poll())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 160 << 20
    bench.server.faults.clear()
    assert good(bench)


@dataclass(frozen=True)
class Wait:
    """A fault, and the retries and seconds of throttling that it causes in a poll of four seconds with two retries."""

    fault: Fault
    retries: int
    least: float = 0.0
    most: float = 0.0


WAITS = {
    **{name: Wait(case.fault, 2 if "nonsense" in name else 0) for name, case in CASES.items() if name.startswith("429 ")},
    "503 for 30 s": Wait(Fault(kind="status", status=503, retry_after="30"), 0),
    "500 for 30 s": Wait(Fault(kind="status", status=500, retry_after="30"), 2),
    "429 for 1 s": Wait(Fault(kind="status", status=429, retry_after="1"), 2, 2.0, 2.5),
    "503 for 1 s": Wait(Fault(kind="status", status=503, retry_after="1"), 2, 2.0, 2.5),
    "429 until a date soon": Wait(Fault(kind="status", status=429, retry_after="date+1"), 2, 0.0, 2.5),
    "429 in words for 1 s": Wait(Fault(kind="status", status=429, message="try again in 1 seconds"), 2, 2.0, 2.5),
    "429 for 1 s, once": Wait(Fault(kind="status", status=429, retry_after="1", times=1), 1, 1.0, 1.3),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_poll_waits_as_long_as_100ms_asks_within_its_patience_and_no_longer(tmp_path: Path, wait: Wait) -> None:
    made = world()
    with Bench(tmp_path, made, runs=True, api=replace(PATIENT, timeout=2.0, max_retries=2), interval=4.0) as bench:
        assert good(bench)
        bench.clock.leap(30)
        bench.server.faults.add(wait.fault)
        before, started = bench.look(), time.monotonic()
        found = bench.poll()
        assert time.monotonic() - started < 4.5
        assert up(found) == (wait.fault.times == 1)
        invents_nothing(bench, found)
        retries, throttled = (
            published(found, name) - published(before, name)
            for name in ("hms_exporter_api_retries_total", "hms_exporter_api_throttled_seconds_total")
        )
        assert retries == wait.retries
        assert wait.least <= throttled <= wait.most
        finish(bench)


class AlwaysMore(BaseHTTPRequestHandler):
    """A 100ms whose list never ends: each page holds ten new sessions."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    pages = itertools.count()

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        page = next(self.pages)
        fields = {"active": True, "created_at": rfc3339(T0), "peers": {}}
        sessions = [{"id": f"{page}-{number}", "room_id": f"room-{page % 100}", **fields} for number in range(10)]
        body = json.dumps({"limit": 10, "data": sessions, "last": f"{page}-9"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.slow
def test_a_list_that_always_has_another_page_with_something_new_ends_the_poll_in_time(bench: Bench) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), AlwaysMore) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        try:
            before, started = bench.look(), time.monotonic()
            bench.use(replace(PATIENT, base_url=f"http://127.0.0.1:{server.server_port}/v2"))
            found = bench.poll()
            assert time.monotonic() - started < 30
        finally:
            server.shutdown()
    assert not up(found)
    # Two endless lists, cut off after 2,000 pages each.  Also a window and a single session that are read once more, and up to
    # three calls to decide between two `Date`s, because the API's clock has changed with the server.
    assert 4000 <= answered(found, "200") - answered(before, "200") <= 4000 + 1 + 1 + 3
    assert bench.watcher.falls == []


def refused(bench: Bench) -> Callable[[], None]:
    bench.server.stop()
    return bench.server.start


def no_such_host(bench: Bench) -> Callable[[], None]:
    bench.use(ApiConfig(base_url="http://no-such-host.invalid/v2", timeout=2.0, max_retries=0))
    return lambda: bench.use(bench.ask_here())


def no_tls(bench: Bench) -> Callable[[], None]:
    bench.use(ApiConfig(base_url=bench.server.base_url.replace("http:", "https:"), timeout=2.0, max_retries=0))
    return lambda: bench.use(bench.ask_here())


@pytest.mark.parametrize("break_it", [refused, no_such_host, no_tls])
def test_an_api_that_cannot_be_connected_to(bench: Bench, break_it: Callable[[Bench], Callable[[], None]]) -> None:
    mend = break_it(bench)
    for _ in range(3):
        before = bench.look()
        found = bench.poll()
        assert not up(found)
        assert answered(found, "connection") > answered(before, "connection")
        assert sums(found) == sums(before)
        bench.clock.leap(30)
    mend()
    assert good(bench)
    finish(bench)


def test_gauges_disappear_after_three_intervals_without_a_good_poll_and_counters_stay(bench: Bench) -> None:
    from exporter.publish.exposition import Exposition

    bench.server.faults.add(Fault(kind="status", status=500))
    found = bench.poll()
    later = Exposition(lambda fmt, names: (), lambda: time.monotonic() + 3 * 30 + 1)
    later.publish("w", bench.poller._publisher._sections)
    page = b"".join(later.page("", "").chunks).decode()
    assert gauges(found)
    assert "hms_peers_active" not in page
    assert sums(bench.watcher.look(page)) == sums(found)


def test_records_in_invalid_utf8_cost_themselves_and_spoil_nothing(bench: Bench) -> None:
    before = sums(bench.look())
    bench.server.faults.add(Fault(kind="invalid_utf8", route="/sessions"))
    asked = answered(bench.look(), "200")
    found = bench.poll()
    assert up(found)
    assert answered(found, "200") > asked
    invents_nothing(bench, found)
    assert all(
        seen["hms_peer_seconds_total"] >= before[room]["hms_peer_seconds_total"] for room, seen in sums(found).items() if room in before
    )
    assert rejected(found, "session") >= 1
    bench.server.faults.clear()
    assert good(bench)
    finish(bench)


# -- a date that is wrong ---------------------------------------------------------------------------------------------


def tell_wrong_dates(bench: Bench, seconds: float) -> None:
    """Two polls in which every answer has a wrong date."""
    for _ in range(2):
        bench.server.faults.add(Fault(kind="wrong_date", seconds=seconds))
        bench.poll()
        bench.clock.leap(30)
        bench.server.faults.clear()
        bench.poll()
        bench.clock.leap(30)


WRONG = [-86400, -3600, -60, 60, 3600, 86400]


@pytest.mark.parametrize("seconds", WRONG)
def test_one_answer_with_a_wrong_date_is_not_believed_and_changes_nothing(bench: Bench, seconds: float) -> None:
    """The clock leaps between polls, so a wrong `Date` contradicts a right one only within the same poll."""
    bench.poll()
    for _ in range(3):
        bench.server.faults.add(Fault(kind="wrong_date", seconds=seconds, times=1))
        invents_nothing(bench, bench.poll())
        bench.server.faults.clear()
    finish(bench)


@pytest.mark.parametrize("seconds", [-86400, -3600, -60])
def test_answers_dated_too_early_let_no_counter_fall_and_lose_nothing(bench: Bench, seconds: float) -> None:
    tell_wrong_dates(bench, seconds)
    finish(bench)


@pytest.mark.parametrize("seconds", [60, 86400])
def test_answers_dated_too_late_are_believed_and_time_credited_too_early_is_made_up_for(bench: Bench, seconds: float) -> None:
    """Running totals are ahead by the error and stand still until the truth has caught up."""
    tell_wrong_dates(bench, seconds)
    settle(bench)
    expected = truth(bench)
    for room, found in bench.totals().items():
        assert found == expected[room]


def test_answers_dated_an_hour_too_late_cost_at_most_calls_that_pass_between_two_polls_of_that_hour(bench: Bench) -> None:
    """Everything counts as read up to the wrong time. Until then only calls that are seen running count."""
    tell_wrong_dates(bench, 3600)
    settle(bench)
    expected = truth(bench)
    for room, found in bench.totals().items():
        assert found["hms_sessions_started_total"] == found["hms_sessions_ended_total"] <= expected[room]["hms_sessions_started_total"]
        whole = expected[room]["hms_session_seconds_total"]
        assert whole - 250 * SECOND <= found["hms_session_seconds_total"] <= whole


# -- sessions that move, vanish, contradict themselves ----------------------------------------------------------------


def test_sessions_that_move_between_pages_while_they_are_read_are_counted_once(tmp_path: Path) -> None:
    """Calls begin and end during each request, so pages shift: items are seen twice or missed."""
    made = World("key", "secret-of-at-least-thirty-two-bytes!")
    rooms = [made.room(name=f"room-{index}", created_at=T0 - MINUTE) for index in range(5)]
    rng = random.Random(3)
    with Bench(tmp_path, made, runs=True, api=PATIENT) as bench:
        for index in range(100):
            begin = bench.clock() + index * SECOND // 40
            session = made.open(rooms[index % 5].id, begin)
            session.join("guest", begin)
            session.close(begin + rng.randrange(SECOND // 5, 2 * SECOND))
        bench.server.faults.add(Fault(kind="stall", seconds=0.02))
        while len(sums(bench.look())) < 5 or not all((session.closed_at or 0) < bench.clock() for session in made.sessions):
            assert good(bench)
        finish(bench)


def test_a_session_that_vanishes_is_settled_after_the_third_poll_as_it_was_last_seen(bench: Bench) -> None:
    room = bench.world.room(name="gone", created_at=bench.clock())
    session = bench.world.open(room.id, bench.clock())
    session.join("guest", bench.clock())
    bench.clock.leap(30)
    assert good(bench)
    seen = sums(bench.look())[room.id]
    assert seen["hms_peer_seconds_total"] > 29 * SECOND
    session.vanish(bench.clock())
    for polls in (1, 2, 3, 4, 5):
        bench.clock.leap(30)
        assert good(bench)
        over = polls >= 3
        assert sums(bench.look())[room.id] == {**seen, "hms_sessions_ended_total": over, "hms_peers_left_total": over}, polls
    bench.restart()
    assert sums(bench.look())[room.id] == {**seen, "hms_sessions_ended_total": 1, "hms_peers_left_total": 1}


def test_a_session_that_vanishes_for_two_polls_and_comes_back_loses_nothing(bench: Bench) -> None:
    session = max(bench.world.sessions, key=lambda known: known.closed_at or 0)
    session.vanish(bench.clock())
    for _ in range(2):
        bench.clock.leap(30)
        assert good(bench)
    session.vanish(bench.clock() + 100_000 * SECOND)
    assert good(bench)
    finish(bench)


ODD: dict[str, list[object]] = {
    "id": [None, 5, [], {}, True, "", ABSENT],
    "room_id": [None, 5, [], {}, True, "", ABSENT],
    "active": [5, "yes", [], {}, "true"],
    "created_at": [
        None, 5, [], "", "yesterday", "2026-13-45T25:61:61Z", "2026-03-02", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z",
        "1969-12-31T23:59:59Z", 1e308, -1, 2**70, ABSENT,
    ],
    "peers": [5, "x", True, [[]], [5, None], {"a": 5, "b": None}, {"": {}}, 1e308, -(2**63)],
    "updated_at": [5, [], "", "yesterday", 1e308, "10000-01-01T00:00:00Z"],
}  # fmt: skip
ODD_PEER: dict[str, list[object]] = {
    "joined_at": [*ODD["created_at"]],
    "left_at": [5, [], "", "yesterday", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59Z", "2020-01-01T00:00:00Z", 1e308, -1],
    "role": [5, [], {}, True, 1e308],
    "user_id": [[], {}, True, 1e308, 2**70],
    "id": [5, [], {}, True],
}


@pytest.mark.parametrize("field", ODD)
def test_a_session_whose_record_is_wrong_for_a_while_costs_itself_and_is_exact_in_the_end(bench: Bench, field: str) -> None:
    running = [session for session in bench.world.sessions if session.active(bench.clock())]
    for value in ODD[field]:
        running[0].raw = {field: value}
        running[-1].raw = {field: value}
        found = bench.poll()
        # An answer that is not the session that was asked for is a failed request, not a malformed record.
        assert up(found) == (field != "id"), (field, value)
        invents_nothing(bench, found)
        bench.clock.leap(5)
    assert rejected(found, "peer" if field == "peers" else "session") > 0
    for session in running:
        session.raw = {}
    assert good(bench)
    finish(bench)


@pytest.mark.parametrize("field", ODD_PEER)
def test_a_peer_whose_record_is_wrong_for_a_while_costs_itself_and_is_exact_in_the_end(bench: Bench, field: str) -> None:
    running = [session for session in bench.world.sessions if session.active(bench.clock()) and session.connected(bench.clock())]
    for value in ODD_PEER[field]:
        for session in running[:3]:
            for peer in session.connected(bench.clock())[:1]:
                peer.raw = {field: value}
        found = bench.poll()
        assert up(found), (field, value)
        assert bench.watcher.falls == []
        for session in running[:3]:
            for peer in session.peers:
                peer.raw = {}
        bench.clock.leap(2)
    assert rejected(found, "peer") > 0
    assert good(bench)
    finish(bench)


@pytest.mark.parametrize("shape", ["object", "list"])
def test_the_same_peer_twice_in_a_record_is_one_peer(bench: Bench, shape: str) -> None:
    now = bench.clock()
    session = next(session for session in bench.world.sessions if session.active(now) and len(session.peers) > 1)
    session.shape = Shape(peers="list")
    peers = session.record(now)["peers"]
    session.raw = {"peers": [*peers, *peers] if shape == "list" else {f"{n}": peer for n, peer in enumerate([*peers, *peers])}}
    assert good(bench)
    assert sums(bench.look())[session.room_id]["hms_peers_joined_total"] <= truth(bench)[session.room_id]["hms_peers_joined_total"]
    session.raw = {}
    finish(bench)


@pytest.mark.parametrize(
    ("session_fields", "peer_fields"),
    [({"updated_at": "2020-01-01T00:00:00Z", "active": False}, {}), ({}, {"left_at": "2020-01-01T00:00:00Z"})],
    ids=["it ended before it started", "a peer left before it joined"],
)
def test_a_record_that_contradicts_itself_costs_itself_and_counts_once_it_makes_sense(
    bench: Bench, session_fields: dict[str, object], peer_fields: dict[str, object]
) -> None:
    now = bench.clock()
    session = next(session for session in bench.world.sessions if session.connected(now) and session.active(now + 300 * SECOND))
    session.raw = session_fields
    session.connected(now)[0].raw = peer_fields
    for _ in range(5):
        found = bench.poll()
        assert up(found)
        invents_nothing(bench, found)
        bench.clock.leap(30)
    kind = "session" if session_fields else "peer"
    assert rejected(found, kind) == 1
    session.raw = {}
    for peer in session.peers:
        peer.raw = {}
    finish(bench)


# -- at random --------------------------------------------------------------------------------------------------------

RANDOM = [case.fault for name, case in CASES.items() if "gigabyte" not in name]


def run_at_random(folder: Path, seed: int, polls: int) -> None:
    rng = random.Random(seed)
    with Bench(
        folder, world(), runs=True, api=ApiConfig(timeout=0.15, page_size=20, max_requests_per_second=1000.0, max_retries=0), seed=seed
    ) as bench:
        bench.server.manners = Manners(
            max_page_size=rng.choice((10, 20, 100)),
            oversize=rng.choice(("refuse", "lower")),
            empty_data=rng.choice(("null", "list")),
            final_last=rng.choice(("id", "empty", "absent")),
        )
        # On a busy machine an answer may take longer than this short timeout.
        assert any(good(bench) for _ in range(20))
        for _ in range(polls):
            bench.server.faults.clear()
            for fault in rng.sample(RANDOM, rng.randrange(4)):
                chance = {"probability": rng.choice((0.2, 0.5, 1.0)), "times": rng.choice((1, 3, None)), "after": rng.randrange(3)}
                bench.server.faults.add(Fault(**{name: getattr(fault, name) for name in Fault.__struct_fields__} | chance))
            bench.names = rng.random() < 0.5
            invents_nothing(bench, bench.poll())
            bench.names = True
            if rng.random() < 0.1:
                bench.restart()
                invents_nothing(bench, bench.look())
            bench.clock.leap(rng.choice((1, 10, 30, 60)))
        finish(bench)


@pytest.mark.parametrize("seed", [1, 2])
def test_faults_at_random_lose_nothing_and_count_nothing_twice(tmp_path: Path, seed: int) -> None:
    run_at_random(tmp_path, seed, polls=40)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 20))
def test_more_faults_at_random_lose_nothing_and_count_nothing_twice(tmp_path: Path, seed: int) -> None:
    run_at_random(tmp_path, seed, polls=60)
