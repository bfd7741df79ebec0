"""What a recording or stream adds to the counters, from its record alone.

Every requested job counts once.  It has started if it has a `started_at`; its last status says whether it has completed or
failed.  Its time goes from `started_at` to `stopped_at`; without `stopped_at`, to `updated_at` if the job is over, otherwise to
now.  So a job that failed before it started has no time, and a job that continues after its room's session keeps counting.
Pure; times are the API's, in integer microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from exporter.config.money import Meter
from exporter.counting.holdings import Kind, Labels
from exporter.counting.spans import Span
from exporter.hms.jobs import ACTIVE, Job, decode_job
from exporter.times import DAY

START_DELAY, PROCESSING = "start_delay", "processing"
_START_DELAY_BUCKETS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
_PROCESSING_BUCKETS = (10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200)
_LONGEST = DAY
"""No job stays open for longer."""


class Counted(NamedTuple):
    """The counters that jobs add to; `time` in microseconds."""

    requested: int
    started: int
    completed: int
    failed: int
    time: int


class Standing(NamedTuple):
    """An account's open jobs: how many by status, and when the oldest one that has not started was requested."""

    active: Mapping[str, int]
    starting_since: int | None


def time_of(job: Job, now: int) -> Span | None:
    """From when to when the job ran, up to `now`; `None` if it has not started."""
    if job.started is None:
        return None
    end = job.stopped if job.stopped is not None else job.ended
    return job.started, max(job.started, now if end is None else end)


def counted(job: Job, now: int) -> Mapping[Labels, tuple[int, ...]]:
    """A job's additions to the counters."""
    ran = time_of(job, now)
    time = 0 if ran is None else ran[1] - ran[0]
    return {(): Counted(1, int(ran is not None), int(job.status == "completed"), int(job.status == "failed"), time)}


def observed(job: Job) -> Mapping[str, int]:
    """A job's values for the distributions: from requested to started, from stopped to completed."""
    found = {}
    if job.started is not None:
        found[START_DELAY] = job.started - job.created
    if job.status == "completed" and job.stopped is not None and job.updated is not None:
        found[PROCESSING] = job.updated - job.stopped
    return found


def standing(jobs: Iterable[Job]) -> Standing:
    """Sums up the open jobs of an account."""
    active = dict.fromkeys(ACTIVE, 0)
    starting_since: int | None = None
    for job in jobs:
        active[job.stage] += 1
        if job.started is None:
            starting_since = job.created if starting_since is None else min(starting_since, job.created)
    return Standing(active, starting_since)


def job_kind(name: str, route: str, meter: Meter) -> Kind[Job]:
    """A kind of job; `name` is its key in `collect`."""
    distributions = {START_DELAY: _START_DELAY_BUCKETS, PROCESSING: _PROCESSING_BUCKETS}
    return Kind(name, route, Job, decode_job, counted, _LONGEST, distributions, observed, meter, time_of)


RECORDINGS = job_kind("recordings", "/recordings", "recording")
LIVE_STREAMS = job_kind("live_streams", "/live-streams", "live_stream")
EXTERNAL_STREAMS = job_kind("external_streams", "/external-streams", "external_stream")
