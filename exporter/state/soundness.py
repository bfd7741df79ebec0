"""Checks whether a file is a state file of this program, has a known version, and is undamaged.

SQLite's own check finds a broken tree, but not a number that has changed on the disk.  So every row has a seal, a checksum of
its other columns; for the rows that counting depends on, it is checked when the file is opened.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from exporter.state.schema import Schema, Shape, select_sql
from exporter.state.sqlite_sql import SEAL, create_sql

APPLICATION_ID = 0x484D5345  # "HMSE"

HEADER_BYTES = 100
_encode = msgspec.msgpack.Encoder().encode


class StoreError(Exception):
    """The state cannot be used or written.  The message names the file and what to do."""

    def __init__(self, message: str) -> None:
        # SQLite may quote data from a damaged file, and some of its messages have several lines.
        super().__init__("".join(c if c.isprintable() else " " for c in message))


def damaged(path: Path, why: object) -> StoreError:
    """The error for a damaged file."""
    return StoreError(f"{path}: the state file is damaged ({why}); restore it from a backup or move it away")


def unusable(path: Path, error: OSError | sqlite3.Error) -> StoreError:
    """The error for a file that the system or SQLite refuses; for missing permissions it names the user and the file."""
    if isinstance(error, OSError):
        why, refused = error.strerror or str(error), error.filename if isinstance(error, PermissionError) else None
        who = f" (user id {os.geteuid()}: {Path(refused).absolute()})" if refused else ""
    else:
        # SQLite calls it an "I/O error" when the disk is too full for the log's index.
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_IOERR_SHMSIZE
        why, who = "no room for its log" if full else str(error), _forbidden(path)
    return StoreError(f"{path}: the state file cannot be used: {why}{who}")


def _forbidden(path: Path) -> str:
    """A hint that names the user, if it may not write to the file or its folder."""
    for place, needed in ((path.parent, os.W_OK | os.X_OK), (path, os.R_OK | os.W_OK)):
        if place.exists() and not os.access(place, needed, effective_ids=os.access in os.supports_effective_ids):
            return f" (user id {os.geteuid()} may not write to {place})"
    return ""


# -- identity ---------------------------------------------------------------------------------------------------------


def look_at(path: Path, header: bytes, schema: Schema) -> None:
    """Raises `StoreError` unless the file's first bytes are those of a state file of a known version."""
    if len(header) < HEADER_BYTES or header[:16] != b"SQLite format 3\0":
        raise StoreError(f"{path}: not a state file of this exporter; move it away or choose another storage.path")
    (version,) = struct.unpack(">I", header[60:64])
    (application,) = struct.unpack(">I", header[68:72])
    if application != APPLICATION_ID:
        raise StoreError(f"{path}: a database of another program; choose another storage.path")
    check_version(path, version, schema)


def check_version(where: object, version: int, schema: Schema) -> None:
    """Raises `StoreError` unless this program can read this version of the schema."""
    if version > schema.version:
        raise StoreError(
            f"{where}: the state has version {version}, this exporter knows versions up to {schema.version};"
            " run the exporter that wrote it, or choose another place for the state"
        )
    if version < schema.first:
        raise StoreError(
            f"{where}: the state has version {version}, this exporter knows versions from {schema.first} on;"
            " move it away, or choose another place for the state"
        )


# -- integrity --------------------------------------------------------------------------------------------------------


def seal(*columns: object) -> int:
    """The checksum of a row, from its other columns as SQLite returns them."""
    return zlib.crc32(_encode(columns))


def sealed(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Rows with their seal, which is the last column of every table."""
    for row in rows:
        yield *row, zlib.crc32(_encode(row))


def sound_rows(db: sqlite3.Connection, shape: Shape, where: str = "", parameters: tuple[object, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """A table's rows without their seals.  Raises `sqlite3.DatabaseError` for a row that has changed."""
    for *columns, found in db.execute(select_sql(shape, where, [SEAL]), parameters):
        if seal(*columns) != found:
            raise sqlite3.DatabaseError(f"a row of {shape.name} has changed on the disk")
        yield tuple(columns)


def verify(db: sqlite3.Connection, path: Path, schema: Schema, unverified: frozenset[str] = frozenset()) -> int:
    """Checks that the file is as it was written, and returns its version.  Raises `StoreError` if it is not.

    The rows of the tables `unverified` are read only if the file is to be upgraded.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    check_version(path, version, schema)
    shapes = schema.shapes(version)
    if version != schema.version:
        unverified = frozenset()
    if structure(db) != _model(shapes.values()):
        raise damaged(path, "its structure is not the one that was made")
    for check in ("quick_check(1)", *(f'integrity_check("{table}")' for table in shapes if table not in unverified)):
        (verdict,) = db.execute(f"PRAGMA {check}").fetchone()
        if verdict != "ok":
            raise damaged(path, verdict.removeprefix("*** in database main ***\n"))
    for table, shape in shapes.items():
        if table not in unverified:
            for _ in sound_rows(db, shape):
                pass
    return int(version)


def structure(db: sqlite3.Connection) -> list[object]:
    """The tables and indexes of a database with their columns, as SQLite understands them."""
    found: list[object] = []
    named = "SELECT type, name, tbl_name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name"
    for kind, name, table in db.execute(named).fetchall():
        columns = db.execute(f'PRAGMA {"table_xinfo" if kind == "table" else "index_xinfo"}("{name}")').fetchall()
        options = db.execute(f'PRAGMA table_list("{name}")').fetchall() if kind == "table" else []
        found.append((kind, name, table, columns, options))
    return found


def _model(shapes: Iterable[Shape]) -> list[object]:
    with contextlib.closing(sqlite3.connect(":memory:")) as model:
        for shape in shapes:
            for statement in create_sql(shape):
                model.execute(statement)
        return structure(model)
