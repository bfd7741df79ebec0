"""The interface between the store and a database. Each kind of database is one small class.

Conditions are SQL that every database understands, with `?` in the place of values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from exporter.state.tables import Table

R = TypeVar("R", bound=tuple[Any, ...])


class Reading(Protocol):
    """A database that is read from."""

    def select(self, table: Table[R], where: str = "", parameters: Sequence[object] = ()) -> Iterator[R]:
        """A table's rows; all of them without a condition."""

    def query(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query that is not of one table, such as a sum."""


class Writing(Reading, Protocol):
    """A database in a transaction."""

    def put(self, table: Table[R], rows: Iterable[R]) -> None:
        """Writes rows, each in the place of the one that has its key."""

    def add(self, table: Table[R], rows: Iterable[R]) -> None:
        """Adds rows; the last column is added to that of the row which has the key already."""

    def delete(self, table: Table[Any], where: str, parameters: Iterable[Sequence[object]]) -> None:
        """Removes the rows that match the condition, for each set of parameters."""


class Database(Protocol):
    """Where a state is kept, held for this process alone until `close`.  Everything raises `StoreError`."""

    def reading(self) -> AbstractContextManager[Reading]:
        """To read what has been stored."""

    def writing(self) -> AbstractContextManager[Writing]:
        """A transaction: what is written within is there at the next start, whole or not at all."""

    def close(self) -> None:
        """Closes it; any use after this raises `StoreError`."""
