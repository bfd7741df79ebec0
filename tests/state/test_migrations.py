"""State files of earlier versions: an upgrade keeps all counts, or leaves the file as it was."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tarfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exporter.state.file import StateFile
from exporter.state.migrations import MIGRATIONS, SCHEMA, VERSION_2
from exporter.state.schema import Column, Index, Migration, Row, Schema, Shape, add_column, change_table, drop_table, make_table
from exporter.state.soundness import StoreError, seal, verify
from exporter.state.store import Store
from exporter.state.tables import TABLES
from exporter.state.view import look
from tests.state.test_store import contents, restored

ROOT = Path(__file__).parent.parent.parent
FILES = Path(__file__).parent / "files"
KEPT = [2, 3, 4, 5, 6, 7]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def kept(version: int, path: Path, *, killed: bool = False) -> Path:
    """A file of this version as its exporter left it, or as a kill left it, with a log."""
    if not killed:
        path.write_bytes(gzip.decompress((FILES / f"state-{version}.db.gz").read_bytes()))
        return path
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress((FILES / f"state-{version}-killed.tar.gz").read_bytes()))) as archive:
        archive.extractall(path.parent, filter="data")
    return path


def rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of all tables of a file by column name, without their seals."""
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        found = {}
        for (table,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            all_of_it = [dict(row) for row in db.execute(f'SELECT * FROM "{table}"')]
            for row in all_of_it:
                assert row.pop("seal") == seal(*row.values()), f"{table}: {row}"
            found[table] = all_of_it
        return found


def columns(rows: list[Row], names: set[str]) -> list[Row]:
    """These columns of the rows."""
    return [{name: row[name] for name in names} for row in rows]


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


# -- the versions that there are --------------------------------------------------------------------------------------


def test_the_migrations_end_in_the_tables_that_are_described() -> None:
    assert SCHEMA.shapes() == {table.name: table.shape for table in TABLES}


def test_of_every_version_before_this_one_a_file_is_kept() -> None:
    assert [*range(SCHEMA.first, SCHEMA.first + len(MIGRATIONS) + 1)][: len(KEPT)] == KEPT
    assert set(range(SCHEMA.first, SCHEMA.version)) <= set(KEPT)


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
@pytest.mark.parametrize("old", KEPT)
def test_a_kept_file_comes_through_with_all_that_it_has_counted(path: Path, old: int, killed: bool) -> None:
    kept(old, path, killed=killed)
    before = rows(path) if not killed else {}
    kept(old, path, killed=killed)
    Store(path).close()
    after = rows(path)
    assert version(path) == SCHEMA.version
    added_up = ("counter", "over_session", "mark") if old >= 6 else ()
    for table in ("account", "role", "day", "histogram", "running", "settled", "room", "roles_seen", *added_up):
        assert len(after[table]) > 0
        if before:
            shared = before[table][0].keys() & after[table][0].keys()
            assert columns(after[table], shared) == columns(before[table], shared)
    # Before version 8 each counter had a column of its own.
    for table, names in (("account", ("started", "ended")), ("role", ("joined", "left"))) if before and old < 8 else ():
        for now, then in zip(after[table], before[table], strict=True):
            assert json.loads(now["counts"]) == [then[name] for name in names]
            assert json.loads(now["held"]) == [then[f"held_{name}"] for name in names]
    # Both ways of ending leave the same counts, and a start finds them.
    found = restored(path)
    # Since version 3 an ended session is kept until it has been read once more.
    ended, ended_of_second = ({"held"}, {"group-0", "group-2"}) if old > 2 else (set(), set())
    assert found["tracked"].keys() == {"lost", "running", "waiting"} | ended
    assert found["published"]
    assert restored(path, "second")["tracked"].keys() == {"group-1"} | ended_of_second


@pytest.mark.parametrize("old", KEPT)
def test_a_kept_file_can_be_looked_at_before_its_upgrade_and_stays_as_it_is(path: Path, old: int) -> None:
    kept(old, path)
    before = contents(path.parent)
    seen = look(path, lambda view: {table.name: [row._asdict() for row in view.rows(table)] for table in TABLES})
    assert contents(path.parent) == before
    Store(path).close()
    assert seen == rows(path)


# -- any migration ----------------------------------------------------------------------------------------------------


def _totals(old: Any) -> list[Row]:
    found: Counter[str] = Counter()
    for row in old("role"):
        found[row["workspace"]] += row["us"]
    return [{"workspace": workspace, "us": us} for workspace, us in found.items()]


def _marked(row: Row) -> Row:
    return {**row, "key": f"<{row['key']}>"}


ENTRY_2 = next(shape for shape in VERSION_2 if shape.name == "entry")
NEW_ENTRY = Shape(
    "entry", tuple(c for c in ENTRY_2.columns if c.name != "left"), ("workspace", "key"), (Index("entry_by_since", ("since",)),)
)
LARGE, NOTE = Column("large", "integer"), Column("note", "text", optional=True)
TOTAL = Shape("total", (Column("workspace", "text"), Column("us", "integer")), ("workspace",))
LATER = Schema(
    2,
    VERSION_2,
    [
        Migration(
            3, (add_column("room", Column("large", "integer"), 7), add_column("running", Column("note", "text", optional=True), None))
        ),
        Migration(4, (make_table(TOTAL, _totals), change_table(NEW_ENTRY, _marked), drop_table("roles_seen"))),
    ],
)
"""Two made-up later versions, which use every kind of change."""


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_every_kind_of_change_keeps_the_rows_and_seals_them(path: Path, killed: bool) -> None:
    before = rows(kept(2, path, killed=False))
    kept(2, path, killed=killed)
    StateFile(path, LATER).close()
    after = rows(path)
    assert version(path) == 4
    assert after["room"] == [{**row, "large": 7} for row in before["room"]]
    assert [{**row, "note": None} for row in before["running"]] == after["running"]
    assert [row["key"] for row in after["entry"]] == [f"<{row['key']}>" for row in before["entry"]]
    assert "left" not in after["entry"][0]
    assert sum(row["us"] for row in after["total"]) == sum(row["us"] for row in before["role"])
    assert "roles_seen" not in after
    assert after["day"] == before["day"]
    with closing(sqlite3.connect(path)) as db:
        assert verify(db, path, LATER) == 4


def test_a_new_file_has_the_structure_of_an_upgraded_one(path: Path, tmp_path: Path) -> None:
    kept(2, path)
    StateFile(path, LATER).close()
    StateFile(path, LATER).close()
    StateFile(tmp_path / "new.db", LATER).close()
    with closing(sqlite3.connect(tmp_path / "new.db")) as db:
        assert verify(db, tmp_path / "new.db", LATER) == 4


def test_a_file_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    kept(2, path)
    newer = SCHEMA.version + 1
    StateFile(path, Schema(2, VERSION_2, [*MIGRATIONS, Migration(newer, (add_column("room", LARGE, 7),))])).close()
    before = contents(path.parent)
    with pytest.raises(StoreError, match=f"has version {newer}, this exporter knows versions up to {SCHEMA.version}"):
        Store(path)
    with pytest.raises(StoreError, match=f"has version {newer}"):
        look(path, lambda view: view)
    assert contents(path.parent) == before


def test_a_damaged_row_of_an_old_file_stops_the_upgrade(path: Path) -> None:
    """A row of a table that an ordinary start does not read counts too, because the migration would seal it as valid."""
    kept(2, path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE day SET us = us + 1")
        db.commit()
    before = contents(path.parent)
    with pytest.raises(StoreError, match="a row of day has changed"):
        StateFile(path, LATER, unverified=frozenset({"day"}))
    assert contents(path.parent) == before


def test_a_migration_that_fails_leaves_the_old_file(path: Path) -> None:
    before = rows(kept(2, path))

    def broken(row: Row) -> Row:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        StateFile(path, Schema(2, VERSION_2, [Migration(3, (change_table(NEW_ENTRY, broken),))]))
    assert version(path) == 2
    assert rows(path) == before
    assert restored(path)["published"]


KILLED = """
import os, sys, threading, time
from pathlib import Path
from exporter.state.file import StateFile
from tests.state.test_migrations import LATER

threading.Thread(target=lambda: (input(), time.sleep(float(sys.argv[2])), os.kill(os.getpid(), 9)), daemon=True).start()
print(1, flush=True)
StateFile(Path(sys.argv[1]), LATER)
print(2, flush=True)
time.sleep(10)
"""


def enlarge(path: Path, count: int) -> None:
    """Adds this many rows, so that a migration takes some time."""
    with closing(sqlite3.connect(path)) as db:
        room = ("w", "{}", "name", "template", "id", "eu", 1, 1, 5)
        made = (tuple(value.format(number) if isinstance(value, str) else value for value in room) for number in range(count))
        db.executemany("INSERT INTO room VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", ((*row, seal(*row)) for row in made))
        db.commit()


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_migration_leaves_the_old_file_or_a_new_one(path: Path) -> None:
    """Kills come at all moments of the upgrade.  The next start finds a valid file and finishes the upgrade."""
    kept(2, path)
    enlarge(path, 20_000)
    large, before = path.read_bytes(), rows(path)
    left = Counter[int]()
    for turn in range(12):
        for one in path.parent.iterdir():
            one.unlink()
        path.write_bytes(large)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path), str(turn * 0.08)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
        )
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == b"1\n"
        child.stdin.write(b"\n")
        child.stdin.flush()
        child.stdout.readline()
        child.kill()
        assert child.wait() == -signal.SIGKILL
        child.stdin.close()
        child.stdout.close()
        found = version(path)
        left[found] += 1
        StateFile(path, LATER).close()
        after = rows(path)
        assert version(path) == 4
        assert after["room"] == [{**row, "large": 7} for row in before["room"]]
        assert after["account"] == before["account"]
    assert left[2] > 0
    assert left.keys() <= {2, 3, 4}


# -- permissions ------------------------------------------------------------------------------------------------------


def modes(folder: Path) -> dict[str, int]:
    return {one.name: one.stat().st_mode & 0o777 for one in folder.iterdir()}


def test_a_new_state_file_with_all_that_lies_beside_it_is_for_its_owner_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        store = Store(path)
        assert modes(path.parent) == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}
        path.unlink()
        with store.database.writing():
            pass
        assert modes(path.parent) == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}
        store.close()
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_an_existing_file_keeps_its_mode_when_it_is_used_upgraded_or_written_anew(path: Path, mode: int) -> None:
    kept(2, path)
    path.chmod(mode)
    StateFile(path, LATER).close()
    file = StateFile(path, LATER)
    assert set(modes(path.parent).values()) == {mode}
    path.unlink()
    file.keep()
    assert set(modes(path.parent).values()) == {mode}
    file.close()


def test_a_path_in_a_message_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("state.db").write_text("something else")
    for use in (Store, lambda path: look(path, lambda view: view)):
        with pytest.raises(StoreError, match=f"^{tmp_path}/state.db: not a state file"):
            use(Path("state.db"))
