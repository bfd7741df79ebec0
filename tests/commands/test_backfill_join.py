"""The join of backfilled and live series: it is exact even when peers change their roles after the exporter's first poll."""

from __future__ import annotations

import random
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from exporter.commands.backfill import write
from exporter.simulator import Session, SimulatedApi, World
from exporter.times import HOUR, MINUTE, SECOND, rfc3339
from tests.commands.test_backfill import END, NOW, START, STEP, Bench, page, people
from tests.harness import T0, Counting, peer, session
from tests.marks import first_quick

LAST = END - STEP * SECOND
"""The last step before the join."""
_LEFT_LATE = "left late"
_WRITTEN = frozenset(family.name for family in write.FAMILIES)
_PEER = re.compile(r'(hms_peer\w+_total)\{.*room_id="(\w+)".*role="([^"]+)"')


def restless(world: World, chance: random.Random) -> None:
    """Scripts peers that change roles again and again around the join, a session of hours, and a leave that is recorded late."""
    people(world, chance.randrange(1000))
    room = world.rooms[0]
    long = world.open(room.id, END - HOUR)
    for number in range(6):
        long.join(("host", "guest")[number % 2], END - HOUR + number * MINUTE, user_id=f"user-{number}")
    late = world.open(world.rooms[1].id, END - 30 * MINUTE)
    late.join(_LEFT_LATE, END - 25 * MINUTE).leave(END - 20 * SECOND, recorded_at=END + 40 * SECOND)
    late.join("guest", END - 25 * MINUTE).change_role("host", END + 10 * MINUTE)
    late.close(END + HOUR)
    for call in world.sessions:
        for one in call.peers:
            left = one.left_at or call.closed_at or END + 3 * HOUR
            first, last = max(one.joined_at, END - 40 * MINUTE), min(left, END + 2 * HOUR)
            for _ in range(chance.randrange(4) if first < last and one.recorded_at == one.left_at else 0):
                one.change_role(chance.choice(("host", "guest", "stage")), chance.randrange(first, last))


@pytest.fixture(params=first_quick([1, 2, 3]))
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    world = World("key", "secret" * 6)
    restless(world, random.Random(request.param))
    with SimulatedApi([world], clock=lambda: NOW) as api:
        yield Bench(tmp_path, world, api)


class Live:
    """The live exporter's own code, and its first page."""

    def __init__(self, bench: Bench, since: int) -> None:
        self._bench = bench
        self._world = bench.world
        self.counting = Counting(bench.folder / "state.db", since=since)
        self._begun: int | None = None

    def poll(self, now: int, *, past: bool = True) -> Mapping[str, float]:
        """A poll of the running sessions and of those that ended since the first poll, and of the whole past if `past`."""
        counting = self.counting
        begun = self._begun = now if self._begun is None else self._begun
        counting.begin(now)
        for call in self._world.sessions:
            if call.exists(now) and (past or call.closed_at is None or call.closed_at > begun):
                counting.see(call.encoded(now))
        counting.end(past=past)
        return page(self._world, counting, now)

    def poll_until(self, end: int) -> None:
        """Polls from time to time, with a restart in the middle."""
        begin = self.counting.ledger.now
        assert begin is not None
        for number, now in enumerate(range(begin + 97 * SECOND, end, 97 * SECOND)):
            if number == 3:
                self.counting.restart()
            self.poll(now)
        self.counting.close()


def rises(before: Mapping[str, float], after: Mapping[str, float]) -> dict[tuple[str, str, str], float]:
    """The rise of each peer counter that a backfill writes, by family, room and role. A missing series counts as 0."""
    found = {}
    for key, value in after.items():
        match = _PEER.match(key)
        if match is not None and match[1] in _WRITTEN:
            found[match[1], match[2], match[3]] = value - before.get(key, 0.0)
    return found


def seen_to_rise(sessions: list[Session]) -> dict[tuple[str, str, str], float]:
    """The scripted rise of each role's time, from the last step to the first poll, as that poll saw it."""
    found: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    for call in sessions:
        for one in call.peers:
            if one.joined_at <= END and (call.closed_at is None or call.closed_at > LAST):
                ended = call.closed_at or NOW
                left = ended if one.left_at is None else one.left_at
                recorded = left if one.recorded_at is not None and one.recorded_at <= END else ended
                credited = min(recorded, END) - min(left, max(LAST, one.joined_at))
                found["hms_peer_seconds_total", call.room_id, one.role_at(END)] += credited / SECOND
    return found


class TestRolesChangedAfterTheFirstPoll:
    """A peer that was connected at the first poll changes its role afterwards: ..."""

    def joined(self, bench: Bench, until: int) -> dict[tuple[str, str, str], float]:
        live = Live(bench, END)
        first = live.poll(END)
        live.poll_until(until)
        assert bench.run(end=None) == 0
        written = bench.samples()
        assert max(written) == LAST // SECOND
        assert not {key for key, value in written[LAST // SECOND].items() if key in first and "_total" in key and value > first[key]}
        return rises(written[LAST // SECOND], first)

    def test_each_role_goes_on_from_where_the_past_left_it(self, bench: Bench) -> None:
        found = self.joined(bench, NOW - 97 * SECOND)
        expected = seen_to_rise(bench.world.sessions)
        for key, rise in found.items():
            assert rise >= 0, key
            if key[0] == "hms_peer_seconds_total":
                assert rise == pytest.approx(expected.get(key, 0.0), abs=1e-6), key
        assert sum(expected.values()) > 5 * STEP

    def test_also_where_the_live_exporter_has_been_down_since(self, bench: Bench) -> None:
        """The state file holds the sessions that were running when it stopped, as they were last seen."""
        found = self.joined(bench, END + 20 * MINUTE)
        expected = seen_to_rise(bench.world.sessions)
        for key, rise in found.items():
            if key[0] == "hms_peer_seconds_total":
                assert rise == pytest.approx(expected.get(key, 0.0), abs=1e-6), key

    def test_the_joins_counted_are_those_of_the_first_role(self, bench: Bench) -> None:
        found = self.joined(bench, NOW - 97 * SECOND)
        joined: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        for call in bench.world.sessions:
            for one in call.peers:
                joined["hms_peers_joined_total", call.room_id, one.role_at(END)] += LAST < one.joined_at <= END
        assert {key: rise for key, rise in found.items() if key[0] == "hms_peers_joined_total" and rise} == {
            key: rise for key, rise in joined.items() if rise
        }


class TestMemory:
    """The state file remembers earlier roles ..."""

    def changed(self, counting: Counting, name: str, begin: int) -> None:
        """A session whose peer changes its role while the exporter watches, and which then ends."""
        counting.poll(begin, session(name, {"p": peer(begin, role="guest")}, started=begin))
        counting.poll(begin + MINUTE, session(name, {"p": peer(begin, role="host")}, started=begin))
        for minutes in (2, 4):  # its end is read, and read once more
            ended = session(name, {"p": peer(begin, role="host")}, started=begin, ended=begin + 90 * SECOND)
            counting.poll(begin + minutes * MINUTE, ended)

    def remembered(self, path: Path) -> set[str]:
        with closing(sqlite3.connect(path)) as db:
            return {row[0] for row in db.execute("SELECT id FROM roles_seen")}

    def test_of_sessions_that_ran_when_the_series_began_and_of_no_others(self, tmp_path: Path) -> None:
        path = tmp_path / "state.db"
        counting = Counting(path, since=T0)
        self.changed(counting, "first", T0)
        assert counting.ledger.coverage.entries["*"].whole == T0
        self.changed(counting, "later", T0 + HOUR)
        counting.close()
        assert self.remembered(path) == {"first"}

    def test_also_of_those_that_run_when_a_room_is_added(self, tmp_path: Path) -> None:
        path = tmp_path / "state.db"
        counting = Counting(path, ["elsewhere"], since=T0)
        counting.poll(T0)
        counting.configure(["elsewhere", "*"], since=T0 + HOUR)
        self.changed(counting, "first", T0 + HOUR)
        self.changed(counting, "later", T0 + 2 * HOUR)
        counting.close()
        assert {key: entry.whole for key, entry in counting.ledger.coverage.entries.items()} == {"elsewhere": T0, "*": T0 + HOUR}
        assert self.remembered(path) == {"first"}

    def test_and_a_backfill_says_so_when_it_has_been_damaged(self, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
        live = Live(bench, END)
        live.poll(END)
        live.poll_until(NOW - 97 * SECOND)
        with closing(sqlite3.connect(bench.folder / "state.db")) as db, db:
            assert db.execute("UPDATE roles_seen SET past = x'80'").rowcount > 0
        assert bench.run(end=None) == 1
        assert "the state file is damaged (a row of roles_seen has changed on the disk)" in capsys.readouterr().err


class TestAfterEdits:
    """The live series depend on the rooms, not on how the configuration is written: ..."""

    @pytest.mark.parametrize("before", ["~.*", "room"])
    def test_the_past_joins_on_to_where_the_rooms_series_began_though_the_entry_was_edited_later(self, bench: Bench, before: str) -> None:
        live = Live(bench, END)
        live.counting.keys = [bench.world.rooms[0].id if before == "room" else before]
        first = live.poll(END)
        live.poll(END + 20 * MINUTE)
        live.counting.configure(["*"], since=END + HOUR)
        live.poll(END + HOUR)
        live.counting.close()
        assert bench.run(end=None) == 0
        written = bench.samples()
        assert max(written) == LAST // SECOND
        found = rises(written[LAST // SECOND], first)
        assert found
        expected = seen_to_rise(bench.world.sessions)
        for key, rise in found.items():
            if key[0] == "hms_peer_seconds_total" and (before != "room" or key[1] == bench.world.rooms[0].id):
                assert rise == pytest.approx(expected.get(key, 0.0), abs=1e-6), key


class TestAfterCatchingUp:
    """With `since` in the past the live series are complete once it has been read. The backfill ends there, and ..."""

    SINCE = START - HOUR
    FIRST = END - 20 * MINUTE

    def test_says_what_was_seen_from_the_first_poll_on(self, bench: Bench) -> None:
        live = Live(bench, self.SINCE)
        published = {now // SECOND: live.poll(now, past=False) for now in range(self.FIRST, END, STEP * SECOND)}
        whole = live.poll(END)
        live.poll_until(NOW - 97 * SECOND)
        assert bench.run(end=None, more=f"poll: {{since: '{rfc3339(self.SINCE)}'}}") == 0
        written = bench.samples()
        assert max(written) == LAST // SECOND, "it ends where they are whole"
        for step in range(self.FIRST // SECOND, LAST // SECOND, STEP):
            seen, said = rises(published[step], published[step + STEP]), rises(written[step], written[step + STEP])
            for key, rise in seen.items():
                if key[2] != _LEFT_LATE:  # that leave was recorded later
                    assert said[key] == pytest.approx(rise, abs=1e-6), (step, key)
        found = rises(written[LAST // SECOND], whole)
        assert min(found.values()) >= 0
        truth, before = bench.world.truth(END, recorded=True), bench.world.truth(LAST)
        for room in bench.world.rooms:
            rise = sum(value for key, value in found.items() if key[:2] == ("hms_peer_seconds_total", room.id))
            assert rise == pytest.approx((truth.room_peer_us[room.id] - before.room_peer_us[room.id]) / SECOND)

    def test_no_file_while_it_is_being_read(self, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
        live = Live(bench, self.SINCE)
        live.poll(END, past=False)
        live.counting.close()
        assert bench.run(more=f"poll: {{since: '{rfc3339(self.SINCE)}'}}") == 2
        assert "still reads the past" in capsys.readouterr().err

    def test_no_end_after_that(self, bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
        live = Live(bench, self.SINCE)
        live.poll(END - MINUTE)
        live.counting.close()
        assert bench.run(more=f"poll: {{since: '{rfc3339(self.SINCE)}'}}") == 2
        assert "--to: expected at most 2026-03-03T09:59:00Z, where the live series are whole" in capsys.readouterr().err
