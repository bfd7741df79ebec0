"""Edits at random, beside polls, faults and kills: only the rooms and `since` decide which sessions count.

A configuration is edited at random (entries reordered, rewritten, added, removed, patterns that overlap, `max_rooms` up and
down, `since` changed, the workspace renamed and named back), by reload, by restart, and by a reload that a kill cuts short.
Rooms are renamed at 100ms, requests fail, and the process is killed before, between and after its commits.  In the end every
room is followed and everything is read.  A session must then be counted once under each name of the workspace under which it
ended after the counting of its room began, and not at all under the other names.  `Told` works out when that was from the list
of events alone.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from exporter.config.config import LimitsConfig, RoomById, RoomsByName
from exporter.counting.ledger import Ledger
from exporter.counting.rooms import KnownRoom
from exporter.hms.records import Room
from exporter.simulator import Fault, Session, World
from exporter.state.store import Store, StoreError
from exporter.times import HOUR, SECOND
from lab.bench import FOREVER, Bench, Since, since_moment
from tests.harness import MEMORY, T0, at

pytestmark = pytest.mark.slow

Entry = RoomById | RoomsByName

WORKSPACES = ("w", "renamed")
"""The names that the workspace has in turn."""
NAMES = ("class-1", "class-2", "class-a", "team-1", "team-class", "other")
PATTERNS = ("class-.*", "class-[0-9]+", "team-.*", ".*-1", ".*class.*", "nothing-.*")


class Killed(BaseException):
    """The process dies here."""


class Told:
    """The moment when each room's counting began under a name of the workspace.

    It is set by the first poll in which an entry in force covered the room by the name known at that time.
    """

    def __init__(self, names: dict[str, str]) -> None:
        self.names = dict(names)
        self.begun: dict[str, int] = {}
        self.in_force: tuple[list[Entry] | None, Since] | None = None
        """The entries and `since` of the last durable poll."""
        self._polls: list[tuple[int, list[Entry] | None, Since]] = []

    def polled(self, now: int, entries: list[Entry] | None, since: Since) -> None:
        """Notes that a poll at this moment is durable."""
        self._polls.append((now, entries, since))
        for room_id in self.names:
            self._cover(room_id, now, entries, since)

    def first_heard(self, room_id: str, name: str) -> None:
        """Takes up the first name that the exporter hears of the room. It decides about the earlier polls as well."""
        self.names[room_id] = name
        self.begun.pop(room_id, None)
        for poll in self._polls:
            self._cover(room_id, *poll)

    def _cover(self, room_id: str, now: int, entries: list[Entry] | None, since: Since) -> None:
        if _covers(entries, room_id, self.names[room_id]):
            self.begun.setdefault(room_id, since_moment(since, now))

    def counted(self, sessions: list[Session]) -> list[Session]:
        """The sessions that count."""
        return [call for call in sessions if call.closed_at is not None and call.closed_at > self.begun.get(call.room_id, 1 << 62)]


def _covers(entries: list[Entry] | None, room_id: str, name: str) -> bool:
    if entries is None:
        return True
    return any(entry.id == room_id if isinstance(entry, RoomById) else entry.match.fullmatch(name) for entry in entries)


class Play:
    """A workspace, its exporter, and random edits of its configuration."""

    def __init__(self, chance: random.Random, folder: Path) -> None:
        self.chance = chance
        self.world = World("k", "s" * 32)
        for name in NAMES:
            self.world.room(name=name, created_at=T0 - 100 * HOUR)
        names = {room.id: room.name_at(T0) for room in self.world.rooms}
        self.told_of = {workspace: Told(names) for workspace in WORKSPACES}
        for room in self.world.rooms:
            for _ in range(chance.randrange(1, 8)):
                self.script(room.id)
        self.entries: list[Entry] | None = self.draw_entries()
        self.bench = Bench(folder, self.world, self.entries, limits=FOREVER)
        self.set_since()
        self.log: list[str] = []

    @property
    def told(self) -> Told:
        """The `Told` of the workspace's present name."""
        return self.told_of[self.bench.workspace.name]

    def script(self, room_id: str) -> None:
        """Scripts a call of a room, at any time from two days before the exporter's first start to half a day after it."""
        chance = self.chance
        started = at(chance.choice((chance.uniform(-48, 0), chance.uniform(-2, 12), chance.uniform(0, 1))) * 3600)
        ended = started + chance.choice((1, 30, 300, 3000, 9000)) * SECOND + chance.randrange(SECOND)
        call = self.world.open(room_id, at=started)
        for _ in range(chance.randrange(1, 4)):
            someone = call.join(chance.choice(("host", "guest")), at=started + chance.randrange(ended - started))
            if chance.random() < 0.8:
                someone.leave(at=someone.joined_at + chance.randrange(ended - someone.joined_at + 1))
        call.close(at=ended)

    # -- edits ----------------------------------------------------------------------------------------------------

    def draw_entries(self) -> list[Entry] | None:
        """Entries of a configuration, in any order."""
        chance = self.chance
        if chance.random() < 0.2:
            return None
        found: list[Entry] = [RoomById(room.id) for room in self.world.rooms if chance.random() < 0.25]
        patterns = [pattern for pattern in PATTERNS if chance.random() < 0.3]
        found += [RoomsByName(re.compile(pattern), chance.choice((None, None, "group"))) for pattern in patterns]
        chance.shuffle(found)
        return found or None

    def edit(self) -> None:
        """One edit: changes the old entries, or draws new ones."""
        chance, before = self.chance, self.entries
        kind = chance.choice(("reorder", "remove", "add", "other", "same"))
        entries = self.draw_entries()
        if before is not None and entries is not None and kind != "other":
            same = [entry for entry in before if kind != "remove" or chance.random() < 0.6]
            entries = same + [entry for entry in entries if kind == "add" and entry not in same]
            keys = {entry.id if isinstance(entry, RoomById) else entry.match.pattern: entry for entry in entries}
            entries = list(keys.values()) or None
            if entries is not None and kind == "reorder":
                chance.shuffle(entries)
        self.entries = entries

    def set_since(self) -> None:
        since: Since = self.chance.choice(("start", "start", timedelta(hours=20), datetime.fromtimestamp(T0 // SECOND - 5 * 3600, UTC)))
        self.bench.config = replace(self.bench.config, poll=replace(self.bench.config.poll, since=since))
        self.bench.poller._config = self.bench.config  # as if the first start had had this value

    def configure(self) -> None:
        """Hands the edit to the exporter: by reload, by restart, or by a reload that a kill cuts short."""
        chance, bench = self.chance, self.bench
        if chance.random() < 0.2:
            self.set_since()
        limits = LimitsConfig(max_rooms=chance.choice((0, 1, 3, 5000)), room_idle_expiry=1e8)
        name = chance.choice(WORKSPACES) if chance.random() < 0.3 else bench.workspace.name
        how = chance.choice(("reload", "restart", "killed"))
        if how == "reload":
            bench.configure(self.entries, limits, name)
        elif how == "restart":
            bench.write(self.entries, limits, name)
            bench.restart()
        else:
            steps = self.configure_and_die(limits, name, chance.randrange(8))
            how = f"killed after {steps} steps of a reload"
            bench.restart()
        self.log.append(f"{how} {name} {self.entries} {bench.config.poll.since} {limits.max_rooms}")

    def configure_and_die(self, limits: LimitsConfig, name: str, steps: int) -> int:
        """A reload by a process that dies after this many steps (reads, writes, publications); returns the steps that were made."""
        bench, taken = self.bench, 0

        def dying(step: Callable[..., Any]) -> Callable[..., Any]:
            def taking(*arguments: Any, **named: Any) -> Any:
                nonlocal taken
                if taken == steps:
                    raise Killed
                taken += 1
                return step(*arguments, **named)

            return taking

        dies = {**dict.fromkeys(("accounts", "rooms", "restore", "commit"), bench.store), "publish": bench.exposition}
        for step, of in dies.items():
            setattr(of, step, dying(getattr(of, step)))
        with contextlib.suppress(Killed):
            bench.configure(self.entries, limits, name)
        for step, of in dies.items():
            delattr(of, step)
        return taken

    def rename(self) -> None:
        """Renames a room whose name the exporter knows, also between a reload and the next poll."""
        bench = self.bench
        if bench.poller._poll is None:
            return  # names are read after a poll
        room = self.chance.choice(self.world.rooms)
        if not self.knows(room.id, bench.workspace.name):
            return
        name = self.chance.choice((*NAMES, "elsewhere"))
        room.rename(name, at=bench.now)
        for workspace, told in self.told_of.items():
            if told is not self.told and not self.knows(room.id, workspace):
                told.first_heard(room.id, name)
        self.log.append(f"{bench.now - T0} rename {room.id} {name}")
        self.learn()

    def knows(self, room_id: str, workspace: str) -> bool:
        """Whether the exporter knows the name of the room, under this name of the workspace."""
        in_memory = self.bench.poller.rooms.known.get(room_id) if workspace == self.bench.workspace.name else None
        known = in_memory or self.bench.store.rooms(workspace, [room_id]).get(room_id)
        return known is not None and known.answered

    def learn(self) -> None:
        """Reads names again: those of the renamed rooms, perhaps under another name of the workspace."""
        told = self.told
        news = {room.id: name for room in self.world.rooms if (name := room.name_at(self.bench.now)) != told.names[room.id]}
        if not news:
            return
        told.names.update(news)
        self.bench.poller.learn([KnownRoom.of(Room(room_id, name), self.bench.now) for room_id, name in news.items()])
        if told.in_force is not None:
            told.polled(self.bench.now, *told.in_force)

    # -- polls ----------------------------------------------------------------------------------------------------

    def poll(self, seconds: int, trouble: float) -> None:
        """A poll, which may fail in parts or be killed at one of its commits."""
        chance, bench = self.chance, self.bench
        bench.server.faults.clear()
        bench.server.clear()
        if chance.random() < trouble:
            bench.server.faults.add(Fault(kind="status", status=500, after=chance.randrange(1, 6), times=chance.choice((1, 2, 50))))
        dies_at = chance.choice((1, 1, 2, 3)) if chance.random() < trouble else 0
        if dies_at:
            bench.now += seconds * SECOND
            commits = self.poll_and_die(dies_at)
            self.log.append(f"{bench.now - T0} poll, killed at commit {dies_at} ({commits} made)")
            if commits:
                self.durable()
            bench.restart()
            return
        bench.poll(seconds)
        self.log.append(f"{bench.now - T0} poll {bench.up()}")
        self.durable()
        if bench.poller._poll is not None:
            self.learn()

    def durable(self) -> None:
        """Notes that this poll has been stored, with the beginning of counting, if 100ms answered at all."""
        if not any(request.status == 200 for request in self.bench.server.requests):
            return
        self.told.in_force = self.entries, self.bench.config.poll.since
        self.told.polled(self.bench.now, *self.told.in_force)

    def poll_and_die(self, dies_at: int) -> int:
        """A poll by a process that dies at the commit of this number; returns the number of commits made."""
        store, made = self.bench.store, 0
        real = Store.commit

        def commit(name: str, ledger: Ledger, rooms: list[KnownRoom]) -> None:
            nonlocal made
            if made + 1 >= dies_at:
                raise StoreError("killed")
            real(store, name, ledger, rooms)
            made += 1

        store.commit = commit  # type: ignore[method-assign, assignment]  # the process dies at this moment
        self.bench.poller.poll()
        return made

    def finish(self, workspace: str) -> None:
        """Follows all rooms under this name of the workspace until everything has ended and has been read."""
        self.entries = None
        self.bench.server.faults.clear()  # otherwise the next poll may not begin
        self.bench.configure(None, FOREVER, workspace)
        self.told.polled(self.bench.now + 30 * SECOND, None, self.bench.config.poll.since)
        self.bench.poll(30)
        self.bench.finish()
        self.bench.poll(2 * 3600)
        self.bench.finish()


def check(play: Play, workspace: str) -> None:
    """The state file equals the truth about the sessions that count, by room and to the microsecond."""
    counted = play.told_of[workspace].counted(play.world.sessions)
    expected: dict[str, int] = {}
    for call in counted:
        assert call.closed_at is not None
        for one in call.peers:
            left = call.closed_at if one.left_at is None else one.left_at
            expected[call.room_id] = expected.get(call.room_id, 0) + left - one.joined_at
    of = (workspace,)
    with closing(sqlite3.connect(play.bench.state_file)) as db:
        found = dict(db.execute("SELECT room_id, SUM(us) FROM day WHERE workspace = ? GROUP BY room_id", of).fetchall())
        rows = db.execute("SELECT counts, us FROM account WHERE workspace = ?", of).fetchall()
    counts, seconds = [json.loads(counts) for counts, _ in rows], sum(us for _, us in rows)
    story = "\n".join([workspace, *play.log])
    assert {room_id: us for room_id, us in found.items() if us} == {room_id: us for room_id, us in expected.items() if us}, story
    assert [sum(of) for of in zip(*counts, strict=True)][:2] in ([], [len(counted)] * 2), story
    assert seconds == sum((call.closed_at or 0) - call.created_at for call in counted), story


def run(chance: random.Random, trouble: float) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        play = Play(chance, Path(folder))
        try:
            play.log.append(f"start {play.entries} {play.bench.config.poll.since}")
            for _ in range(14):
                play.poll(chance.choice((1, 30, 30, 300, 1800, 7200)), trouble)
                if chance.random() < 0.15:
                    play.rename()
                if chance.random() < 0.5:
                    play.edit()
                    play.configure()
                elif chance.random() < trouble:
                    play.bench.restart()
                if chance.random() < 0.15:
                    play.rename()
            for workspace in WORKSPACES:
                play.finish(workspace)
            for workspace in WORKSPACES:
                check(play, workspace)
        finally:
            play.bench.close()


seeds = st.integers(0, 2**32 - 1).map(random.Random)


@settings(max_examples=20, phases=[Phase.generate])
@given(chance=seeds)
def test_however_a_configuration_is_edited_each_session_counts_once(chance: random.Random) -> None:
    run(chance, trouble=0.0)


@settings(max_examples=20, phases=[Phase.generate])
@given(chance=seeds)
def test_faults_and_kills_during_edits_do_not_change_the_counts(chance: random.Random) -> None:
    run(chance, trouble=0.3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=300, phases=[Phase.generate])
@given(chance=seeds, trouble=st.sampled_from((0.0, 0.1, 0.5)))
def test_however_a_configuration_is_edited_each_session_counts_once_in_many_more_runs(chance: random.Random, trouble: float) -> None:
    run(chance, trouble)
