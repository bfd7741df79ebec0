"""The series of recordings and streams, step by step, from `Kind.count` of each record as it was at that time.

A record shows the last state of a job.  Its earlier states follow from its times: requested at `created_at`, started at
`started_at`, stopped at `stopped_at`, completed or failed at its last change.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import msgspec

from exporter.commands.backfill.jobs import KINDS, JobsPlan
from exporter.commands.backfill.lines import VALUE_BYTES, Block, Naming, chunks, heading, same
from exporter.commands.backfill.series import Grid, histograms, steps_to
from exporter.commands.backfill.work import Work
from exporter.counting.accounts import Histogram
from exporter.counting.holdings import Kind
from exporter.counting.jobs import Counted
from exporter.counting.spans import FOREVER
from exporter.hms.jobs import ACTIVE, Job
from exporter.publish.beside import LISTED
from exporter.publish.collected_families import CollectedCounter, CollectedDistribution
from exporter.publish.writing import seconds
from exporter.times import SECOND

_NOTHING = Counted(0, 0, 0, 0, 0)
_TIME = Counted._fields.index("time")
_Timed = TypeVar("_Timed", bound=tuple[Any, ...])


class Change(NamedTuple):
    """A change of the counters at `at` (µs): the amounts to add, and the growth of their time, `rate` µs in each µs since the epoch."""

    at: int
    added: tuple[int, ...]
    rate: int


def as_of(job: Job, at: int) -> Job:
    """A job's record as it was at a moment after its request."""
    if job.ended is not None and at >= job.changed:
        return job
    started, stopped = (moment if moment is not None and moment <= at else None for moment in (job.started, job.stopped))
    return msgspec.structs.replace(job, status=ACTIVE[0], started=started, stopped=stopped, updated=None)


def moments(kind: Kind[Job], job: Job) -> list[int]:
    """The moments at which a job changed; a job that never ends is given up at last."""
    found = {max(job.created, at) for at in (job.created, job.started, job.stopped) if at is not None}
    found.add(job.changed if job.ended is not None else job.created + kind.reach_back)
    return sorted(found)


def value(kind: Kind[Job], job: Job, at: int) -> tuple[int, ...]:
    """A job's additions to the counters by a moment."""
    if at < job.created:
        return _NOTHING
    at = min(at, job.created + kind.reach_back) if job.ended is None else at
    return tuple(kind.count(as_of(job, at), at)[()])


def changes(kind: Kind[Job], job: Job) -> list[Change]:
    """A job's changes of the counters, in order of time."""
    found, before, rate_before = [], tuple(_NOTHING), 0
    for at in moments(kind, job):
        values = value(kind, job, at)
        rate = value(kind, job, at + 1)[_TIME] - values[_TIME]
        values = (*values[:_TIME], values[_TIME] - rate * at)
        found.append(Change(at, tuple(now - then for now, then in zip(values, before, strict=True)), rate - rate_before))
        before, rate_before = values, rate
    return found


def observations(kind: Kind[Job], name: str, job: Job) -> list[tuple[int, int]]:
    """A job's observation in a distribution (at most one), as (moment, value)."""
    for at in moments(kind, job):
        found = kind.observe(as_of(job, at)).get(name)
        if found is not None:
            return [(at, max(0, found))]
    return []


def in_order(jobs: Iterable[Job], of_job: Callable[[Job], Sequence[_Timed]]) -> Iterator[_Timed]:
    """The results of all jobs in order of time; the jobs must be in order of their requests."""
    waiting: list[_Timed] = []
    for job in jobs:
        while waiting and waiting[0][0] <= job.created:
            yield heapq.heappop(waiting)
        for found in of_job(job):
            heapq.heappush(waiting, found)
    yield from sorted(waiting, key=itemgetter(0))


def sums(found: Iterable[Change], base: Sequence[int], steps: Iterable[range]) -> Iterator[tuple[range, Sequence[int], int]]:
    """Ranges of steps, with the sums of these changes and the rate at which their time grows."""
    total, rate = [-part for part in base], 0
    upcoming = iter(found)
    change = next(upcoming, None)
    for stretch in steps:
        step = stretch.start
        while step < stretch.stop:
            while change is not None and change.at <= step * SECOND:
                total = [a + b for a, b in zip(total, change.added, strict=True)]
                rate += change.rate
                change = next(upcoming, None)
            until = stretch.stop if change is None else min(stretch.stop, step + steps_to(change.at - step * SECOND, stretch.step))
            yield range(step, until, stretch.step), total, rate
            step = until


class JobsWriter:
    """The blocks of the kinds that have any jobs."""

    def __init__(self, work: Work, naming: Naming, start: int, step: int, plans: Sequence[JobsPlan]) -> None:
        self._work, self._naming = work, naming
        self._start, self._step = start, step
        self._plans = {plan.name: plan for plan in plans}

    def blocks(self) -> Iterator[Block]:
        """All blocks, in the order of the families."""
        for listed in LISTED:
            plan = self._plans.get(listed.kind.name)
            firsts = {} if plan is None else self._work.first_jobs(plan.name)
            if plan is None or not firsts:
                continue
            grid = Grid(self._start, plan.end, self._step)
            for family in listed.families:
                if isinstance(family, CollectedCounter):
                    yield Block(partial(heading, family))
                    yield from self._counters(family, KINDS[plan.name], grid, firsts)
                elif isinstance(family, CollectedDistribution):
                    yield Block(partial(heading, family))
                    yield self._distribution(family, KINDS[plan.name], grid, min(firsts.values()))

    def _counters(self, family: CollectedCounter, kind: Kind[Job], grid: Grid, firsts: dict[int, int]) -> Iterator[Block]:
        for number, account in self._work.accounts():
            first = firsts.get(number)
            if first is None:
                continue
            steps = grid.steps((max(first, begin), last) for begin, last in self._work.spans(number) if last >= first)
            lines = sum(map(len, steps))
            if lines:
                prefix = self._naming.prefix(family.name, self._naming.labels(account))
                width = len(prefix) + 12 + (VALUE_BYTES if family.time else 3)
                yield Block(partial(self._counter, family, kind, number, prefix, steps), 1, lines, width)

    def _counter(self, family: CollectedCounter, kind: Kind[Job], number: int, prefix: str, steps: list[range]) -> Iterator[bytes]:
        base = [0] * len(_NOTHING)
        for job in self._work.jobs_of(kind.name, number, counted=False):
            base = [a + b for a, b in zip(base, value(kind, job, FOREVER), strict=True)]

        def lines() -> Iterator[list[str]]:
            found = in_order(self._work.jobs_of(kind.name, number), partial(changes, kind))
            for run, total, rate in sums(found, base, steps):
                if not family.time:
                    yield same(prefix, str(total[family.index]), run)
                elif rate:
                    yield [f"{prefix}{seconds(total[family.index] + rate * step * SECOND)} {step}\n" for step in run]
                else:
                    yield same(prefix, seconds(total[family.index]), run)

        return chunks(lines())

    def _distribution(self, family: CollectedDistribution, kind: Kind[Job], grid: Grid, first: int) -> Block:
        steps = grid.steps([(max(first, grid.start), grid.end)])
        bounds = kind.distributions[family.counted_as]
        labels = self._naming.workspace
        heads = [(f"{family.name}_bucket", f'{labels},le="{bound}"') for bound in (*map(float, bounds), "+Inf")]
        prefixes = [self._naming.prefix(*head) for head in (*heads, (f"{family.name}_count", labels), (f"{family.name}_sum", labels))]
        write = partial(self._buckets, partial(observations, kind, family.counted_as), kind, bounds, prefixes, steps)
        return Block(write, len(prefixes), len(prefixes) * sum(map(len, steps)), len(prefixes[0]) + 15)

    def _buckets(
        self,
        of_job: Callable[[Job], list[tuple[int, int]]],
        kind: Kind[Job],
        bounds: tuple[int, ...],
        prefixes: list[str],
        steps: list[range],
    ) -> Iterator[bytes]:
        start = Histogram(bounds)
        for job in self._work.jobs_of(kind.name, counted=False):
            for _, found in of_job(job):
                start.observe(found, SECOND)
        start = Histogram(bounds, [-count for count in start.counts], -start.total)

        def lines() -> Iterator[list[str]]:
            for run, counts, total in histograms(in_order(self._work.jobs_of(kind.name), of_job), start, SECOND, steps):
                values = [*map(str, counts), str(counts[-1]), seconds(total)]
                heads = [f"{prefix}{value} " for prefix, value in zip(prefixes, values, strict=True)]
                yield [f"{head}{step}\n" for step in run for head in heads]

        return chunks(lines())
