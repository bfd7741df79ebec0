"""`Sums`: counters by addition."""

from __future__ import annotations

from exporter.counting.contribution import room_account
from exporter.counting.sums import Series, Sums
from exporter.counting.webhooks import Counter
from tests.harness import T0

ROOM = room_account("r")
CHATS = Series("assets", ("chat", "completed"))


def test_a_counter_begins_with_the_first_thing_in_it_and_keeps_that_moment() -> None:
    sums = Sums()
    sums.add(ROOM, CHATS, 2, T0 + 5)
    sums.add(ROOM, CHATS, 3, T0 + 1)
    assert sums.of == {ROOM: {CHATS: Counter(T0 + 5, 5)}}


def test_nothing_makes_a_counter_that_is_0_and_changes_none_that_is_there() -> None:
    sums = Sums()
    sums.add(ROOM, CHATS, 0, T0)
    assert sums.of[ROOM][CHATS] == Counter(T0, 0)
    sums.committed()
    sums.add(ROOM, CHATS, 0, T0)
    assert not sums.changed


def test_stored_counters_are_added_to() -> None:
    sums = Sums()
    sums.restore(ROOM, {CHATS: Counter(T0, 7)})
    assert not sums.changed
    sums.add(ROOM, CHATS, 1, T0 + 9)
    assert sums.of[ROOM][CHATS] == Counter(T0, 8)
    assert sums.changed == {(ROOM, CHATS)}


def test_the_version_tells_whether_anything_has_changed() -> None:
    sums = Sums()
    empty = sums.version
    sums.add(ROOM, CHATS, 1, T0)
    added = sums.version
    sums.close(ROOM)
    closed = sums.version
    sums.restore(ROOM, {})
    assert empty < added < closed < sums.version
