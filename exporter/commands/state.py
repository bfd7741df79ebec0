"""`hms-exporter state copy FROM TO`: copies a state between a file and a PostgreSQL database, without losing a count.

FROM is not changed.  Both are locked during the copy, so that no exporter continues to count in FROM meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from exporter.commands.options import CommandFailed
from exporter.config.config import ConfigError
from exporter.state.database import Database, Writing
from exporter.state.migrations import SCHEMA
from exporter.state.postgres import PostgresDatabase, PostgresReader, connect, driver, prepare, try_lock, unreachable, version_of
from exporter.state.sqlite import SqliteDatabase
from exporter.state.store import StoreError
from exporter.state.tables import TABLES, Table
from exporter.state.view import StateView, look, look_into_database

_URLS = ("postgresql://", "postgres://")
_MOST_BYTES = 64 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    what = "a path, a postgresql:// URL, or @FILE: a file that holds one of them"
    parser.usage = "%(prog)s copy FROM TO"
    parser.add_argument("action", choices=("copy",), metavar="copy", help="copy the state FROM one place TO another, which holds none yet")
    parser.add_argument("source", metavar="FROM", help=what)
    parser.add_argument("target", metavar="TO", help=f"{what}; others on this machine may see a URL on the command line")


def run(options: argparse.Namespace) -> int:
    """Copies the state, and prints how many rows."""
    source, target = place("FROM", options.source), place("TO", options.target)
    try:
        counts = copy(source, target)
    except StoreError as error:
        raise CommandFailed(str(error)) from error
    sys.stdout.write(f"Copied {sum(counts.values())} rows of {counts['workspace']} workspaces. Start the exporter with the new place.\n")
    return 0


def place(name: str, text: str) -> Path | str:
    """A path, or the URL of a database.  Raises `ConfigError`."""
    if text.startswith("@"):
        try:
            with Path(text[1:]).open(encoding="utf-8") as file:
                text = file.read(_MOST_BYTES).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{name}: cannot read {text[1:]}: {getattr(error, 'strerror', None) or 'no text'}") from None
    if not text or "\n" in text or (":" in text and "://" in text and not text.startswith(_URLS)):
        raise ConfigError(f"{name}: expected a path, a postgresql:// URL, or @FILE that holds one of them")
    return text if text.startswith(_URLS) else Path(text)


def copy(source: Path | str, target: Path | str) -> Mapping[str, int]:
    """Copies all tables; returns the number of rows of each.  Raises `StoreError`, after which TO holds nothing."""
    counts: dict[str, int] = {}

    def into(db: Writing) -> Callable[[StateView], bool]:
        def fill(view: StateView) -> bool:
            for table in TABLES:
                counts[table.name] = _copy_table(view, db, table)
            return True

        return fill

    with _held(source) as read, _made(target) as database, database.writing() as db:
        read(into(db))
        for table in TABLES:
            (found,) = next(iter(db.query(f'SELECT count(*) FROM "{table.name}"')))  # noqa: S608 (our own names)
            if found != counts[table.name]:
                raise StoreError(f"{found} of {counts[table.name]} rows of {table.name} have arrived")
    return counts


def _copy_table(view: StateView, db: Writing, table: Table[Any]) -> int:
    copied = 0

    def rows() -> Iterator[Any]:
        nonlocal copied
        for row in view.rows(table):
            copied += 1
            yield row

    db.put(table, rows())
    return copied


@contextlib.contextmanager
def _held(source: Path | str) -> Iterator[Callable[[Callable[[StateView], bool]], None]]:
    """Locks a state within the block; yields a function that reads it."""
    if isinstance(source, Path):
        if not source.is_file():
            raise StoreError(f"{source.absolute()}: there is no state file")
        with contextlib.ExitStack() as held:
            try:
                file = held.enter_context(source.open("rb"))
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(f"{source.absolute()}: the state file is in use by an exporter") from None
            except OSError as error:
                raise StoreError(f"{source.absolute()}: the state file cannot be read: {error.strerror}") from error
            yield lambda use: _ignore(look(source, use))
        return
    with _locked(source):

        def read(use: Callable[[StateView], bool]) -> None:
            if look_into_database(source, use) is None:
                raise StoreError("FROM: the database holds no state")

        yield read


def _ignore(_: object) -> None:
    pass


@contextlib.contextmanager
def _locked(url: str) -> Iterator[Any]:
    errors = driver().Error
    connection = connect(url)
    try:
        if not try_lock(connection):
            raise StoreError("the state in the database is in use by an exporter")
        yield connection
    except errors as error:
        raise unreachable(error) from error
    finally:
        connection.close()


@contextlib.contextmanager
def _made(target: Path | str) -> Iterator[Database]:
    """A new state, which is removed if the block fails."""
    if isinstance(target, Path):
        if target.exists():
            raise StoreError(f"{target.absolute()}: the file exists already")
        folders = [folder for folder in target.absolute().parents if not folder.exists()]
        try:
            database = SqliteDatabase(target)
            try:
                yield database
            finally:
                database.close()
        except BaseException:
            for name in ("", "-wal", "-shm"):
                Path(f"{target}{name}").unlink(missing_ok=True)
            for folder in folders:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise
        return
    with _locked(target) as connection:
        new = version_of(connection) is None
        if not new:
            version = version_of(connection)
            if version != SCHEMA.version or next(PostgresReader(connection).query("SELECT count(*) FROM workspace"))[0]:
                raise StoreError("TO: the database holds a state already")
        else:
            prepare(connection)
        try:
            yield PostgresDatabase(connection)
        except BaseException:
            if new and not connection.closed:
                connection.execute("DROP SCHEMA hms CASCADE")
            raise
