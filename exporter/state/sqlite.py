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
    """A `Database` that is a file; `file` is open.  Raises `StoreError` as `StateFile` does."""

    def __init__(self, path: Path) -> None:
        # These are for reports, and there may be years of them.
        self.file = StateFile(path, unverified=frozenset({DAY.name, METER_DAY.name, SESSION_LENGTHS.name}))

    def close(self) -> None:
        """Gives the file back."""
        self.file.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[SqliteDatabase]:
        """To read what has been stored."""
        with self.file.errors():
            yield self

    @contextlib.contextmanager
    def writing(self) -> Iterator[SqliteDatabase]:
        """A transaction."""
        with self.file.errors(), self.file.transaction():
            yield self

    def select(self, table: Table[R], where: str = "", parameters: Sequence[object] = ()) -> Iterator[R]:
        """A table's rows; all of them without a condition."""
        return map(table.row, self.file.db.execute(select_sql(table.shape, where), parameters))

    def query(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query that is not of one table, such as a sum."""
        return self.file.db.execute(sql, parameters)

    def put(self, table: Table[R], rows: Iterable[R]) -> None:
        """Writes rows, each in the place of the one that has its key."""
        self.file.db.executemany(put_sql(table.shape), sealed(rows))

    def add(self, table: Table[R], rows: Iterable[R]) -> None:
        """Adds rows; the last column is added to that of the row which has the key already."""
        self.file.db.executemany(add_sql(table.shape), rows)

    def delete(self, table: Table[Any], where: str, parameters: Iterable[Sequence[object]]) -> None:
        """Removes the rows that the condition is true of, with each set of parameters."""
        self.file.db.executemany(f'DELETE FROM "{table.name}" WHERE {where}', parameters)  # noqa: S608 (our own names)
