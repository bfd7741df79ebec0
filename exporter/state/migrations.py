"""The versions of the state's schema, and the steps from one to the next.

To change a table:

1. Change its row class in `tables`: a field is a column.  A new table is a new class, a `Table` and a place in `TABLES`.
2. Add a `Migration` with the next number to `MIGRATIONS`.  Each change names one table; it gives the new shape, and the new
   rows as a pure function of the old ones, which come as dicts by column name.  Nothing else is needed for a new column:

       Migration(3, (add_column("room", Column("large", "integer"), 0),))

   `make_table`, `change_table` and `drop_table` do the rest.  A row function may read every old table, those that the same
   migration drops too: `make_table(COVERAGE_3, lambda old: (... for row in old("entry")))`.  Write shapes out with `shape`,
   as below: a migration must not change when `tables` does.
3. Before that, with the last commit of the old version, keep a file of it: `python -m tests.state.files.make`.

The tests then say whether the migrations end in what `tables` describes, and whether every kept file comes through with all
that it has counted.  Seals are the store's business: rows of a changed table are sealed anew.  A migration that has been
released is never changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from exporter.state.schema import Column, Index, Kind, Migration, Schema, Shape

_KINDS: dict[str, tuple[Kind, bool]] = {
    "integer": ("integer", False),
    "integer?": ("integer", True),
    "text": ("text", False),
    "text?": ("text", True),
    "blob": ("blob", False),
}


def shape(name: str, key: int, columns: Mapping[str, str], indexes: Sequence[Index] = (), *, wide: bool = False) -> Shape:
    """A table of a version gone by: its first `key` columns are its key, `?` marks a column that may be NULL."""
    made = tuple(Column(column, *_KINDS[kind]) for column, kind in columns.items())
    return Shape(name, made, tuple(columns)[:key], tuple(indexes), wide)


VERSION_2 = (
    shape("workspace", 1, {"name": "text", "now": "integer?", "read_until": "integer?", "catch_ups": "blob"}),
    shape(
        "entry",
        2,
        {"workspace": "text", "key": "text", "since": "integer", "read_before": "integer", "left": "integer?", "whole": "integer?"},
    ),
    shape(
        "room",
        2,
        {
            "workspace": "text",
            "id": "text",
            "name": "text",
            "template": "text",
            "template_id": "text",
            "region": "text",
            "enabled": "integer",
            "exists_there": "integer",
            "fetched_at": "integer",
        },
    ),
    shape(
        "account",
        3,
        {
            "workspace": "text",
            "kind": "text",
            "id": "text",
            "started": "integer",
            "ended": "integer",
            "us": "integer",
            "held_started": "integer",
            "held_ended": "integer",
            "held_us": "integer",
            "last_active": "integer",
        },
        [Index("account_by_activity", ("workspace", "last_active"))],
    ),
    shape(
        "role",
        4,
        {
            "workspace": "text",
            "kind": "text",
            "id": "text",
            "role": "text",
            "joined": "integer",
            "left": "integer",
            "us": "integer",
            "held_joined": "integer",
            "held_left": "integer",
            "held_us": "integer",
            "day": "integer",
            "day_us": "integer",
            "month": "integer",
            "month_us": "integer",
        },
    ),
    shape(
        "day",
        6,
        {"workspace": "text", "day": "integer", "kind": "text", "id": "text", "room_id": "text", "role": "text", "us": "integer"},
    ),
    shape(
        "running",
        2,
        {
            "workspace": "text",
            "id": "text",
            "room_id": "text",
            "kind": "text?",
            "account": "text?",
            "started": "integer",
            "ended": "integer?",
            "observed": "integer?",
            "unknown": "integer",
            "memory": "blob",
        },
        wide=True,
    ),
    shape(
        "settled",
        2,
        {"workspace": "text", "id": "text", "started": "integer"},
        [Index("settled_by_start", ("workspace", "started"))],
    ),
    shape("roles_seen", 2, {"workspace": "text", "id": "text", "past": "blob"}),
    shape("histogram", 3, {"workspace": "text", "name": "text", "role": "text", "counts": "blob", "total": "integer"}),
)

MIGRATIONS: tuple[Migration, ...] = ()

SCHEMA = Schema(2, VERSION_2, MIGRATIONS)
