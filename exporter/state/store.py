"""The ledger on disk: one SQLite file, one transaction a poll.

What is here is what the API cannot tell again: settled sums, the sessions that run (with the roles their peers held), the
ended ones that a listing may still show, what is held above the truth, and how far has been read; for a backfill, also the
earlier roles of the peers that were there when the series began.  No user ids, no names of people, no secrets.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from exporter.counting.accounts import HISTOGRAM_BOUNDS, AccountState, Histogram, PeriodSums, RoleTotals
from exporter.counting.contribution import Account, Memory, Tracked
from exporter.counting.ledger import CatchUp, Entry, Ledger
from exporter.counting.rooms import KnownRoom
from exporter.state.file import APPLICATION_ID, StateFile, StoreError, sealed
from exporter.times import calendar

__all__ = ["APPLICATION_ID", "SCHEMA_VERSION", "Store", "StoreError"]

SCHEMA_VERSION = 2

_SCHEMA = """
CREATE TABLE workspace (
    name TEXT PRIMARY KEY, now INTEGER, read_until INTEGER, catch_ups BLOB NOT NULL, seal INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE entry (
    workspace TEXT, key TEXT, since INTEGER NOT NULL, read_before INTEGER NOT NULL, "left" INTEGER, whole INTEGER,
    seal INTEGER NOT NULL,
    PRIMARY KEY (workspace, key)
) WITHOUT ROWID;
CREATE TABLE room (
    workspace TEXT, id TEXT, name TEXT NOT NULL, template TEXT NOT NULL, template_id TEXT NOT NULL, region TEXT NOT NULL,
    enabled INTEGER NOT NULL, exists_there INTEGER NOT NULL, fetched_at INTEGER NOT NULL, seal INTEGER NOT NULL,
    PRIMARY KEY (workspace, id)
) WITHOUT ROWID;
CREATE TABLE account (
    workspace TEXT, kind TEXT, id TEXT, started INTEGER NOT NULL, ended INTEGER NOT NULL, us INTEGER NOT NULL,
    held_started INTEGER NOT NULL, held_ended INTEGER NOT NULL, held_us INTEGER NOT NULL, last_active INTEGER NOT NULL,
    seal INTEGER NOT NULL,
    PRIMARY KEY (workspace, kind, id)
) WITHOUT ROWID;
CREATE INDEX account_by_activity ON account (workspace, last_active);
CREATE TABLE role (
    workspace TEXT, kind TEXT, id TEXT, role TEXT, joined INTEGER NOT NULL, "left" INTEGER NOT NULL, us INTEGER NOT NULL,
    held_joined INTEGER NOT NULL, held_left INTEGER NOT NULL, held_us INTEGER NOT NULL,
    day INTEGER NOT NULL, day_us INTEGER NOT NULL, month INTEGER NOT NULL, month_us INTEGER NOT NULL, seal INTEGER NOT NULL,
    PRIMARY KEY (workspace, kind, id, role)
) WITHOUT ROWID;
CREATE TABLE day (
    workspace TEXT, day INTEGER, kind TEXT, id TEXT, room_id TEXT, role TEXT, us INTEGER NOT NULL, seal INTEGER NOT NULL,
    PRIMARY KEY (workspace, day, kind, id, room_id, role)
) WITHOUT ROWID;
CREATE TABLE running (
    workspace TEXT, id TEXT, room_id TEXT NOT NULL, kind TEXT, account TEXT, started INTEGER NOT NULL, ended INTEGER,
    observed INTEGER, unknown INTEGER NOT NULL, memory BLOB NOT NULL, seal INTEGER NOT NULL,
    PRIMARY KEY (workspace, id)
);  -- with its row ids: rows of kilobytes take half the pages so
CREATE TABLE settled (
    workspace TEXT, id TEXT, started INTEGER NOT NULL, seal INTEGER NOT NULL,
    PRIMARY KEY (workspace, id)
) WITHOUT ROWID;
CREATE INDEX settled_by_start ON settled (workspace, started);
CREATE TABLE roles_seen (
    workspace TEXT, id TEXT, past BLOB NOT NULL, seal INTEGER NOT NULL,
    PRIMARY KEY (workspace, id)
) WITHOUT ROWID;
CREATE TABLE histogram (
    workspace TEXT, name TEXT, role TEXT, counts BLOB NOT NULL, total INTEGER NOT NULL, seal INTEGER NOT NULL,
    PRIMARY KEY (workspace, name, role)
) WITHOUT ROWID;
"""

_decode_memory = msgspec.msgpack.Decoder(Memory).decode
_decode_catch_ups = msgspec.json.Decoder(list[CatchUp]).decode
_decode_counts = msgspec.json.Decoder(list[int]).decode


class Store:
    """The state file, held for this process alone until `close`.  Its methods may be called from any thread.

    Opening creates the file with its folder.  Raises `StoreError`, leaving the file as it was, when it is not a state file,
    of a version this program does not know, damaged, in use by another exporter, or not writable.
    """

    def __init__(self, path: Path) -> None:
        self._mutex = threading.Lock()
        # Days are for reports, and there may be a year of them.
        self._file = StateFile(path, _SCHEMA, SCHEMA_VERSION, unverified=frozenset({"day"}))

    def close(self) -> None:
        """Gives the file back; whoever commits after this gets a `StoreError`."""
        with self._mutex:
            self._file.close()

    @property
    def _db(self) -> sqlite3.Connection:
        return self._file.db

    # -- reading --------------------------------------------------------------------------------------------------

    def restore(self, workspace: str, ledger: Ledger) -> None:
        """Everything of a workspace but its accounts, which come back one by one."""
        with self._mutex, self._file.errors():
            row = self._db.execute("SELECT now, read_until, catch_ups FROM workspace WHERE name = ?", (workspace,)).fetchone()
            if row is None:
                return
            ledger.now, ledger.read_until = row[0], row[1]
            ledger.catch_ups = _decode_catch_ups(row[2])
            for key, since, read_before, left, whole in self._db.execute(
                'SELECT key, since, read_before, "left", whole FROM entry WHERE workspace = ?', (workspace,)
            ):
                ledger.entries[key] = Entry(since, read_before, left, whole)
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
        with self._mutex, self._file.errors():
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
        with self._mutex, self._file.errors():
            key = (workspace, *account)
            row = self._db.execute("SELECT * FROM account WHERE workspace = ? AND kind = ? AND id = ?", key).fetchone()
            if row is None:
                return None
            state = _account(row)
            for row in self._db.execute("SELECT * FROM role WHERE workspace = ? AND kind = ? AND id = ?", key):
                _role(state, row)
            return state

    def usage(self, workspace: str, now: int) -> dict[str, PeriodSums]:
        """By role, what all accounts have settled in the day and the month of `now` (µs)."""
        today = calendar(now)
        with self._mutex, self._file.errors():
            rows = self._db.execute(
                "SELECT role, SUM(CASE WHEN day = ? THEN day_us ELSE 0 END), SUM(month_us) FROM role"
                " WHERE workspace = ? AND month = ? GROUP BY role",
                (today.day, workspace, today.month),
            )
            return {role: PeriodSums(today.day, in_day, today.month, in_month) for role, in_day, in_month in rows}

    def rooms_named(self, workspace: str, names: Iterable[str]) -> list[str]:
        """The ids of the rooms that were last known by these names."""
        with self._mutex, self._file.errors():
            return [
                room_id
                for name in names
                for (room_id,) in self._db.execute("SELECT id FROM room WHERE workspace = ? AND name = ?", (workspace, name))
            ]

    def rooms(self, workspace: str, ids: Iterable[str]) -> dict[str, KnownRoom]:
        """What was last known of these rooms."""
        with self._mutex, self._file.errors():
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
        with self._mutex, self._file.errors(), self._file.transaction() as db:
            _put(db, "workspace", [(workspace, ledger.now, ledger.read_until, msgspec.json.encode(ledger.catch_ups))])
            if changes.reading:
                entries = ledger.entries.items()
                _put(db, "entry", ((workspace, key, entry.since, entry.read_before, entry.left, entry.whole) for key, entry in entries))
            _put(db, "room", (_room_row(workspace, room) for room in rooms))
            states = [ledger.accounts[account] for account in changes.accounts]
            _put(db, "account", (_account_row(workspace, state) for state in states))
            _put(db, "role", (_role_row(workspace, state, *role) for state in states for role in state.roles.items()))
            db.executemany(
                "INSERT INTO day VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, seal(?1, ?2, ?3, ?4, ?5, ?6, ?7)) ON CONFLICT DO UPDATE SET"
                " us = us + excluded.us, seal = seal(workspace, day, kind, id, room_id, role, us + excluded.us)",
                ((workspace, day, *account, room_id, role, us) for (account, room_id, day, role), us in changes.days.items()),
            )
            db.executemany("DELETE FROM running WHERE workspace = ? AND id = ?", ((workspace, i) for i in changes.untracked))
            _put(db, "running", (_tracked_row(workspace, ledger.tracked[i]) for i in changes.tracked if i in ledger.tracked))
            _put(db, "settled", ((workspace, *item) for item in changes.settled.items()))
            _put(db, "roles_seen", ((workspace, i, msgspec.msgpack.encode(past)) for i, past in changes.roles_seen.items()))
            oldest = ledger.forgotten_before()
            if oldest is not None:
                db.execute("DELETE FROM settled WHERE workspace = ? AND started < ?", (workspace, oldest))
            _put(db, "histogram", (_histogram_row(workspace, key, ledger.histograms) for key in changes.histograms))
        ledger.committed()


_ANY_HELD = (("", 0),)
"""Something is held; what exactly, the ledger finds out."""


def _put(db: sqlite3.Connection, table: str, rows: Iterable[tuple[object, ...]]) -> None:
    finished = list(sealed(rows))
    if finished:
        marks = ", ".join("?" * len(finished[0]))
        db.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", finished)  # noqa: S608 (a table of our own)


def _account(row: tuple[Any, ...]) -> AccountState:
    state = AccountState(Account(row[1], row[2]))
    totals = state.totals
    totals.started, totals.ended, totals.seconds = row[3:6]
    totals.published_started, totals.published_ended, totals.published_seconds = row[6:9]
    state.held = _ANY_HELD if any(row[6:9]) else ()
    state.last_active = row[9]
    return state


def _role(state: AccountState, row: tuple[Any, ...]) -> None:
    state.roles[row[3]] = RoleTotals(row[4], row[5], row[6], row[7], row[8], row[9], PeriodSums(*row[10:14]))
    if any(row[7:10]):
        state.held = _ANY_HELD


def _account_row(workspace: str, state: AccountState) -> tuple[object, ...]:
    t = state.totals
    held = (t.published_started, t.published_ended, t.published_seconds) if state.held else (0, 0, 0)
    return (workspace, *state.account, t.started, t.ended, t.seconds, *held, state.last_active)


def _role_row(workspace: str, state: AccountState, role: str, t: RoleTotals) -> tuple[object, ...]:
    held = (t.published_joined, t.published_left, t.published_seconds) if state.held else (0, 0, 0)
    of = t.periods
    return (workspace, *state.account, role, t.joined, t.left, t.seconds, *held, of.day, of.in_day, of.month, of.in_month)


def _room_row(workspace: str, room: KnownRoom) -> tuple[object, ...]:
    flags = int(room.enabled), int(room.exists)
    return (workspace, room.id, room.name, room.template, room.template_id, room.region, *flags, room.fetched_at)


def _tracked_row(workspace: str, t: Tracked) -> tuple[object, ...]:
    kind, account = t.account if t.account is not None else (None, None)
    observed = t.observed if t.behind or t.ended is not None else None
    return (workspace, t.id, t.room_id, kind, account, t.started, t.ended, observed, t.unknown, t.memory)


def _histogram_row(workspace: str, key: tuple[str, str], histograms: Mapping[tuple[str, str], Histogram]) -> tuple[object, ...]:
    histogram = histograms[key]
    return (workspace, *key, msgspec.json.encode(histogram.counts), histogram.total)
