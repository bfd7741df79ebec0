"""The interface between the store and a database. Each kind of database is one small class.

Conditions are SQL that every database understands, with `?` for values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from exporter.state.tables import Table

R = TypeVar("R", bound=tuple[Any, ...])


class Reading(Protocol):
    """A database to read from."""

    def select(self, table: Table[R], where: str = "", parameters: Sequence[object] = ()) -> Iterator[R]:
        """A table's rows that match the condition, or all rows."""

    def query(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query that is not a table's rows, such as a sum."""


class Writing(Reading, Protocol):
    """A database in a transaction."""

    def put(self, table: Table[R], rows: Iterable[R]) -> None:
        """Writes rows; a row replaces the one with the same key."""

    def add(self, table: Table[R], rows: Iterable[R]) -> None:
        """Adds rows; if there is a row with the same key, the last column is added to its value."""

    def delete(self, table: Table[Any], where: str, parameters: Iterable[Sequence[object]]) -> None:
        """Removes the rows that match the condition, for each set of parameters."""


class Database(Protocol):
    """The place of a state, held exclusively by this process until `close`.  Every method may raise `StoreError`."""

    def reading(self) -> AbstractContextManager[Reading]:
        """A context in which to read."""

    def writing(self) -> AbstractContextManager[Writing]:
        """A transaction, which is stored completely or not at all."""

    def close(self) -> None:
        """Closes it; any use after this raises `StoreError`."""
