"""Records as the API writes them: every form is read, and an invalid record or peer is rejected alone."""

from __future__ import annotations

import contextlib
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.hms.errors import MalformedAnswer
from exporter.hms.pages import MOST_RECORDS, decode_page
from exporter.hms.records import (
    MOST_BAD_PEERS,
    MOST_PEERS,
    Rejection,
    Room,
    Session,
    Stay,
    decode_room,
    decode_session,
    plain,
    record_id,
)
from exporter.simulator import Shape, World
from exporter.times import DAY, HOUR, SECOND, rfc3339
from tests.harness import T0, at, peer
from tests.harness import session as session_record
from tests.marks import first_quick

NOW = at(3600)
ZERO = "0001-01-01T00:00:00Z"
ABSENT = object()


def record(**fields: object) -> bytes:
    """An ended session of half an hour, with these fields replaced."""
    whole: dict[str, object] = {
        "id": "s1",
        "room_id": "r1",
        "active": False,
        "peers": {},
        "created_at": rfc3339(T0),
        "updated_at": rfc3339(at(1800)),
    }
    return json.dumps({key: value for key, value in {**whole, **fields}.items() if value is not ABSENT}).encode()


def read(raw: bytes) -> Session:
    """A session that must be read without any rejection."""
    found, rejections = decode_session(raw, NOW)
    assert rejections == []
    assert found is not None
    return found


def one_peer(**fields: object) -> dict[str, Any]:
    return {"p1": {**peer(at(10), at(20), "host", "u1"), "id": "p1", **fields}}


# -- sessions -----------------------------------------------------------------------------------------------------


def test_an_ended_session_is_read_whole() -> None:
    found = read(record(peers={"p1": peer(at(10), at(20), "host", "u1")}, customer_id="c", app_id="a", unknown_field=[{}]))
    assert found == Session("s1", "r1", T0, at(1800), {"p1": Stay(at(10), at(20), "host")}, {})


def test_a_running_session_has_no_end_and_counts_the_users_that_are_connected() -> None:
    peers = {"p1": peer(at(1), user="u1"), "p2": peer(at(2), user="u1"), "p3": peer(at(3), user="u2"), "p4": peer(at(4), at(5), user="u3")}
    found = read(record(active=True, peers=peers))
    assert found.ended is None
    assert [len(users) for users in found.users.values()] == [2]


@pytest.mark.parametrize("kind", ["object", "list", "null", "absent"])
def test_peers_come_as_an_object_a_list_null_or_not_at_all(kind: str) -> None:
    peers: Any = {"object": one_peer(), "list": list(one_peer().values()), "null": None, "absent": ABSENT}[kind]
    expected = {"p1": Stay(at(10), at(20), "host")} if kind in ("object", "list") else {}
    assert read(record(peers=peers)).stays == expected


def test_old_peers_without_ids_are_told_apart_by_their_keys_in_an_object() -> None:
    found = read(record(peers={"k1": peer(at(1), at(2)), "k2": peer(at(1), at(2))}))
    assert sorted(found.stays) == ["k1", "k2"]


def test_old_peers_without_ids_in_a_list_keep_their_identity_from_poll_to_poll() -> None:
    """A peer that joins later, or two that join at the same moment, are not confused."""
    early = [peer(at(1), role="a"), peer(at(1), role="b"), peer(at(7), role="c")]
    before, after = read(record(peers=early, active=True)), read(record(peers=[*early, peer(at(9), role="d")], active=True))
    assert {key: stay.role for key, stay in before.stays.items()} == {
        key: stay.role for key, stay in after.stays.items() if stay.role != "d"
    }
    assert len(after.stays) == 4


@pytest.mark.parametrize("missing", [ABSENT, None, ZERO])
def test_no_time_of_leaving_is_said_in_three_ways(missing: object) -> None:
    fields = {key: value for key, value in {**peer(at(10)), "left_at": missing}.items() if value is not ABSENT}
    assert read(record(active=True, peers={"p": fields})).stays == {"p": Stay(at(10), None, "guest")}


@pytest.mark.parametrize("digits", range(10))
def test_times_have_up_to_nine_fractional_digits(digits: int) -> None:
    text = ("2026-02-11T04:43:46." + "123456789"[:digits]).rstrip(".") + "Z"
    found = read(record(created_at=text))
    whole = 1_770_785_026 * SECOND
    assert found.started == whole + round(int("123456789"[:digits].ljust(9, "0")) / 1000)


def test_a_time_in_another_zone_is_the_same_moment() -> None:
    assert read(record(created_at="2026-03-02T13:30:00+05:30")).started == T0


@pytest.mark.parametrize("updated", [ABSENT, None, ZERO])
def test_an_ended_session_without_its_end_ended_with_the_last_who_left(updated: object) -> None:
    peers = {"p1": peer(at(1), at(50)), "p2": peer(at(2), at(90)), "ghost": peer(at(3))}
    assert read(record(updated_at=updated, peers=peers)).ended == at(90)


@pytest.mark.parametrize("old_peers", [True, False])
@pytest.mark.parametrize("connected", ["absent", "null", "zero"])
@pytest.mark.parametrize("peers", ["object", "list"])
def test_the_shape_of_a_record_makes_no_difference(
    peers: Literal["object", "list"], connected: Literal["absent", "null", "zero"], old_peers: bool
) -> None:
    def stays(of: Shape) -> list[tuple[int, int | None, str]]:
        world = World("k", "s" * 32, shape=of)
        call = world.open(world.room(id="r").id, at=T0, id="s")
        call.join("host", at=at(1))
        call.join("guest", at=at(2.5)).leave(at(9.123456))
        return sorted((s.joined, s.left or 0, s.role) for s in read(call.encoded(NOW)).stays.values())

    assert stays(Shape(peers, 6, connected, old_peers)) == stays(Shape())


@pytest.mark.parametrize("role", [None, ABSENT, ""])
def test_a_peer_without_a_role_is_counted_as_unknown(role: object) -> None:
    fields = {key: value for key, value in {**peer(at(10), at(20)), "role": role}.items() if value is not ABSENT}
    assert read(record(peers={"p": fields})).stays["p"].role == "unknown"


def test_a_user_id_may_be_a_number_and_no_user_id_is_nobody() -> None:
    peers = {
        "p1": {**peer(at(1)), "user_id": 7},
        "p2": {**peer(at(1)), "user_id": 7},
        "p3": {**peer(at(1)), "user_id": ""},
        "p4": {**peer(at(1)), "user_id": None},
    }
    assert [len(users) for users in read(record(active=True, peers=peers)).users.values()] == [1]


def test_neither_names_nor_user_ids_are_kept() -> None:
    found = read(record(active=True, peers={"p1": {**peer(at(1), user="canary-user"), "name": "canary-name", "metadata": "canary-data"}}))
    assert "canary" not in repr(found)


# -- invalid records ----------------------------------------------------------------------------------------------

BAD_SESSIONS = {
    "not an object": b"7",
    "null": b"null",
    "no id": record(id=ABSENT),
    "an empty id": record(id=""),
    "an id that is a number": record(id=7),
    "no room": record(room_id=ABSENT),
    "an empty room": record(room_id=""),
    "no start": record(created_at=ABSENT),
    "a start that is null": record(created_at=None),
    "a start that is zero": record(created_at=ZERO),
    "a start that is no time": record(created_at="yesterday"),
    "a start without its zone": record(created_at="2026-03-02T08:00:00"),
    "a start that is a number": record(created_at=1772438400),
    "a start before the platform": record(created_at="1999-01-01T00:00:00Z"),
    "a start far in the future": record(created_at=rfc3339(NOW + 3 * DAY)),
    "a start on a day that does not exist": record(created_at="2026-02-30T00:00:00Z"),
    "an end before its start": record(updated_at=rfc3339(T0 - 1)),
    "an end far in the future": record(updated_at=rfc3339(NOW + 3 * DAY)),
    "an end that is no time": record(updated_at="soon"),
    "no end and nobody who left": record(updated_at=ABSENT, peers={"p": peer(at(1))}),
    "activity that is a word": record(active="yes"),
    "half an id, then nonsense": b'{"id": "s1", "room_id": \xff}',
    "deep nesting": b'{"id": "s1", "room_id": "r", "peers": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
}


@pytest.mark.parametrize("what", BAD_SESSIONS)
def test_a_session_that_makes_no_sense_is_rejected(what: str) -> None:
    found, rejections = decode_session(BAD_SESSIONS[what], NOW)
    assert found is None
    assert [rejection.kind for rejection in rejections] == ["session"]


@pytest.mark.parametrize("what", BAD_SESSIONS)
def test_a_rejected_session_has_the_same_identity_each_time(what: str) -> None:
    first, second = (decode_session(BAD_SESSIONS[what], now)[1][0] for now in (NOW, NOW + SECOND))
    assert first.identity == second.identity


BAD_PEERS: dict[str, object] = {
    "not an object": 7,
    "null": None,
    "no time of joining": {"role": "host"},
    "a time of joining that is null": {"role": "host", "joined_at": None},
    "a time of joining that is zero": {"role": "host", "joined_at": ZERO},
    "a time of joining that is no time": {"role": "host", "joined_at": "noon"},
    "a time of joining days before the session": peer(T0 - 2 * DAY, at(5)),
    "a time of joining far in the future": peer(NOW + 3 * DAY),
    "a leave before the join": peer(at(20), at(10)),
    "a leave far in the future": peer(at(20), NOW + 3 * DAY),
    "a leave that is no time": {**peer(at(20)), "left_at": "later"},
    "a role that is a list": {**peer(at(20)), "role": ["host"]},
    "an id that is an object": {**peer(at(20)), "id": {}},
}


@pytest.mark.parametrize("what", BAD_PEERS)
@pytest.mark.parametrize("as_list", [False, True])
def test_a_peer_that_makes_no_sense_costs_itself_alone(what: str, as_list: bool) -> None:
    good = {"id": "p1", **peer(at(10), at(20))}
    peers: Any = [good, BAD_PEERS[what]] if as_list else {"p1": good, "p2": BAD_PEERS[what]}
    found, rejections = decode_session(record(peers=peers), NOW)
    assert found is not None
    assert found.stays == {"p1": Stay(at(10), at(20), "guest")}
    assert [(rejection.kind, rejection.subject) for rejection in rejections] == [("peer", "s1 peer 2")]


def test_peers_that_are_neither_object_nor_list_cost_the_peers_and_not_the_session() -> None:
    found, rejections = decode_session(record(peers="nobody"), NOW)
    assert found is not None
    assert found.stays == {}
    assert [rejection.kind for rejection in rejections] == ["peer"]


def test_a_rejection_says_what_was_wrong_and_shows_nothing_of_the_record() -> None:
    bad = {"canary-key": {**peer(at(20), at(10), "canary-role", "canary-user"), "id": "canary-peer", "name": "canary-name"}}
    for raw in (record(peers=bad), record(peers={"canary-key": {"name": "canary-name", "joined_at": "canary-time"}})):
        _, rejections = decode_session(raw, NOW)
        assert len(rejections) == 1
        assert "canary" not in rejections[0].subject + rejections[0].reason
    _, rejections = decode_session(record(id="canary name\nof a person", created_at="canary-time"), NOW)
    assert "canary" not in rejections[0].subject + rejections[0].reason


def test_an_id_is_read_though_the_rest_makes_no_sense() -> None:
    assert record_id(record(created_at=7)) == "s1"
    assert record_id(b'{"id": 7}') is None
    assert record_id(b"[") is None


def test_only_ids_that_look_like_ids_are_fit_for_a_log() -> None:
    assert plain("6205e9826d83bc36e6e761e2") == "6205e9826d83bc36e6e761e2"
    for text in ("", "a b", "x\n", "é", "a" * 65, "../etc"):
        assert plain(text) == "unprintable"


def test_a_start_that_the_apis_clock_makes_future_by_a_day_still_makes_sense() -> None:
    """The clock may be misread, and a valid record must survive that."""
    found, rejections = decode_session(session_record("s", started=NOW + DAY), NOW)
    assert found is not None
    assert rejections == []


keys = st.sampled_from(["id", "room_id", "created_at", "peers", "active", "x"])
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5),
)


@given(raw=st.binary(max_size=200) | documents.map(lambda document: json.dumps(document).encode()))
def test_no_bytes_at_all_raise_anything(raw: bytes) -> None:
    found, rejections = decode_session(raw, NOW)
    assert (found is None) == (rejections != [] and rejections[0].kind == "session")
    assert isinstance(decode_room(raw), Room | Rejection)
    with contextlib.suppress(MalformedAnswer):
        decode_page(raw)


# -- limits -------------------------------------------------------------------------------------------------------


def memory(of: Callable[[], object]) -> int:
    """The peak memory of Python objects within the block (bytes)."""
    tracemalloc.start()
    try:
        of()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def page_of(*items: bytes) -> bytes:
    return b'{"limit": 100, "data": [%s], "last": ""}' % b",".join(items)


TINY = [b"0", b"{}", b"[]", b"null", b'""', b"[0]"]


@pytest.mark.parametrize("item", TINY)
def test_a_page_holds_a_thousand_records_and_no_more(item: bytes) -> None:
    assert len(decode_page(page_of(*[item] * MOST_RECORDS)).data or ()) == MOST_RECORDS
    with pytest.raises(MalformedAnswer, match="1000"):
        decode_page(page_of(*[item] * (MOST_RECORDS + 1)))


@pytest.mark.parametrize("item", first_quick(TINY))
def test_millions_of_records_are_refused_before_they_take_any_memory(item: bytes) -> None:
    body = page_of(*[item] * 2_000_000)

    def decode() -> None:
        with pytest.raises(MalformedAnswer):
            decode_page(body)

    assert memory(decode) < 1 << 20


def test_a_page_is_counted_by_its_records_and_not_by_what_people_write_into_them() -> None:
    crowded = record(name="[{,}]," * 500_000, peers={"p1": {**one_peer()["p1"], "name": '",{},' * 500_000}})
    page = decode_page(page_of(crowded, b"7"))
    assert [len(raw) for raw in page.data or ()] == [len(crowded), 1]
    assert read(crowded).stays == {"p1": Stay(at(10), at(20), "host")}


def test_an_answer_that_should_be_a_record_takes_no_memory_for_what_it_holds() -> None:
    body = b'{%s"id": "r"}' % b"".join(b'"%x":0,' % number for number in range(300_000))
    assert memory(lambda: record_id(body)) < 1 << 20
    for wrong in (b"[]", b"7", b"null", b"{", b"\xff"):
        assert record_id(wrong) is None


def with_peers(peers: bytes, after: bytes = b"") -> bytes:
    return record(active=True, peers="here").replace(b'"here"', peers + after)


VALID = b'{"joined_at":"%s"}' % rfc3339(at(1)).encode()


def as_list(*items: bytes) -> bytes:
    return b"[%s]" % b",".join(items)


def as_object(*items: bytes) -> bytes:
    return b"{%s}" % b",".join(b'"%d":%s' % numbered for numbered in enumerate(items))


@pytest.mark.parametrize("shape", [as_list, as_object])
def test_a_session_of_a_hundred_thousand_stays_is_read(shape: Callable[..., bytes]) -> None:
    long = json.dumps({**peer(at(10), at(20), "host", "u1"), "name": "x" * 150, "metadata": "y" * 50}).encode()
    found = read(with_peers(shape(*[long] * 100_000)))
    assert len(found.stays) == 100_000


@pytest.mark.parametrize("shape", first_quick([as_list, as_object]))
def test_a_session_of_more_peers_than_an_answer_can_hold_is_rejected_before_they_are_made(shape: Callable[..., bytes]) -> None:
    raw = with_peers(shape(*[VALID] * (MOST_PEERS + 1)))
    assert memory(lambda: decode_session(raw, NOW)) < 50 << 20
    found, rejections = decode_session(raw, NOW)
    assert found is None
    assert [(rejection.kind, rejection.subject, rejection.reason) for rejection in rejections] == [
        ("session", "s1", "more than 250000 peers")
    ]


@pytest.mark.parametrize("item", first_quick(TINY))
@pytest.mark.parametrize("after", [b"", b',"peers":[]'], ids=["once", "twice"])
def test_a_session_of_a_million_peers_that_are_none_is_rejected_before_they_are_made(item: bytes, after: bytes) -> None:
    raw = with_peers(as_list(*[item] * 1_500_000), after)
    assert memory(lambda: decode_session(raw, NOW)) < 20 << 20
    found, rejections = decode_session(raw, NOW)
    assert found is None
    assert [(rejection.kind, rejection.subject) for rejection in rejections] == [("session", "s1")]


def test_a_peer_that_makes_no_sense_costs_itself_alone_in_a_record_of_megabytes_too() -> None:
    found, rejections = decode_session(with_peers(as_list(*[VALID] * 100_000, b"{}", VALID)), NOW)
    assert found is not None
    assert len(found.stays) == 100_001
    assert [rejection.subject for rejection in rejections] == ["s1 peer 100001"]


LATE = b'{"joined_at":"%s"}' % rfc3339(NOW + 3 * DAY).encode()


@pytest.mark.parametrize("bad", [b"7", b"{}", LATE])
def test_a_thousand_bad_peers_cost_themselves_and_more_cost_their_session(bad: bytes) -> None:
    found, rejections = decode_session(with_peers(as_list(*[bad, VALID] * MOST_BAD_PEERS)), NOW)
    assert found is not None
    assert len(found.stays) == len(rejections) == MOST_BAD_PEERS
    found, rejections = decode_session(with_peers(as_list(*[bad] * (MOST_BAD_PEERS + 1))), NOW)
    assert found is None
    assert [(rejection.kind, rejection.reason) for rejection in rejections] == [("session", "more than 1000 of its peers are invalid")]


def test_many_old_peers_who_joined_at_one_moment_are_read_in_no_time() -> None:
    raw = with_peers(as_list(*[VALID] * 20_000))
    began = time.process_time()
    assert len(read(raw).stays) == 20_000
    assert time.process_time() - began < 2


def test_an_id_or_a_role_of_endless_length_is_none() -> None:
    long = "x" * 1001
    assert decode_session(record(id=long), NOW)[0] is None
    assert decode_session(record(room_id=long), NOW)[0] is None
    assert record_id(record(id=long)) is None
    for fields in ({"role": long}, {"id": long}):
        found, rejections = decode_session(record(peers=one_peer(**fields)), NOW)
        assert found is not None
        assert (found.stays, [rejection.kind for rejection in rejections]) == ({}, ["peer"])
    with pytest.raises(MalformedAnswer):
        decode_page(b'{"data": [], "last": "%s"}' % long.encode())
    assert read(record(id="y" * 1000, peers=one_peer(role="z" * 1000, user_id=long))).id == "y" * 1000


# -- pages and rooms ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", ["null", "[]"])
def test_nothing_found_is_said_in_two_ways(data: str) -> None:
    page = decode_page(b'{"limit": 10, "data": %s, "last": ""}' % data.encode())
    assert not page.data
    assert not page.last


def test_a_page_tells_its_records_its_size_and_its_cursor() -> None:
    page = decode_page(b'{"limit": 20, "data": [{"id": "a"}, 7], "last": "a", "more": 1}')
    assert page.limit == 20
    assert page.last == "a"
    assert [bytes(raw) for raw in page.data or ()] == [b'{"id": "a"}', b"7"]


NO_LISTS = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"data": {}}',
    b'{"data": "x"}',
    b'{"limit": "ten", "data": []}',
    b"<html>",
    b'{"data": [',
    b"\xff",
]


@pytest.mark.parametrize("body", NO_LISTS)
def test_an_answer_that_is_not_a_list_of_records_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        decode_page(body)


def test_a_room_is_read_with_what_it_has() -> None:
    whole = b'{"id": "r", "name": "n", "template": "t", "template_id": "ti", "region": "eu", "enabled": false, "size": 3}'
    assert decode_room(whole) == Room("r", "n", "t", "ti", "eu", enabled=False)
    assert decode_room(b'{"id": "r", "name": null, "enabled": null}') == Room("r")


@pytest.mark.parametrize("raw", [b"7", b"{}", b'{"id": ""}', b'{"id": 5}', b'{"id": "r", "name": []}', b"{"])
def test_a_room_that_makes_no_sense_is_rejected(raw: bytes) -> None:
    found = decode_room(raw)
    assert isinstance(found, Rejection)
    assert found.kind == "room"


def test_half_a_day_is_half_a_day() -> None:
    """Checks the units that the other tests use."""
    assert (SECOND, HOUR, DAY) == (10**6, 3600 * 10**6, 86400 * 10**6)
