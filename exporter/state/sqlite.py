"""A state in a SQLite file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from exporter.state.file import StateFile
from exporter.state.schema import select_sql
from exporter.state.soundness import sealed
from exporter.state.sqlite_sql import add_sql, put_sql
from exporter.state.tables import DAY, METER_DAY, SESSION_LENGTHS, Table

R = TypeVar("R", bound=tuple[Any, ...])


class SqliteDatabase:
    """A `Database` in a file, with the open `file`.  Raises `StoreError` as `StateFile` does."""

    def __init__(self, path: Path) -> None:
        # These tables are for reports, and may hold years of data.
        self.file = StateFile(path, unverified=frozenset({DAY.name, METER_DAY.name, SESSION_LENGTHS.name}))

    def close(self) -> None:
        """Closes the file."""
        self.file.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[SqliteDatabase]:
        """A context in which to read."""
        with self.file.errors():
            yield self

    @contextlib.contextmanager
    def writing(self) -> Iterator[SqliteDatabase]:
        """A transaction."""
        with self.file.errors(), self.file.transaction():
            yield self

    def select(self, table: Table[R], where: str = "", parameters: Sequence[object] = ()) -> Iterator[R]:
        """A table's rows that match the condition, or all rows."""
        return map(table.row, self.file.db.execute(select_sql(table.shape, where), parameters))

    def query(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query that is not a table's rows, such as a sum."""
        return self.file.db.execute(sql, parameters)

    def put(self, table: Table[R], rows: Iterable[R]) -> None:
        """Writes rows; a row replaces the one with the same key."""
        self.file.db.executemany(put_sql(table.shape), sealed(rows))

    def add(self, table: Table[R], rows: Iterable[R]) -> None:
        """Adds rows; if there is a row with the same key, the last column is added to its value."""
        self.file.db.executemany(add_sql(table.shape), rows)

    def delete(self, table: Table[Any], where: str, parameters: Iterable[Sequence[object]]) -> None:
        """Removes the rows that match the condition, for each set of parameters."""
        self.file.db.executemany(f'DELETE FROM "{table.name}" WHERE {where}', parameters)  # noqa: S608 (our own names)
