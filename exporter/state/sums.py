"""Stores and loads the counters of adders, with their marks and the sessions that wait to be read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from exporter.counting.changes import Over
from exporter.counting.contribution import Account
from exporter.counting.sums import Series, Sums
from exporter.counting.webhooks import WORKSPACE, Counter
from exporter.state.database import Reading
from exporter.state.store import Store
from exporter.state.tables import COUNTER, MARK, OVER, CounterRow, MarkRow

_MANY = 100
"""From this many owners, all counters are read with one query."""
_decode_labels = msgspec.json.Decoder(tuple[str, ...]).decode


class Additions:
    """One workspace's counters as stored.  A read adds to `sums`, then calls `commit`; every method may raise `StoreError`.

    Additions that cannot be stored are dropped, because they are read and added again: between two reads `sums` always equals the
    state.
    """

    def __init__(self, store: Store, workspace: str) -> None:
        self.sums = Sums()
        self.marks: dict[str, int] = {}
        self._store = store
        self._workspace = workspace
        self._stale = True

    @property
    def whole(self) -> bool:
        """Whether `sums` equals the state: only then it may be published."""
        return not self._stale and not self.sums.changed

    def begin(self) -> None:
        """Must be called before reading or adding anything."""
        if not self._stale:
            return
        owners = [WORKSPACE, *self.sums.of]
        with self._store.reading() as db:
            self.sums.reset()
            for owner, counters in _counters(db, self._workspace, dict.fromkeys(owners)).items():
                self.sums.restore(owner, counters)
            self.marks = {row.name: row.at for row in db.select(MARK, "workspace = ?", (self._workspace,))}
        self._stale = False

    def follow(self, owners: Collection[Account]) -> None:
        """Sets the rooms and groups in use: only these are kept in memory."""
        for owner in [owner for owner in self.sums.of if owner != WORKSPACE and owner not in owners]:
            self.sums.close(owner)
        self.open(owners)

    def open(self, owners: Iterable[Account]) -> None:
        """Loads the counters of these owners."""
        missing = dict.fromkeys(owner for owner in owners if owner not in self.sums.of)
        if missing:
            with self._store.reading() as db:
                for owner, counters in _counters(db, self._workspace, missing).items():
                    self.sums.restore(owner, counters)

    def waiting(self, most: int) -> dict[str, Over]:
        """At most `most` of the ended sessions that wait to be read, the earliest first."""
        with self._store.reading() as db:
            rows = db.select(OVER, "workspace = ? ORDER BY ended, id LIMIT ?", (self._workspace, most))
            return {row.id: Over(row.room_id, Account(row.kind, row.account), row.started, row.ended) for row in rows}

    def commit(self, marks: Mapping[str, int], read: Iterable[str] = ()) -> None:
        """Stores the additions and these marks, completely or not at all; the sessions `read` no longer wait."""
        sums, workspace = self.sums, self._workspace
        counted = ((owner, series, sums.of[owner][series]) for owner, series in sums.changed)
        self._stale = True
        with self._store.writing() as db:
            db.put(COUNTER, (CounterRow(workspace, *owner, series.name, _labels(series), *counter) for owner, series, counter in counted))
            db.put(MARK, (MarkRow(workspace, name, at) for name, at in marks.items()))
            db.delete(OVER, "workspace = ? AND id = ?", ((workspace, session_id) for session_id in read))
        self._stale = False
        sums.committed()
        self.marks.update(marks)


def _counters(db: Reading, workspace: str, owners: Mapping[Account, None]) -> dict[Account, dict[Series, Counter]]:
    """The counters of these owners; an owner without any gets an empty dict."""
    if len(owners) < _MANY:
        of_one = "workspace = ? AND kind = ? AND id = ?"
        rows = [row for owner in owners for row in db.select(COUNTER, of_one, (workspace, *owner))]
    else:
        rows = [row for row in db.select(COUNTER, "workspace = ?", (workspace,)) if Account(row.kind, row.id) in owners]
    found: dict[Account, dict[Series, Counter]] = {owner: {} for owner in owners}
    for row in rows:
        found[Account(row.kind, row.id)][Series(row.name, _decode_labels(row.labels))] = Counter(row.born, row.value)
    return found


def _labels(series: Series) -> str:
    return msgspec.json.encode(series.labels).decode()
