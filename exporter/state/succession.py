"""Active or standby: a thread that takes the database's lock, keeps it, and reports when it gets or loses it.

A standby tries the lock once a second.  If the holder shows no sign of life for `SILENCE` seconds, the standby ends the holder's
connection.  A sign of life is any request on that connection, as PostgreSQL's list of connections shows it.

A free lock may have been lost a moment ago by a holder that does not know it yet.  So the new holder waits for a full lease
before it publishes or polls, unless the last holder released the lock itself, or was silent for longer.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from exporter.config.config import ConfigError
from exporter.logs import event, failure
from exporter.state.migrations import SCHEMA
from exporter.state.postgres import (
    BEAT,
    LEASE,
    PATIENCE,
    SILENCE,
    PostgresDatabase,
    connect,
    cut,
    driver,
    holder_of,
    prepare,
    steady,
    try_lock,
    unreachable,
    version_of,
)
from exporter.state.postgres_sql import statement
from exporter.state.soundness import APPLICATION_ID, StoreError, check_version

if TYPE_CHECKING:
    from psycopg import Connection

_LOOK_SECONDS = 1.0

# The holder's connection: its backend, its last activity, and whether the server is working for it.
_OURS = """
l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.classid = 0 AND l.objid = %s
AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_HOLDER = f"""
SELECT a.pid, concat(a.query_start, a.state_change), a.state = 'active' AND a.wait_event_type IS DISTINCT FROM 'Client', a.state
FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE {_OURS}
"""  # noqa: S608 (our own words)
_END = f"SELECT pg_terminate_backend(l.pid) FROM pg_locks l WHERE {_OURS} AND l.pid = %s"  # noqa: S608 (our own words)


class Refused(Exception):
    """The state belongs to another program or version, and must not be touched."""


class Candidate:
    """Tries to get the lock in its own thread, which calls `changed` after `database` or `waiting_for` has changed."""

    def __init__(self, url: Callable[[], str], changed: Callable[[], None]) -> None:
        self._url = url
        self._changed = changed
        self._stopped = threading.Event()
        self._connected = False
        self._name = uuid.uuid4().hex
        self._expired: str | None = None
        """A holder whose lease is certainly over, because it was silent for longer."""
        self._connection: Connection[Any] | None = None
        self._asked: float | None = None
        self._silent = _Silence()
        self._thread = threading.Thread(target=self._run, name="succession", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="succession-watch", daemon=True)
        self.database: PostgresDatabase | None = None
        """The state, while this exporter holds the lock."""
        self.refused: Exception | None = None
        """Why this program must end; the thread stops after setting it."""
        self.waiting_for = "the database"

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()
        self._watcher.start()

    def stop(self, seconds: float = 2.0) -> None:
        """Releases the lock, and ends the thread."""
        self._stopped.set()
        database, connection = self.database, self._connection
        if database is not None:
            database.close()
        elif connection is not None:
            cut(connection)
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def leased(self) -> bool:
        """Whether this exporter may publish now."""
        database = self.database
        return database is not None and database.leased()

    # -- in the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        reason = ""
        while not self._stopped.is_set():
            try:
                self._serve()
                reason = ""
            except StoreError as error:
                # Logged once, because the database may be away for hours.
                if str(error) != reason and not self._stopped.is_set():
                    event("warn", "waiting for the database", reason=error)
                reason = str(error)
                self._wait_for("the database")
            except ConfigError as error:
                if not self._connected:
                    self._refuse(error)
                    return
                event("warn", "waiting for the database", reason=error)  # the URL is read again for each connection
            except Refused as error:
                self._refuse(error)
                return
            except Exception:  # noqa: BLE001 (after any error, the next connection may work)
                failure("the state in the database could not be used")
                self._wait_for("the database")
            self._stopped.wait(_LOOK_SECONDS)

    def _refuse(self, error: Exception) -> None:
        self.refused = error
        self._changed()

    def _serve(self) -> None:
        """Uses one connection from beginning to end."""
        errors = driver().Error
        connection = self._connection = connect(self._url())
        self._connected = True
        try:
            self._silent, self._expired = _Silence(), None
            while not self._asking(lambda: self._look(connection)):
                self._wait_for("another exporter, which is active")
                if self._stopped.wait(_LOOK_SECONDS):
                    return
            self._take(connection)
        except errors as error:
            raise unreachable(error) from error
        finally:
            self._connection = None
            with contextlib.suppress(errors):
                connection.close()

    def _look(self, connection: Connection[Any]) -> bool:
        """Tries the lock; returns whether this exporter has it.  Ends the connection of a silent holder."""
        version = version_of(connection)
        if version is not None:
            try:
                check_version("the database", version, SCHEMA)
            except StoreError as error:
                raise Refused(str(error)) from error
        if try_lock(connection):
            return True
        row = connection.execute(statement(_HOLDER), (APPLICATION_ID,)).fetchone()
        pid, sign, working, state = row if row is not None else (None, "", True, None)
        # Without the right to see the holder's activity, silence cannot be detected: the holder is left alone.
        hidden = state is None or state == "disabled"
        if self._silent.since((pid, sign), steady(), alive=bool(working) or hidden) > SILENCE:
            event("warn", "the active exporter shows no sign of life; its connection is ended", pid=pid)
            self._expired = holder_of(connection)
            connection.execute(statement(_END), (APPLICATION_ID, pid))
            self._silent = _Silence()
        return False

    def _take(self, connection: Connection[Any]) -> None:
        prepare(connection)
        database = PostgresDatabase(connection)
        try:
            if not self._await_lease(database):
                return
            database.hold(self._name)
            self.database = database
            event("info", "active: this exporter polls and publishes")
            self._changed()
            while not self._stopped.wait(BEAT):
                database.beat()
        finally:
            active, self.database = self.database is not None, None
            database.close()
            if active and not self._stopped.is_set():
                event("warn", "no longer active: the connection to the database is lost")
                self.waiting_for = "the database"
                self._changed()

    def _await_lease(self, database: PostgresDatabase) -> bool:
        """Waits until no other exporter can be publishing; returns `False` if this one must end meanwhile."""
        until = steady() + LEASE
        while holder_of(database.connection) not in (None, self._name, self._expired) and steady() < until:
            self._wait_for("the lease of the exporter before")
            database.beat()
            if self._stopped.wait(0.5):
                return False
        return True

    def _wait_for(self, what: str) -> None:
        if what != self.waiting_for:
            self.waiting_for = what
            event("info", "standing by", waiting_for=what)

    def _asking(self, look: Callable[[], bool]) -> bool:
        self._asked = steady()
        try:
            return look()
        finally:
            self._asked = None

    def _watch(self) -> None:
        """Closes a standby's connection if an answer does not come."""
        while not self._stopped.wait(0.5):
            asked, connection = self._asked, self._connection
            if asked is not None and connection is not None and steady() - asked > PATIENCE:
                cut(connection)
                self._asked = None


class _Silence:
    """How long the same sign of life has been seen; time while this process was paused does not count."""

    def __init__(self) -> None:
        self._sign: object = None
        self._looked_at = float("inf")
        self._seconds = 0.0

    def since(self, sign: object, now: float, *, alive: bool) -> float:
        """Seconds of silence up to `now`."""
        if alive or sign != self._sign:
            self._sign, self._seconds = sign, 0.0
        else:
            self._seconds += max(0.0, min(now - self._looked_at, 2 * _LOOK_SECONDS))
        self._looked_at = now
        return self._seconds
