"""A ledger that reads records as steps from the last ones is, after every poll, the one that decodes every record whole."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.counting.contribution import Account, room_account
from exporter.times import DAY, HOUR, SECOND, rfc3339
from tests.harness import MEMORY, T0, Counting, at, published
from tests.hms.edits import NOW, Edit, Script, edits, person, record

ROOM = "r1"
OF_A_SESSION = ("started", "ended", "observed", "before", "unknown", "users", "lines", "first_joined", "linear_from", "connected", "looked")


def state(counting: Counting) -> dict[str, Any]:
    """Everything that counts, in a form that two ledgers can be compared by."""
    ledger = counting.ledger
    roles = {(account, role): of for account, one in ledger.accounts.items() for role, of in one.roles.items()}
    return {
        "published": published(ledger.accounts.values()),
        "gauges": {account: one.gauges for account, one in ledger.accounts.items()},
        "usage": {key: (of.usage_day, of.usage_month) for key, of in roles.items()},
        "tracked": {one.id: ([getattr(one, of) for of in OF_A_SESSION], one.recall()) for one in ledger.tracked.values()},
    }


class Both:
    """Two ledgers that are told the same."""

    def __init__(self, folder: Path, bots: frozenset[str] = frozenset()) -> None:
        self.ledgers = [Counting(folder / f"{steps}.db", bots=bots, steps=steps) for steps in (True, False)]

    def poll(self, now: int, *records: bytes, fresh: Iterable[Account] | None = None) -> None:
        """Both poll, and are compared; `fresh` as in `Poll.finish`."""
        for counting in self.ledgers:
            counting.begin(now)
            for raw in records:
                counting.see(raw)
            counting.end(fresh=fresh, past=True)
        by_steps, whole = map(state, self.ledgers)
        assert by_steps == whole

    def peaks(self) -> list[int]:
        """The room's peak in both."""
        return [counting.gauges(ROOM).peak for counting in self.ledgers]

    def restart(self) -> None:
        """Both processes die and begin again."""
        for counting in self.ledgers:
            counting.restart()

    def close(self) -> None:
        """The state files are given back."""
        for counting in self.ledgers:
            counting.close()


polls = st.lists(st.tuples(st.lists(edits, max_size=3), st.lists(edits, max_size=1), st.sampled_from([1, 5, 30, 7200])), max_size=10)


@given(polls=polls, bots=st.sampled_from([frozenset(), frozenset({"role0"}), frozenset({"guest"})]))
def test_both_ways_count_the_same_whatever_happens(polls: list[tuple[list[Edit], list[Edit], int]], bots: frozenset[str]) -> None:
    """Two sessions in a room, records that come late, clocks set back, and restarts."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        both = Both(Path(folder), bots)
        one, other = Script("s1"), Script("s2")
        now, late = NOW, one.raw
        for happened, beside, passed in polls:
            for script, of in ((one, happened), (other, beside)):
                for edit in of:
                    script.play(edit)
                    if edit.kind == "restart":
                        both.restart()
            now += passed * SECOND
            both.poll(now, one.raw, other.raw, *([late, one.raw] if passed == 5 else []))
            late = one.raw
        both.close()


@pytest.mark.parametrize("moves", ["another peer", "nobody"])
def test_a_peak_includes_who_came_and_went_since_the_last_gauges_although_a_later_record_shows_them_unchanged(
    tmp_path: Path, moves: str
) -> None:
    """The gauges of a room that could not be read to its end are not renewed, and its next peak begins where the last one did."""
    both = Both(tmp_path)
    people = {"a": person("a"), "bb": person("bb")}
    both.poll(NOW, record(people))
    people["short"] = person("short", joined_at=rfc3339(NOW + 5 * SECOND), left_at=rfc3339(NOW + 9 * SECOND))
    both.poll(NOW + 30 * SECOND, record(people), fresh=())
    if moves == "another peer":
        people["bb"] = person("bb", left_at=rfc3339(NOW + 40 * SECOND))
    both.poll(NOW + 60 * SECOND, record(people, updated_at=rfc3339(NOW)), fresh=())
    both.poll(NOW + 90 * SECOND, record(people, updated_at=rfc3339(NOW + SECOND)))
    assert both.peaks() == [3, 3]
    both.close()


def test_a_leave_ahead_of_the_time_is_a_part_of_the_next_peak_too(tmp_path: Path) -> None:
    """The time is the earliest that 100ms's answers allow, and may be behind by a second."""
    both = Both(tmp_path)
    people = {"a": person("a"), "bb": person("bb")}
    both.poll(NOW, record(people))
    people["bb"] = person("bb", left_at=rfc3339(NOW + 31 * SECOND))
    both.poll(NOW + 30 * SECOND, record(people))
    both.poll(NOW + 60 * SECOND, record(people, updated_at=rfc3339(NOW)))
    assert both.peaks() == [2, 2]
    both.close()


@pytest.mark.parametrize("midnight", [T0 + HOUR, T0 - 8 * HOUR + DAY])
def test_the_usage_of_a_day_that_has_begun_meanwhile_is_the_same(tmp_path: Path, midnight: int) -> None:
    both = Both(tmp_path)
    people = {"a": person("a"), "bb": person("bb"), "ccc": person("ccc")}
    for number in range(-3, 4):
        now = midnight + number * 600 * SECOND
        people["bb"] = person("bb", left_at=rfc3339(now - SECOND)) if number == 1 else people["bb"]
        people[f"new{number}"] = person(f"new{number}", joined_at=rfc3339(now - 30 * SECOND))
        both.poll(now, record(people))
    both.close()


def test_a_record_that_moved_without_its_people_is_neither_stored_nor_written_again(tmp_path: Path) -> None:
    """Its gauges, and what moves with time, go on as if the record had been the same."""
    counting = Counting(tmp_path / "state.db")
    people = {"a": person("a"), "bb": person("bb")}
    counting.poll(NOW, record(people))
    counting.poll(NOW + 30 * SECOND, record(people))
    version = counting.ledger.accounts[room_account(ROOM)].version
    counting.begin(NOW + 60 * SECOND)
    counting.see(record(people, updated_at=rfc3339(at(9))))
    assert not counting.ledger.changes.tracked
    counting.end()
    assert counting.ledger.accounts[room_account(ROOM)].version == version
    assert counting.seconds(room=ROOM) == 2 * (3600 + 60) - 1 - 2
    counting.close()
