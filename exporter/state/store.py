"""The ledger on disk: one transaction for each poll, in a SQLite file or another database.

It holds the data that cannot be read from the API again: settled sums, running sessions (with the past roles of their peers),
ended ones that a listing may still show, values held above the truth, and the coverage; for a backfill, also the earlier roles
of the peers that were there when the series began.  It holds no user ids, no names of people, no secrets.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from exporter.counting.accounts import (
    HISTOGRAM_BOUNDS,
    AccountState,
    Counts,
    Held,
    Histogram,
    PeriodSums,
    RoleTotals,
    SessionTotals,
    Totals,
)
from exporter.counting.changes import Settled
from exporter.counting.contribution import Account, SessionCounts, Tracked
from exporter.counting.coverage import Coverage
from exporter.counting.followed import CatchUp, Followed
from exporter.counting.ledger import Ledger
from exporter.counting.rooms import KnownRoom
from exporter.counting.spans import Span
from exporter.counting.stays import Memory, PeerCounts
from exporter.state.database import Database, Reading, Writing
from exporter.state.soundness import APPLICATION_ID, StoreError
from exporter.state.sqlite import SqliteDatabase
from exporter.state.tables import (
    ACCOUNT,
    CATCH_UP,
    DAY,
    FOLLOWED,
    HISTOGRAM,
    OVER,
    ROLE,
    ROLES_SEEN,
    ROOM,
    RUNNING,
    SESSION_LENGTHS,
    SETTLED,
    WORKSPACE,
    AccountRow,
    CatchUpRow,
    DayRow,
    FollowedRow,
    HistogramRow,
    OverRow,
    RoleRow,
    RolesSeenRow,
    RoomRow,
    RunningRow,
    SessionLengthsRow,
    SettledRow,
    WorkspaceRow,
)
from exporter.times import calendar

__all__ = ["APPLICATION_ID", "Store", "StoreError"]

_decode_memory = msgspec.msgpack.Decoder(Memory).decode
_decode_spans = msgspec.json.Decoder(list[Span]).decode
_decode_names = msgspec.json.Decoder(frozenset[str]).decode
_decode_counts = msgspec.json.Decoder(list[int]).decode

_IN_USE = "workspace = ? AND (kind = 'group' OR last_active >= ?)"
"""The accounts that a start needs: the groups, and the rooms that were active since a moment."""


class Store:
    """A state, held exclusively by this process until `close`.  Its methods may be called from any thread.

    A path opens the SQLite file there, which is created with its folder.  Raises `StoreError` and changes nothing if it is not a
    state, has an unknown version, is damaged, is in use by another exporter, or is not writable.
    """

    def __init__(self, where: Path | Database) -> None:
        self._mutex = threading.Lock()
        self.database = SqliteDatabase(where) if isinstance(where, Path) else where

    def close(self) -> None:
        """Closes the state; any commit after this raises `StoreError`."""
        with self._mutex:
            self.database.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Reading]:
        """A context in which the other modules of this package read.  Raises `StoreError`."""
        with self._mutex, self.database.reading() as db:
            yield db

    @contextlib.contextmanager
    def writing(self) -> Iterator[Writing]:
        """A transaction in which the other modules of this package write.  Raises `StoreError`."""
        with self._mutex, self.database.writing() as db:
            yield db

    # -- reading --------------------------------------------------------------------------------------------------

    def restore(self, workspace: str, ledger: Ledger) -> None:
        """Loads a workspace except its accounts, which are loaded separately."""
        of = "workspace = ?"
        with self._mutex, self.database.reading() as db:
            row = next(iter(db.select(WORKSPACE, "name = ?", (workspace,))), None)
            if row is None:
                return
            coverage = ledger.coverage
            ledger.now, coverage.read_until, ledger.lengths_from = row.now, row.read_until, row.lengths_from
            for entry in db.select(FOLLOWED, of, (workspace,)):
                (coverage.entries if entry.kind == "entry" else coverage.rooms)[entry.key] = _followed(entry)
            for task in db.select(CATCH_UP, of, (workspace,)):
                coverage.tasks[task.number] = CatchUp(task.number, task.begin, _decode_spans(task.unread), task.cursor)
            ledger.settled = {row.id: Settled(row.room_id, row.started) for row in db.select(SETTLED, of, (workspace,))}
            for found in db.select(HISTOGRAM, of, (workspace,)):
                histogram = Histogram(HISTOGRAM_BOUNDS[found.name], _decode_counts(found.counts), found.total, found.born)
                ledger.histograms[found.name, found.role] = histogram
            for running in db.select(RUNNING, of, (workspace,)):
                ledger.restore_tracked(*_tracked(running, ledger.now or 0))

    def accounts(self, workspace: str, active_since: int) -> list[AccountState]:
        """The accounts of groups, and of rooms that were active since `active_since` (µs)."""
        with self._mutex, self.database.reading() as db:
            states = {}
            for row in db.select(ACCOUNT, _IN_USE, (workspace, active_since)):
                states[row.kind, row.id] = _account(row)
            of_them = f"(workspace, kind, id) IN (SELECT workspace, kind, id FROM account WHERE {_IN_USE})"  # noqa: S608 (our own words)
            for role in db.select(ROLE, of_them, (workspace, active_since)):
                _add_role(states[role.kind, role.id], role)
            return list(states.values())

    def account(self, workspace: str, account: Account) -> AccountState | None:
        """One account; `None` if it has never counted anything."""
        key = "workspace = ? AND kind = ? AND id = ?"
        with self._mutex, self.database.reading() as db:
            row = next(iter(db.select(ACCOUNT, key, (workspace, *account))), None)
            if row is None:
                return None
            state = _account(row)
            for role in db.select(ROLE, key, (workspace, *account)):
                _add_role(state, role)
            return state

    def usage(self, workspace: str, now: int) -> dict[str, PeriodSums]:
        """By role, the time that all accounts have settled in the day and the month of `now` (µs)."""
        today = calendar(now)
        with self._mutex, self.database.reading() as db:
            rows = db.query(
                "SELECT role, CAST(SUM(CASE WHEN day = ? THEN day_us ELSE 0 END) AS BIGINT), CAST(SUM(month_us) AS BIGINT) FROM role"
                " WHERE workspace = ? AND month = ? GROUP BY role",
                (today.day, workspace, today.month),
            )
            return {role: PeriodSums(today.day, in_day, today.month, in_month) for role, in_day, in_month in rows}

    def rooms_named(self, workspace: str, names: Iterable[str]) -> list[str]:
        """The ids of the rooms that last had these names."""
        with self._mutex, self.database.reading() as db:
            return [row.id for name in names for row in db.select(ROOM, "workspace = ? AND name = ?", (workspace, name))]

    def rooms(self, workspace: str, ids: Iterable[str]) -> dict[str, KnownRoom]:
        """The last answers about these rooms."""
        with self._mutex, self.database.reading() as db:
            found = (row for room_id in ids for row in db.select(ROOM, "workspace = ? AND id = ?", (workspace, room_id)))
            return {row.id: _known_room(row) for row in found}

    # -- writing --------------------------------------------------------------------------------------------------

    def commit(self, workspace: str, ledger: Ledger, rooms: Iterable[KnownRoom] = ()) -> None:
        """Stores a poll, completely or not at all; only then may it be published.  Raises `StoreError`, after which nothing has changed."""
        changes = ledger.changes
        with self._mutex, self.database.writing() as db:
            coverage = ledger.coverage
            db.put(WORKSPACE, [WorkspaceRow(workspace, ledger.now, coverage.read_until, ledger.lengths_from)])
            db.put(FOLLOWED, (_followed_row(workspace, subject, coverage) for subject in coverage.changed))
            over = [number for number in coverage.changed_tasks if number not in coverage.tasks]
            db.delete(CATCH_UP, "workspace = ? AND number = ?", ((workspace, number) for number in over))
            tasks = (coverage.tasks[number] for number in coverage.changed_tasks if number in coverage.tasks)
            db.put(CATCH_UP, (CatchUpRow(workspace, t.number, t.begin, msgspec.json.encode(t.unread), t.cursor) for t in tasks))
            db.put(ROOM, (_room_row(workspace, room) for room in rooms))
            states = [ledger.accounts[account] for account in changes.accounts]
            db.put(ACCOUNT, (_account_row(workspace, state) for state in states))
            db.put(ROLE, (_role_row(workspace, state, *role) for state in states for role in state.roles.items()))
            days = changes.days.items()
            db.add(DAY, (DayRow(workspace, day, *account, room_id, role, us) for (account, room_id, day, role), us in days))
            db.put(SESSION_LENGTHS, [_lengths_row(db, workspace, *key, seconds) for key, seconds in changes.lengths.items()])
            db.delete(RUNNING, "workspace = ? AND id = ?", ((workspace, session_id) for session_id in changes.untracked))
            db.put(RUNNING, (_running_row(workspace, ledger.tracked[i]) for i in changes.tracked if i in ledger.tracked))
            db.put(SETTLED, (SettledRow(workspace, i, *ledger.settled[i]) for i in changes.settled))
            db.delete(SETTLED, "workspace = ? AND id = ?", ((workspace, session_id) for session_id in changes.forgotten))
            db.put(ROLES_SEEN, (RolesSeenRow(workspace, i, msgspec.msgpack.encode(past)) for i, past in changes.roles_seen.items()))
            db.put(OVER, (OverRow(workspace, i, o.room_id, *o.account, o.started, o.ended) for i, o in changes.over.items()))
            db.put(HISTOGRAM, _histogram_rows(workspace, changes.histograms, ledger.histograms))
        ledger.committed()


# -- rows and the values they store -----------------------------------------------------------------------------------


_ANY_HELD: Held = (("", ()),)
"""Marks that some value is held above the truth; the ledger works out which."""


def _tracked(row: RunningRow, now: int) -> tuple[Tracked, Account | None]:
    until = now if row.observed is None else row.observed
    tracked = Tracked(row.id, row.room_id, row.started, row.ended, until, _decode_memory(row.memory), row.unknown)
    tracked.seen_ended, tracked.measured = row.seen_ended, bool(row.measured)
    tracked.read = None if row.read is None else _decode_names(row.read)
    return tracked, None if row.kind is None or row.account is None else Account(row.kind, row.account)


def _running_row(workspace: str, t: Tracked) -> RunningRow:
    kind, account = t.account if t.account is not None else (None, None)
    observed = t.observed if t.behind or t.ended is not None else None
    return RunningRow(
        workspace,
        t.id,
        t.room_id,
        kind,
        account,
        t.started,
        t.ended,
        observed,
        t.unknown,
        t.memory,
        seen_ended=t.seen_ended,
        measured=int(t.measured),
        read=None if t.read is None else msgspec.json.encode(sorted(t.read)).decode(),
    )


def _account(row: AccountRow) -> AccountState:
    state = AccountState(Account(row.kind, row.id))
    state.totals = SessionTotals(
        counts=_counts(SessionCounts, row.counts),
        seconds=row.us,
        published=_counts(SessionCounts, row.held),
        published_seconds=row.held_us,
    )
    state.held = _ANY_HELD if _is_held(state.totals) else ()
    state.last_active = row.last_active
    state.born = row.born
    return state


def _account_row(workspace: str, state: AccountState) -> AccountRow:
    counters = _counters(state.totals, SessionCounts(), held=bool(state.held))
    return AccountRow(workspace, *state.account, *counters, last_active=state.last_active, born=state.born or 0)


def _add_role(state: AccountState, row: RoleRow) -> None:
    totals = state.roles[row.role] = RoleTotals(
        counts=_counts(PeerCounts, row.counts),
        seconds=row.us,
        published=_counts(PeerCounts, row.held),
        published_seconds=row.held_us,
        periods=PeriodSums(row.day, row.day_us, row.month, row.month_us),
        born=row.born,
    )
    if _is_held(totals):
        state.held = _ANY_HELD


def _role_row(workspace: str, state: AccountState, role: str, t: RoleTotals) -> RoleRow:
    counters = _counters(t, PeerCounts(), held=bool(state.held))
    of = t.periods
    return RoleRow(workspace, *state.account, role, *counters, of.day, of.in_day, of.month, of.in_month, born=t.born or 0)


def _counters(totals: Totals[Counts], none: Counts, *, held: bool) -> tuple[bytes, int, bytes, int]:
    """The columns of settled sums, and of the values held above the truth: those of an account are stored together, or all 0."""
    published, seconds = (totals.published, totals.published_seconds) if held else (none, 0)
    return msgspec.json.encode(totals.counts), totals.seconds, msgspec.json.encode(published), seconds


def _counts(kind: type[Counts], column: bytes) -> Counts:
    """Counters from their column, 0 if it lacks them.  Raises `StoreError` if a later exporter counted more: they must not be lost."""
    found = _decode_counts(column)
    if len(found) > len(kind._fields):
        raise StoreError(
            "the state has a counter that this exporter does not know;"
            " run the exporter that wrote it, or choose another place for the state"
        )
    return kind(*found)


def _is_held(totals: Totals[Counts]) -> bool:
    return any(totals.published) or bool(totals.published_seconds)


def _lengths_row(db: Reading, workspace: str, day: int, room_id: str, more: Sequence[int]) -> SessionLengthsRow:
    """The stored row of a room's day, with these lengths added."""
    found = db.select(SESSION_LENGTHS, "workspace = ? AND day = ? AND room_id = ?", (workspace, day, room_id))
    known = [seconds for row in found for seconds in _decode_counts(row.seconds)]
    return SessionLengthsRow(workspace, day, room_id, msgspec.json.encode([*known, *more]))


def _followed(row: FollowedRow) -> Followed:
    return Followed(
        since=row.since,
        entered=row.entered,
        floor=row.floor,
        left=row.left,
        behind=row.behind,
        whole=row.whole,
        parked=_decode_spans(row.parked),
        tasks=_decode_counts(row.tasks),
    )


def _followed_row(workspace: str, subject: tuple[str, str], coverage: Coverage) -> FollowedRow:
    kind, key = subject
    f = (coverage.entries if kind == "entry" else coverage.rooms)[key]
    return FollowedRow(
        workspace,
        kind,
        key,
        since=f.since,
        entered=f.entered,
        floor=f.floor,
        left=f.left,
        behind=f.behind,
        whole=f.whole,
        parked=msgspec.json.encode(f.parked),
        tasks=msgspec.json.encode(f.tasks),
    )


def _known_room(row: RoomRow) -> KnownRoom:
    return KnownRoom(
        id=row.id,
        name=row.name,
        template=row.template,
        template_id=row.template_id,
        region=row.region,
        enabled=bool(row.enabled),
        exists=bool(row.exists_there),
        fetched_at=row.fetched_at,
    )


def _room_row(workspace: str, room: KnownRoom) -> RoomRow:
    return RoomRow(
        workspace,
        id=room.id,
        name=room.name,
        template=room.template,
        template_id=room.template_id,
        region=room.region,
        enabled=int(room.enabled),
        exists_there=int(room.exists),
        fetched_at=room.fetched_at,
    )


def _histogram_rows(
    workspace: str, keys: Iterable[tuple[str, str]], histograms: Mapping[tuple[str, str], Histogram]
) -> Iterator[HistogramRow]:
    for name, role in keys:
        histogram = histograms[name, role]
        yield HistogramRow(workspace, name, role, msgspec.json.encode(histogram.counts), histogram.total, histogram.born or 0)
