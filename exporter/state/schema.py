"""Tables as plain values: their shape, the steps between versions of the schema, and the SQL that both stores share.

Nothing here opens a database.  A database runs a migration through `Workbench`, in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

Kind = Literal["integer", "text", "blob"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column; an `optional` one may be NULL."""

    name: str
    kind: Kind
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a table, besides that of its key."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """A table: its columns in their order, the columns of its key, its indexes.  The rows of a `wide` one take kilobytes."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    indexes: tuple[Index, ...] = ()
    wide: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)


def quoted(names: Iterable[str]) -> str:
    """Quoted names for SQL, because they may be reserved words: `"left", "day"`."""
    return ", ".join(f'"{name}"' for name in names)


def select_sql(shape: Shape, where: str = "", more: Sequence[str] = ()) -> str:
    """A query of all columns (and `more`) by name."""
    return f'SELECT {quoted([*shape.names, *more])} FROM "{shape.name}"{where and f" WHERE {where}"}'  # noqa: S608 (our own names)


def index_sql(shape: Shape) -> list[str]:
    """The statements that create a table's indexes."""
    return [f'CREATE INDEX "{index.name}" ON "{shape.name}" ({quoted(index.columns)})' for index in shape.indexes]


# -- from one version to the next -------------------------------------------------------------------------------------

Row = dict[str, Any]
"""A row by the names of its columns."""
Old = Callable[[str], Iterable[Row]]
"""Returns the rows of a table as they were before the migration, by the table's name."""


@dataclass(frozen=True, slots=True)
class Change:
    """A migration's change of one table: its new shape from the old one (`None`: there is none), and its new rows from the old state."""

    table: str
    shape: Callable[[Shape | None], Shape | None]
    rows: Callable[[Old], Iterable[Mapping[str, Any]]]


def _none(_: Old) -> Iterable[Row]:
    return ()


def add_column(table: str, column: Column, value: object) -> Change:
    """Adds a column after the others; existing rows get this `value`."""
    return add_columns(table, {column: value})


def add_columns(table: str, added: Mapping[Column, object]) -> Change:
    """Adds these columns after the others; existing rows get the values beside them."""
    values = {column.name: value for column, value in added.items()}

    def shape(old: Shape | None) -> Shape:
        assert old is not None, f"there is no table {table}"
        return replace(old, columns=(*old.columns, *added))

    return Change(table, shape, lambda old: ({**row, **values} for row in old(table)))


def make_table(new: Shape, rows: Callable[[Old], Iterable[Mapping[str, Any]]] = _none) -> Change:
    """Adds a table, with rows from the old state."""
    return Change(new.name, lambda _: new, rows)


def change_table(new: Shape, each: Callable[[Row], Mapping[str, Any]]) -> Change:
    """Changes columns, key or indexes; `each` makes a new row from an old one, which may have columns that are gone."""
    return Change(new.name, lambda _: new, lambda old: map(each, old(new.name)))


def drop_table(name: str) -> Change:
    """Removes a table."""
    return Change(name, lambda _: None, _none)


@dataclass(frozen=True, slots=True)
class Migration:
    """A step to `version` from the previous version."""

    version: int
    changes: tuple[Change, ...]


class Schema:
    """The tables of every version: those of the first one, and the changes of each migration."""

    def __init__(self, first: int, shapes: Iterable[Shape], migrations: Sequence[Migration] = ()) -> None:
        assert [migration.version for migration in migrations] == [*range(first + 1, first + 1 + len(migrations))]
        self._versions = {first: {shape.name: shape for shape in shapes}}
        self._migrations = migrations
        for migration in migrations:
            touched = [change.table for change in migration.changes]
            assert len(touched) == len(set(touched)), f"version {migration.version} changes a table twice, see add_columns: {touched}"
            tables = dict(self._versions[migration.version - 1])
            for change in migration.changes:
                shape = change.shape(tables.pop(change.table, None))
                if shape is not None:
                    tables[shape.name] = shape
            self._versions[migration.version] = tables
        self.first = first
        self.version = first + len(migrations)

    def shapes(self, version: int | None = None) -> dict[str, Shape]:
        """The tables of a version by name; the newest version by default."""
        return self._versions[self.version if version is None else version]

    def migrations(self, version: int) -> Sequence[Migration]:
        """The steps from this version to the newest."""
        return self._migrations[version - self.first :]

    def migrate(self, migration: Migration, bench: Workbench) -> None:
        """Runs one step; the caller must run it and record the version in one transaction.

        Every new row is read from the old state: new tables are filled beside the old ones, which are dropped afterwards.
        """
        before, after = self._versions[migration.version - 1], self._versions[migration.version]

        def old(table: str) -> Iterator[Row]:
            names = before[table].names
            return (dict(zip(names, row, strict=True)) for row in bench.read(before[table]))

        drafts = []
        for change in migration.changes:
            shape = after.get(change.table)
            if shape is not None:
                draft = replace(shape, name=f"new_{shape.name}", indexes=())
                bench.create(draft)
                bench.insert(draft, (tuple(row[name] for name in draft.names) for row in change.rows(old)))
                drafts.append((draft, shape))
        for change in migration.changes:
            if change.table in before:
                bench.drop(before[change.table])
        for draft, shape in drafts:
            bench.rename(draft, shape)


class Workbench(Protocol):
    """The database operations of a migration, in an open transaction."""

    def read(self, shape: Shape) -> Iterable[tuple[Any, ...]]:
        """The rows of a table, with their columns in order, while others are written.  Raises `StoreError` for a damaged row."""

    def create(self, shape: Shape) -> None:
        """Creates a table and its indexes."""

    def insert(self, shape: Shape, rows: Iterable[tuple[Any, ...]]) -> None:
        """Adds rows."""

    def drop(self, shape: Shape) -> None:
        """Removes a table and its indexes."""

    def rename(self, draft: Shape, shape: Shape) -> None:
        """Renames a table and its indexes."""
