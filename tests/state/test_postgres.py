"""The state in a real PostgreSQL: it passes the tests of the state file, and only one of several exporters is active."""

from __future__ import annotations

import copy
import gzip
import json
import queue
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from exporter.counting.ledger import Ledger
from exporter.counting.rooms import KnownRoom
from exporter.hms.records import Room
from exporter.state.migrations import SCHEMA, VERSION_2
from exporter.state.postgres import SILENCE, PostgresDatabase, connect, cut, prepare, try_lock, version_of
from exporter.state.postgres_sql import found, stored
from exporter.state.schema import Schema
from exporter.state.store import Store, StoreError
from exporter.state.succession import Candidate, Refused
from exporter.state.tables import TABLES
from tests.harness import Counting, at, peer, session
from tests.postgres import Line, Server, fresh, server
from tests.state.test_migrations import FILES, LATER
from tests.state.test_store import everything, fails_half_way, fill, finds_accounts_by_their_last_activity, restored_from

pytestmark = pytest.mark.slow

psycopg = pytest.importorskip("psycopg")


@pytest.fixture
def name(postgres: Server) -> str:
    """A new database for the test."""
    return fresh(postgres)


def opened(url: str) -> Store:
    """The state, opened by an active exporter."""
    connection = connect(url)
    assert try_lock(connection)
    prepare(connection)
    return Store(PostgresDatabase(connection))


class InPostgres(Counting):
    """A ledger with its state in PostgreSQL."""

    def __init__(self, url: str, path: Path, **more: Any) -> None:
        super().__init__(path, **more)
        self.store.close()
        self.url = url
        self.store = opened(url)


def restored(url: str, workspace: str = "w") -> dict[str, Any]:
    """The ledger that a new process restores."""
    return restored_from(opened(url), workspace)


# -- the same store ---------------------------------------------------------------------------------------------------


def test_everything_comes_back_as_it_was(postgres: Server, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = postgres.url(name)
    monkeypatch.setattr("tests.harness.Store", lambda path: opened(url))
    counting = fill(tmp_path / "state.db")
    counting.close()
    after = restored(url)
    assert after == everything(counting.ledger)
    assert set(after["tracked"]) == {"running", "lost", "unread", "waiting"}


def test_accounts_are_found_by_their_last_activity_and_groups_always(postgres: Server, name: str) -> None:
    with closing(opened(postgres.url(name))) as store:
        finds_accounts_by_their_last_activity(store)
        assert store.usage("w", at(0)) == {}


def test_what_is_known_of_rooms_comes_back(postgres: Server, name: str) -> None:
    known = KnownRoom.of(Room("r", 'a "name"\n', "t", "ti", "eu", enabled=False), at(5))
    store = opened(postgres.url(name))
    store.commit("w", Ledger(), [known, KnownRoom.missing("gone", at(6))])
    assert store.rooms("w", ["r", "gone", "never-heard-of"]) == {"r": known, "gone": KnownRoom.missing("gone", at(6))}
    assert store.rooms_named("w", ['a "name"\n', "other"]) == ["r"]
    store.close()


ODD = ["nul \0 in it", "'; DROP TABLE role; --", "😀", "x" * 5000, "line\nbreak", "back\\slash", "\\0", "\\\\0", "%s", "?"]


def test_names_that_nobody_would_give_come_back_as_they_were(postgres: Server, name: str, tmp_path: Path) -> None:
    counting = InPostgres(postgres.url(name), tmp_path / "unused.db")
    counting.poll(at(0))
    peers = {f"p{number}": peer(at(1), at(2), role) for number, role in enumerate(ODD)}
    short = [odd for odd in ODD if len(odd) < 100]
    counting.poll(at(10), *(session(f"s{odd}", peers, room=f"r{odd}", started=at(1), ended=at(3)) for odd in short))
    counting.close()
    assert restored(postgres.url(name)) == everything(counting.ledger)


@pytest.mark.parametrize("text", [*ODD, "\\", "\0", "\0\\0\\\0", ""])
def test_a_text_is_stored_without_nul_and_found_as_it_was(text: str) -> None:
    (sent,) = stored([text])
    assert isinstance(sent, str)
    assert "\0" not in sent
    assert found([sent]) == (text,)


def test_a_commit_that_fails_half_way_changes_nothing_and_can_be_made_again(postgres: Server, name: str, tmp_path: Path) -> None:
    counting = InPostgres(postgres.url(name), tmp_path / "unused.db")
    counting.poll(at(0))
    counting.begin(at(100))
    counting.see(session("s", {"p": peer(at(10), at(90), "stage")}, started=at(10), ended=at(95)))
    counting.assign()
    counting.now.finish(None, 0.0)

    fails_half_way(counting)
    assert postgres.sql(name, "SELECT count(*) FROM hms.settled") == [(0,)]
    counting.commit()
    counting.close()
    assert restored(postgres.url(name)) == everything(counting.ledger)


def test_a_connection_that_ends_in_a_commit_leaves_all_of_it_or_nothing_and_never_writes_again(
    postgres: Server, name: str, tmp_path: Path
) -> None:
    counting = InPostgres(postgres.url(name), tmp_path / "unused.db")
    counting.poll(at(0))
    before = copy.deepcopy(everything(counting.ledger))
    counting.begin(at(100))
    counting.see(session("s", {"p": peer(at(10), at(90), "stage")}, started=at(10), ended=at(95)))
    counting.assign()
    counting.now.finish(None, 0.0)
    database = counting.store.database
    assert isinstance(database, PostgresDatabase)

    def ended() -> Iterator[KnownRoom]:
        cut(database.connection)
        yield KnownRoom.missing("r", at(1))

    for _ in range(2):
        with pytest.raises(StoreError, match="the database"):
            counting.store.commit("w", counting.ledger, ended())
    assert database.lost
    assert restored(postgres.url(name)) == before


# -- the schema -------------------------------------------------------------------------------------------------------


def fill_with_version_2(postgres: Server, name: str, tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    """Makes a database of version 2 with the rows of the kept file; returns the rows by table."""
    kept = tmp_path / "kept.db"
    kept.write_bytes(gzip.decompress((FILES / "state-2.db.gz").read_bytes()))
    connection = connect(postgres.url(name))
    old = Schema(2, VERSION_2)
    prepare(connection, old)
    rows = {}
    with closing(sqlite3.connect(kept)) as db:
        db.row_factory = sqlite3.Row
        for shape in VERSION_2:
            rows[shape.name] = [{column: row[column] for column in shape.names} for row in db.execute(f"SELECT * FROM {shape.name}")]
            for row in rows[shape.name]:
                marks = ", ".join(["%s"] * len(row))
                connection.execute(f'INSERT INTO "{shape.name}" VALUES ({marks})', tuple(row.values()))
    connection.close()
    return rows


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: json.dumps(row, default=repr, sort_keys=True))


def test_a_state_of_an_earlier_version_comes_through_with_all_that_it_has_counted(postgres: Server, name: str, tmp_path: Path) -> None:
    before = fill_with_version_2(postgres, name, tmp_path)
    connection = connect(postgres.url(name))
    prepare(connection, LATER)
    assert version_of(connection) == 4

    def rows(table: str) -> list[dict[str, Any]]:
        columns = LATER.shapes()[table].names
        cursor = connection.execute(f'SELECT {", ".join(f"{chr(34)}{column}{chr(34)}" for column in columns)} FROM "{table}"')
        return in_order([dict(zip(columns, row, strict=True)) for row in cursor])

    assert rows("room") == in_order([{**row, "large": 7} for row in before["room"]])
    assert rows("running") == in_order([{**row, "note": None} for row in before["running"]])
    assert rows("account") == in_order(before["account"])
    assert rows("day") == in_order(before["day"])
    assert sum(row["us"] for row in rows("total")) == sum(row["us"] for row in before["role"])
    assert postgres.sql(name, "SELECT to_regclass('hms.roles_seen')") == [(None,)]
    connection.close()


def test_the_program_takes_a_state_of_version_2_to_its_own(postgres: Server, name: str, tmp_path: Path) -> None:
    fill_with_version_2(postgres, name, tmp_path)
    assert restored(postgres.url(name))["tracked"].keys() == {"lost", "running", "waiting"}
    assert restored(postgres.url(name), "second")["tracked"].keys() == {"group-1"}
    assert postgres.sql(name, "SELECT version FROM hms.state") == [(SCHEMA.version,)]


def test_a_state_of_a_newer_version_is_refused(postgres: Server, name: str) -> None:
    opened(postgres.url(name)).close()
    postgres.sql(name, "UPDATE hms.state SET version = 99")
    with pytest.raises(StoreError, match="version 99"):
        opened(postgres.url(name))
    told: queue.SimpleQueue[None] = queue.SimpleQueue()
    candidate = Candidate(lambda: postgres.url(name), lambda: told.put(None))
    candidate.start()
    told.get(timeout=10)
    assert isinstance(candidate.refused, Refused)
    assert "version 99" in str(candidate.refused)
    candidate.stop()
    assert postgres.sql(name, "SELECT version FROM hms.state") == [(99,)]


def test_the_tables_are_those_that_are_described(postgres: Server, name: str) -> None:
    opened(postgres.url(name)).close()
    of_ours = "FROM information_schema.columns WHERE table_schema = 'hms' ORDER BY 1, ordinal_position"
    columns = postgres.sql(name, f"SELECT table_name, column_name {of_ours}")
    for table in TABLES:
        assert tuple(column for of, column in columns if of == table.name) == table.shape.names


# -- one is active ----------------------------------------------------------------------------------------------------


class One:
    """A candidate; `line` is its connection to the server."""

    def __init__(self, postgres: Server, name: str) -> None:
        self.line = Line(postgres.port)
        self.told: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.candidate = Candidate(lambda: postgres.url(name, self.line.port), self._changed)
        self.candidate.start()

    def _changed(self) -> None:
        self.told.put(self.candidate.database is not None)

    def wait_active(self, seconds: float = 15) -> float:
        began = time.monotonic()
        assert self.told.get(timeout=seconds), "active"
        return time.monotonic() - began

    @property
    def active(self) -> bool:
        return self.candidate.leased()

    def end(self) -> None:
        self.candidate.stop()
        self.line.close()


@contextmanager
def pair(postgres: Server, name: str) -> Iterator[tuple[One, One]]:
    """An active candidate and a standby.  Checks that both are never active at once."""
    first, both, over = One(postgres, name), [], threading.Event()
    first.wait_active()
    second = One(postgres, name)

    def watch() -> None:
        while not over.wait(0.005):
            if first.active and second.active:
                both.append(time.monotonic())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        wait_until(lambda: "another exporter" in second.candidate.waiting_for)
        yield first, second
    finally:
        over.set()
        watcher.join()
        first.end()
        second.end()
    assert both == []


def wait_until(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_standby_takes_over_at_once_when_the_active_one_ends(postgres: Server, name: str) -> None:
    with pair(postgres, name) as (first, second):
        time.sleep(2.5)  # longer than a standby needs for two checks
        assert (first.active, second.active) == (True, False)
        first.candidate.stop()
        assert second.wait_active() < 3


def test_a_standby_ends_an_active_one_that_is_cut_off_and_the_lease_is_over_before(postgres: Server, name: str) -> None:
    """The network stalls: no packet passes, and no connection ends."""
    with pair(postgres, name) as (first, second):
        database = first.candidate.database
        assert database is not None
        first.line.stalled.set()
        seconds = second.wait_active()
        assert seconds < 15
        assert not first.active
        # Its unfinished writes never arrive, even when the connection works again.
        first.line.stalled.clear()
        with pytest.raises(StoreError), database.writing() as db:
            db.put(TABLES[0], [])
        wait_until(lambda: "another exporter" in first.candidate.waiting_for)
        assert second.active


def test_a_connection_that_is_cut_is_made_anew(postgres: Server, name: str) -> None:
    one = One(postgres, name)
    one.wait_active()
    one.line.cut()
    assert one.told.get(timeout=10) is False
    assert one.wait_active() < 10
    one.end()


def test_a_lock_that_the_active_one_lost_a_moment_ago_gives_no_right_to_publish_yet(postgres: Server, name: str) -> None:
    """The server has ended the connection of the active one, which may not notice before its next sign of life."""
    with pair(postgres, name) as (first, second):
        for _ in range(3):
            active = first if first.active else second
            took = time.monotonic()
            here = "database = (SELECT oid FROM pg_database WHERE datname = %s)"
            ours = f"SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND {here}"
            postgres.sql(name, f"SELECT pg_terminate_backend(({ours}))", (name,))
            wait_until(lambda active=active: not active.active)  # type: ignore[misc]  # bound now
            wait_until(lambda: first.active or second.active)
            assert time.monotonic() - took < 15


def test_a_standby_waits_as_long_as_the_active_one_works(postgres: Server, name: str) -> None:
    with pair(postgres, name) as (first, second):
        time.sleep(SILENCE + 4)  # longer than an active one may be silent
        assert (first.active, second.active) == (True, False)


def test_a_long_statement_of_the_active_one_is_no_silence(postgres: Server, name: str) -> None:
    with pair(postgres, name) as (first, second):
        database = first.candidate.database
        assert database is not None
        with database.reading() as db:
            assert list(db.query("SELECT pg_sleep(?)::text", (SILENCE + 3,))) == [("",)]
        wait_until(lambda: first.active, 3)
        assert not second.active


def test_a_server_that_crashes_and_comes_back_finds_one_active_and_the_state_as_it_was(tmp_path: Path) -> None:
    with server() as own:
        own.database("state")
        counting = InPostgres(own.url("state"), tmp_path / "unused.db")
        counting.poll(at(10), session("running", {"p": peer(at(0))}))
        counting.close()
        with pair(own, "state") as (first, second):
            own.kill()
            assert first.told.get(timeout=10) is False
            assert not first.active
            assert not second.active
            own.start()
            wait_until(lambda: first.active or second.active, 20)
        assert restored(own.url("state")) == everything(counting.ledger)


def test_without_a_database_it_waits_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    candidate = Candidate(lambda: f"postgresql://postgres:canary@127.0.0.1:{port}/state", lambda: None)
    candidate.start()
    time.sleep(3)  # time for several attempts
    assert candidate.waiting_for == "the database"
    candidate.stop()
    waiting = [record.getMessage() for record in caplog.records if "waiting for the database" in record.getMessage()]
    assert len(waiting) == 1
    assert "canary" not in caplog.text
