"""A state in a PostgreSQL database: one connection holds the lock, writes, and renews the right to publish with every answer.

The exporter that holds the lock is the active one.  PostgreSQL releases the lock only when the connection ends.  So an exporter
that was paused or cut off cannot write after another one has taken over, because its connection is gone.  It cannot publish
either: its lease is counted from when an answered request was sent, and the next exporter waits until the lease is over, unless
the last one released the lock itself.  `state.holder` says whether it did.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from exporter.config.config import ConfigError
from exporter.logs import event
from exporter.state.migrations import SCHEMA
from exporter.state.postgres_sql import SCHEMA_NAME, PostgresBench, add_sql, batches, create_sql, found, put_sql, statement, stored
from exporter.state.schema import Schema, select_sql
from exporter.state.soundness import APPLICATION_ID, StoreError, check_version
from exporter.state.tables import Table

if TYPE_CHECKING:
    from psycopg import Connection

R = TypeVar("R", bound=tuple[Any, ...])

LEASE = 6.0
"""The lease: for this many seconds after sending a request that is answered, the sender may publish."""
SILENCE = 8.0
"""After this many seconds without a sign of life, another exporter ends the holder's connection: longer than the lease."""
BEAT = 1.5
"""Seconds between two signs of life."""
PATIENCE = 12.0
"""Seconds that a request waits for its answer before the connection is closed."""
_CONNECT_SECONDS = 5

_WHERE = "the database"


def steady() -> float:
    """A clock in seconds that continues while this process is paused or the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def driver() -> Any:
    """The module psycopg.  Raises `ConfigError` if it is not installed."""
    try:
        import psycopg
    except ImportError as error:
        raise ConfigError("storage.url: PostgreSQL needs psycopg, which is not installed: pip install 'hms-exporter[postgres]'") from error
    # Library warnings are for programmers; errors are raised as well.
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)
    return psycopg


def unreachable(error: Exception) -> StoreError:
    """The error for an unusable database.  psycopg's messages name host, port, user and database, but no password."""
    why = str(error).strip().splitlines()
    return StoreError(f"{_WHERE} cannot be used: {why[0] if why else type(error).__name__}")


def connect(url: str) -> Connection[Any]:
    """A new connection for this state.  Raises `ConfigError` and `StoreError`."""
    psycopg = driver()
    try:
        connection: Connection[Any] = psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=_CONNECT_SECONDS,
            application_name="hms-exporter",
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
        )
    except psycopg.ProgrammingError as error:
        # Its message may repeat the URL, which contains the password.
        raise ConfigError("storage.url: not a URL that PostgreSQL's client understands") from error
    except psycopg.Error as error:
        raise unreachable(error) from error
    try:
        connection.execute(statement(f"SET search_path = {SCHEMA_NAME}; SET synchronous_commit = on; SET lock_timeout = '5s'"))
    except psycopg.Error as error:
        connection.close()
        raise unreachable(error) from error
    return connection


def cut(connection: Connection[Any]) -> None:
    """Ends a connection while another thread waits for an answer on it."""
    with contextlib.suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


def try_lock(connection: Connection[Any]) -> bool:
    """Tries to take the lock, which lasts until the connection ends; returns whether it was free."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (APPLICATION_ID,)).fetchone()
    return row is not None and bool(row[0])


def version_of(connection: Connection[Any]) -> int | None:
    """The version of the state's schema; `None` if there is no state."""
    row = connection.execute("SELECT to_regclass(%s)", (f"{SCHEMA_NAME}.state",)).fetchone()
    if row is None or row[0] is None:
        return None
    row = connection.execute("SELECT version FROM state").fetchone()
    return None if row is None else int(row[0])


def holder_of(connection: Connection[Any]) -> str | None:
    """The last holder of the state, if it did not release it itself."""
    row = connection.execute("SELECT holder FROM state").fetchone()
    return None if row is None else row[0]


def prepare(connection: Connection[Any], schema: Schema = SCHEMA) -> None:
    """Creates the tables or upgrades them, only while holding the lock.  Raises `StoreError` for a newer version."""
    version = version_of(connection)
    if version is None:
        with connection.transaction():
            connection.execute(statement(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA_NAME}"))
            connection.execute("CREATE TABLE state (version INTEGER NOT NULL, holder TEXT)")
            connection.execute("INSERT INTO state VALUES (%s, NULL)", (schema.version,))
            for shape in schema.shapes().values():
                for sql in create_sql(shape):
                    connection.execute(statement(sql))
        event("info", "tables of the state made in the database", version=schema.version)
        return
    check_version(_WHERE, version, schema)
    for migration in schema.migrations(version):
        with connection.transaction():
            schema.migrate(migration, PostgresBench(connection))
            connection.execute("UPDATE state SET version = %s", (migration.version,))
        event("info", "state in the database upgraded", version=migration.version)


class PostgresReader:
    """A `Reading` database on a connection."""

    def __init__(self, connection: Connection[Any]) -> None:
        self.connection = connection

    def select(self, table: Table[R], where: str = "", parameters: Sequence[object] = ()) -> Iterator[R]:
        """A table's rows that match the condition, or all rows."""
        return (table.row(row) for row in self.query(select_sql(table.shape, where), parameters))

    def query(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query that is not a table's rows, such as a sum."""
        return map(found, self.connection.execute(statement(sql), stored(parameters), binary=True))


class PostgresDatabase(PostgresReader):
    """A `Database` on a connection that holds the lock.  Once lost, it stays lost, because another exporter may take over."""

    def __init__(self, connection: Connection[Any]) -> None:
        super().__init__(connection)
        self._driver = driver()
        self._busy = threading.RLock()
        self._asked: float | None = None
        self._leased_until = float("-inf")
        self._closed = threading.Event()
        self._holder: str | None = None
        threading.Thread(target=self._watch, name="database", daemon=True).start()

    @property
    def lost(self) -> bool:
        """Whether the connection is gone, and the lock with it."""
        return self._closed.is_set() or bool(self.connection.closed)

    def leased(self) -> bool:
        """Whether this exporter may publish: no other one can have taken over yet."""
        return steady() < self._leased_until and not self._closed.is_set()

    def beat(self) -> None:
        """Shows that this exporter is alive, and renews the lease.  Raises `StoreError` if the connection is lost."""
        with self._using():
            self._ask("SELECT 1")

    def hold(self, name: str) -> None:
        """Records the holder, so that an exporter that finds the lock free knows that a lease may still run."""
        with self._using(), self._answered():
            self.connection.execute("UPDATE state SET holder = %s", (name,))
            self._holder = name

    def close(self) -> None:
        """Releases the lock; a request that waits for its answer is cut off."""
        self._closed.set()  # from now on nothing is published
        if self._busy.acquire(timeout=0.5):
            try:
                self._give_back()
            finally:
                self._busy.release()
        else:
            cut(self.connection)
        with contextlib.suppress(Exception):
            self.connection.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[PostgresDatabase]:
        """A context in which to read."""
        with self._using():
            yield self

    @contextlib.contextmanager
    def writing(self) -> Iterator[PostgresDatabase]:
        """A transaction."""
        with self._using():
            self._ask("BEGIN")
            try:
                yield self
                self._ask("COMMIT")
            except BaseException:
                if not self.connection.closed:
                    with contextlib.suppress(self._driver.Error):
                        self._ask("ROLLBACK")
                raise

    def query(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query that is not a table's rows, such as a sum."""
        with self._answered():
            return super().query(sql, parameters)

    def put(self, table: Table[R], rows: Iterable[R]) -> None:
        """Writes rows; a row replaces the one with the same key."""
        self._many(put_sql(table.shape), rows)

    def add(self, table: Table[R], rows: Iterable[R]) -> None:
        """Adds rows; if there is a row with the same key, the last column is added to its value."""
        self._many(add_sql(table.shape), rows)

    def delete(self, table: Table[Any], where: str, parameters: Iterable[Sequence[object]]) -> None:
        """Removes the rows that match the condition, for each set of parameters."""
        self._many(f'DELETE FROM "{table.name}" WHERE {where}', parameters)  # noqa: S608 (our own names)

    def _give_back(self) -> None:
        """Records that no lease runs any more, so that the next exporter need not wait."""
        if self._holder is not None and not self.connection.closed:
            late = threading.Timer(1.0, cut, [self.connection])
            late.start()
            with contextlib.suppress(self._driver.Error):
                self.connection.execute("UPDATE state SET holder = NULL")
            late.cancel()
            self._holder = None

    # -- inside ---------------------------------------------------------------------------------------------------

    def _ask(self, sql: str) -> None:
        with self._answered():
            self.connection.execute(statement(sql))

    def _many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        for batch in batches(map(stored, rows)):
            with self._answered():
                self.connection.cursor().executemany(statement(sql), batch)

    @contextlib.contextmanager
    def _answered(self) -> Iterator[None]:
        """A request and its answer, which proves that this exporter held the lock when the request was sent."""
        self._asked = asked = steady()
        try:
            yield
            self._leased_until = max(self._leased_until, asked + LEASE)
        finally:
            self._asked = None

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        with self._busy:
            if self.lost:
                raise StoreError(f"the connection to {_WHERE} was lost")
            try:
                yield
            except self._driver.Error as error:
                if self.connection.closed:
                    self._closed.set()  # the lock is free, and another exporter may take it
                raise unreachable(error) from error

    def _watch(self) -> None:
        """Closes the connection if an answer does not come; otherwise its thread would wait forever."""
        while not self._closed.wait(0.5):
            asked = self._asked
            if asked is not None and steady() - asked > PATIENCE:
                event("warn", "the database does not answer; the connection is given up", seconds=round(steady() - asked))
                cut(self.connection)
                return
