"""Simulated days in minutes: is anything lost, counted twice, or leaked?"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from exporter.config.config import ApiConfig, LimitsConfig
from exporter.simulator import Fault
from exporter.times import HOUR
from lab.bench import NAME, START, Bench
from soak.account import Account, Findings
from soak.edits import Edits
from soak.life import Life

INTERVAL = 30.0
_CHECKED_AFTER = 6 * HOUR
_EXPIRY = 12 * 3600.0
_GONE_AFTER = 18 * HOUR
"""The time from the check of a room that is over until its series must be gone."""
_LONGEST_PAUSE = 3 * 3600.0
_EDITED = 0.004
"""The probability of an edit of the configuration, per poll."""
_FAULTS = (
    Fault(kind="status", status=500, probability=0.5),
    Fault(kind="status", status=503),
    Fault(kind="status", status=429, retry_after="1", times=1),
    Fault(kind="status", status=401, times=1),
    Fault(kind="reset", probability=0.5),
    Fault(kind="cut_short", times=2),
    Fault(kind="html", times=2),
    Fault(kind="wrong_types", probability=0.5),
    Fault(kind="repeated_item"),
    Fault(kind="no_date"),
    Fault(kind="stall", seconds=5.0, times=1),
)


class Footprint(NamedTuple):
    """The resources of this process: the exporter, the simulated 100ms and the scraper together."""

    memory: int
    """Bytes resident."""
    state: int
    """Bytes of the state file and its log."""
    descriptors: int
    threads: int

    def grown(self, since: Footprint) -> list[str]:
        """The resources that have grown by more than chance.  The state file may grow: it keeps a row a day for the reports."""
        bounds = {
            "memory": since.memory * 5 // 4 + (8 << 20),
            "descriptors": since.descriptors + 4,  # room for a scrape or a lookup of a name
            "threads": since.threads + 3,
        }
        return [name for name, most in bounds.items() if getattr(self, name) > most]

    @classmethod
    def now(cls, state_file: Path) -> Footprint:
        """The present footprint."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        state = sum(path.stat().st_size for path in state_file.parent.glob(f"{state_file.name}*"))
        return cls(pages * os.sysconf("SC_PAGESIZE"), state, len(os.listdir("/proc/self/fd")), threading.active_count())  # noqa: PTH208 (only the number of entries is needed)


class Days(NamedTuple):
    """The result.  Footprints are from the `start`, after the `first` simulated day (or half of a shorter run), and the end."""

    days: float
    polls: int
    failed: int
    sessions: int
    rooms: int
    restarts: int
    edits: int
    other_names: int
    """The number of edits that gave the workspace another name for a while."""
    held: int
    """The number of comparisons of a room with the truth under such a name."""
    falls: list[str]
    findings: Findings
    start: Footprint
    first: Footprint
    last: Footprint
    lasted: float


class _Hourly:
    """Compares, hour by hour, the published counters of rooms that are over with the truth."""

    def __init__(self) -> None:
        self.account = Account()
        self._checked = 0
        self._leaving: deque[tuple[int, frozenset[str]]] = deque()
        """Rooms that are over, with the time of their check: their series stay for a while."""

    def check(self, bench: Bench, life: Life, found: Mapping[str, float]) -> None:
        """Checks and forgets the rooms that are long over: once an hour, after a good poll, when the past has been read.

        All rooms must be followed at that time.
        """
        now = bench.clock()
        caught_up = found['hms_exporter_catch_up_ratio{workspace="w"}'] == 1
        if found['hms_up{workspace="w"}'] == 1 and caught_up and now - self._checked > HOUR:
            self._checked = now
            over = life.retire(now, _CHECKED_AFTER)
            self.account.hold(found, over)
            self._leaving.append((now, frozenset(over)))
            self.account.hold_rooms(found, {*life.room_ids, *(room for _, rooms in self._leaving for room in rooms)})
            while self._leaving[0][0] + _GONE_AFTER < now:
                bench.watcher.forget(self._leaving.popleft()[1])


def live(
    folder: Path,
    days: float,
    *,
    seed: int = 1,
    hours: float = float("inf"),
    meetings_an_hour: int = 40,
    tell: Callable[[str], None] = lambda line: None,
) -> Days:
    """Runs this many simulated days, or as many as fit into this many real hours.  `tell` gets a line about each day."""
    rng = random.Random(seed)  # noqa: S311 (a repeatable life)
    began = time.monotonic()
    life = Life(seed, START, meetings_an_hour=meetings_an_hour)
    edits = Edits(rng, life)
    hourly = _Hourly()
    account = hourly.account
    polls = failed = restarts = held = 0
    told = START
    first: Footprint | None = None
    asking = ApiConfig(timeout=0.5, max_requests_per_second=1000.0, max_retries=0)
    limits = LimitsConfig(room_idle_expiry=_EXPIRY)
    with Bench(folder, life, runs=True, api=asking, interval=INTERVAL, limits=limits, seed=seed, lenient=True) as bench:
        start = Footprint.now(bench.state_file)
        end = START + round(days * 24 * HOUR)
        while (now := bench.clock()) < end and time.monotonic() - began < hours * 3600:
            life.live(now)
            bench.server.faults.clear()
            if rng.random() < 0.05:
                bench.server.faults.add(rng.choice(_FAULTS))
            if rng.random() < 0.0005:
                bench.state_file.unlink()
            found = bench.poll()
            polls += 1
            failed += found[f'hms_up{{workspace="{bench.workspace.name}"}}'] == 0
            if edits.all_followed:
                hourly.check(bench, life, found)
            elif edits.other is not None:
                held += edits.other.check(account, life, found, bench.clock())
            if first is None and now - START > min(24 * HOUR, (end - START) // 2):
                first = Footprint.now(bench.state_file)
            if now - told >= 24 * HOUR:
                told = now
                tell(_line(now, polls, failed, account, bench))
            bench.clock.leap(INTERVAL)
            if rng.random() < 0.002:
                restarts += 1
                bench.restart(rng.choice((0.0, 0.0, 60.0, rng.uniform(0.0, _LONGEST_PAUSE))))
                life.live(bench.clock())
            edits.maybe(bench, _EDITED)
        now = bench.clock()
        last = Footprint.now(bench.state_file)
        found = _come_to_rest(bench, life, hourly)
        account.hold(found, life.truth(bench.clock()))
        account.hold_distributions(found, life.distributions(bench.clock()))
    return Days(
        (now - START) / (24 * HOUR), polls, failed, life.sessions, account.rooms - held, restarts, edits.made, edits.other_names, held,
        bench.watcher.falls, account.findings, start, first or last, last, time.monotonic() - began,
    )  # fmt: skip


def _come_to_rest(bench: Bench, life: Life, hourly: _Hourly) -> dict[str, float]:
    """Lets every session end; returns the page after that."""
    bench.server.faults.clear()
    bench.configure(None, name=NAME)
    bench.use(bench.ask_here(ApiConfig(timeout=5.0, max_requests_per_second=1000.0)))
    while bench.clock() < life.quiet_from():
        hourly.check(bench, life, bench.poll())
        bench.clock.leap(INTERVAL * 10)
    for _ in range(3):
        found = bench.poll()
        bench.clock.leap(INTERVAL)
    return found


def _line(now: int, polls: int, failed: int, account: Account, bench: Bench) -> str:
    print_, so_far = Footprint.now(bench.state_file), account.findings
    return (
        f"day {round((now - START) / (24 * HOUR)):3}  {polls:7} polls ({failed} failed)  {account.rooms:6} rooms checked  "
        f"lost {so_far.lost:g} s  doubled {so_far.doubled:g} s  falls {len(bench.watcher.falls)}  "
        f"{print_.memory / 2**20:6.1f} MiB  {print_.state / 2**20:5.1f} MiB state"
        f"  {print_.descriptors} descriptors  {print_.threads} threads"
    )
