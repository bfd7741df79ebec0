"""Upgrades a state file of an earlier version to the newest one, with one transaction for each step."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from exporter.logs import event
from exporter.state.schema import Schema, Shape, index_sql, quoted
from exporter.state.soundness import damaged, sealed, sound_rows, verify
from exporter.state.sqlite_sql import SEAL, create_sql


class SqliteBench:
    """A `Workbench` on a connection with an open transaction.  Rows are sealed as they are written."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def read(self, shape: Shape) -> Iterable[tuple[Any, ...]]:
        """The rows of a table.  Raises `sqlite3.DatabaseError` for a row that has changed on the disk."""
        return sound_rows(self._db, shape)

    def create(self, shape: Shape) -> None:
        """Creates a table and its indexes."""
        for statement in create_sql(shape):
            self._db.execute(statement)

    def insert(self, shape: Shape, rows: Iterable[tuple[Any, ...]]) -> None:
        """Adds rows with their seals."""
        marks = ", ".join("?" * (len(shape.columns) + 1))
        names = quoted([*shape.names, SEAL])
        self._db.executemany(f'INSERT INTO "{shape.name}" ({names}) VALUES ({marks})', sealed(rows))  # noqa: S608 (our own names)

    def drop(self, shape: Shape) -> None:
        """Removes a table and its indexes."""
        self._db.execute(f'DROP TABLE "{shape.name}"')

    def rename(self, draft: Shape, shape: Shape) -> None:
        """Renames a table and its indexes."""
        self._db.execute(f'ALTER TABLE "{draft.name}" RENAME TO "{shape.name}"')
        for statement in index_sql(shape):
            self._db.execute(statement)


def upgrade(db: sqlite3.Connection, path: Path, schema: Schema) -> None:
    """Upgrades a verified database to the newest version.  A kill leaves it as it was before or after a step."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    for migration in schema.migrations(version):
        db.execute("BEGIN IMMEDIATE")
        try:
            schema.migrate(migration, SqliteBench(db))
            db.execute(f"PRAGMA user_version = {migration.version}")
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        event("info", "state file upgraded", path=path, version=migration.version)
    try:
        verify(db, path, schema)
    except sqlite3.DatabaseError as error:
        raise damaged(path, error) from error
