"""The state file: it is restored exactly or not at all, and a damaged or foreign file is refused and left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exporter.counting.changes import Settled
from exporter.counting.contribution import SessionCounts, group_account, room_account
from exporter.counting.coverage import MARGIN, REACH_BACK
from exporter.counting.ledger import Ledger
from exporter.counting.rooms import KnownRoom
from exporter.counting.stays import PeerCounts
from exporter.hms.records import Room
from exporter.state.file import StateFile
from exporter.state.schema import Column, Schema, Shape
from exporter.state.soundness import sealed
from exporter.state.store import APPLICATION_ID, Store, StoreError
from exporter.state.tables import ACCOUNT, ROLE, Table
from exporter.times import HOUR, SECOND
from tests.harness import T0, Counting, at, peer, published, session
from tests.marks import first_quick

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def fill(path: Path) -> Counting:
    """A ledger with every kind of entry: settled, running, held, changed roles, unread, unknown, unassigned, caught up with."""
    counting = Counting(path, ["*", "configured"], since=T0)
    changing = {"p": peer(at(0), role="viewer"), "q": peer(at(1), role="host")}
    counting.poll(at(10), session("running", changing), session("lost", {"l": peer(at(2))}), session("unread", {}, room="other"))
    changed = {"p": peer(at(0), role="stage"), "q": peer(at(1), at(3), "host")}
    ended = session("ended", {"e": peer(at(12), at(20.000001)), "ghost": peer(at(13))}, started=at(11), ended=at(25), room="other")
    counting.begin(at(40))
    for raw in (session("running", changed), ended):
        counting.see(raw)
    counting.now.unknown("lost")
    counting.end(complete=False)
    counting.begin(at(150))
    counting.see(ended)  # read once more
    counting.see(session("waiting", {"w": peer(at(140))}, room="nameless", started=at(140)))
    counting.now.finish((), 0.0)
    counting.commit()
    return counting


OF_A_SESSION = ("room_id", "account", "started", "ended", "observed", "unknown", "seen_ended", "measured", "read")
"""The stored fields of an unsettled session, besides its memory."""


def everything(ledger: Ledger) -> dict[str, Any]:
    """Everything in a ledger that must outlive its process."""
    return {
        "now": (ledger.now, ledger.coverage.read_until),
        "entries": ledger.coverage.entries,
        "renamed": ledger.coverage.rooms,
        "catch_ups": ledger.coverage.tasks,
        "settled": ledger.settled,
        "published": published(ledger.accounts.values()),
        "settled sums": {
            account: (state.totals.counts, state.totals.seconds, state.last_active) for account, state in ledger.accounts.items()
        },
        "settled by role": {
            (account, role): (of.counts, of.seconds) for account, state in ledger.accounts.items() for role, of in state.roles.items()
        },
        "tracked": {one.id: (*(getattr(one, of) for of in OF_A_SESSION), one.recall()) for one in ledger.tracked.values()},
        "of accounts": {account: sorted(state.sessions) for account, state in ledger.accounts.items()},
        "histograms": {key: (of.bounds, of.counts, of.total) for key, of in ledger.histograms.items()},
    }


def restored(path: Path, workspace: str = "w") -> dict[str, Any]:
    """The ledger that a new process restores."""
    return restored_from(Store(path), workspace)


def restored_from(store: Store, workspace: str) -> dict[str, Any]:
    """The ledger that a new process restores from this store, which is closed."""
    ledger = Ledger()
    try:
        store.restore(workspace, ledger)
        ledger.restore(store.accounts(workspace, 0))
        return everything(ledger)
    finally:
        store.close()


def contents(folder: Path) -> dict[str, bytes]:
    """The contents of all files except empty ones and SQLite's shared memory."""
    files = [entry for entry in folder.iterdir() if entry.is_file() and not entry.name.endswith("-shm")] if folder.is_dir() else []
    return {entry.name: body for entry in files if (body := entry.read_bytes())}


def refused(path: Path) -> str:
    """The message with which a file is refused.  The file must not change."""
    before = contents(path.parent)
    with pytest.raises(StoreError) as caught:
        Store(path)
    assert contents(path.parent) == before
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- it comes back as it was --------------------------------------------------------------------------------------


def test_everything_comes_back_as_it_was(path: Path) -> None:
    counting = fill(path)
    counting.close()
    found = restored(path)
    assert found == everything(counting.ledger)
    assert set(found["tracked"]) == {"running", "lost", "unread", "waiting"}
    assert found["settled"] == {"ended": Settled("other", at(11))}


def test_a_new_file_is_made_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "some" / "folder" / "state.db"
    Store(path).close()
    assert restored(path)["tracked"] == {}


def test_an_empty_file_is_as_good_as_none(path: Path) -> None:
    path.touch()
    fill(path).close()
    assert restored(path)["settled"] == {"ended": Settled("other", at(11))}


def test_workspaces_are_kept_apart(path: Path) -> None:
    counting = fill(path)
    counting.store.commit("v", Ledger())
    counting.close()
    assert restored(path) == everything(counting.ledger)
    assert restored(path, "v")["tracked"] == restored(path, "nobody")["tracked"] == {}


def test_accounts_are_found_by_their_last_activity_and_groups_always(path: Path) -> None:
    with closing(Store(path)) as store:
        finds_accounts_by_their_last_activity(store)


def finds_accounts_by_their_last_activity(store: Store) -> None:
    ledger = Ledger()
    ledger.now = at(0)
    for account, active in ((room_account("old"), at(0)), (room_account("new"), at(100)), (group_account("old"), at(0))):
        ledger.open(account).last_active = active
    store.commit("w", ledger)
    assert {state.account for state in store.accounts("w", at(50))} == {room_account("new"), group_account("old")}
    assert store.account("w", room_account("none")) is None


def test_what_is_known_of_rooms_comes_back(path: Path) -> None:
    known = KnownRoom.of(Room("r", 'a "name"\n', "t", "ti", "eu", enabled=False), at(5))
    gone = KnownRoom.missing("gone", at(6))
    store = Store(path)
    ledger = Ledger()
    store.commit("w", ledger, [known, gone])
    store.close()
    store = Store(path)
    assert store.rooms("w", ["r", "gone", "never-heard-of"]) == {"r": known, "gone": gone}
    store.close()


def test_names_that_nobody_would_give_come_back_as_they_were(path: Path) -> None:
    """Roles and ids may hold any text that 100ms accepts."""
    odd = ["nul \0 in it", "'; DROP TABLE role; --", "😀", "x" * 5000, "line\nbreak"]
    counting = Counting(path)
    counting.poll(at(0))
    peers = {f"p{number}": peer(at(1), at(2), role) for number, role in enumerate(odd)}
    counting.poll(at(10), *(session(f"s{name}", peers, room=f"r{name}", started=at(1), ended=at(3)) for name in odd))
    counting.close()
    assert restored(path) == everything(counting.ledger)


# -- whole or not at all ------------------------------------------------------------------------------------------


def test_a_commit_that_fails_half_way_changes_nothing_and_can_be_made_again(path: Path) -> None:
    counting = fill(path)
    before = sqlite3.connect(path).execute("SELECT * FROM running").fetchall()
    counting.begin(at(1100))  # so late that no session need be read once more
    counting.see(session("running", {"p": peer(at(0), at(90), "stage")}, ended=at(95)))
    counting.assign()
    counting.now.finish(None, 0.0)

    fails_half_way(counting)
    assert sqlite3.connect(path).execute("SELECT * FROM running").fetchall() == before
    assert counting.ledger.changes.untracked == {"running"}
    counting.commit()
    counting.close()
    assert restored(path) == everything(counting.ledger)


def fails_half_way(counting: Counting) -> None:
    """A commit that fails between two rows."""

    def broken() -> Iterator[KnownRoom]:
        yield KnownRoom.missing("r", at(1))
        raise RuntimeError("in the middle of it")

    with pytest.raises(RuntimeError):
        counting.store.commit("w", counting.ledger, broken())


CHILD = """
import sys
from pathlib import Path
from tests.harness import Counting, at, peer, session

counting = Counting(Path(sys.argv[1]))
counting.poll(at(0), complete=False)  # the past stays unread: what ended long ago is counted, and settled at once
print(0, flush=True)
for number in range(1, 100_000):
    started = at(number)
    ended = started + 500_000
    sessions = [session(f"s{number}-{n}", {"p": peer(started, ended)}, started=started, ended=ended) for n in range(20)]
    counting.poll(at(number + 1000), *sessions, complete=False)
    print(number, flush=True)
"""


@pytest.mark.parametrize("commits", first_quick([1, 0, 16]))
def test_a_kill_leaves_what_was_committed_and_no_half_of_anything(path: Path, commits: int) -> None:
    """After a kill at any moment the file holds a whole number of polls, including every poll that was reported as stored."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert child.stdout is not None
    told = int(child.stdout.readline())
    while told < commits:
        told = int(child.stdout.readline())
    child.send_signal(signal.SIGKILL)
    told = max([told, *(int(line) for line in child.stdout if line.endswith("\n"))])
    child.wait()
    found = restored(path)
    counts, us, _ = found["settled sums"].get(room_account("room"), (SessionCounts(), 0, 0))
    count = counts.started
    assert count % 20 == 0
    assert count // 20 in (told, told + 1)
    assert us == count * 500_000
    assert len(found["settled"]) == count
    assert found["settled by role"].get((room_account("room"), "guest"), (PeerCounts(), 0)) == (PeerCounts(count, count), us)
    assert sqlite3.connect(path).execute("SELECT COALESCE(SUM(us), 0) FROM day").fetchone() == (us,)


MAKER = """
import os, sys, sqlite3, threading, time
from pathlib import Path
from exporter.state.store import Store

threading.Thread(target=lambda: (time.sleep(float(sys.argv[2])), os.kill(os.getpid(), 9)), daemon=True).start()
while True:
    Store(Path(sys.argv[1])).close()
    Path(sys.argv[1]).unlink()
"""


@pytest.mark.parametrize("milliseconds", first_quick([6, 1, 3, 10, 17]))
def test_a_kill_while_the_file_is_made_leaves_one_that_the_next_start_takes(path: Path, milliseconds: int) -> None:
    subprocess.run([sys.executable, "-c", MAKER, str(path), str(milliseconds / 1000)], cwd=ROOT, check=False)
    assert restored(path)["tracked"] == {}


# -- refused files ------------------------------------------------------------------------------------------------


def test_a_file_of_another_version_is_refused(path: Path) -> None:
    fill(path).close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    assert "version 99" in refused(path)


@pytest.mark.parametrize("table", [ACCOUNT, ROLE], ids=lambda table: table.name)
@pytest.mark.parametrize("column", ["counts", "held"])
def test_a_counter_of_a_later_exporter_is_not_called_damage_and_stays(path: Path, table: Table[Any], column: str) -> None:
    fill(path).close()
    store = Store(path)
    with store.writing() as db:
        row = next(iter(db.select(table, "workspace = ?", ("w",))))
        db.put(table, [row._replace(**{column: json.dumps([*json.loads(getattr(row, column)), 7]).encode()})])
    before = contents(path.parent)
    with pytest.raises(StoreError, match="a counter that this exporter does not know; run the exporter that wrote it") as caught:
        store.accounts("w", 0)
    assert "damaged" not in str(caught.value)
    assert contents(path.parent) == before
    store.close()


def test_another_programs_database_is_refused(path: Path) -> None:
    database = sqlite3.connect(path)
    database.executescript("PRAGMA application_id = 7; CREATE TABLE account (id)")
    database.close()
    assert "another program" in refused(path)


def test_a_database_that_says_nothing_about_its_program_is_refused(path: Path) -> None:
    database = sqlite3.connect(path)
    database.executescript("CREATE TABLE account (id)")
    database.close()
    assert "another program" in refused(path)


def test_our_name_on_other_tables_is_refused(path: Path) -> None:
    database = sqlite3.connect(path)
    database.executescript(f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 2; CREATE TABLE account (id)")
    database.close()
    assert "damaged" in refused(path)


@pytest.mark.parametrize("body", [b"x", b"workspaces:\n" * 50, b"SQLite format 3\0", b"\0" * 4096])
def test_a_file_that_is_no_database_is_refused(path: Path, body: bytes) -> None:
    path.write_bytes(body)
    assert "not a state file" in refused(path)


def test_a_folder_is_refused(path: Path) -> None:
    path.mkdir()
    assert "not a file" in refused(path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "cannot be used" in refused(tmp_path / "file" / "state.db")


def test_a_message_names_the_absolute_path_of_a_relative_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("state.db").write_text("somebody's own")
    with pytest.raises(StoreError) as caught:
        Store(Path("state.db"))
    assert str(tmp_path / "state.db") in str(caught.value)


def test_a_folder_that_must_not_be_written_to_is_refused() -> None:
    before = os.geteuid()
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, whose parent folder is closed to other users
        folder = Path(name)
        folder.chmod(0o555)
        if before == 0:
            os.seteuid(65534)  # root may write anywhere
        try:
            said = refused(folder / "state.db")
            assert "cannot be used" in said
            assert f"user id {os.geteuid()}" in said
        finally:
            os.seteuid(before)
            folder.chmod(0o700)


def test_an_emptied_file_is_refused_as_long_as_its_log_is_there(path: Path, tmp_path: Path) -> None:
    """A log without its file is ignored: the start makes a new file."""
    counting = fill(path)
    emptied = tmp_path / "killed" / "state.db"
    emptied.parent.mkdir()
    subprocess.run(["cp", f"{path}-wal", f"{emptied}-wal"], check=True)
    counting.close()
    emptied.touch()
    assert "damaged (it is empty, but its log is not)" in refused(emptied)
    emptied.unlink()
    assert restored(emptied)["tracked"] == {}


def test_the_log_stays_the_same_file_through_all_checkpoints_and_a_commit_after_each_is_there_at_the_next_start(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite's own checkpoints and those of other programs: `StateFile.keep` relies on this."""
    some = Shape("some", (Column("number", "integer"), Column("body", "blob")), ("number",))
    file = StateFile(path, Schema(1, [some]))
    beside = [Path(f"{path}{name}") for name in ("-wal", "-shm")]
    before = [one.stat().st_ino for one in beside]
    sizes = set()
    for number in range(60):
        with file.transaction() as db:
            db.executemany("INSERT INTO some VALUES (?, ?, ?)", sealed((number * 100 + n, os.urandom(5000)) for n in range(20)))
        sizes.add(path.stat().st_size)
        if number % 10 == 9:
            mode = ("PASSIVE", "FULL", "RESTART", "TRUNCATE")[number // 10 % 4]
            with closing(sqlite3.connect(path)) as other:
                assert other.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()[0] == 0
        assert [one.stat().st_ino for one in beside] == before
    assert len(sizes) > 5, "the log was worked into the file again and again"
    assert caplog.records == []
    killed = tmp_path / "killed"
    killed.mkdir()
    subprocess.run(["cp", path, *beside, killed], check=True)
    file.close()
    with closing(sqlite3.connect(killed / path.name)) as found:
        assert found.execute("SELECT count(*) FROM some").fetchone() == (1200,)


def test_a_truncated_file_is_refused(path: Path) -> None:
    fill(path).close()
    whole = path.read_bytes()
    for size in (50, 100, 4096, len(whole) // 2, len(whole) - 4096, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(path)


def outcome(path: Path, sound: dict[str, Any]) -> str:
    """`refused` (the file stays as it is) or `harmless`: the only two outcomes allowed for a damaged file."""
    before = path.read_bytes()
    try:
        found = restored(path)
    except StoreError:
        assert path.read_bytes() == before
        return "refused"
    assert found == sound
    return "harmless"


def test_no_damaged_page_changes_what_is_counted(path: Path) -> None:
    """Each page in turn, with all of its bits inverted, or blank: the file is refused or the damage is harmless."""
    fill(path).close()
    sound, whole = restored(path), path.read_bytes()
    outcomes = []
    for start in range(0, len(whole), 4096):
        page = whole[start : start + 4096]
        for damaged in (bytes(byte ^ 0xFF for byte in page), bytes(4096)):
            path.write_bytes(whole[:start] + damaged + whole[start + 4096 :])
            outcomes.append(outcome(path, sound))
    assert outcomes.count("refused") > len(outcomes) / 2


def damage_single_bytes(path: Path, count: int) -> None:
    fill(path).close()
    sound, whole = restored(path), path.read_bytes()
    chance = random.Random(1)
    used = [index for index, byte in enumerate(whole) if byte]
    outcomes = []
    for index in chance.sample(used, min(count, len(used))):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ (1 << chance.randrange(8))]) + whole[index + 1 :])
        outcomes.append(outcome(path, sound))
    assert outcomes.count("refused") > len(outcomes) / 2


def test_no_turned_bit_changes_what_is_counted(path: Path) -> None:
    """A number that has changed on the disk is never published."""
    damage_single_bytes(path, 150)


def test_a_damaged_file_whose_last_process_was_killed_is_left_alone_with_its_log(path: Path, tmp_path: Path) -> None:
    """The write-ahead log is not merged into a refused file: both may be needed for a rescue."""
    counting = fill(path)
    copy = tmp_path / "killed"
    copy.mkdir()
    whole = path.read_bytes()
    # As after a kill: the log is not empty.
    (copy / "state.db").write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    (copy / "state.db-wal").write_bytes(Path(f"{path}-wal").read_bytes()[: 32 + 3 * (4096 + 24)])
    counting.close()
    assert "damaged" in refused(copy / "state.db")


# -- in use -------------------------------------------------------------------------------------------------------


HOLDER = """
import sys
from pathlib import Path
from exporter.state.store import Store

store = Store(Path(sys.argv[1]))
print(1, flush=True)
input()
"""


def test_a_file_in_use_by_another_exporter_is_refused(path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert other.stdout is not None
    assert other.stdout.readline() == b"1\n"
    assert "in use by another exporter" in refused(path)
    other.kill()
    other.wait()
    Store(path).close()


def test_a_file_locked_by_another_program_fails_the_commit_and_the_next_one_makes_up_for_it(path: Path) -> None:
    counting = fill(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    counting.begin(at(1100))
    counting.see(session("late", {"p": peer(at(80), at(90))}, started=at(80), ended=at(90)))
    counting.assign()
    counting.now.finish(None, 0.0)
    with pytest.raises(StoreError, match="in use by another program"):
        counting.commit()
    other.execute("ROLLBACK")
    other.close()
    counting.commit()
    counting.close()
    assert restored(path) == everything(counting.ledger)


def test_others_may_read_the_file_while_it_is_in_use(path: Path) -> None:
    counting = fill(path)
    reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    assert reader.execute("SELECT COUNT(*) FROM running").fetchone() == (4,)
    reader.close()
    counting.poll(at(200))
    counting.close()


def test_after_the_end_nothing_is_written(path: Path) -> None:
    counting = fill(path)
    counting.close()
    before = path.read_bytes()
    with pytest.raises(StoreError):
        counting.store.commit("w", counting.ledger)
    assert path.read_bytes() == before


# -- contents -----------------------------------------------------------------------------------------------------


def test_the_file_holds_neither_user_ids_nor_names(path: Path) -> None:
    """Neither while sessions run nor after they have ended, and the log beside it does not either."""
    counting = Counting(path)
    people = {"p": {**peer(at(1), user="canary-user"), "name": "canary-name", "metadata": "canary-data"}}
    gone = {"p": {**peer(at(1), at(2), user="canary-user"), "name": "canary-name", "metadata": "canary-data"}}
    counting.poll(at(10), session("running", people, started=at(1)), session("ended", gone, started=at(1), ended=at(5)))
    files = [entry.read_bytes() for entry in path.parent.iterdir()]
    counting.close()
    files += [entry.read_bytes() for entry in path.parent.iterdir()]
    assert any(b"running" in body for body in files)
    assert not any(b"canary" in body for body in files)


def test_the_file_does_not_grow_with_the_sessions_that_have_ended(path: Path) -> None:
    """Only sessions that an answer might still show are kept."""
    counting = Counting(path)
    counting.poll(at(0))
    most = 0
    for hour in range(1, 100):
        started = at(hour * 3600)
        sessions = [
            session(f"s{hour}-{n}", {"p": peer(started, started + SECOND)}, started=started, ended=started + SECOND) for n in range(10)
        ]
        counting.poll(started + 60 * SECOND, *sessions)
        counting.poll(started + 200 * SECOND, *sessions)
        rows = counting.ledger.settled
        stored = sqlite3.connect(path).execute("SELECT COUNT(*), (SELECT COUNT(*) FROM running) FROM settled").fetchone()
        assert stored[1] == 0
        most = max(most, stored[0], len(rows))
    assert most <= 10 * ((REACH_BACK + MARGIN) // HOUR + 2)
    counting.close()
