"""The size of the state file, and the time of a commit, over a year."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from bench.report import Row
from bench.start import warm_state
from bench.traffic import room_id
from exporter.counting.contribution import room_account
from exporter.counting.ledger import Ledger
from exporter.state.store import Store
from exporter.times import DAY

_ROLES = ("host", "guest", "viewer")
_MB = 1_000_000


def run(*, quick: bool) -> list[Row]:
    """A year of 20,000 rooms, a tenth of them used each day by three roles, with a commit each day."""
    rooms, days = (1_000, 30) if quick else (20_000, 365)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.db"
        warm_state(path, rooms)
        store, ledger = Store(path), Ledger()
        store.restore("bench", ledger)
        ledger.restore(store.accounts("bench", 0))
        sizes, commits = [_size(folder)], [_commit(store, ledger, 0, rooms)]
        for day in range(1, days + 1):
            commits.append(_commit(store, ledger, day, rooms // 10))
            sizes.append(_size(folder))
        store.close()
    moments = [days // 12, days // 2, days]
    growth_of = (sizes[days] - sizes[days // 12]) / (days - days // 12)
    rows = [Row("state file", f"{rooms:,} rooms, {day} days", "MB", sizes[day], per=day) for day in moments]
    rows.append(Row("state file, growth", f"{rooms // 10:,} rooms used a day, 3 roles", "MB a day", growth_of))
    for day in moments:
        lately = statistics.median(commits[max(1, day - 9) : day + 1])
        rows.append(Row(f"commit of {rooms // 10:,} rooms", f"{rooms:,} rooms, after {day} days", "s", lately, per=day))
    return rows


def _size(folder: str) -> float:
    return sum(file.stat().st_size for file in Path(folder).iterdir()) / _MB


def _commit(store: Store, ledger: Ledger, day: int, rooms: int) -> float:
    """The time of a commit after this many rooms had a session that day."""
    assert ledger.now is not None
    first = day * 997 % max(1, len(ledger.accounts) - rooms)
    for number in range(first, first + rooms):
        account = room_account(room_id(number))
        ledger.changes.accounts.add(account)
        for role in _ROLES:
            ledger.changes.days[account, room_id(number), ledger.now // DAY - day, role] += 3_600_000_000 + number
    before = time.perf_counter()
    store.commit("bench", ledger)
    return time.perf_counter() - before
