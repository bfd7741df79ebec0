"""Writes the work file as OpenMetrics: each family in one place, each series in order of time, whatever its length."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from heapq import merge
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import msgspec

from exporter.commands.backfill.jobs_write import JobsWriter
from exporter.commands.backfill.lines import VALUE_BYTES, Block, Naming, chunks, heading, same
from exporter.commands.backfill.plan import Plan
from exporter.commands.backfill.series import Event, Tally, histograms, oldest_starts, peaks, tallies, users
from exporter.commands.backfill.work import Series, SessionRow, Work
from exporter.counting.accounts import HISTOGRAM_BOUNDS, Histogram
from exporter.counting.contribution import Account
from exporter.counting.scope import Scope
from exporter.publish.account_families import ACCOUNT_FAMILIES
from exporter.publish.families import WORKSPACE_FAMILIES
from exporter.publish.family import Family
from exporter.publish.writing import escape, seconds
from exporter.times import SECOND

_END = b"# EOF\n"
_KEEP_EVERY = 32 * 1024 * 1024
"""The progress is saved each time this many bytes have been written."""

_Count = Callable[[Iterable[Event], Iterable[range]], Iterator[tuple[range, int]]]
_Reading = Callable[[Tally, int], str]
_SESSION_COUNTERS: Mapping[str, _Reading] = {
    "hms_sessions_active": lambda tally, _: str(tally.active),
    "hms_sessions_started_total": lambda tally, _: str(tally.began),
    "hms_sessions_ended_total": lambda tally, _: str(tally.ended),
    "hms_session_seconds_total": lambda tally, step: seconds(tally.at(step)),
}
_ROLE_COUNTERS: Mapping[str, _Reading] = {
    "hms_peers_active": lambda tally, _: str(tally.active),
    "hms_peers_joined_total": lambda tally, _: str(tally.began),
    "hms_peers_left_total": lambda tally, _: str(tally.ended),
    "hms_peer_seconds_total": lambda tally, step: seconds(tally.at(step)),
}
_TIMES = frozenset({"hms_session_seconds_total", "hms_peer_seconds_total"})
_START, _PEAK, _USERS, _INFO = (
    "hms_session_start_timestamp_seconds",
    "hms_peers_active_peak",
    "hms_users_active",
    "hms_room_info",
)
_HISTOGRAMS = {
    "hms_session_duration_seconds": "session_duration",
    "hms_session_peers": "session_peers",
    "hms_peer_duration_seconds": "peer_duration",
}
FAMILIES = tuple(
    family
    for family in ACCOUNT_FAMILIES + WORKSPACE_FAMILIES
    if family.name in {*_SESSION_COUNTERS, *_ROLE_COUNTERS, _START, _PEAK, _USERS, _INFO, *_HISTOGRAMS}
)
"""The families that are written: those that follow from the sessions' records, except sums that start over with the calendar."""


class Forecast(NamedTuple):
    """The forecast numbers of series, samples and bytes."""

    series: int
    samples: int
    size: int


class Written(msgspec.Struct):
    """How much of the file is written: complete blocks, and their bytes."""

    blocks: int = 0
    size: int = 0


class Writer:
    """Writes a work file's data of a workspace, according to a plan."""

    def __init__(self, work: Work, plan: Plan, scope: Scope) -> None:
        self._work = work
        self._grid = plan.grid
        self._bots = frozenset(plan.bots)
        self._naming = Naming(work, plan.workspace, plan.labels, scope)
        self._workspace = self._naming.workspace
        self._prefix = self._naming.prefix
        self._jobs = JobsWriter(work, self._naming, plan.start, plan.step, plan.jobs)

    def forecast(self) -> Forecast:
        """The forecast, without writing anything."""
        series = samples = size = 0
        for block in self._blocks():
            series += block.series
            samples += block.lines
            size += block.lines * block.width
        return Forecast(series, samples, size)

    def write(self, path: Path, told: Callable[[int], None]) -> None:
        """Writes the file, continuing an interrupted run; calls `told` with its size.  Raises `OSError`."""
        work = self._work
        done = msgspec.json.decode(work.noted("written") or b"{}", type=Written)
        with path.open("r+b" if done.size else "wb") as out:
            out.truncate(done.size)
            out.seek(done.size)
            kept = size = done.size
            for number, block in enumerate(self._blocks()):
                if number < done.blocks:
                    continue
                if size - kept >= _KEEP_EVERY:
                    _make_durable(out.fileno(), out.flush)
                    work.note(written=msgspec.json.encode(Written(number, size)))
                    kept = size
                for chunk in block.chunks():
                    out.write(chunk)
                    size += len(chunk)
                    told(size)
            out.write(_END)
            _make_durable(out.fileno(), out.flush)

    # -- the order of the blocks --------------------------------------------------------------------------------------

    def _blocks(self) -> Iterator[Block]:
        for family in FAMILIES:
            yield Block(partial(heading, family))
            if family.name in _HISTOGRAMS:
                yield from self._histograms(family)
                continue
            for number, account in self._work.accounts():
                yield from self._account(family, number, account)
        yield from self._jobs.blocks()

    def _account(self, family: Family, number: int, account: Account) -> Iterator[Block]:
        work = self._work
        spans = work.spans(number)
        labels = self._naming.labels(account)
        for series in work.series(number):
            steps = self._grid.steps((max(first, series.first), last) for first, last in spans if last >= series.first)
            lines = sum(map(len, steps))
            if not lines:
                continue
            if not series.role:
                if family.name in _SESSION_COUNTERS:
                    yield self._counter(family.name, labels, number, series, steps, _SESSION_COUNTERS[family.name])
                elif family.name == _START:
                    prefix = self._prefix(family.name, labels)
                    yield Block(partial(self._starts, prefix, number, steps), 1, 0, 0)
                elif family.name in (_PEAK, _USERS):
                    prefix = self._prefix(family.name, labels)
                    count = peaks if family.name == _PEAK else users
                    yield Block(partial(self._together, prefix, number, steps, count), 1, lines, len(prefix) + 13)
                elif family.name == _INFO:
                    yield from self._info(account, labels, steps)
            elif family.name in _ROLE_COUNTERS:
                of_role = f'{labels},role="{escape(series.role)}"'
                yield self._counter(family.name, of_role, number, series, steps, _ROLE_COUNTERS[family.name])

    # -- one series ---------------------------------------------------------------------------------------------------

    def _counter(self, name: str, labels: str, number: int, series: Series, steps: list[range], reading: _Reading) -> Block:
        prefix = self._prefix(name, labels)
        width = len(prefix) + 12 + (VALUE_BYTES if name in _TIMES else 3)
        return Block(partial(self._tallies, prefix, number, series, steps, reading, moving=name in _TIMES), 1, sum(map(len, steps)), width)

    def _tallies(self, prefix: str, number: int, series: Series, steps: list[range], reading: _Reading, *, moving: bool) -> Iterator[bytes]:
        def lines() -> Iterator[list[str]]:
            for run, tally in tallies(self._work.events(number, series.role), series.base, steps):
                if moving and tally.active:
                    yield [f"{prefix}{reading(tally, step)} {step}\n" for step in run]
                else:
                    yield same(prefix, reading(tally, run.start), run)

        return chunks(lines())

    def _starts(self, prefix: str, number: int, steps: list[range]) -> Iterator[bytes]:
        found = oldest_starts(self._work.stretches(number), steps)
        return chunks([f"{prefix}{seconds(started)} {step}\n"] for step, started in found)

    def _together(self, prefix: str, number: int, steps: list[range], count: _Count) -> Iterator[bytes]:
        """The values that are counted over all roles of people."""
        people = (series.role for series in self._work.series(number) if series.role and series.role not in self._bots)
        roles = (self._work.events(number, role) for role in people)
        events = merge(*roles, key=itemgetter(0, 1))  # not by further fields: a user may be `None`
        return chunks(same(prefix, str(value), run) for run, value in count(events, steps))

    def _info(self, account: Account, labels: str, steps: list[range]) -> Iterator[Block]:
        room = self._work.room(account.id) if account.kind == "room" else None
        if room is not None and room.exists:
            told = {"template": room.template, "template_id": room.template_id, "region": room.region}
            more = "".join(f',{name}="{escape(value)}"' for name, value in told.items())
            prefix = self._prefix(_INFO, f'{labels}{more},enabled="{"true" if room.enabled else "false"}"')
            yield Block(partial(self._ones, prefix, steps), 1, sum(map(len, steps)), len(prefix) + 13)

    def _ones(self, prefix: str, steps: list[range]) -> Iterator[bytes]:
        return chunks(same(prefix, "1", run) for run in steps)

    # -- distributions ------------------------------------------------------------------------------------------------

    def _histograms(self, family: Family) -> Iterator[Block]:
        kind = _HISTOGRAMS[family.name]
        for role, first in self._work.firsts().items():
            if bool(role) != (kind == "peer_duration"):
                continue
            steps = self._grid.steps([(max(first, self._grid.start), self._grid.end)])
            labels = f'{self._workspace},role="{escape(role)}"' if role else self._workspace
            count = len(HISTOGRAM_BOUNDS[kind]) + 3
            width = len(self._prefix(family.name, labels)) + 29
            yield Block(partial(self._histogram, family.name, labels, kind, role, steps), count, count * sum(map(len, steps)), width)

    def _histogram(self, name: str, labels: str, kind: str, role: str, steps: list[range]) -> Iterator[bytes]:
        scale = 1 if kind == "session_peers" else SECOND
        bounds = HISTOGRAM_BOUNDS[kind]
        start = Histogram(bounds)
        for _, value in self._observations(self._work.ended(counted=False), kind, role):
            start.observe(value, scale)
        start = Histogram(bounds, [-count for count in start.counts], -start.total)
        prefixes = [self._prefix(f"{name}_bucket", f'{labels},le="{bound}"') for bound in (*(float(bound) for bound in bounds), "+Inf")]
        prefixes += [self._prefix(f"{name}_count", labels), self._prefix(f"{name}_sum", labels)]

        def lines() -> Iterator[list[str]]:
            found = self._observations(self._work.ended(), kind, role)
            for run, counts, total in histograms(found, start, scale, steps):
                summed = seconds(total) if scale == SECOND else str(total)
                values = [*map(str, counts), str(counts[-1]), summed]
                heads = [f"{prefix}{value} " for prefix, value in zip(prefixes, values, strict=True)]
                yield [f"{head}{step}\n" for step in run for head in heads]

        return chunks(lines())

    def _observations(self, sessions: Iterable[SessionRow], kind: str, role: str) -> Iterator[tuple[int, int]]:
        """The observations at the ends of sessions, as (moment, value)."""
        for session in sessions:
            ended = session.ended
            assert ended is not None
            if kind == "session_duration":
                yield ended, ended - session.started
            elif kind == "session_peers":
                yield ended, sum(not self._bots.issuperset({stay.role, *(earlier for earlier, _ in stay.past)}) for stay in session.stays)
            else:
                for stay in session.stays:
                    if stay.role == role:
                        yield ended, (max(stay.joined, ended) if stay.left is None else stay.left) - stay.joined


def _make_durable(number: int, flush: Callable[[], None]) -> None:
    flush()
    os.fsync(number)
