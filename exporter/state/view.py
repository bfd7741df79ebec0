"""A read-only snapshot of the state, without a lock; the exporter may be running."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from exporter.config.config import StorageConfig
from exporter.state.migrations import SCHEMA
from exporter.state.postgres import PostgresReader, connect, driver, unreachable, version_of
from exporter.state.soundness import HEADER_BYTES, StoreError, check_version, damaged, look_at, sound_rows, unusable, verify
from exporter.state.tables import Table
from exporter.state.upgrade import upgrade

T = TypeVar("T")
R = TypeVar("R", bound=tuple[Any, ...])

_BUSY_SECONDS = 5.0


class StateView(Protocol):
    """A state as of one moment."""

    def rows(self, table: Table[R], where: str = "", parameters: tuple[object, ...] = ()) -> Iterator[R]:
        """A table's rows; `where` is a condition in SQL."""


class _FileView:
    """A state file as of one moment."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def rows(self, table: Table[R], where: str = "", parameters: tuple[object, ...] = ()) -> Iterator[R]:
        """A table's rows; `where` is a condition in SQL.  Raises `sqlite3.DatabaseError` for a row that has changed."""
        return map(table.row, sound_rows(self._db, table.shape, where, parameters))


def look_into(storage: StorageConfig, use: Callable[[StateView], T]) -> T | None:
    """Applies `use` to the configured state, in a file or a database; returns `None` if there is none yet.  Raises `StoreError`."""
    url = storage.database()
    if url is not None:
        return look_into_database(url, use)
    return look(storage.path, use) if storage.path.exists() else None


class _DatabaseView(PostgresReader):
    """A state in a database as of one moment."""

    def rows(self, table: Table[R], where: str = "", parameters: tuple[object, ...] = ()) -> Iterator[R]:
        """A table's rows; `where` is a condition in SQL."""
        return self.select(table, where, parameters)


def look_into_database(url: str, use: Callable[[StateView], T]) -> T | None:
    """Applies `use` to the state in a database; returns `None` if there is none.  Raises `StoreError`, also for another version."""
    errors = driver().Error
    connection = connect(url)
    try:
        version = version_of(connection)
        if version is None:
            return None
        check_version("the database", version, SCHEMA)
        if version != SCHEMA.version:
            raise StoreError(f"the database: the state has version {version}; run this exporter once, which upgrades it")
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return use(_DatabaseView(connection))
    except errors as error:
        raise unreachable(error) from error
    finally:
        connection.close()


def look(path: Path, use: Callable[[StateView], T]) -> T:
    """Applies `use` to the state file at `path`.  It writes nothing, and no other process has to wait for it.

    A file of an earlier version is upgraded in memory.  Raises `StoreError` if there is no file, or if it belongs to another
    program, has a newer version, or is damaged.
    """
    path = path.absolute()
    if not path.is_file():
        raise StoreError(f"{path}: there is no state file")
    log = Path(f"{path}-wal")
    try:
        with path.open("rb") as file:
            look_at(path, file.read(HEADER_BYTES), SCHEMA)
        # Even when it only reads, SQLite creates a log if there is none: a file that no process has open is read as it is.
        if not log.exists():
            try:
                found = _look(path, "immutable=1", use)
            except (sqlite3.Error, msgspec.MsgspecError, StoreError):
                if not log.exists():
                    raise
            else:
                if not log.exists():
                    return found
        return _look(path, "mode=ro", use)
    except sqlite3.OperationalError as error:
        raise unusable(path, error) from error
    except (sqlite3.Error, msgspec.MsgspecError) as error:
        raise damaged(path, error) from error
    except OSError as error:
        raise unusable(path, error) from error


def _look(path: Path, mode: str, use: Callable[[StateView], T]) -> T:
    address = f"file:{quote(os.fspath(path))}?{mode}"
    with contextlib.ExitStack() as open_ones:
        db = sqlite3.connect(address, uri=True, isolation_level=None, timeout=_BUSY_SECONDS)
        open_ones.callback(db.close)
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA.version:
            verify(db, path, SCHEMA)
            copy = sqlite3.connect(":memory:", isolation_level=None)
            open_ones.callback(copy.close)
            db.backup(copy)
            upgrade(copy, path, SCHEMA)
            db = copy
        db.execute("BEGIN")
        return use(_FileView(db))
