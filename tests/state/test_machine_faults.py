"""Faults of the machine: of the state file, the disk, the clock, the file descriptors."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import schedule

from exporter.config.config import CollectConfig
from exporter.counting.collected import Collected
from exporter.counting.contribution import Account
from exporter.counting.followed import CatchUp
from exporter.counting.holdings import Kind
from exporter.counting.ledger import Ledger
from exporter.counting.webhooks import Heard
from exporter.daemon import Cadence
from exporter.hms.webhooks import Event
from exporter.publish.beside import LISTED
from exporter.simulator import Fault, World
from exporter.state import collected
from exporter.state.sqlite import SqliteDatabase
from exporter.state.store import Store, StoreError
from exporter.state.sums import Additions
from exporter.state.webhooks import commit as commit_webhooks
from exporter.state.webhooks import restore as restore_webhooks
from exporter.times import MINUTE, SECOND
from lab.bench import START as T0
from lab.bench import Bench
from lab.beside import BesideBench
from lab.counters import sums, true_sums

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
HOUR_S = 3600.0


def world() -> World:
    """Two rooms: one with an ended call and one of half an hour, one with calls that follow one another."""
    made = World("key", "secret-of-at-least-thirty-two-bytes!")
    rooms = [made.room(name=name, created_at=T0 - MINUTE) for name in ("standup", "lesson")]
    for start, length, room in ((10, 20, 0), (40, 1800, 0), (15, 50, 1), (150, 30, 0), (100, 200, 1), (400, 900, 1)):
        session = made.open(rooms[room].id, T0 + start * SECOND)
        for index, role in enumerate(("host", "guest", "guest")):
            peer = session.join(role, T0 + (start + index) * SECOND)
            if index:
                peer.leave(T0 + (start + length - index) * SECOND)
        session.close(T0 + (start + length) * SECOND)
    return made


@contextlib.contextmanager
def polled(folder: Path, polls: int = 3, made: World | None = None) -> Iterator[Bench]:
    """An exporter that has polled this world a few times, half a minute apart."""
    with Bench(folder, made or world(), runs=True) as bench:
        for _ in range(polls):
            bench.poll()
            bench.clock.leap(30)
        yield bench


def finish(bench: Bench) -> None:
    """Half an hour later everything has ended.  The counters equal the truth, and none ever fell."""
    bench.clock.leap(HOUR_S)
    bench.poll()
    found = sums(bench.poll())
    assert found == true_sums(bench.world.truth(bench.clock()))
    assert bench.watcher.falls == []


def opened(bench: Bench) -> sqlite3.Connection:
    """The exporter's own connection to its state file."""
    assert isinstance(bench.store.database, SqliteDatabase)
    return bench.store.database.file.db


def up(found: dict[str, float]) -> float:
    return found['hms_up{workspace="w"}']


# -- the state file is removed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("",), ("", "-wal", "-shm")], ids=["alone", "with its log"])
def test_a_state_file_removed_while_running_is_written_anew_and_nothing_is_lost(tmp_path: Path, names: tuple[str, ...]) -> None:
    with polled(tmp_path) as bench:
        before = sums(bench.look())
        for name in names:
            Path(f"{bench.state_file}{name}").unlink()
        bench.poll()
        assert bench.state_file.exists()
        bench.restart()
        after = sums(bench.look())
        assert all(after[room]["hms_peer_seconds_total"] >= before[room]["hms_peer_seconds_total"] > 0 for room in before)
        finish(bench)


def test_a_folder_removed_while_running_comes_back_with_the_state_file(tmp_path: Path) -> None:
    with polled(tmp_path / "deep" / "state") as bench:
        shutil.rmtree(tmp_path / "deep")
        bench.poll()
        bench.restart()
        finish(bench)


def test_a_state_file_removed_after_the_last_poll_is_put_back_at_the_stop(tmp_path: Path) -> None:
    with polled(tmp_path) as bench:
        bench.state_file.unlink()
        bench.restart()
        finish(bench)


def test_a_state_file_removed_again_and_again_loses_nothing(tmp_path: Path) -> None:
    with polled(tmp_path) as bench:
        for _ in range(10):
            bench.state_file.unlink()
            bench.poll()
            bench.clock.leap(30)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["state.db", "state.db-shm", "state.db-wal"]
        bench.restart()
        finish(bench)


def test_a_state_file_written_anew_is_held_like_the_old_one(tmp_path: Path) -> None:
    with polled(tmp_path) as bench:
        bench.state_file.unlink()
        bench.poll()
        with pytest.raises(StoreError, match="in use by another exporter"):
            Store(bench.state_file)


@pytest.mark.parametrize("polls", [0, 1, 3], ids=["between two polls", "for a poll", "for some polls"])
def test_a_state_file_moved_away_while_running_and_put_back_loses_nothing(tmp_path: Path, polls: int) -> None:
    """When it replaces the file that was written meanwhile, it is not overwritten: polls fail until it is removed."""
    with polled(tmp_path) as bench:
        bench.state_file.rename(tmp_path / "away.db")
        for _ in range(polls):
            bench.poll()
            bench.clock.leap(30)
        (tmp_path / "away.db").replace(bench.state_file)
        assert up(bench.poll()) == (polls == 0)
        if polls:
            bench.state_file.unlink()
            assert up(bench.poll()) == 1
        bench.restart()
        finish(bench)


@pytest.mark.parametrize("polls", [1, 10])
def test_an_older_copy_of_the_state_file_put_back_while_it_is_stopped_counts_all_again_to_the_truth(tmp_path: Path, polls: int) -> None:
    """A backup: everything since then is read again, and nothing counts twice."""
    with polled(tmp_path) as bench:
        bench.end()
        shutil.copy(bench.state_file, tmp_path / "backup.db")
        bench.begin()
        for _ in range(polls):
            bench.clock.leap(60)
            bench.poll()
        bench.end()
        for name in ("-wal", "-shm"):
            Path(f"{bench.state_file}{name}").unlink(missing_ok=True)
        shutil.copy(tmp_path / "backup.db", bench.state_file)
        bench.begin()
        bench.clock.leap(HOUR_S)
        bench.poll()
        found = sums(bench.poll())
        assert found == true_sums(bench.world.truth(bench.clock()))


def test_a_file_put_in_the_place_of_the_state_file_is_never_overwritten(tmp_path: Path) -> None:
    with polled(tmp_path) as bench:
        before = bench.page()
        bench.state_file.rename(tmp_path / "moved.db")
        bench.state_file.write_bytes(b"somebody's own")
        found = bench.poll()
        assert up(found) == 0
        assert bench.poller.status.reason is not None
        assert "another file has taken the place" in bench.poller.status.reason
        assert sums(bench.look()) == sums(bench.watcher.look(before))
        assert bench.state_file.read_bytes() == b"somebody's own"
        bench.state_file.unlink()
        assert up(bench.poll()) == 1
        bench.restart()
        finish(bench)


# -- its log is removed -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def after_a_kill(bench: Bench, folder: Path) -> Iterator[Bench]:
    """A new process over a copy of the files as they are on the disk now, with nothing closed, before it asks the API."""
    folder.mkdir()
    # Another process copies them: closing a file in this process would drop SQLite's locks on it.
    subprocess.run(["cp", *bench.state_file.parent.glob("state.db*"), folder], check=True)
    with Bench(folder, bench.world, now=bench.now, runs=True) as again:
        yield again


def nothing_is_lost_by_a_kill(bench: Bench, folder: Path) -> None:
    """After a kill, everything that was published is published again; no counter falls, and the final counters are exact."""
    page = bench.page()
    with after_a_kill(bench, folder) as again:
        again.watcher.look(page)
        assert sums(again.look()) == sums(bench.look())
        finish(again)


def by_another_program(code: str, bench: Bench) -> None:
    """Runs Python code in another process, where `db` is a connection to the state file."""
    opened = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None);"
    subprocess.run([sys.executable, "-c", f"{opened} {code}; db.close()", bench.state_file], cwd=ROOT, check=True)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


LOG_REMOVED = "the log of the state file was removed while in use; the state file has been written again"
LOGS = pytest.mark.parametrize("names", [("-wal", "-shm"), ("-wal",), ("-shm",)], ids=["log and index", "log", "index"])


@LOGS
def test_a_log_removed_while_running_costs_nothing_when_the_process_is_killed(
    tmp_path: Path, names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    with polled(tmp_path / "a") as bench:
        for name in names:
            Path(f"{bench.state_file}{name}").unlink()
        assert up(bench.poll()) == 1
        assert warnings(caplog) == [LOG_REMOVED]
        nothing_is_lost_by_a_kill(bench, tmp_path / "b")
        bench.clock.leap(30)
        assert up(bench.poll()) == 1
        assert warnings(caplog) == [LOG_REMOVED]
        finish(bench)


@LOGS
def test_a_log_removed_again_and_again_between_checkpoints_costs_nothing(tmp_path: Path, names: tuple[str, ...]) -> None:
    with polled(tmp_path / "a") as bench:
        for turn in range(12):
            opened(bench).execute("PRAGMA wal_autocheckpoint = 3")  # almost every commit is copied into the main file
            if turn % 3 == 2:
                for name in names:
                    Path(f"{bench.state_file}{name}").unlink()
            bench.poll()
            bench.clock.leap(30)
        nothing_is_lost_by_a_kill(bench, tmp_path / "b")
        assert sorted(path.name for path in bench.state_file.parent.iterdir()) == ["state.db", "state.db-shm", "state.db-wal"]


@LOGS
def test_a_log_removed_while_somebody_reads_costs_nothing(tmp_path: Path, names: tuple[str, ...]) -> None:
    with polled(tmp_path / "a") as bench:
        with contextlib.closing(sqlite3.connect(f"file:{bench.state_file}?mode=ro", uri=True)) as reader:
            reader.execute("BEGIN")
            counted = reader.execute("SELECT count(*) FROM account").fetchone()
            for name in names:
                Path(f"{bench.state_file}{name}").unlink()
            assert up(bench.poll()) == 1
            assert reader.execute("SELECT count(*) FROM account").fetchone() == counted
            nothing_is_lost_by_a_kill(bench, tmp_path / "b")
        bench.clock.leap(30)
        assert up(bench.poll()) == 1
        nothing_is_lost_by_a_kill(bench, tmp_path / "c")


def test_a_log_that_another_program_has_made_in_the_place_of_the_removed_one_is_not_taken_for_it(tmp_path: Path) -> None:
    with polled(tmp_path / "a") as bench:
        for name in ("-wal", "-shm"):
            Path(f"{bench.state_file}{name}").unlink()
        with contextlib.closing(sqlite3.connect(tmp_path / "other.db", isolation_level=None)) as other:
            other.executescript("PRAGMA journal_mode = WAL; CREATE TABLE other (a); INSERT INTO other VALUES (1)")
            shutil.copyfile(tmp_path / "other.db-wal", f"{bench.state_file}-wal")
        assert up(bench.poll()) == 1
        nothing_is_lost_by_a_kill(bench, tmp_path / "b")


def test_a_log_removed_after_the_last_poll_costs_nothing_when_the_exporter_is_stopped(tmp_path: Path) -> None:
    with polled(tmp_path) as bench:
        for name in ("-wal", "-shm"):
            Path(f"{bench.state_file}{name}").unlink()
        bench.restart()
        finish(bench)


def test_a_log_removed_and_then_the_whole_file_costs_nothing(tmp_path: Path) -> None:
    with polled(tmp_path / "a") as bench:
        Path(f"{bench.state_file}-wal").unlink()
        bench.poll()
        bench.state_file.unlink()
        bench.poll()
        nothing_is_lost_by_a_kill(bench, tmp_path / "b")


@pytest.mark.parametrize(
    "code",
    [
        "db.execute('SELECT count(*) FROM account').fetchone()",
        "db.backup(sqlite3.connect(sys.argv[1] + '.backup'))",
        "from pathlib import Path; from exporter.state.view import look; from exporter.state.tables import ACCOUNT;"
        " look(Path(sys.argv[1]), lambda view: list(view.rows(ACCOUNT)))",
        "db.execute('PRAGMA wal_checkpoint(PASSIVE)').fetchone()",
        "db.execute('PRAGMA wal_checkpoint(RESTART)').fetchone()",
        "db.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchone()",
        "db.execute('VACUUM')",
        "db.executescript('VACUUM; PRAGMA wal_checkpoint(TRUNCATE)')",
    ],
)
def test_who_reads_backs_up_or_tidies_the_state_file_gives_no_cause_to_write_it_anew(
    tmp_path: Path, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    with polled(tmp_path / "a") as bench:
        before = [Path(f"{bench.state_file}{name}").stat().st_ino for name in ("", "-wal", "-shm")]
        for _ in range(5):
            by_another_program(code, bench)
            assert up(bench.poll()) == 1
            bench.clock.leap(30)
        assert [Path(f"{bench.state_file}{name}").stat().st_ino for name in ("", "-wal", "-shm")] == before
        assert warnings(caplog) == []
        nothing_is_lost_by_a_kill(bench, tmp_path / "b")


# -- the state file is damaged while in use ---------------------------------------------------------------------------


def cut(keep: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, keep)


def overwritten(offset: int, much: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(b"\xa5" * much)

    return write


SPOILT = {
    "emptied": cut(0),
    "cut in its first page": cut(50),
    "cut to one page": cut(4096),
    "cut in the middle": cut(30_000),
    "its first bytes": overwritten(0, 16),
    "its first page": overwritten(0, 4096),
    "all but its first page": overwritten(4096, 60_000),
}


SPOILT_LOG = {"its log emptied": cut(0), "its log cut": cut(9_000), "its log": overwritten(0, 9_000)}


@pytest.mark.parametrize(
    ("suffix", "spoil"),
    [*(("", spoil) for spoil in SPOILT.values()), *(("-wal", spoil) for spoil in SPOILT_LOG.values())],
    ids=[*SPOILT, *SPOILT_LOG],
)
def test_while_the_state_file_is_spoilt_counters_stand_and_nothing_is_written_to_it(
    tmp_path: Path, suffix: str, spoil: Callable[[Path], None]
) -> None:
    with polled(tmp_path) as bench:
        opened(bench).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        bench.poll()
        before = sums(bench.look())
        file = Path(f"{bench.state_file}{suffix}")
        sound = file.read_bytes()
        spoil(file)
        spoilt = file.read_bytes()
        for _ in range(3):
            bench.clock.leap(30)
            found = bench.poll()
            assert up(found) == 0
            assert sums(found) == before
        assert bench.poller.status.reason is not None
        assert "cut the state file or its log short, or written over it, while it was in use" in bench.poller.status.reason
        assert file.read_bytes() == spoilt
        file.write_bytes(sound)
        assert up(bench.poll()) == 1
        finish(bench)


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_state_file_spoilt_while_running_is_refused_by_the_next_start(tmp_path: Path, spoil: Callable[[Path], None], end: str) -> None:
    with polled(tmp_path / "a") as bench:
        opened(bench).execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        bench.clock.leap(30)
        bench.poll()
        spoil(bench.state_file)
        bench.poll()
        if end == "kill":
            with pytest.raises(StoreError, match=r"damaged|not a state file|another program"), after_a_kill(bench, tmp_path / "b"):
                pass
        else:
            bench.store.close()
            with pytest.raises(StoreError, match=r"damaged|not a state file|another program"):
                Store(bench.state_file)


# -- the disk is full -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def full_for_the_database(bench: Bench, folder: Path) -> Iterator[None]:
    """SQLite gets no further page, and raises its own "database or disk is full"."""
    (pages,) = opened(bench).execute("PRAGMA page_count").fetchone()
    opened(bench).execute(f"PRAGMA max_page_count = {pages}")
    try:
        yield
    finally:
        opened(bench).execute("PRAGMA max_page_count = 1000000")


@contextlib.contextmanager
def limited_file_size(bench: Bench, folder: Path) -> Iterator[None]:
    """No file of this process may grow beyond the present size of the log."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (Path(f"{bench.state_file}-wal").stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def full_disk(bench: Bench, folder: Path) -> Iterator[None]:
    """A separate file system, filled to the last byte."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    try:
        yield
    finally:
        filler.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes, if this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only a user who may mount file systems can fill one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def many_rooms(bench: Bench) -> None:
    """Scripts more to write than the free pages can hold."""
    made = bench.world
    assert isinstance(made, World)
    now = bench.clock()
    for index in range(300):
        session = made.open(made.room(name=f"extra-{index}", created_at=now).id, now)
        session.join("guest", now)
        session.close(now + 10 * MINUTE)
    bench.clock.leap(5)


def nothing_is_published_that_is_not_stored(bench: Bench, folder: Path, full: object) -> None:
    before = sums(bench.look())
    many_rooms(bench)
    with full(bench, folder):  # type: ignore[operator]  # one of the context managers above
        for _ in range(3):
            found = bench.poll()
            assert up(found) == 0
            assert sums(found) == before
            bench.clock.leap(30)
        assert bench.poller.status.reason is not None
        assert "the state file cannot be used" in bench.poller.status.reason
    assert up(bench.poll()) == 1
    bench.restart()
    finish(bench)


@pytest.mark.parametrize("full", [full_for_the_database, limited_file_size])
def test_while_the_disk_is_full_counters_stand_and_afterwards_they_go_on_with_nothing_lost(tmp_path: Path, full: object) -> None:
    with polled(tmp_path) as bench:
        nothing_is_published_that_is_not_stored(bench, tmp_path, full)


def test_while_a_real_disk_is_full_counters_stand_and_afterwards_they_go_on_with_nothing_lost(small_disk: Path) -> None:
    with polled(small_disk) as bench:
        nothing_is_published_that_is_not_stored(bench, small_disk, full_disk)


@pytest.mark.parametrize(("end", "room"), [("kill", 0), ("stop", 64 << 10)], ids=["after a kill", "after a stop"])
def test_started_on_a_full_disk_counters_stand_and_afterwards_they_go_on_with_nothing_lost(small_disk: Path, end: str, room: int) -> None:
    """After a kill SQLite's log exists already. After a stop it is created again, and its beginning needs room."""
    folder = small_disk / "state"
    with polled(folder) as bench:
        many_rooms(bench)
        page, now = bench.page(), bench.clock()
        subprocess.run(["cp", "-r", folder, small_disk / "killed"], check=True)
    before = sums(bench.watcher.look(page))
    with contextlib.ExitStack() as full:
        full.enter_context(full_disk(bench, small_disk))
        os.truncate(small_disk / "filler", (small_disk / "filler").stat().st_size - room)
        with Bench(small_disk / "killed" if end == "kill" else folder, bench.world, now=now, runs=True) as again:
            again.watcher.look(page)
            for _ in range(3):
                found = again.poll()
                assert up(found) == 0
                assert sums(found) == before
                again.clock.leap(30)
            full.close()
            assert up(again.poll()) == 1
            finish(again)


def test_started_on_a_disk_without_room_for_the_log_it_says_so_and_leaves_the_file_as_it_was(small_disk: Path) -> None:
    path = small_disk / "state" / "state.db"
    with polled(path.parent) as bench:
        page, now = bench.page(), bench.clock()
    before = path.read_bytes()
    with full_disk(bench, small_disk), pytest.raises(StoreError, match="the state file cannot be used: no room for its log"):
        Store(path)
    assert path.read_bytes() == before
    with Bench(path.parent, bench.world, now=now, runs=True) as again:
        again.watcher.look(page)
        finish(again)


def test_a_state_file_removed_from_a_full_disk_is_written_anew_when_there_is_room(small_disk: Path) -> None:
    with polled(small_disk) as bench:
        filler = small_disk / "filler"
        filler.write_bytes(bytes((4 << 20) - (600 << 10)))
        many_rooms(bench)
        with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        bench.state_file.unlink()
        assert up(bench.poll()) == 0
        assert not bench.state_file.exists()
        filler.unlink()
        assert up(bench.poll()) == 1
        bench.restart()
        finish(bench)


# -- other programs use the state file --------------------------------------------------------------------------------


def test_while_another_program_locks_the_state_file_counters_stand_and_then_go_on(tmp_path: Path) -> None:
    with polled(tmp_path) as bench:
        before = sums(bench.look())
        with contextlib.closing(sqlite3.connect(bench.state_file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            found = bench.poll()
            assert up(found) == 0
            assert sums(found) == before
            assert bench.poller.status.reason is not None
            assert "in use by another program" in bench.poller.status.reason
        assert up(bench.poll()) == 1
        finish(bench)


def test_somebody_who_only_reads_the_state_file_holds_up_nothing(tmp_path: Path) -> None:
    with polled(tmp_path) as bench:
        with contextlib.closing(sqlite3.connect(f"file:{bench.state_file}?mode=ro", uri=True)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM account").fetchone()[0] > 0
            assert up(bench.poll()) == 1
        finish(bench)


def test_a_state_file_held_by_another_exporter_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    Store(path).close()
    before = path.read_bytes()
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="in use by another exporter"):
            Store(path)
    assert path.read_bytes() == before


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Becomes the user nobody if this is root, because root may write everywhere."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


@contextlib.contextmanager
def unprivileged(made: World | None = None) -> Iterator[tuple[Bench, Path]]:
    """An exporter that has polled, run by a user who is bound by permissions, with a folder of that user."""
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, which lies in a folder that only its owner enters
        Path(name).chmod(0o777)
        with as_nobody():
            folder = Path(name) / "state"
            with polled(folder, made=made) as bench:
                yield bench, folder


def stands_until(bench: Bench, mend: Callable[[], None], fault: str) -> None:
    """Polls fail for that reason and counters stand still.  After the repair they go on, and nothing is lost."""
    before = sums(bench.look())
    for _ in range(3):
        bench.clock.leap(30)
        found = bench.poll()
        assert up(found) == 0
        assert sums(found) == before
    assert bench.poller.status.reason is not None
    assert fault in bench.poller.status.reason
    mend()
    assert up(bench.poll()) == 1
    bench.restart()
    finish(bench)


def test_a_state_file_and_its_folder_that_become_read_only_while_running_are_open_already_and_nothing_is_lost() -> None:
    with unprivileged() as (bench, folder):
        files = list(folder.iterdir())
        for path in files:
            path.chmod(0o444)
        folder.chmod(0o555)
        for _ in range(3):
            assert up(bench.poll()) == 1
            bench.clock.leap(30)
        folder.chmod(0o755)
        for path in files:
            path.chmod(0o644)
        nothing_is_lost_by_a_kill(bench, folder / "killed")


def test_while_the_folder_may_not_be_entered_counters_stand_and_then_go_on() -> None:
    with unprivileged() as (bench, folder):
        folder.chmod(0)
        stands_until(bench, lambda: folder.chmod(0o755), "the state file cannot be used: Permission denied")


@pytest.mark.parametrize("name", ["", "-wal"], ids=["the file", "its log"])
def test_while_what_was_removed_cannot_be_put_back_counters_stand_and_then_go_on(name: str) -> None:
    with unprivileged() as (bench, folder):
        Path(f"{bench.state_file}{name}").unlink()
        folder.chmod(0o555)
        stands_until(bench, lambda: folder.chmod(0o755), "the state file cannot be used")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(("folder_mode", "file_mode"), [(0o755, 0o444), (0o755, 0o666), (0o777, 0o444)])
def test_a_state_file_that_cannot_be_written_is_refused_at_the_start(folder_mode: int, file_mode: int) -> None:
    """Permissions forbid writing to the file, or to the folder that needs SQLite's log."""
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, which lies in a folder that only its owner enters
        folder = Path(name)
        path = folder / "state.db"
        Store(path).close()
        before = path.read_bytes()
        path.chmod(file_mode)
        folder.chmod(folder_mode)
        with as_nobody(), pytest.raises(StoreError, match=r"the state file cannot be used: .* \(user id 65534") as caught:
            Store(path)
        assert str(path if file_mode == 0o444 else folder) in str(caught.value)
        assert path.read_bytes() == before
        assert [item.name for item in folder.iterdir()] == ["state.db"]


def test_a_state_file_on_a_file_system_that_is_read_only_is_refused_at_the_start(small_disk: Path) -> None:
    path = small_disk / "state.db"
    Store(path).close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreError, match="the state file cannot be used: Read-only file system"):
        Store(path)


# -- the state file is damaged ----------------------------------------------------------------------------------------


EVERYTHING = CollectConfig(recording_assets=True, webhook_deliveries=True, client_errors=True, interval=1.0)


def _collected(store: Store, kind: Kind[Any], accounts: Sequence[Account]) -> object:
    """The state from which a collector counts.  Sums of days, which are for reports, are not checked at a start."""
    found: Collected[Any] = Collected(kind)
    collected.restore(store, "w", found)
    collected.open_accounts(store, "w", found, accounts)
    coverage = found.coverage
    holdings = {account: (dict(of.tallies), of.periods) for account, of in found.holdings.items()}
    histograms = {name: (histogram.counts, histogram.total) for name, histogram in found.histograms.items()}
    followed = coverage.read_until, coverage.entries, coverage.rooms, coverage.tasks
    return repr((found.now, found.newest, found.kept, found.settled, holdings, histograms, followed))


def restored(path: Path) -> object:
    """The state from which counting goes on, as a start reads it from the file.  Raises `StoreError`."""
    store = Store(path)
    try:
        ledger = Ledger()
        store.restore("w", ledger)
        accounts = sorted((state.account, state.totals, sorted(state.roles.items())) for state in store.accounts("w", 0))
        running = {t.id: (t.room_id, t.account, t.started, t.ended, t.observed, t.memory) for t in ledger.tracked.values()}
        coverage = ledger.coverage
        histograms = {key: (histogram.counts, histogram.total) for key, histogram in ledger.histograms.items()}
        rooms = store.rooms("w", [account.id for account, *_ in accounts if isinstance(account, Account)])
        followed = coverage.read_until, coverage.entries, coverage.rooms, coverage.tasks
        heard = restore_webhooks(store, "w").counters
        beside = [_collected(store, listed.kind, [account for account, *_ in accounts]) for listed in LISTED]
        added = Additions(store, "w")
        added.begin()
        sums_of = added.sums.of, added.marks, added.waiting(1000)
        return ledger.now, ledger.settled, accounts, running, followed, histograms, rooms, heard, beside, sums_of
    finally:
        store.close()


def full_state(folder: Path) -> Path:
    """A state file with something in every table."""
    made = world()
    hall = made.rooms[0]
    first = made.open(hall.id, T0 - 20 * SECOND)
    first.join("guest", T0 - 15 * SECOND).change_role("host", T0 + 20 * SECOND)
    first.close(T0 + 50 * SECOND)
    made.open(hall.id, T0 + 60 * SECOND).join("host", T0 + 60 * SECOND)
    for ask in (made.record, made.stream, made.push):
        ask(hall, T0 - SECOND).start(T0).stop(T0 + 20 * SECOND).complete(T0 + 30 * SECOND)
        ask(hall, T0 + 40 * SECOND).start(T0 + 45 * SECOND)
    made.asset(made.record(hall, T0), "chat", T0 + SECOND, duration=20, size=300)
    made.delivery(hall, T0 + SECOND)
    with BesideBench(folder, made, collect=EVERYTHING, runs=True) as bench:
        # The route of client errors does not answer, so ended sessions wait for theirs.
        bench.server.faults.add(Fault(kind="status", route="/analytics/events", status=500))
        for seconds in (0, *[30] * 7, 4000, 150, 150):
            bench.poll(seconds)
        path = bench.state_file
        bench.poller.ledger.coverage.tasks[1] = CatchUp(1, T0, [(T0, T0)])
        bench.poller.ledger.coverage.changed_tasks.add(1)
        bench.store.commit("w", bench.poller.ledger)
        heard = Heard()
        heard.take([Event(b"digest", "peer.leave.success", T0, replay=False)], (), T0)
        commit_webhooks(bench.store, "w", heard, T0)
    with contextlib.closing(sqlite3.connect(path)) as db:
        for (table,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] > 0, table
    return path


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return full_state(tmp_path_factory.mktemp("sound")).read_bytes()


def flipped(sound: bytes, offsets: range, mask: int, folder: Path) -> tuple[int, list[str]]:
    """Starts with one byte changed, at each offset; returns the number of refused starts, and the errors of the others."""
    path = folder / "state.db"
    path.write_bytes(sound)
    truth = restored(path)
    refused, wrong = 0, []
    for offset in offsets:
        damaged = bytearray(sound)
        damaged[offset] ^= mask
        for leftover in folder.iterdir():
            leftover.unlink()
        path.write_bytes(damaged)
        try:
            if restored(path) != truth:
                wrong.append(f"byte {offset} ^ {mask:#x} changes what is restored")
        except StoreError as error:
            refused += 1
            if not str(error).isprintable() or str(path) not in str(error):
                wrong.append(f"byte {offset} ^ {mask:#x}: {error!r}")
    return refused, wrong


_FURTHER = 3
"""A page is replaced by the one that follows this many pages later.  Its table must have other column types: seals name no table."""


def test_every_page_damaged_in_turn_is_refused_or_harmless(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(sound)
    truth = restored(path)
    page = int.from_bytes(sound[16:18])
    for start in range(0, len(sound), page):
        for name, contents in {
            "inverted": bytes(byte ^ 0xFF for byte in sound[start : start + page]),
            "zeroed": bytes(page),
            "of another place": sound[(start + _FURTHER * page) % len(sound) :][:page],
        }.items():
            path.write_bytes(sound[:start] + contents + sound[start + page :])
            try:
                assert restored(path) == truth, f"page {start // page + 1} {name}"
            except StoreError as error:
                assert str(path) in str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(("mask", "first"), [(0x01, 0), (0x80, 31), (0xFF, 62)])
def test_bytes_flipped_all_over_the_file_are_noticed_or_harmless(sound: bytes, tmp_path: Path, mask: int, first: int) -> None:
    """Each mask is tried on every 93rd byte, all of them together on every 31st."""
    refused, wrong = flipped(sound, range(first, len(sound), 93), mask, tmp_path)
    assert wrong == []
    assert refused > 20


@pytest.mark.parametrize("keep", [0, 50, 100, 4096, 4097, 20000])
def test_a_state_file_cut_short_is_refused_or_begins_anew_when_nothing_is_left(sound: bytes, tmp_path: Path, keep: int) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(sound[:keep])
    if keep == 0:
        Store(path).close()
        return
    with pytest.raises(StoreError, match=r"damaged|not a state file|another program"):
        Store(path)
    assert path.read_bytes() == sound[:keep]


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_log_cut_short_or_damaged_gives_an_earlier_poll_and_the_next_one_makes_it_whole(tmp_path: Path, damage: str) -> None:
    """SQLite reads the log up to its last valid frame, so an earlier state may be published before the next poll.

    An empty log is not tried: without an earlier poll in the file the exporter starts from nothing.
    """
    with polled(tmp_path / "a", polls=1) as bench:
        first = Path(f"{bench.state_file}-wal").stat().st_size
        for _ in range(5):
            bench.poll()
            bench.clock.leap(30)
        log = Path(f"{bench.state_file}-wal").read_bytes()
        data = bench.state_file.read_bytes()
        now = bench.clock()
        before = sums(bench.look())
    earlier = 0
    for number, at in enumerate(range(first, len(log), 4120 * 3)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "state.db").write_bytes(data)
        damaged = log[:at] if damage == "cut" else log[:at] + bytes([log[at] ^ 0xFF]) + log[at + 1 :]
        (folder / "state.db-wal").write_bytes(damaged)
        with Bench(folder, world(), now=now, runs=True) as again:
            earlier += sums(again.look()) != before
            found = sums(again.poll())
            assert all(found[room]["hms_peer_seconds_total"] >= before[room]["hms_peer_seconds_total"] for room in before)
            finish(again)
    assert earlier > 0


def test_no_sums_are_zero() -> None:
    """The truth of the tests above holds every kind of sum."""
    assert all(value > 1 for room in true_sums(world().truth(T0 + 3600 * SECOND)).values() for value in room.values())


# -- the clock is set -------------------------------------------------------------------------------------------------


class Clocks:
    """A monotonic clock, and a wall clock that can be set.  `schedule` and the daemon call `now`."""

    def __init__(self) -> None:
        self.steady = 0.0
        self.set_by = timedelta()

    def now(self) -> datetime:
        return datetime(2026, 3, 29, 1, 30) + timedelta(seconds=self.steady) + self.set_by  # noqa: DTZ001 - as `schedule` computes it


@pytest.mark.parametrize("hours", [-24, -1, 1, 24], ids=lambda hours: f"{hours:+d} h")
def test_polls_keep_their_beat_when_the_wall_clock_is_set(hours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks()
    wall = SimpleNamespace(now=lambda tz=None: clocks.now())
    monkeypatch.setattr(schedule, "datetime", SimpleNamespace(datetime=wall, timedelta=timedelta))
    monkeypatch.setattr("exporter.daemon.datetime", wall)
    scheduler = schedule.Scheduler()
    job = scheduler.every(30)
    cadence = Cadence(job, 30.0, clocks.steady)
    beats: list[float] = []

    def poll() -> None:
        cadence.beat(clocks.steady)
        beats.append(clocks.steady)

    job.seconds.do(poll)
    while clocks.steady < 600:
        if clocks.steady == 100:
            clocks.set_by += timedelta(hours=hours)
        cadence.align(clocks.steady)
        scheduler.run_pending()
        cadence.align(clocks.steady)
        clocks.steady += 0.5
    assert beats == [30.0 * beat for beat in range(20)]
