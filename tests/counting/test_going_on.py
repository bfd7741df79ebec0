"""Accounts without joins and leaves are advanced by the time that has passed. The result must equal that of adding up again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.counting.contribution import room_account
from exporter.counting.ledger import Ledger
from exporter.counting.poll import Poll
from exporter.hms.records import Session, Stay
from exporter.times import HOUR, SECOND
from tests.harness import T0

ROOM = room_account("room")
MIDNIGHT = T0 + 16 * HOUR
START = MIDNIGHT - 60 * SECOND

HAPPENS = st.tuples(*[st.sampled_from(["same", "join", "leave", "role", "late", "absent", "end"])] * 2)
STEPS = st.lists(
    st.tuples(st.sampled_from([30, 20, 7, 1, 0, -5]).map(lambda seconds: seconds * SECOND), st.just(("same", "same")) | HAPPENS),
    max_size=12,
)


class Life:
    """A session's record from poll to poll."""

    def __init__(self, name: str) -> None:
        self.session = Session(name, "room", START, None, {f"{name}-0": Stay(START, None, "host")}, {})
        self.digest = hash(name)

    def change(self, what: str, now: int) -> None:
        """Changes the record at random."""
        stays = {key: Stay(stay.joined, stay.left, stay.role) for key, stay in self.session.stays.items()}
        ended = self.session.ended
        last = next(reversed(stays))
        if what == "join":
            stays[f"{self.session.id}-{len(stays)}"] = Stay(now - SECOND, None, "guest")
        elif what == "leave":
            stays[last].left = max(stays[last].joined, now - 2 * SECOND)
        elif what == "late":  # a join that is ahead of the clock
            stays[f"{self.session.id}-{len(stays)}"] = Stay(now + 45 * SECOND, None, "guest")
        elif what == "role":
            stays[last].role = "speaker"
        elif what == "end":
            ended = now
        self.session = Session(self.session.id, "room", START, ended, stays, {})
        self.digest += 1


def counted(ledger: Ledger) -> list[tuple[object, ...]]:
    """Everything that is published of the room."""
    state = ledger.accounts[ROOM]
    totals = state.totals
    of_sessions = (totals.published, totals.published_seconds, state.held)
    roles = [(name, of.published, of.published_seconds, of.usage_day, of.usage_month) for name, of in sorted(state.roles.items())]
    return [of_sessions, *roles]


def poll(ledger: Ledger, lives: list[Life], absent: set[int], now: int, *, adds_up: bool) -> None:
    """A poll that reads these records.  `adds_up` makes it add up again even if only time has passed."""
    one = Poll(ledger, now, HOUR)
    for number, life in enumerate(lives):
        if number not in absent and not one.see_unchanged(life.digest):
            one.see(life.session, "room", life.digest)
    one.assign("room", "room", ROOM)
    for tracked in ledger.tracked.values() if adds_up else ():
        tracked.worked_out = None
    one.finish(None, 0.0)
    ledger.committed()


@given(STEPS)
def test_moving_on_with_time_is_the_same_as_adding_up(steps: list[tuple[int, tuple[str, str]]]) -> None:
    """At random around midnight: joins, leaves, changes of role, ends, records that are not read, clocks set back."""
    quick, whole = Ledger(), Ledger()
    lives, now = [Life("a"), Life("b")], START + SECOND
    for passed, happens in [(0, ("same", "same")), *steps]:
        now += passed
        for life, what in zip(lives, happens, strict=True):
            if what not in ("same", "absent") and life.session.ended is None:
                life.change(what, now)
        absent = {number for number, what in enumerate(happens) if what == "absent"}
        poll(quick, lives, absent, now, adds_up=False)
        poll(whole, lives, absent, now, adds_up=True)
        assert counted(quick) == counted(whole)


def test_nothing_is_added_up_where_only_time_has_gone_on(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, lives = Ledger(), [Life("a")]
    poll(ledger, lives, set(), START + 10 * SECOND, adds_up=False)
    state = ledger.accounts[ROOM]
    version = state.version
    with monkeypatch.context() as patch:
        patch.delattr("exporter.counting.ledger._truth")
        poll(ledger, lives, set(), START + 30 * SECOND, adds_up=False)
    assert state.version == version
    assert state.roles["host"].published_seconds == 30 * SECOND
    assert state.totals.published_seconds == 30 * SECOND
    lives[0].change("join", START + 40 * SECOND)
    poll(ledger, lives, set(), START + 40 * SECOND, adds_up=False)
    assert state.version != version
