"""Recordings and streams: a month of them compared with the truth, and the cost of a busy day."""

from __future__ import annotations

import random
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from bench.report import Row
from bench.traffic import SECRET
from exporter.config.config import CollectConfig
from exporter.simulator import World
from exporter.times import DAY, HOUR, MINUTE, SECOND
from lab.bench import START
from lab.beside import BesideBench

_KINDS = {"recording": "recordings", "live_stream": "live_streams", "external_stream": "external_streams"}
_COUNTS = ("requested", "started", "completed", "failed")
_ROOMS = 50


class _Cost(NamedTuple):
    polls: int
    cpu: float
    mebibytes: float
    calls: int
    counted: Counter[str]
    true: Counter[str]


def run(*, quick: bool) -> list[Row]:
    """A hundred jobs a day for a month, polled every five minutes; ten thousand in a day, polled every minute."""
    month = _measure(days=1 if quick else 30, a_day=100, interval=30 * MINUTE if quick else 5 * MINUTE)
    day = _measure(days=1, a_day=100 if quick else 10_000, interval=30 * MINUTE if quick else MINUTE)
    rows = [_exact("a month of jobs", month), _exact("a busy day of jobs", day)]
    size = "100 jobs a day" if quick else "10,000 jobs a day, a poll a minute"
    return [
        *rows,
        Row("a busy day of jobs: CPU of a poll", size, "ms", day.cpu / day.polls * 1000),
        Row("a busy day of jobs: memory, the simulated 100ms included", size, "MiB", day.mebibytes),
        Row("a busy day of jobs: calls", size, "calls a poll", day.calls / day.polls),
    ]


def _exact(work: str, cost: _Cost) -> Row:
    wrong = {name for name in cost.true | cost.counted if cost.true[name] != cost.counted[name]}
    of = f"{sum(cost.true[f'{kind} requested'] for kind in _KINDS):,} jobs, {sum(cost.true[f'{kind} time'] for kind in _KINDS) // HOUR:,} h"
    return Row(work, of, "sums that differ from the truth", len(wrong)).judged("none", met=not wrong)


def _measure(*, days: int, a_day: int, interval: int) -> _Cost:
    world = World("key", SECRET)
    _script(world, days, days * a_day)
    collect = CollectConfig(interval=60.0)
    with tempfile.TemporaryDirectory() as folder, BesideBench(Path(folder), world, collect=collect) as bench:
        bench.poll()
        polls, cpu = 0, 0.0
        while bench.now < START + days * DAY + 3 * HOUR:
            before = time.thread_time()
            bench.poll(interval / SECOND)
            cpu += time.thread_time() - before
            polls += 1
        true = world.jobs_truth(bench.now)
        found: Counter[str] = Counter()
        expected: Counter[str] = Counter()
        for kind, many in _KINDS.items():
            for what in _COUNTS:
                found[f"{kind} {what}"] = round(bench.value(f"hms_{many}_{what}_total") or 0)
            found[f"{kind} time"] = round((bench.value(f"hms_{kind}_seconds_total") or 0) * SECOND)
        for what in _COUNTS:
            for (kind, _), count in getattr(true, what).items():
                expected[f"{kind} {what}"] += count
        for (kind, _), time_of in true.us.items():
            expected[f"{kind} time"] += time_of
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return _Cost(polls, cpu, peak, sum(bench.server.calls.values()), found, expected)


def _script(world: World, days: int, jobs: int) -> None:
    """Scripts jobs of all kinds, a minute to an hour long, evenly over the days: one in 33 never starts, one in 33 fails."""
    chance = random.Random(1)  # noqa: S311 -- the same jobs each time
    rooms = [world.room(name=f"room-{number}") for number in range(_ROOMS)]
    for number in range(jobs):
        asked = START + SECOND + number * days * DAY // jobs
        job = chance.choice((world.record, world.stream, world.push))(chance.choice(rooms), asked)
        fate = chance.random()
        if fate < 0.03:
            job.fail(asked + MINUTE)
            continue
        started = asked + chance.randrange(1, 20) * SECOND
        stopped = started + chance.randrange(60, 3600) * SECOND
        job.start(started).stop(stopped)
        if fate < 0.06:
            job.fail(stopped + 30 * SECOND)
        else:
            job.complete(stopped + chance.randrange(5, 900) * SECOND)
