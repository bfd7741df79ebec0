"""Sets of moments: each operation equals that on sets of whole numbers."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from exporter.counting.spans import FOREVER, Span, common, contains, length, union, until, without

span = st.tuples(st.integers(0, 40), st.integers(0, 8)).map(lambda pair: (pair[0], pair[0] + pair[1]))
any_spans = st.lists(span, max_size=6)
moments = st.integers(-2, 52)


def as_set(spans: list[Span]) -> set[int]:
    return {moment for first, last in spans for moment in range(first, last + 1)}


def is_tidy(spans: list[Span]) -> bool:
    """Whether the spans are sorted, not empty, and not adjacent."""
    return all(first <= last for first, last in spans) and all(one[1] + 1 < other[0] for one, other in itertools.pairwise(spans))


@given(any_spans)
def test_a_union_holds_the_same_moments_and_is_tidy(spans: list[Span]) -> None:
    assert as_set(union(spans)) == as_set(spans)
    assert is_tidy(union(spans))


@given(any_spans, span)
def test_without_removes_the_named_moments_and_no_others(spans: list[Span], gone: Span) -> None:
    left = without(union(spans), *gone)
    assert as_set(left) == as_set(spans) - as_set([gone])
    assert is_tidy(left)


@given(any_spans, any_spans)
def test_common_holds_the_moments_of_both(one: list[Span], other: list[Span]) -> None:
    assert as_set(common(union(one), union(other))) == as_set(one) & as_set(other)


@given(any_spans, moments)
def test_contains_tells_whether_a_moment_is_among_them(spans: list[Span], moment: int) -> None:
    assert contains(union(spans), moment) == (moment in as_set(spans))


@given(any_spans, moments)
def test_until_ends_with_a_moment(spans: list[Span], last: int) -> None:
    assert as_set(until(union(spans), last)) == {moment for moment in as_set(spans) if moment <= last}


@given(any_spans)
def test_the_length_is_the_number_of_moments(spans: list[Span]) -> None:
    assert length(union(spans)) == len(as_set(spans))


def test_a_span_that_grows_holds_every_later_moment() -> None:
    growing = union([(10, FOREVER), (5, 20)])
    assert growing == [(5, FOREVER)]
    assert contains(growing, 1 << 61)
    assert not contains(growing, 4)
    assert without(growing, 7, 8) == [(5, 6), (9, FOREVER)]
