"""The work file: the records read so far, and the order in which to write them.  It is a SQLite file, deleted at the end.

User ids are stored as keyed hashes, to count users; the key is in the file, and is deleted with it.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

import msgspec

from exporter.commands.backfill.series import Base, Event
from exporter.counting.contribution import Account
from exporter.counting.rooms import KnownRoom
from exporter.counting.stays import Past
from exporter.hms.jobs import Job
from exporter.hms.records import Session

_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE session (
    id TEXT PRIMARY KEY, room TEXT NOT NULL, started INTEGER NOT NULL, ended INTEGER, stays BLOB NOT NULL, account INTEGER, counted INTEGER
) WITHOUT ROWID;
CREATE INDEX session_by_start ON session (started);
CREATE TABLE job (
    kind TEXT, id TEXT, room TEXT NOT NULL, created INTEGER NOT NULL, record BLOB NOT NULL, known INTEGER, account INTEGER, counted INTEGER,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE INDEX job_by_start ON job (created);
CREATE TABLE room (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, template TEXT NOT NULL, template_id TEXT NOT NULL, region TEXT NOT NULL,
    enabled INTEGER NOT NULL, exists_there INTEGER NOT NULL
) WITHOUT ROWID;
"""
_ARRANGED = """
DROP INDEX IF EXISTS session_by_account;
DROP INDEX IF EXISTS session_by_end;
DROP INDEX IF EXISTS job_by_account;
DROP TABLE IF EXISTS account;
DROP TABLE IF EXISTS series;
DROP TABLE IF EXISTS event;
DROP TABLE IF EXISTS span;
CREATE TABLE account (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (kind, name));
CREATE TABLE series (
    account INTEGER, role TEXT, first INTEGER NOT NULL, count INTEGER NOT NULL, micros INTEGER NOT NULL, PRIMARY KEY (account, role)
) WITHOUT ROWID;
CREATE TABLE event (account INTEGER, role TEXT, at INTEGER, change INTEGER, moment INTEGER, user INTEGER, number INTEGER);
CREATE TABLE span (account INTEGER PRIMARY KEY, spans BLOB NOT NULL);
"""
_INDEXES = (
    "CREATE INDEX event_in_order ON event (account, role, at, change, moment, user, number)",
    "CREATE INDEX session_by_account ON session (account, started, ended)",
    "CREATE INDEX session_by_end ON session (ended)",
    "CREATE INDEX job_by_account ON job (kind, account, created)",
)
_CACHE_KIB = 32 * 1024


class StayRow(msgspec.Struct, array_like=True, gc=False):
    """A stored stay of a peer; `user` is a keyed hash, `past` are earlier roles, each with its end."""

    joined: int
    left: int | None
    role: str
    user: int | None
    past: list[tuple[str, int]] = []


class SessionRow(msgspec.Struct, gc=False):
    """A stored session."""

    id: str
    room_id: str
    started: int
    ended: int | None
    stays: list[StayRow]


class JobRow(msgspec.Struct, gc=False):
    """A stored recording or stream; `known` says whether the live state has it, `None` if the state does not show that."""

    kind: str
    job: Job
    known: bool | None = None

    @property
    def room_id(self) -> str:
        """The id of its room."""
        return self.job.room_id

    @property
    def started(self) -> int:
        """When it was requested (µs)."""
        return self.job.created

    @property
    def ended(self) -> int | None:
        """When its record last changed (µs); `None` while it is open."""
        return None if self.job.ended is None else self.job.changed


class Series(msgspec.Struct, gc=False):
    """A set of counters, which begins at `first` (µs): of an account's sessions (`role` is empty), or of its peers in one role."""

    role: str
    first: int
    base: Base


_encode_stays = msgspec.msgpack.Encoder().encode
_decode_stays = msgspec.msgpack.Decoder(list[StayRow]).decode
_decode_job = msgspec.msgpack.Decoder(Job).decode
_decode_spans = msgspec.msgpack.Decoder(list[tuple[int, int]]).decode


class Work:
    """A work file, new or from an earlier run.  Raises `sqlite3.Error` if it cannot be used, or another run uses it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        new = not path.exists()
        if new:
            # Created before SQLite opens it, so that only its owner may read it.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        self._db = sqlite3.connect(path, isolation_level=None, timeout=0)
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        if not self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            self._db.executescript(f"BEGIN EXCLUSIVE; {_SCHEMA} COMMIT")
            self.note(key=secrets.token_bytes(32))
        self._key = self.noted("key")

    def close(self) -> None:
        """Closes the file, which may be opened again."""
        self._db.close()

    def remove(self) -> None:
        """Closes and deletes the file."""
        self.close()
        for name in (self.path, Path(f"{self.path}-wal"), Path(f"{self.path}-shm")):
            name.unlink(missing_ok=True)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def note(self, **values: bytes) -> None:
        """Stores values by name."""
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def noted(self, name: str) -> bytes:
        """A stored value; empty if there is none."""
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return bytes(row[0]) if row is not None else b""

    # -- records ------------------------------------------------------------------------------------------------------

    def put_sessions(self, sessions: Iterable[tuple[Session, Mapping[str, str], Past]]) -> None:
        """Stores sessions with their peers' user ids and earlier roles, by peer; replaces existing ones."""
        self._db.executemany(
            "INSERT OR REPLACE INTO session (id, room, started, ended, stays) VALUES (?, ?, ?, ?, ?)",
            ((found.id, found.room_id, found.started, found.ended, self._stays(found, users, past)) for found, users, past in sessions),
        )

    def _stays(self, session: Session, users: Mapping[str, str], past: Past) -> bytes:
        return _encode_stays(
            [
                StayRow(stay.joined, stay.left, stay.role, self._user(users.get(peer)), past.get(peer, []))
                for peer, stay in session.stays.items()
            ]
        )

    def _user(self, user_id: str | None) -> int | None:
        if not user_id:
            return None
        return int.from_bytes(blake2b(user_id.encode(errors="replace"), digest_size=8, key=self._key).digest(), signed=True)

    def count(self) -> int:
        """How many sessions and jobs have been read."""
        return int(self._db.execute("SELECT (SELECT count(*) FROM session) + (SELECT count(*) FROM job)").fetchone()[0])

    def unnamed_rooms(self) -> list[str]:
        """Rooms with sessions or jobs whose names are not known yet."""
        rows = self._db.execute(
            "SELECT room FROM (SELECT room FROM session UNION SELECT room FROM job) WHERE room NOT IN (SELECT id FROM room)"
        )
        return [row[0] for row in rows]

    def put_rooms(self, rooms: Iterable[KnownRoom]) -> None:
        """Stores 100ms's answers about rooms."""
        self._db.executemany(
            "INSERT OR REPLACE INTO room VALUES (?, ?, ?, ?, ?, ?, ?)",
            ((room.id, room.name, room.template, room.template_id, room.region, room.enabled, room.exists) for room in rooms),
        )

    def room(self, room_id: str) -> KnownRoom | None:
        """The stored answer about a room."""
        columns = "id, name, template, template_id, region, enabled, exists_there"
        row = self._db.execute(f"SELECT {columns} FROM room WHERE id = ?", (room_id,)).fetchone()  # noqa: S608 (our own names)
        if row is None:
            return None
        found_id, name, template, template_id, region, enabled, exists = row
        return KnownRoom(found_id, name, template, template_id, region, bool(enabled), bool(exists), 1)

    def put_jobs(self, rows: Iterable[JobRow]) -> None:
        """Stores recordings and streams; replaces existing ones."""
        self._db.executemany(
            "INSERT OR REPLACE INTO job (kind, id, room, created, record, known) VALUES (?, ?, ?, ?, ?, ?)",
            ((row.kind, row.job.id, row.room_id, row.started, _encode_stays(row.job), row.known) for row in rows),
        )

    def jobs(self) -> Iterator[JobRow]:
        """All recordings and streams, in order of their requests."""
        for kind, record, known in self._db.execute("SELECT kind, record, known FROM job ORDER BY created"):
            yield JobRow(kind, _decode_job(record), None if known is None else bool(known))

    def sessions(self) -> Iterator[SessionRow]:
        """All sessions, in order of their starts."""
        return self._sessions("1 ORDER BY started")

    # -- the arrangement ----------------------------------------------------------------------------------------------

    def begin_arrangement(self) -> None:
        """Forgets an earlier arrangement."""
        self._db.executescript(_ARRANGED)

    def end_arrangement(self) -> None:
        """Creates the indexes that sort the arrangement."""
        for index in _INDEXES:
            self._db.execute(index)

    def account_number(self, account: Account) -> int:
        """The number of an account, assigned at the first call."""
        self._db.execute("INSERT OR IGNORE INTO account (kind, name) VALUES (?, ?)", account)
        return int(self._db.execute("SELECT id FROM account WHERE kind = ? AND name = ?", account).fetchone()[0])

    def accounts(self) -> Iterator[tuple[int, Account]]:
        """Every account with its number, always in the same order."""
        for number, kind, name in self._db.execute("SELECT id, kind, name FROM account ORDER BY kind, name").fetchall():
            yield number, Account(kind, name)

    def belongs(self, owners: Iterable[tuple[int, bool, str]]) -> None:
        """Assigns sessions (ids last) to accounts, and stores whether the live counters count them."""
        self._db.executemany("UPDATE session SET account = ?, counted = ? WHERE id = ?", owners)

    def jobs_belong(self, owners: Iterable[tuple[int, bool, str, str]]) -> None:
        """Assigns jobs (kinds and ids last) to accounts, and stores whether the live counters count them."""
        self._db.executemany("UPDATE job SET account = ?, counted = ? WHERE kind = ? AND id = ?", owners)

    def put_events(self, rows: Iterable[tuple[int, str, int, int, int, int | None, int]]) -> None:
        """Stores events, each after its account and role."""
        self._db.executemany("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def add_series(self, rows: Iterable[tuple[int, str, int, int, int]]) -> None:
        """Stores series: account, role, beginning, and what to add to their base."""
        self._db.executemany(
            "INSERT INTO series VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
            " first = min(first, excluded.first), count = count + excluded.count, micros = micros + excluded.micros",
            rows,
        )

    def put_spans(self, rows: Iterable[tuple[int, list[tuple[int, int]]]]) -> None:
        """Adds the times at which each account's series are shown, in order of time."""
        for account, added in rows:
            spans: list[tuple[int, int]] = []
            for first, last in self.spans(account) + added:
                if spans and first <= spans[-1][1]:
                    spans[-1] = spans[-1][0], max(spans[-1][1], last)
                else:
                    spans.append((first, last))
            self._db.execute("INSERT OR REPLACE INTO span VALUES (?, ?)", (account, _encode_stays(spans)))

    def spans(self, account: int) -> list[tuple[int, int]]:
        """When an account's series are shown."""
        row = self._db.execute("SELECT spans FROM span WHERE account = ?", (account,)).fetchone()
        return [] if row is None else _decode_spans(row[0])

    def series(self, account: int) -> list[Series]:
        """An account's series, that of its sessions first."""
        rows = self._db.execute("SELECT role, first, count, micros FROM series WHERE account = ? ORDER BY role", (account,))
        return [Series(role, first, Base(count, micros)) for role, first, count, micros in rows]

    def events(self, account: int, role: str) -> Iterator[Event]:
        """The beginnings and ends in a series, in order of time; at the same moment, ends come first."""
        query = "SELECT at, change, moment, user, number FROM event WHERE account = ? AND role = ? ORDER BY at, change"
        return map(Event._make, self._db.execute(query, (account, role)))

    def first_jobs(self, kind: str) -> dict[int, int]:
        """When the first job of a kind was requested (µs), by account."""
        query = "SELECT account, min(created) FROM job WHERE kind = ? AND account IS NOT NULL GROUP BY account"
        return dict(self._db.execute(query, (kind,)))

    def jobs_of(self, kind: str, account: int | None = None, *, counted: bool = True) -> Iterator[Job]:
        """The jobs of a kind of one account, or of all, in order of time: all of them, or those that the live counters leave out."""
        whose, values = ("account IS NOT NULL", (kind,)) if account is None else ("account = ?", (kind, account))
        only = "" if counted else " AND counted = 0"
        query = f"SELECT record FROM job WHERE kind = ? AND {whose}{only} ORDER BY created"  # noqa: S608 (our own words)
        return (_decode_job(record) for (record,) in self._db.execute(query, values))

    def stretches(self, account: int) -> Iterator[tuple[int, int | None]]:
        """The starts and ends of an account's sessions, in order of their starts."""
        return iter(self._db.execute("SELECT started, ended FROM session WHERE account = ? ORDER BY started", (account,)))

    def firsts(self) -> dict[str, int]:
        """The beginning of the first series of each role (µs); the empty role stands for sessions."""
        return dict(self._db.execute("SELECT role, min(first) FROM series GROUP BY role ORDER BY role"))

    def ended(self, *, counted: bool = True) -> Iterator[SessionRow]:
        """Ended sessions that have an account, in order of their ends: all, or those that the live counters leave out."""
        only = "" if counted else " AND counted = 0"
        return self._sessions(f"account IS NOT NULL AND ended IS NOT NULL{only} ORDER BY ended")

    def _sessions(self, which: str) -> Iterator[SessionRow]:
        query = f"SELECT id, room, started, ended, stays FROM session WHERE {which}"  # noqa: S608 (our own words)
        for session_id, room_id, started, ended, stays in self._db.execute(query):
            yield SessionRow(session_id, room_id, started, ended, _decode_stays(stays))
