"""A look into the state file of an exporter that may be running: read-only, at one moment, and without taking the file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from exporter.state.file import APPLICATION_ID, StoreError, seal
from exporter.state.store import SCHEMA_VERSION

T = TypeVar("T")

_BUSY_SECONDS = 5.0


class StateView:
    """The state file as of one moment."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def rows(self, table: str, where: str = "1", parameters: tuple[object, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """A table's rows without their seals; `where` is a condition in SQL.  Raises `StoreError` for a row that has changed."""
        for *columns, found in self._db.execute(f"SELECT * FROM {table} WHERE {where}", parameters):  # noqa: S608 (our own names)
            if seal(*columns) != found:
                raise StoreError(f"the state file is damaged: a row of {table} has changed on the disk")
            yield tuple(columns)


def look(path: Path, use: Callable[[StateView], T]) -> T:
    """What `use` makes of the state file at `path`.  Nothing is written, nor is anybody kept waiting.

    Raises `StoreError` when there is none, when it is of another program or version, or damaged.
    """
    if not path.is_file():
        raise StoreError(f"{path}: there is no state file")
    log = Path(f"{path}-wal")
    try:
        # SQLite leaves a log behind where it finds none, even when it only reads: a file that nobody has open is read as it is.
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
    except (sqlite3.Error, msgspec.MsgspecError) as error:
        raise StoreError(f"{path}: the state file cannot be read: {error}") from error


def _look(path: Path, mode: str, use: Callable[[StateView], T]) -> T:
    address = f"file:{quote(os.fspath(path.absolute()))}?{mode}"
    with closing(sqlite3.connect(address, uri=True, isolation_level=None, timeout=_BUSY_SECONDS)) as db:
        if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise StoreError(f"{path}: not a state file of this exporter")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version != SCHEMA_VERSION:
            raise StoreError(f"{path}: the state file has version {version}, this program knows version {SCHEMA_VERSION}")
        db.execute("BEGIN")
        return use(StateView(db))
