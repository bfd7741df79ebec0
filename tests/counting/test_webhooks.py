"""The counters of webhooks: each event counts once, under the room's id until the room's account is known, then there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exporter.counting.contribution import Account, room_account
from exporter.counting.webhooks import RECEIVED, REJECTED, REMEMBERED, WORKSPACE, Counter, Heard, Key, waiting
from exporter.hms.webhooks import JOIN_FAILURE, LEAVE, OTHER, Event
from exporter.times import HOUR, SECOND

NOW = 1_772_438_400 * SECOND
KICKED = (LEAVE, "peer kicked")


def event(
    identifier: str,
    kind: str = "peer.leave.success",
    room: str = "r",
    counts: tuple[str, str] | None = KICKED,
    at: int | None = NOW - SECOND,
    *,
    replay: bool = False,
) -> Event:
    return Event(identifier.encode(), kind, at, replay, room, counts=counts)


def heard(*events: Event, now: int = NOW) -> Heard:
    made = Heard()
    made.take(events, (), now)
    return made


def value(of: Heard, owner: Account, name: str, label: str) -> int:
    found = of.counters.get(Key(owner, name, label))
    return 0 if found is None else found.value


# -- once ---------------------------------------------------------------------------------------------------------


def test_an_event_counts_once_by_its_type_and_once_in_its_room_by_its_reason() -> None:
    found = heard(event("a"), event("b", counts=(LEAVE, OTHER)), event("c", "peer.join.failure", counts=(JOIN_FAILURE, "role not allowed")))
    assert value(found, WORKSPACE, RECEIVED, "peer.leave.success") == 2
    assert value(found, WORKSPACE, RECEIVED, "peer.join.failure") == 1
    room = waiting("r")
    assert [value(found, room, *counts) for counts in (KICKED, (LEAVE, OTHER), (JOIN_FAILURE, "role not allowed"))] == [1, 1, 1]


def test_one_that_has_no_room_or_counts_nothing_in_it_counts_by_its_type_alone() -> None:
    found = heard(event("a", room=""), event("b", "session.open.success", counts=None))
    assert {key.owner for key in found.counters} == {WORKSPACE}


def test_the_same_event_again_changes_nothing_in_one_batch_in_the_next_and_after_a_restart() -> None:
    found = heard(event("a"), event("a"), event("a", replay=True))
    found.take([event("a")], (), NOW + SECOND)
    digests = set(found.remembered)
    found.committed()
    found.take([event("a"), event("a", replay=True)], digests, NOW + HOUR)
    assert value(found, WORKSPACE, RECEIVED, "peer.leave.success") == 1
    assert found.changed == set()
    assert found.remembered == {}


def test_a_replay_of_what_is_older_than_the_memory_is_not_counted_and_a_first_delivery_that_late_is() -> None:
    old = NOW - REMEMBERED - 1
    assert heard(event("a", at=old, replay=True)).counters == {}
    assert value(heard(event("a", at=old)), WORKSPACE, RECEIVED, "peer.leave.success") == 1
    assert value(heard(event("a", at=old + 1, replay=True)), WORKSPACE, RECEIVED, "peer.leave.success") == 1


def test_an_id_is_kept_for_as_long_as_a_replay_of_it_could_count() -> None:
    for at in (None, NOW - HOUR, NOW, NOW + HOUR):
        found = heard(event("a", at=at))
        [until] = found.remembered.values()
        happened = NOW if at is None else at
        assert until >= happened + REMEMBERED
        # A replay counts only up to this moment, and the id is known until then.
        assert until >= NOW + REMEMBERED


# -- when it began ------------------------------------------------------------------------------------------------


def test_a_counter_began_when_its_first_event_happened_and_never_later_than_it_came() -> None:
    found = heard(event("a", at=NOW - HOUR), event("b", at=NOW - 2 * HOUR))
    key = Key(WORKSPACE, RECEIVED, "peer.leave.success")
    assert found.counters[key] == Counter(NOW - HOUR, 2), "the first to come; it does not change while the series lives"
    assert heard(event("a", at=NOW + HOUR)).counters[key].born == NOW
    assert heard(event("a", at=None)).counters[key].born == NOW


# -- the account --------------------------------------------------------------------------------------------------


def test_waiting_counts_move_to_the_account_with_their_beginning_and_leave_the_room_s_id() -> None:
    found, account = heard(event("a"), event("b", room="other")), room_account("r")
    found.committed()
    found.assign(waiting("r"), account)
    assert found.counters[Key(account, *KICKED)] == Counter(NOW - SECOND, 1)
    assert found.changed == {Key(waiting("r"), *KICKED), Key(account, *KICKED)}, "one to remove from the store, one to write"
    assert Key(waiting("r"), *KICKED) not in found.counters
    assert [*found.waiting] == [waiting("other")]


def test_later_events_for_the_same_account_are_added() -> None:
    found, account = heard(event("a")), room_account("r")
    found.assign(waiting("r"), account)
    found.take([event("b")], (), NOW + SECOND)
    found.assign(waiting("r"), account)
    assert found.counters[Key(account, *KICKED)] == Counter(NOW - SECOND, 2)
    assert found.waiting == {}


def test_of_a_room_that_is_not_followed_only_the_type_stays() -> None:
    found = heard(event("a"))
    found.assign(waiting("r"), None)
    assert {*found.counters} == {Key(WORKSPACE, RECEIVED, "peer.leave.success")}
    assert Key(waiting("r"), *KICKED) in found.changed, "it is removed from the store"


def test_counts_from_the_store_come_back_where_they_were() -> None:
    before, after = heard(event("a"), event("b", room="other")), Heard()
    before.assign(waiting("r"), room_account("r"))
    for key, counter in before.counters.items():
        after.restore(key, counter)
    assert (after.counters, after.waiting, after.of) == (before.counters, before.waiting, before.of)
    assert after.changed == set()


# -- bounds -------------------------------------------------------------------------------------------------------


def test_after_a_hundred_types_new_ones_share_a_label_and_known_ones_keep_theirs() -> None:
    found = heard(*(event(str(number), f"hls.type{number}", counts=None) for number in range(150)))
    found.take([event("again", "hls.type7", counts=None)], (), NOW)
    types = {key.label: counter.value for key, counter in found.counters.items()}
    assert len(types) == 101
    assert (types[OTHER], types["hls.type7"]) == (50, 2)


def test_refusals_are_counted_by_reason_and_begin_at_nothing() -> None:
    found = Heard()
    found.reject("secret", 0, NOW)
    found.reject("secret", 3, NOW + SECOND)
    assert found.counters == {Key(WORKSPACE, REJECTED, "secret"): Counter(NOW, 3)}


# -- whatever the order -------------------------------------------------------------------------------------------

_EVENTS = st.builds(
    event,
    st.sampled_from([f"id-{number}" for number in range(12)]),
    room=st.sampled_from(["r", "s", ""]),
    counts=st.sampled_from([KICKED, (LEAVE, OTHER), None]),
    at=st.integers(NOW - HOUR, NOW),
    replay=st.booleans(),
)


@given(st.lists(st.lists(_EVENTS, max_size=6), max_size=6), st.lists(st.booleans(), min_size=6, max_size=6))
def test_each_event_counts_once_however_often_it_comes_and_whenever_its_room_is_known(
    batches: list[list[Event]], known: list[bool]
) -> None:
    found = Heard()
    stored: set[bytes] = set()
    first: dict[bytes, Event] = {}
    for batch, decided in zip(batches, known, strict=False):
        for one in batch:
            first.setdefault(one.digest, one)
        found.take(batch, stored, NOW)
        stored |= set(found.remembered)
        if decided:
            for owner in list(found.waiting):
                found.assign(owner, room_account(owner.id))
        found.committed()
    for owner in list(found.waiting):
        found.assign(owner, room_account(owner.id))
    for room in ("r", "s"):
        for counts in (KICKED, (LEAVE, OTHER)):
            wanted = sum(one.room_id == room and one.counts == counts for one in first.values())
            assert value(found, room_account(room), *counts) == wanted
    assert sum(counter.value for key, counter in found.counters.items() if key.owner == WORKSPACE) == len(first)
