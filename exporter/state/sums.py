"""Counters that are added to, in the state, with what their collectors remember: moments, and sessions that wait to be read."""

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
"""From this many owners on, the counters of all are read at once."""
_decode_labels = msgspec.json.Decoder(tuple[str, ...]).decode


class Additions:
    """One workspace's counters as they are stored.  A read adds to `sums`, then `commit`s; everything may raise `StoreError`.

    What cannot be stored is taken back, for it is read and added once more: `sums` never holds anything else than the state does
    when somebody looks at it between two reads.
    """

    def __init__(self, store: Store, workspace: str) -> None:
        self.sums = Sums()
        self.marks: dict[str, int] = {}
        self._store = store
        self._workspace = workspace
        self._stale = True

    @property
    def whole(self) -> bool:
        """Whether `sums` is what the state holds: nothing else may be published."""
        return not self._stale and not self.sums.changed

    def begin(self) -> None:
        """To be called before anything is looked at or added."""
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
        """The rooms and groups that are in use: they are held in memory, and no others."""
        for owner in [owner for owner in self.sums.of if owner != WORKSPACE and owner not in owners]:
            self.sums.close(owner)
        self.open(owners)

    def open(self, owners: Iterable[Account]) -> None:
        """These owners' counters come into the memory."""
        missing = dict.fromkeys(owner for owner in owners if owner not in self.sums.of)
        if missing:
            with self._store.reading() as db:
                for owner, counters in _counters(db, self._workspace, missing).items():
                    self.sums.restore(owner, counters)

    def waiting(self, most: int) -> dict[str, Over]:
        """Sessions that are over and wait to be read, the earliest first, and no more than `most`."""
        with self._store.reading() as db:
            rows = db.select(OVER, "workspace = ? ORDER BY ended, id LIMIT ?", (self._workspace, most))
            return {row.id: Over(row.room_id, Account(row.kind, row.account), row.started, row.ended) for row in rows}

    def commit(self, marks: Mapping[str, int], read: Iterable[str] = ()) -> None:
        """Makes what was added durable, whole or not at all, and these moments; the sessions `read` wait no more."""
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
    """What these owners have counted, nothing included."""
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
