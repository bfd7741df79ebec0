"""The SQL for SQLite.  Every table has one more column than its shape, the last one: the row's seal."""

from __future__ import annotations

from functools import cache

from exporter.state.schema import Column, Shape, index_sql, quoted

SEAL = "seal"


def create_sql(shape: Shape) -> list[str]:
    """The statements that create a table and its indexes."""
    columns = [_column(column, key=column.name in shape.key) for column in shape.columns]
    parts = ", ".join([*columns, f'"{SEAL}" INTEGER NOT NULL', f"PRIMARY KEY ({quoted(shape.key)})"])
    # Rows of kilobytes take half the pages in a table with row ids; small rows take fewer in one without.
    return [f'CREATE TABLE "{shape.name}" ({parts}){"" if shape.wide else " WITHOUT ROWID"}', *index_sql(shape)]


def _column(column: Column, *, key: bool) -> str:
    return f'"{column.name}" {column.kind.upper()}{"" if column.optional or key else " NOT NULL"}'


@cache
def put_sql(shape: Shape) -> str:
    """The statement that writes a row with its seal, which replaces the one with the same key."""
    marks = ", ".join("?" * (len(shape.columns) + 1))
    return f'INSERT OR REPLACE INTO "{shape.name}" ({quoted([*shape.names, SEAL])}) VALUES ({marks})'  # noqa: S608 (our own names)


@cache
def add_sql(shape: Shape) -> str:
    """The statement that adds a row; if there is a row with the same key, the last column is added to its value.

    It calls `seal`, a function that the connection must define.
    """
    *key, total = shape.names
    marks = ", ".join(f"?{number + 1}" for number in range(len(shape.columns)))
    return (
        f'INSERT INTO "{shape.name}" ({quoted([*shape.names, SEAL])}) VALUES ({marks}, seal({marks}))'  # noqa: S608 (our own names)
        f' ON CONFLICT DO UPDATE SET "{total}" = "{total}" + excluded."{total}",'
        f' "{SEAL}" = seal({quoted(key)}, "{total}" + excluded."{total}")'
    )
