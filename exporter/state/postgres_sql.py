"""The SQL and the migrations for PostgreSQL.  The server checks its own data, so there are no seals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Any, TypeVar

from exporter.state.schema import Column, Kind, Shape, index_sql, quoted, select_sql

V = TypeVar("V")

SCHEMA_NAME = "hms"
"""The tables have their own schema, so that the database can hold other data too."""

_TYPES: dict[Kind, str] = {"integer": "BIGINT", "text": "TEXT", "blob": "BYTEA"}
_BATCH = 500
"""Rows sent at once: between two batches the connection shows a sign of life."""


def statement(sql: str) -> str:
    """SQL with `?` for values, converted for psycopg."""
    return sql.replace("?", "%s")


def create_sql(shape: Shape) -> list[str]:
    """The statements that create a table and its indexes."""
    columns = [_column(column) for column in shape.columns]
    return [f'CREATE TABLE "{shape.name}" ({", ".join(columns)}, PRIMARY KEY ({quoted(shape.key)}))', *index_sql(shape)]


def _column(column: Column) -> str:
    return f'"{column.name}" {_TYPES[column.kind]}{"" if column.optional else " NOT NULL"}'


@cache
def insert_sql(shape: Shape) -> str:
    """The statement that adds a row."""
    marks = ", ".join("?" * len(shape.columns))
    return f'INSERT INTO "{shape.name}" ({quoted(shape.names)}) VALUES ({marks})'  # noqa: S608 (our own names)


@cache
def put_sql(shape: Shape) -> str:
    """The statement that writes a row, which replaces the one with the same key."""
    rest = [name for name in shape.names if name not in shape.key]
    changes = ", ".join(f'"{name}" = excluded."{name}"' for name in rest)
    return f"{insert_sql(shape)} ON CONFLICT ({quoted(shape.key)}) DO {f'UPDATE SET {changes}' if rest else 'NOTHING'}"


@cache
def add_sql(shape: Shape) -> str:
    """The statement that adds a row; if there is a row with the same key, the last column is added to its value."""
    total = shape.names[-1]
    return f'{insert_sql(shape)} ON CONFLICT ({quoted(shape.key)}) DO UPDATE SET "{total}" = "{shape.name}"."{total}" + excluded."{total}"'


def batches(rows: Iterable[V]) -> Iterator[list[V]]:
    """The rows in batches."""
    left = iter(rows)
    while batch := list(islice(left, _BATCH)):
        yield batch


# PostgreSQL's text cannot hold NUL, which 100ms allows in a role or a name.
def stored(row: Iterable[object]) -> tuple[object, ...]:
    """Values, converted for sending."""
    return tuple(_escape(value) if isinstance(value, str) and ("\0" in value or "\\" in value) else value for value in row)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\0", "\\0")


def found(row: Iterable[Any]) -> tuple[Any, ...]:
    """Values, converted back."""
    return tuple(_unescape(value) if isinstance(value, str) and "\\" in value else value for value in row)


def _unescape(text: str) -> str:
    return "\\".join(part.replace("\\0", "\0") for part in text.split("\\\\"))


class PostgresBench:
    """A `Workbench` on a psycopg connection with an open transaction."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def read(self, shape: Shape) -> Iterator[tuple[Any, ...]]:
        """The rows of a table, read as they are consumed."""
        with self._connection.cursor(f"read_{shape.name}", binary=True) as cursor:
            cursor.itersize = _BATCH
            cursor.execute(statement(select_sql(shape)))
            yield from cursor

    def create(self, shape: Shape) -> None:
        """Creates a table and its indexes."""
        for sql in create_sql(shape):
            self._connection.execute(statement(sql))

    def insert(self, shape: Shape, rows: Iterable[tuple[Any, ...]]) -> None:
        """Adds rows in their stored form."""
        for batch in batches(rows):
            self._connection.cursor().executemany(statement(insert_sql(shape)), batch)

    def drop(self, shape: Shape) -> None:
        """Removes a table and its indexes."""
        self._connection.execute(statement(f'DROP TABLE "{shape.name}"'))

    def rename(self, draft: Shape, shape: Shape) -> None:
        """Renames a table and its indexes."""
        self._connection.execute(statement(f'ALTER TABLE "{draft.name}" RENAME TO "{shape.name}"'))
        self._connection.execute(statement(f'ALTER INDEX "{draft.name}_pkey" RENAME TO "{shape.name}_pkey"'))
        for sql in index_sql(shape):
            self._connection.execute(statement(sql))
