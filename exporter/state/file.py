"""The state file: opened, locked, upgraded, and written again if somebody removes it.

While it is open, SQLite writes to three open files: the main file, its log (`-wal`) and the log's index (`-shm`).  The first
write after opening creates the log and the index.  A checkpoint, by any process, replaces neither: it copies the log into the
main file and restarts the same log, or truncates it.  Only the last connection to close removes them.  So if other files are
at their paths than at the beginning, somebody has removed them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from exporter.logs import event
from exporter.state.migrations import SCHEMA
from exporter.state.schema import Schema
from exporter.state.soundness import APPLICATION_ID, HEADER_BYTES, StoreError, damaged, look_at, seal, unusable, verify
from exporter.state.sqlite_sql import create_sql
from exporter.state.upgrade import upgrade

_BUSY_SECONDS = 2.0
_OWNER_ONLY = 0o600


class StateFile:
    """A SQLite file of this `schema`, held exclusively by this process until `close`.

    Opening creates it with its folder, readable only by its owner, or upgrades a file of an earlier version.  Raises `StoreError`
    and leaves the file unchanged if it is not a state file, has an unknown version, is damaged, is in use by another exporter, or
    is not writable.  The tables `unverified` are too large to check at every start; their seals are checked when rows are read.
    """

    def __init__(self, path: Path, schema: Schema = SCHEMA, unverified: frozenset[str] = frozenset()) -> None:
        self.path = path = path.absolute()
        self._schema = schema
        self._unverified = unverified
        self._db: sqlite3.Connection | None = None
        self._beside: list[_Identity | None] = []
        """The log and its index that SQLite has open."""
        self._written: _Written = None, None
        """The size and time of this process's last write to the main file and the log."""
        with self.errors():
            self._held = self._hold()
            try:
                self._db = self._open()
            except BaseException:
                self._held.close()
                raise

    @property
    def db(self) -> sqlite3.Connection:
        """The open database.  Raises `StoreError` after `close`."""
        if self._held.closed:
            raise StoreError(f"{self.path}: the state file has been closed")
        if self._db is None:
            self._db = self._connect()
        return self._db

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction, which is stored completely or not at all.  Raises `StoreError` as `keep` does."""
        self.keep()
        db = self.db
        db.execute("BEGIN IMMEDIATE")
        try:
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        finally:
            # Never raises: a committed transaction must not look failed.
            self._written = self._write_marks()

    def close(self) -> None:
        """Closes the file.  If it was removed meanwhile, it is written again first."""
        try:
            with self.errors():
                self.keep()
        except StoreError as error:
            event("error", "state file not put back", reason=error)
        if self._db is not None:
            self._db.close()
            self._db = None
        self._held.close()

    def keep(self) -> None:
        """Ensures that the next start finds all later writes at `path`.

        A removed file, or its log, exists only while it is open, so the whole state file is written again.  Raises `StoreError` if
        another file is at `path`, which is not overwritten, or if somebody has damaged the file, because the missing part cannot be
        recovered.
        """
        if self._held.closed:
            return
        try:
            there = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._put_back()
            event("warn", "state file was removed while in use and has been written again", path=self.path)
            return
        if _identity(there) != _identity(os.fstat(self._held.fileno())):
            raise StoreError(
                f"{self.path}: another file has taken the place of the state file;"
                " move it away to go on counting, or restart the exporter to use it"
            )
        if self._db is None:
            return  # only the file itself is open
        if None in self._beside or self._find_beside() != self._beside:
            self._put_back()
            event("warn", "the log of the state file was removed while in use; the state file has been written again", path=self.path)
        elif self._write_marks() != self._written:
            self._look_over()

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turns errors of SQLite and the system into messages for the operator."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise StoreError(f"{self.path}: the state file is in use by another program") from error
            raise unusable(self.path, error) from error
        except (sqlite3.DatabaseError, msgspec.MsgspecError, struct.error, UnicodeDecodeError) as error:
            raise damaged(self.path, error) from error
        except OSError as error:
            raise unusable(self.path, error) from error

    # -- opening --------------------------------------------------------------------------------------------------

    def _hold(self) -> BinaryIO:
        """Locks the file for this process, after looking only at its first bytes; the lock ends with the process."""
        path = self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise StoreError(f"{path}: the state file is not a file")
        existed = path.exists()
        held = path.open("r+b") if existed else _create(path)
        try:
            self._lock(held)
            header = held.read(HEADER_BYTES)
            if header:
                look_at(path, header, self._schema)
                if not _size(self._log) and not self._journal.exists() and _size(path) < _whole_size(header):
                    raise damaged(path, "it has been cut short")
            elif existed and _size(self._log):
                raise damaged(path, "it is empty, but its log is not")  # SQLite would remove the log and begin anew
        except BaseException:
            held.close()
            raise
        return held

    def _lock(self, held: BinaryIO) -> None:
        try:
            # flock, which SQLite does not use, so that backups and reports can still read.
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{self.path}: the state file is in use by another exporter") from None

    def _connect(self) -> sqlite3.Connection:
        # The mode must not create a file: an empty one would be mistaken for the locked one.
        db = sqlite3.connect(self._uri("rw"), uri=True, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.create_function("seal", -1, seal, deterministic=True)
            db.executescript("BEGIN IMMEDIATE; ROLLBACK")  # creates the log, and fails now if the file cannot be written to
        except BaseException:
            db.close()
            raise
        self._beside = self._find_beside()
        self._written = self._write_marks()
        return db

    def _open(self) -> sqlite3.Connection:
        # A kill while the tables are created leaves a journal; later there is a log instead.
        if not self.path.stat().st_size or self._journal.exists():
            self._make()
        version = self._read_over()
        db = self._connect()
        if version != self._schema.version:
            try:
                upgrade(db, self.path, self._schema)
            except BaseException:
                db.close()
                raise
            self._written = self._write_marks()
        return db

    def _read_over(self) -> int:
        """Checks the file with its log, and returns its version.  Raises `StoreError` if they are damaged.

        The file is opened read-only, because closing a writable connection would merge the log of a killed process into it.
        """
        with contextlib.closing(sqlite3.connect(self._uri("ro"), uri=True, timeout=_BUSY_SECONDS)) as found:
            return verify(found, self.path, self._schema, self._unverified)

    def _make(self) -> None:
        """Creates the tables in one transaction.  From then on the first bytes identify the file."""
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None, timeout=_BUSY_SECONDS)) as db:
            if not db.execute("PRAGMA application_id").fetchone()[0]:
                tables = [statement for shape in self._schema.shapes().values() for statement in create_sql(shape)]
                marks = [f"PRAGMA application_id = {APPLICATION_ID}", f"PRAGMA user_version = {self._schema.version}"]
                db.executescript("; ".join(["BEGIN EXCLUSIVE", *tables, *marks, "COMMIT"]))

    # -- while it is open -----------------------------------------------------------------------------------------

    @property
    def _log(self) -> Path:
        return Path(f"{self.path}-wal")

    @property
    def _journal(self) -> Path:
        return Path(f"{self.path}-journal")

    @property
    def _index(self) -> Path:
        return Path(f"{self.path}-shm")

    def _uri(self, mode: str) -> str:
        return f"{self.path.absolute().as_uri()}?mode={mode}"

    def _find_beside(self) -> list[_Identity | None]:
        found = [_stat(path) for path in (self._log, self._index)]
        return [None if one is None else _identity(one) for one in found]

    def _write_marks(self) -> _Written:
        return _write_mark(_stat(self.path)), _write_mark(_stat(self._log))

    def _look_over(self) -> None:
        """Checks the file after another process has written to it or its log: through SQLite, like a checkpoint, or over our data."""
        marks = self._write_marks()
        try:
            self._look_at_main()
            self._read_over()
        except (StoreError, sqlite3.DatabaseError) as error:
            if isinstance(error, sqlite3.OperationalError) and ("locked" in str(error) or "unable to open" in str(error)):
                raise  # this says nothing about the file
            why = str(error).removeprefix(f"{self.path}: ").partition(";")[0]
            raise StoreError(
                f"{self.path}: somebody has cut the state file or its log short, or written over it, while it was in use ({why});"
                " stop the exporter, then restore the file from a backup or move it away"
            ) from error
        else:
            self._written = marks

    def _look_at_main(self) -> None:
        """Raises `StoreError` if the main file is not a state file, or is shorter than before and than its header says.

        The missing part may still be in the log, but the log does not keep it forever.
        """
        header = os.pread(self._held.fileno(), HEADER_BYTES, 0)
        look_at(self.path, header, self._schema)
        size, was = _size(self.path), self._written[0]
        if was is not None and size < was[0] and size < _whole_size(header):
            raise damaged(self.path, "it has been cut short")

    # -- putting back ---------------------------------------------------------------------------------------------

    def _put_back(self) -> None:
        """Writes a copy of the file that is still open, and moves it to the place of the removed one."""
        draft = self.path.with_name(f"{self.path.name}.new")
        draft.parent.mkdir(parents=True, exist_ok=True)
        _remove(draft)
        held = _create(draft)
        try:
            self._copy_to(draft)
            os.fchmod(held.fileno(), stat.S_IMODE(os.fstat(self._held.fileno()).st_mode))
            self._lock(held)
            os.fsync(held.fileno())
            self._remove_strange_log()
            draft.rename(self.path)
        except BaseException:
            held.close()
            _remove(draft)
            raise
        # Until here the old log may be beside the new file; the copy contains everything in it.
        # The old database is closed before the new one is opened, because closing removes the log by its name.
        old, self._db = self._db, None
        if old is not None:
            old.close()
        self._held.close()
        self._held = held
        for path in (self._log, self._index):
            path.unlink(missing_ok=True)
        _sync_folder(self.path.parent)
        self._db = self._connect()

    def _copy_to(self, draft: Path) -> None:
        """Copies the open file to `draft`, and verifies the copy as at a start."""
        if self._db is None:
            # It was put back and has not been opened since, so the file is complete.
            self._held.seek(0)
            with draft.open("wb") as file:
                shutil.copyfileobj(self._held, file)
        with contextlib.closing(sqlite3.connect(draft)) as copy:
            if self._db is not None:
                self._db.backup(copy)
            verify(copy, self.path, self._schema, self._unverified)

    def _remove_strange_log(self) -> None:
        """Removes a foreign log, which SQLite would apply to the new file."""
        found = _stat(self._log)
        if found is not None and self._beside and _identity(found) != self._beside[0]:
            self._log.unlink(missing_ok=True)


_Identity = tuple[int, int]
"""A file's device and inode."""
_Mark = tuple[int, int]
"""A file's size, and the time of its last write (ns)."""
_Written = tuple[_Mark | None, _Mark | None]


def _whole_size(header: bytes) -> int:
    """The size of a file according to its header: the number of pages times their size."""
    (page_size,), (pages,) = struct.unpack(">H", header[16:18]), struct.unpack(">I", header[28:32])
    return int(page_size) * int(pages)


def _identity(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino


def _write_mark(found: os.stat_result | None) -> _Mark | None:
    return None if found is None else (found.st_size, found.st_mtime_ns)


def _stat(path: Path) -> os.stat_result | None:
    """`None` for a file that does not exist or cannot be seen."""
    try:
        return path.stat()
    except OSError:
        return None


def _size(path: Path) -> int:
    found = _stat(path)
    return 0 if found is None else found.st_size


def _create(path: Path) -> BinaryIO:
    """Creates a file that only its owner may read; SQLite gives its log and its index the same mode."""
    return open(path, "x+b", opener=lambda name, flags: os.open(name, flags, _OWNER_ONLY))


def _remove(draft: Path) -> None:
    for name in (draft, Path(f"{draft}-journal"), Path(f"{draft}-wal"), Path(f"{draft}-shm")):
        name.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Makes the names of the folder's files durable."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
