"""The ledger on disk: one SQLite file, one transaction a poll.

What is here is what the API cannot tell again: settled sums, the sessions that run (with the roles their peers held), the
ended ones that a listing may still show, what is held above the truth, and how far has been read.  No user ids, no names of
people, no secrets.
"""

from __future__ import annotations

import fcntl
import sqlite3
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from exporter.accounts import HISTOGRAM_BOUNDS, AccountState, Histogram, RoleTotals
from exporter.contribution import Account, Memory, Tracked
from exporter.ledger import CatchUp, Entry, Ledger
from exporter.rooms import KnownRoom

APPLICATION_ID = 0x484D5345  # "HMSE"
SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE workspace (
    name TEXT PRIMARY KEY, now INTEGER, read_until INTEGER, catch_ups BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE entry (
    workspace TEXT, key TEXT, since INTEGER NOT NULL, read_before INTEGER NOT NULL, "left" INTEGER,
    PRIMARY KEY (workspace, key)
) WITHOUT ROWID;
CREATE TABLE room (
    workspace TEXT, id TEXT, name TEXT NOT NULL, template TEXT NOT NULL, template_id TEXT NOT NULL, region TEXT NOT NULL,
    enabled INTEGER NOT NULL, exists_there INTEGER NOT NULL, fetched_at INTEGER NOT NULL,
    PRIMARY KEY (workspace, id)
) WITHOUT ROWID;
CREATE TABLE account (
    workspace TEXT, kind TEXT, id TEXT, started INTEGER NOT NULL, ended INTEGER NOT NULL, us INTEGER NOT NULL,
    held_started INTEGER NOT NULL, held_ended INTEGER NOT NULL, held_us INTEGER NOT NULL, last_active INTEGER NOT NULL,
    PRIMARY KEY (workspace, kind, id)
) WITHOUT ROWID;
CREATE INDEX account_by_activity ON account (workspace, last_active);
CREATE TABLE role (
    workspace TEXT, kind TEXT, id TEXT, role TEXT, joined INTEGER NOT NULL, "left" INTEGER NOT NULL, us INTEGER NOT NULL,
    held_joined INTEGER NOT NULL, held_left INTEGER NOT NULL, held_us INTEGER NOT NULL,
    PRIMARY KEY (workspace, kind, id, role)
) WITHOUT ROWID;
CREATE TABLE day (
    workspace TEXT, day INTEGER, kind TEXT, id TEXT, room_id TEXT, role TEXT, us INTEGER NOT NULL,
    PRIMARY KEY (workspace, day, kind, id, room_id, role)
) WITHOUT ROWID;
CREATE TABLE running (
    workspace TEXT, id TEXT, room_id TEXT NOT NULL, kind TEXT, account TEXT, started INTEGER NOT NULL, ended INTEGER,
    observed INTEGER, unknown INTEGER NOT NULL, memory BLOB NOT NULL,
    PRIMARY KEY (workspace, id)
) WITHOUT ROWID;
CREATE TABLE settled (
    workspace TEXT, id TEXT, started INTEGER NOT NULL,
    PRIMARY KEY (workspace, id)
) WITHOUT ROWID;
CREATE INDEX settled_by_start ON settled (workspace, started);
CREATE TABLE histogram (
    workspace TEXT, name TEXT, role TEXT, counts BLOB NOT NULL, total INTEGER NOT NULL,
    PRIMARY KEY (workspace, name, role)
) WITHOUT ROWID;
"""

_decode_memory = msgspec.msgpack.Decoder(Memory).decode
_decode_catch_ups = msgspec.json.Decoder(list[CatchUp]).decode
_decode_counts = msgspec.json.Decoder(list[int]).decode


class StoreError(Exception):
    """The state file cannot be used, or not written to.  The message names the file and what to do."""


class Store:
    """The state file, held for this process alone until `close`.  Its methods may be called from any thread.

    Opening creates the file with its folder.  Raises `StoreError`, leaving the file as it was, when it is not a state file,
    of a version this program does not know, damaged, in use by another exporter, or not writable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mutex = threading.Lock()
        with self._errors():
            self._held = _hold(path)
            try:
                self._db = self._open()
            except BaseException:
                self._held.close()
                raise

    def close(self) -> None:
        """Gives the file back; whoever commits after this gets a `StoreError`."""
        with self._mutex:
            self._db.close()
            self._held.close()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=2.0)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            if not self.path.stat().st_size or not db.execute("PRAGMA application_id").fetchone()[0]:
                db.executescript(
                    f"BEGIN EXCLUSIVE; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
                    f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT; PRAGMA wal_checkpoint(TRUNCATE)"
                )
            elif (verdict := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise StoreError(f"{self.path}: the state file is damaged ({verdict}); restore it from a backup or move it away")
        except BaseException:
            db.close()
            raise
        return db

    # -- reading --------------------------------------------------------------------------------------------------

    def restore(self, workspace: str, ledger: Ledger) -> None:
        """Everything of a workspace but its accounts, which come back one by one."""
        with self._errors(), self._mutex:
            row = self._db.execute("SELECT now, read_until, catch_ups FROM workspace WHERE name = ?", (workspace,)).fetchone()
            if row is None:
                return
            ledger.now, ledger.read_until = row[0], row[1]
            ledger.catch_ups = _decode_catch_ups(row[2])
            for key, since, read_before, left in self._db.execute(
                'SELECT key, since, read_before, "left" FROM entry WHERE workspace = ?', (workspace,)
            ):
                ledger.entries[key] = Entry(since, read_before, left)
            ledger.settled = dict(self._db.execute("SELECT id, started FROM settled WHERE workspace = ?", (workspace,)))
            for name, role, counts, total in self._db.execute(
                "SELECT name, role, counts, total FROM histogram WHERE workspace = ?", (workspace,)
            ):
                ledger.histograms[name, role] = Histogram(HISTOGRAM_BOUNDS[name], _decode_counts(counts), total)
            for session_id, room_id, kind, account, started, ended, observed, unknown, memory in self._db.execute(
                "SELECT id, room_id, kind, account, started, ended, observed, unknown, memory FROM running WHERE workspace = ?",
                (workspace,),
            ):
                until = ledger.now if observed is None else observed
                tracked = Tracked(session_id, room_id, started, ended, until or 0, _decode_memory(memory), unknown)
                ledger.restore_tracked(tracked, None if kind is None else Account(kind, account))

    def accounts(self, workspace: str, active_since: int) -> list[AccountState]:
        """The groups, and the rooms' accounts that have been active since then (µs)."""
        with self._errors(), self._mutex:
            states = {}
            for row in self._db.execute(
                "SELECT * FROM account WHERE workspace = ? AND (kind = 'group' OR last_active >= ?)", (workspace, active_since)
            ):
                state = _account(row)
                states[state.account] = state
            for row in self._db.execute(
                "SELECT r.* FROM account a JOIN role r USING (workspace, kind, id)"
                " WHERE a.workspace = ? AND (a.kind = 'group' OR a.last_active >= ?)",
                (workspace, active_since),
            ):
                _role(states[Account(row[1], row[2])], row)
            return list(states.values())

    def account(self, workspace: str, account: Account) -> AccountState | None:
        """One account, `None` when it has never counted anything."""
        with self._errors(), self._mutex:
            key = (workspace, *account)
            row = self._db.execute("SELECT * FROM account WHERE workspace = ? AND kind = ? AND id = ?", key).fetchone()
            if row is None:
                return None
            state = _account(row)
            for row in self._db.execute("SELECT * FROM role WHERE workspace = ? AND kind = ? AND id = ?", key):
                _role(state, row)
            return state

    def rooms(self, workspace: str, ids: Iterable[str]) -> dict[str, KnownRoom]:
        """What was last known of these rooms."""
        with self._errors(), self._mutex:
            found = {}
            for room_id in ids:
                row = self._db.execute("SELECT * FROM room WHERE workspace = ? AND id = ?", (workspace, room_id)).fetchone()
                if row is not None:
                    found[room_id] = KnownRoom(row[1], row[2], row[3], row[4], row[5], bool(row[6]), bool(row[7]), row[8])
            return found

    # -- writing --------------------------------------------------------------------------------------------------

    def commit(self, workspace: str, ledger: Ledger, rooms: Iterable[KnownRoom] = ()) -> None:
        """Makes a poll durable, whole or not at all; only then may it be published.  Raises `StoreError`, changing nothing."""
        changes = ledger.changes
        with self._errors(), self._mutex, self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO workspace VALUES (?, ?, ?, ?)",
                (workspace, ledger.now, ledger.read_until, msgspec.json.encode(ledger.catch_ups)),
            )
            if changes.reading:
                db.executemany(
                    "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?)",
                    ((workspace, key, e.since, e.read_before, e.left) for key, e in ledger.entries.items()),
                )
            db.executemany(
                "INSERT OR REPLACE INTO room VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ((workspace, r.id, r.name, r.template, r.template_id, r.region, r.enabled, r.exists, r.fetched_at) for r in rooms),
            )
            states = [ledger.accounts[account] for account in changes.accounts]
            db.executemany(
                "INSERT OR REPLACE INTO account VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (_account_row(workspace, state) for state in states),
            )
            db.executemany(
                "INSERT OR REPLACE INTO role VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (_role_row(workspace, state, role, totals) for state in states for role, totals in state.roles.items()),
            )
            db.executemany(
                "INSERT INTO day VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET us = us + excluded.us",
                ((workspace, day, *account, room_id, role, us) for (account, room_id, day, role), us in changes.days.items()),
            )
            db.executemany("DELETE FROM running WHERE workspace = ? AND id = ?", ((workspace, i) for i in changes.untracked))
            db.executemany(
                "INSERT OR REPLACE INTO running VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (_tracked_row(workspace, ledger.tracked[i]) for i in changes.tracked if i in ledger.tracked),
            )
            db.executemany("INSERT OR REPLACE INTO settled VALUES (?, ?, ?)", ((workspace, *item) for item in changes.settled.items()))
            oldest = ledger.oldest_read()
            if oldest is not None:
                db.execute("DELETE FROM settled WHERE workspace = ? AND started < ?", (workspace, oldest))
            db.executemany(
                "INSERT OR REPLACE INTO histogram VALUES (?, ?, ?, ?, ?)",
                (_histogram_row(workspace, key, ledger.histograms) for key in changes.histograms),
            )
        ledger.committed()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """SQLite's and the system's errors in the words of this file."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise StoreError(f"{self.path}: the state file is in use by another program") from error
            raise StoreError(f"{self.path}: the state file cannot be used: {error}") from error
        except (sqlite3.DatabaseError, msgspec.MsgspecError, struct.error) as error:
            raise StoreError(f"{self.path}: the state file is damaged ({error}); restore it from a backup or move it away") from error
        except OSError as error:
            raise StoreError(f"{self.path}: the state file cannot be used: {error.strerror or error}") from error


def _hold(path: Path) -> BinaryIO:
    """Takes the file for this process, by a lock that ends with it, having looked at its first bytes only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():
        raise StoreError(f"{path}: the state file is not a file")
    held = path.open("r+b" if path.exists() else "x+b")
    try:
        try:
            # flock, which SQLite does not use: readers such as a backup or a report stay welcome.
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{path}: the state file is in use by another exporter") from None
        header = held.read(100)
        if not header:
            return held
        if len(header) < 100 or header[:16] != b"SQLite format 3\0":
            raise StoreError(f"{path}: not a state file of this exporter; move it away or choose another storage.path")
        (version,) = struct.unpack(">I", header[60:64])
        (application,) = struct.unpack(">I", header[68:72])
        if application != APPLICATION_ID:
            raise StoreError(f"{path}: a database of another program; choose another storage.path")
        if version != SCHEMA_VERSION:
            raise StoreError(
                f"{path}: the state file has version {version}, this exporter knows version {SCHEMA_VERSION};"
                " run the exporter that wrote it, or choose another storage.path"
            )
    except BaseException:
        held.close()
        raise
    return held


def _account(row: tuple[str, str, str, int, int, int, int, int, int, int]) -> AccountState:
    state = AccountState(Account(row[1], row[2]))
    totals = state.totals
    totals.started, totals.ended, totals.seconds = row[3:6]
    totals.published_started, totals.published_ended, totals.published_seconds = row[6:9]
    state.held = any(row[6:9])
    state.last_active = row[9]
    return state


def _role(state: AccountState, row: tuple[str, str, str, str, int, int, int, int, int, int]) -> None:
    state.roles[row[3]] = RoleTotals(*row[4:])
    state.held |= any(row[7:])


def _account_row(workspace: str, state: AccountState) -> tuple[object, ...]:
    t = state.totals
    held = (t.published_started, t.published_ended, t.published_seconds) if state.held else (0, 0, 0)
    return (workspace, *state.account, t.started, t.ended, t.seconds, *held, state.last_active)


def _role_row(workspace: str, state: AccountState, role: str, t: RoleTotals) -> tuple[object, ...]:
    held = (t.published_joined, t.published_left, t.published_seconds) if state.held else (0, 0, 0)
    return (workspace, *state.account, role, t.joined, t.left, t.seconds, *held)


def _tracked_row(workspace: str, t: Tracked) -> tuple[object, ...]:
    kind, account = t.account if t.account is not None else (None, None)
    observed = t.observed if t.behind or t.ended is not None else None
    return (workspace, t.id, t.room_id, kind, account, t.started, t.ended, observed, t.unknown, t.memory)


def _histogram_row(workspace: str, key: tuple[str, str], histograms: Mapping[tuple[str, str], Histogram]) -> tuple[object, ...]:
    histogram = histograms[key]
    return (workspace, *key, msgspec.json.encode(histogram.counts), histogram.total)
