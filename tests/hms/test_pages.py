"""Pages of lists, whole and in parts: the splitter compared with `json`, the envelopes, the page sizes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.hms import pages
from exporter.hms.errors import MalformedAnswer, TooLarge
from exporter.hms.pages import DELIVERIES, EVENTS, RECORDS, Page, read_page
from exporter.hms.sizes import COMFORTABLE, PageSizes
from exporter.hms.splitter import Splitter

TEXTS = st.text(alphabet=st.sampled_from('ab"\\{}[],:\u20ac\n'), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4)
)


def split(body: bytes, cuts: int) -> tuple[list[Any], Any]:
    """The records, and the rest, of an answer that arrives in pieces of this size."""
    splitter = Splitter("data")
    found = [json.loads(record) for at in range(0, len(body), cuts) for record in splitter.feed(body[at : at + cuts])]
    return found, json.loads(splitter.close())


@given(
    records=st.lists(VALUES, max_size=6),
    before=st.dictionaries(TEXTS, VALUES, max_size=3),
    after=st.dictionaries(TEXTS, VALUES, max_size=3),
    cuts=st.integers(1, 40),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
)
def test_a_split_answer_equals_that_of_json_wherever_it_is_cut(
    records: list[Any], before: dict[str, Any], after: dict[str, Any], cuts: int, indent: int | None, *, ascii_only: bool
) -> None:
    whole = {**before, "data": records, **{key: value for key, value in after.items() if key not in before}}
    body = json.dumps(whole, indent=indent, ensure_ascii=ascii_only).encode()
    assert split(body, cuts) == (records, {**whole, "data": []})


@pytest.mark.parametrize("cuts", [1, 7, 1000])
@pytest.mark.parametrize(
    "body", [b'{"data":[1,,2]}', b'{"data":[1,]}', b'{"data":[,1]}', b'{"data":[{"a":1', b'{"data":["a', b'{"data":[1],"data":[2]}']
)
def test_a_broken_list_is_malformed(body: bytes, cuts: int) -> None:
    with pytest.raises(MalformedAnswer):
        split(body, cuts)


def parts(body: bytes, monkeypatch: pytest.MonkeyPatch, *, held: int = 50, part: int = 30) -> list[Page]:
    """The parts of an answer when the splitter holds only this many bytes and hands on this many together."""
    monkeypatch.setattr(pages, "LARGEST_ANSWER", held)
    monkeypatch.setattr(pages, "_PART", part)
    return list(read_page(RECORDS, (body[at : at + 9] for at in range(0, len(body), 9)), streams=True))


def test_a_large_page_comes_in_parts_and_the_last_has_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    body = b'{"limit":10,"data":[%s],"last":"x"}' % b",".join(b'{"id":"%020d"}' % number for number in range(10))
    found = parts(body, monkeypatch)
    assert len(found) > 2
    assert [json.loads(bytes(raw))["id"] for page in found for raw in page.data or ()] == [f"{number:020d}" for number in range(10)]
    assert [(page.ends, page.last, page.goes_on) for page in found[:-1]] == [(False, None, False)] * (len(found) - 1)
    assert all(page.data for page in found), "no part is empty: the last has the oldest record of the page"
    assert (found[-1].ends, found[-1].limit, found[-1].last, found[-1].count, found[-1].goes_on) == (True, 10, "x", 10, True)
    assert found[-1].size == len(body)


def test_a_part_that_is_not_json_fails_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MalformedAnswer):
        parts(b'{"limit":10,"data":[%s]}' % b",".join([b'{"id":oops,"filler":"xxxxxxxxx"}'] * 4), monkeypatch)


def test_a_large_answer_that_is_not_streamed_tells_how_large_its_records_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "LARGEST_ANSWER", 100)
    body = b'{"data":[%s]}' % b",".join([b'{"id":"%010d"}' % 1] * 50)
    with pytest.raises(TooLarge) as caught:
        list(read_page(RECORDS, (body[at : at + 10] for at in range(0, len(body), 10)), streams=False))
    assert 15 <= caught.value.record_bytes <= 35


# --- the envelopes ---


def test_the_lists_go_on_by_last_while_their_pages_are_full() -> None:
    page = RECORDS.decode(b'{"limit":2,"data":[{},{}],"last":"c"}')
    assert RECORDS.following(page, {"a": "b"}) == {"a": "b", "start": "c"}
    for body in (b'{"limit":2,"data":[{}],"last":"c"}', b'{"limit":1,"data":[{}],"last":""}', b'{"limit":1,"data":null,"last":"c"}'):
        assert RECORDS.following(RECORDS.decode(body), {}) is None


def test_events_go_on_by_next_though_a_page_is_short() -> None:
    page = EVENTS.decode(b'{"limit":10,"total":30,"next":"n","events":[{"id":1}]}')
    assert (page.total, len(page.data or ())) == (30, 1)
    assert EVENTS.following(page, {"room_id": "r"}) == {"room_id": "r", "start": "n"}
    for body in (b'{"events":[{}]}', b'{"events":[{}],"next":""}', b'{"events":[],"next":"n"}', b'{"events":null,"next":"n"}'):
        assert EVENTS.following(EVENTS.decode(body), {}) is None


def test_deliveries_go_on_by_number_and_tell_their_total() -> None:
    page = DELIVERIES.decode(b'{"events":[{}],"pagination":{"total_items":7,"has_next":true}}')
    assert page.total == 7
    second = DELIVERIES.following(page, {"limit": "1"})
    assert second == {"limit": "1", "page": "2"}
    assert DELIVERIES.following(page, second) == {"limit": "1", "page": "3"}
    assert DELIVERIES.following(DELIVERIES.decode(b'{"events":[{}],"pagination":{"has_next":false}}'), {}) is None


# --- page sizes ---


def test_sizes_fall_at_once_by_bytes_and_rise_slowly_again() -> None:
    sizes = PageSizes(100, lambda: 0.0)
    sizes.read(100, 2 * COMFORTABLE)
    assert sizes.size == 50
    sizes.read(50, 50 * 5_000_000)
    assert sizes.size == 10
    rising = []
    for _ in range(40):
        sizes.read(10, 10_000)
        rising.append(sizes.size)
    assert rising == [10] * 9 + [20] * 10 + [50] * 10 + [100] * 11


def test_a_size_is_tried_only_if_its_pages_would_fit_twice() -> None:
    sizes = PageSizes(100, lambda: 0.0)
    sizes.too_large(10)
    for _ in range(100):
        sizes.read(10, 10 * COMFORTABLE // 25)
    assert sizes.size == 10


def test_a_refused_size_is_tried_again_an_hour_later() -> None:
    now = 0.0
    sizes = PageSizes(100, lambda: now)
    assert [sizes.smaller(size) for size in (100, 50, 20, 10)] == [50, 20, 10, None]
    sizes.refused(20)
    for _ in range(50):
        sizes.read(20, 2000)
    assert sizes.size == 20
    now = 3600.0
    for _ in range(10):
        sizes.read(20, 2000)
    assert sizes.size == 50
