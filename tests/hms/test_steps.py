"""A record read as a step from the last one is the record decoded whole, whatever has happened to its peers in between."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.hms import steps
from exporter.hms.records import MOST_PEERS, Session, Stay, decode_session
from exporter.hms.steps import Known, Step, decode_step
from exporter.times import DAY, rfc3339
from tests.harness import T0, at, peer
from tests.hms.edits import NOW, Edit, Script, edits, person, record


class Last:
    """The last record of a session, as a reader of steps remembers it."""

    def __init__(self) -> None:
        self.step: Step | None = None

    def known(self, session_id: str) -> Known | None:
        if self.step is None or session_id != self.step.session.id:
            return None
        stays = dict(self.step.session.stays)
        return Known(self.step.marks, self.step.session.users, lambda: dict(stays))

    def read(self, raw: bytes, now: int = NOW) -> Step | None:
        """The step, compared with the whole decoding."""
        before = self.step
        self.step = decode_step(raw, now, self.known)
        if self.step is not None:
            whole, rejections = decode_session(raw, now)
            assert self.step.session == whole
            assert rejections == []
            assert len(self.step.marks.peers) == len(self.step.marks.users) == len(self.step.session.stays)
            if before is not None and self.step.change is not None:
                self._compare(before.session, self.step.session, self.step.change)
        return self.step

    def _compare(self, before: Session, after: Session, change: steps.Change) -> None:
        """What is not in the change is as it was, and what is there was as the change says."""
        assert {name: before.stays.get(name) for name in change} == change
        unchanged = after.stays.keys() - change.keys()
        assert before.stays.keys() <= after.stays.keys()
        assert {name: before.stays[name] for name in unchanged} == {name: after.stays[name] for name in unchanged}


# -- anything in any order ----------------------------------------------------------------------------------------


@given(polls=st.lists(st.lists(edits, max_size=3), max_size=12))
def test_the_steps_show_what_the_whole_records_show(polls: list[list[Edit]]) -> None:
    script, last = Script(), Last()
    for happened in polls:
        for edit in happened:
            script.play(edit)
            if edit.kind == "restart":
                last = Last()
        last.read(script.raw, script.now)


# -- what is a step, and what is not --------------------------------------------------------------------------------


def test_the_first_record_is_a_step_from_nothing() -> None:
    found = Last().read(record({"a": person("a"), "b": person("bb")}))
    assert found is not None
    assert found.change is None


def test_only_the_peers_that_differ_are_in_the_change() -> None:
    last = Last()
    people = {name: person(name) for name in ("a", "bb", "ccc")}
    last.read(record(people))
    stay = Stay(at(2), None, "guest")
    joined = {"0": person("dddd"), **people, "bb": person("bb", left_at=rfc3339(at(50)))}
    found = last.read(record(joined))
    assert found is not None
    assert found.change == {"dddd": None, "bb": stay}


def test_only_the_peers_that_differ_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that come after a new peer have other places, and are still known."""
    last = Last()
    people = {name: person(name) for name in ("a", "bb", "ccc")}
    last.read(record(people))
    decoded: list[int] = []
    decode = steps._decode  # nothing else shows what was decoded

    def counted(session: str, started: int, latest: int, raws: list[msgspec.Raw]) -> dict[str, tuple[Stay, int]] | None:
        decoded.append(len(raws))
        return decode(session, started, latest, raws)

    monkeypatch.setattr(steps, "_decode", counted)
    last.read(record(people, updated_at=rfc3339(at(5))))
    last.read(record({"0": person("dddd"), **people}))
    last.read(record({"0": person("dddd"), **people, "ccc": person("ccc", name="Another")}))
    assert decoded == [1, 1]


def test_a_peer_of_whom_nothing_is_counted_has_changed_is_no_change() -> None:
    """Its name, or what it says of itself."""
    last = Last()
    last.read(record({"a": person("a"), "bb": person("bb")}))
    found = last.read(record({"a": person("a", name="Another", metadata="hand up"), "bb": person("bb")}))
    assert found is not None
    assert found.change == {}


def test_another_user_behind_the_same_stay_is_a_change() -> None:
    last = Last()
    last.read(record({"a": person("a"), "bb": person("bb", user_id="user of a")}))
    found = last.read(record({"a": person("a", user_id="another"), "bb": person("bb", user_id="user of a")}))
    assert found is not None
    assert found.change == {"a": Stay(at(1), None, "guest")}
    assert [len(users) for users in found.session.users.values()] == [2]


def test_a_user_whose_id_hashes_to_nothing_is_somebody() -> None:
    last = Last()
    last.read(record({"a": person("a", user_id=2**61 - 1), "bb": person("bb")}))
    found = last.read(record({"a": person("a", user_id=2**61 - 1), "bb": person("bb", user_id=None)}))
    assert found is not None
    assert [len(users) for users in found.session.users.values()] == [1]


WHOLE = {
    "an ended session": record({"a": person("a")}, active=False),
    "nobody": record({}),
    "no peers": record(None),
    "peers that are a word": record("nobody"),
    "no session": b"7",
    "an impossible start": record({"a": person("a")}, created_at=rfc3339(NOW + 9 * DAY)),
    "a peer without its id": record([person("a"), peer(at(1))]),
    "two peers with one id": record([person("a"), person("a", role="host")]),
    "a peer that makes no sense": record({"a": person("a"), "bb": 7}),
    "a peer of another time": record({"a": person("a", joined_at=rfc3339(NOW + 9 * DAY))}),
    "one peer twice": record([person("a"), person("a")]),
}


@pytest.mark.parametrize("what", WHOLE)
def test_what_is_not_a_usual_running_session_is_no_step(what: str) -> None:
    last = Last()
    assert last.read(WHOLE[what]) is None
    last.read(record({"a": person("a")}))
    assert last.read(WHOLE[what]) is None


def test_a_record_without_a_peer_that_was_there_is_no_step() -> None:
    """Its absence must be told from a change of its role."""
    last = Last()
    last.read(record({"a": person("a"), "bb": person("bb")}))
    assert last.read(record({"a": person("a")})) is None


def test_marks_hold_only_for_the_same_start_and_a_later_reading() -> None:
    """A time is plausible from the session's start until now: what was plausible then need not be so with others."""
    for fields, now in (({"created_at": rfc3339(T0 - 1)}, NOW), ({}, NOW - 1)):
        last = Last()
        last.read(record({"a": person("a")}))
        found = last.read(record({"a": person("a")}, **fields), now)
        assert found is not None
        assert found.change is None


def test_a_session_of_too_many_peers_is_no_step() -> None:
    raw = record("here").replace(b'"here"', b"[%b]" % b",".join([b"{}"] * (MOST_PEERS + 1)))
    assert decode_step(raw, NOW, lambda _: None) is None
