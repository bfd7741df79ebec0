"""Tables as plain values: their shape, how one version of the schema becomes the next, and the SQL that both stores share.

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
    """An index of a table, beside that of its key."""

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
    """Quoted names for SQL, which may be reserved words: `"left", "day"`."""
    return ", ".join(f'"{name}"' for name in names)


def select_sql(shape: Shape, where: str = "", more: Sequence[str] = ()) -> str:
    """A query of all columns (and of `more`) by their names."""
    return f'SELECT {quoted([*shape.names, *more])} FROM "{shape.name}"{where and f" WHERE {where}"}'  # noqa: S608 (our own names)


def index_sql(shape: Shape) -> list[str]:
    """The statements that make a table's indexes."""
    return [f'CREATE INDEX "{index.name}" ON "{shape.name}" ({quoted(index.columns)})' for index in shape.indexes]


# -- from one version to the next -------------------------------------------------------------------------------------

Row = dict[str, Any]
"""A row by the names of its columns."""
Old = Callable[[str], Iterable[Row]]
"""The rows of a table, by its name, as they were before the migration."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a migration does to one table: its new shape from the old one (`None`: there is none), its new rows from the old state."""

    table: str
    shape: Callable[[Shape | None], Shape | None]
    rows: Callable[[Old], Iterable[Mapping[str, Any]]]


def _none(_: Old) -> Iterable[Row]:
    return ()


def add_column(table: str, column: Column, value: object) -> Change:
    """A column more, after the others; rows that are there have this `value` in it."""
    return add_columns(table, {column: value})


def add_columns(table: str, added: Mapping[Column, object]) -> Change:
    """These columns more, after the others; rows that are there have the values that stand beside them."""
    values = {column.name: value for column, value in added.items()}

    def shape(old: Shape | None) -> Shape:
        assert old is not None, f"there is no table {table}"
        return replace(old, columns=(*old.columns, *added))

    return Change(table, shape, lambda old: ({**row, **values} for row in old(table)))


def make_table(new: Shape, rows: Callable[[Old], Iterable[Mapping[str, Any]]] = _none) -> Change:
    """A new table, filled with what the old state gives."""
    return Change(new.name, lambda _: new, rows)


def change_table(new: Shape, each: Callable[[Row], Mapping[str, Any]]) -> Change:
    """Other columns, key or indexes; each row as `each` makes it of the old one, which may have columns that are gone."""
    return Change(new.name, lambda _: new, lambda old: map(each, old(new.name)))


def drop_table(name: str) -> Change:
    """A table less."""
    return Change(name, lambda _: None, _none)


@dataclass(frozen=True, slots=True)
class Migration:
    """A step to `version` from the one before."""

    version: int
    changes: tuple[Change, ...]


class Schema:
    """The tables of every version: those of the first, and what each migration makes of them."""

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
        """The tables of a version, by name; those of the newest by default."""
        return self._versions[self.version if version is None else version]

    def migrations(self, version: int) -> Sequence[Migration]:
        """The steps from this version to the newest."""
        return self._migrations[version - self.first :]

    def migrate(self, migration: Migration, bench: Workbench) -> None:
        """Carries one step out; the caller does it, and notes the version, in one transaction.

        Every new row is read from the old state: new tables are filled beside the old ones, which are dropped after that.
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
    """What a migration asks of a database, in a transaction that it has open."""

    def read(self, shape: Shape) -> Iterable[tuple[Any, ...]]:
        """The rows of a table, their columns in order, while others are written.  Raises `StoreError` for a damaged one."""

    def create(self, shape: Shape) -> None:
        """Makes a table and its indexes."""

    def insert(self, shape: Shape, rows: Iterable[tuple[Any, ...]]) -> None:
        """Adds rows."""

    def drop(self, shape: Shape) -> None:
        """Removes a table and its indexes."""

    def rename(self, draft: Shape, shape: Shape) -> None:
        """Gives a table another name, and its indexes."""
