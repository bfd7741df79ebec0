"""The versions of the state's schema, and the steps from one to the next.

To change a table:

1. Change its row class in `tables`: a field is a column.  A new table is a new class, a `Table` and a place in `TABLES`.
2. Add a `Migration` with the next number to `MIGRATIONS`.  Each change names one table, its new shape, and its new rows as a
   pure function of the old ones, which are dicts by column name.  A new column needs nothing else:

       Migration(3, (add_column("room", Column("large", "integer"), 0),))

   `add_columns`, `make_table`, `change_table` and `drop_table` do the rest.  A row function may read every old table, including
   those that the same migration drops: `make_table(COVERAGE_3, lambda old: (... for row in old("entry")))`.  Write shapes out
   with `shape`, as below: a migration must not change when `tables` does.
3. First, with the last commit of the old version, save a state file of that version in `tests/state/files`.

The tests then check that the migrations end in the shapes of `tables`, and that every saved file is upgraded without losing
counts.  The store seals the rows of a changed table again.  A released migration is never changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from exporter.state.schema import Column, Index, Kind, Migration, Old, Row, Schema, Shape, add_column, change_table, drop_table, make_table

_KINDS: dict[str, tuple[Kind, bool]] = {
    "integer": ("integer", False),
    "integer?": ("integer", True),
    "text": ("text", False),
    "text?": ("text", True),
    "blob": ("blob", False),
}


def shape(name: str, key: int, columns: str, indexes: Sequence[Index] = (), *, wide: bool = False) -> Shape:
    """A table of a past version: its first `key` columns are its key, `?` marks a column that may be NULL."""
    made = tuple(Column(column, *_KINDS[kind]) for column, kind in (text.split() for text in columns.split(", ")))
    return Shape(name, made, tuple(column.name for column in made[:key]), tuple(indexes), wide)


VERSION_2 = (
    shape("workspace", 1, "name text, now integer?, read_until integer?, catch_ups blob"),
    shape("entry", 2, "workspace text, key text, since integer, read_before integer, left integer?, whole integer?"),
    shape(
        "room",
        2,
        "workspace text, id text, name text, template text, template_id text, region text, enabled integer, "
        "exists_there integer, fetched_at integer",
    ),
    shape(
        "account",
        3,
        "workspace text, kind text, id text, started integer, ended integer, us integer, held_started integer, "
        "held_ended integer, held_us integer, last_active integer",
        [Index("account_by_activity", ("workspace", "last_active"))],
    ),
    shape(
        "role",
        4,
        "workspace text, kind text, id text, role text, joined integer, left integer, us integer, held_joined integer, "
        "held_left integer, held_us integer, day integer, day_us integer, month integer, month_us integer",
    ),
    shape("day", 6, "workspace text, day integer, kind text, id text, room_id text, role text, us integer"),
    shape(
        "running",
        2,
        "workspace text, id text, room_id text, kind text?, account text?, started integer, ended integer?, "
        "observed integer?, unknown integer, memory blob",
        wide=True,
    ),
    shape(
        "settled",
        2,
        "workspace text, id text, started integer",
        [Index("settled_by_start", ("workspace", "started"))],
    ),
    shape("roles_seen", 2, "workspace text, id text, past blob"),
    shape("histogram", 3, "workspace text, name text, role text, counts blob, total integer"),
)

# -- version 3: coverage belongs to rooms ---------------------------------------------------------------------------------

_MARGIN = 120_000_000
_REACH_BACK = 13 * 3_600_000_000
_FOREVER = 1 << 62


def _unread(task: Mapping[str, Any]) -> bytes:
    """A catch-up of version 2, from its frontier on; without `until` it was still growing."""
    until = task.get("until")
    return msgspec.json.encode([(task["frontier"], _FOREVER if until is None else until)])


def _catch_ups(old: Old) -> Iterator[Row]:
    for workspace in old("workspace"):
        for number, task in enumerate(msgspec.json.decode(workspace["catch_ups"]), start=1):
            of = {"workspace": workspace["name"], "number": number, "begin": task["begin"]}
            yield {**of, "unread": _unread(task), "cursor": ""}


def _followed(old: Old) -> Iterator[Row]:
    """Entries of version 2.

    Version 2 did not record when an entry came into force; its `since` gives the order.  Starts that had been read when the entry
    was there before (`read_before`) stay read.
    """
    tasks = {row["name"]: msgspec.json.decode(row["catch_ups"]) for row in old("workspace")}
    for entry in old("entry"):
        pending = [
            number
            for number, task in enumerate(tasks.get(entry["workspace"], ()), start=1)
            if task["keys"] is None or entry["key"] in task["keys"]
        ]
        parked: list[tuple[int, int]] = []
        if entry["left"] is not None:
            parked = [(entry["left"] - _MARGIN, _FOREVER)]
        yield {
            "workspace": entry["workspace"],
            "kind": "entry",
            "key": entry["key"],
            "since": entry["since"],
            "entered": entry["since"],
            "floor": 0 if entry["read_before"] else entry["since"] - _REACH_BACK,
            "left": entry["left"],
            "behind": None,
            "whole": entry["whole"],
            "parked": msgspec.json.encode(parked),
            "tasks": msgspec.json.encode([] if entry["left"] is not None else pending),
        }


_RUNNING_3 = shape(
    "running",
    2,
    "workspace text, id text, room_id text, kind text?, account text?, started integer, ended integer?, "
    "observed integer?, unknown integer, memory blob, seen_ended integer?, measured integer, read text?",
    wide=True,
)

_COVERAGE_BY_ROOM = Migration(
    3,
    (
        change_table(shape("workspace", 1, "name text, now integer?, read_until integer?"), lambda row: row),
        make_table(
            shape(
                "followed",
                3,
                "workspace text, kind text, key text, since integer, entered integer, floor integer, left integer?, "
                "behind integer?, whole integer?, parked blob, tasks blob",
            ),
            _followed,
        ),
        make_table(
            shape("catch_up", 2, "workspace text, number integer, begin integer, unread blob, cursor text"),
            _catch_ups,
        ),
        drop_table("entry"),
        change_table(_RUNNING_3, lambda row: {**row, "seen_ended": row["ended"], "measured": 0, "read": None}),
        # Earlier versions did not record a settled session's room: these sessions are forgotten by their start alone.
        change_table(
            shape("settled", 2, "workspace text, id text, room_id text, started integer"),
            lambda row: {**row, "room_id": ""},
        ),
    ),
)

# -- version 4: counts of webhooks, and when each series began ------------------------------------------------------------

_BORN = Column("born", "integer")

_WEBHOOKS = Migration(
    4,
    (
        # Earlier versions did not record when their series began: 0 means unknown.
        add_column("account", _BORN, 0),
        add_column("role", _BORN, 0),
        add_column("histogram", _BORN, 0),
        make_table(
            shape(
                "webhook",
                2,
                "workspace text, event blob, until integer",
                [Index("webhook_by_time", ("workspace", "until"))],
            )
        ),
        make_table(shape("webhook_count", 5, "workspace text, kind text, id text, name text, label text, born integer, value integer")),
    ),
)

# -- version 5: collectors that read lists ----------------------------------------------------------------------------------

_COLLECTORS = Migration(
    5,
    (
        make_table(
            shape(
                "collector",
                2,
                "workspace text, collector text, now integer?, newest integer, read_until integer?, followed blob, "
                "catch_ups blob, histograms blob",
            )
        ),
        make_table(shape("collected", 3, "workspace text, collector text, id text, memory blob")),
        make_table(shape("collected_settled", 3, "workspace text, collector text, id text, room_id text, created integer")),
        make_table(shape("holding", 4, "workspace text, collector text, kind text, id text, memory blob")),
        make_table(shape("meter_day", 6, "workspace text, day integer, meter text, kind text, id text, room_id text, us integer")),
    ),
)

# -- version 6: collectors that add up events -------------------------------------------------------------------------------

_SUMS = Migration(
    6,
    (
        make_table(shape("counter", 5, "workspace text, kind text, id text, name text, labels text, born integer, value integer")),
        make_table(
            shape(
                "over_session",
                2,
                "workspace text, id text, room_id text, kind text, account text, started integer, ended integer",
                [Index("over_session_by_end", ("workspace", "ended"))],
            )
        ),
        make_table(shape("mark", 2, "workspace text, name text, at integer")),
    ),
)

# -- version 7: the lengths of sessions -----------------------------------------------------------------------------------

_LENGTHS = Migration(
    7,
    (
        # The lengths of sessions settled so far were not recorded.
        change_table(
            shape("workspace", 1, "name text, now integer?, read_until integer?, lengths_from integer"),
            lambda row: {**row, "lengths_from": row["now"] or 0},
        ),
        make_table(shape("session_lengths", 3, "workspace text, day integer, room_id text, seconds blob")),
    ),
)

# -- version 8: the counters of an account in one column ----------------------------------------------------------------------


def _together(row: Row, *names: str) -> dict[str, Any]:
    """A row whose counters of these names, and the values held above the truth, are one column each."""
    held = [row[f"held_{name}"] for name in names]
    counts = {"counts": msgspec.json.encode([row[name] for name in names]), "held": msgspec.json.encode(held)}
    return {**row, **counts}


_COUNTS = Migration(
    8,
    (
        change_table(
            shape(
                "account",
                3,
                "workspace text, kind text, id text, counts blob, us integer, held blob, held_us integer, last_active integer, "
                "born integer",
                [Index("account_by_activity", ("workspace", "last_active"))],
            ),
            lambda row: _together(row, "started", "ended"),
        ),
        change_table(
            shape(
                "role",
                4,
                "workspace text, kind text, id text, role text, counts blob, us integer, held blob, held_us integer, "
                "day integer, day_us integer, month integer, month_us integer, born integer",
            ),
            lambda row: _together(row, "joined", "left"),
        ),
    ),
)

MIGRATIONS: tuple[Migration, ...] = (_COVERAGE_BY_ROOM, _WEBHOOKS, _COLLECTORS, _SUMS, _LENGTHS, _COUNTS)

SCHEMA = Schema(2, VERSION_2, MIGRATIONS)
