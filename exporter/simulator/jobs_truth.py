"""The true numbers of recordings and streams, summed directly from the scripts, independent of the exporter's counting code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from exporter.simulator.jobs import Job, Kind

_OVER = ("completed", "failed")


@dataclass(slots=True)
class JobsTruth:
    """Sums by now, in microseconds and counts.  Keys are (kind, room id), and for `active` also a status; lists hold microseconds.

    A job's time goes from `started_at` to `stopped_at`; without `stopped_at`, to `updated_at` if the job is over, otherwise to now.
    """

    requested: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    started: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    completed: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    failed: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    us: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    active: Counter[tuple[Kind, str, str]] = field(default_factory=Counter)
    starting_since: dict[tuple[Kind, str], int] = field(default_factory=dict)
    start_delays: dict[Kind, list[int]] = field(default_factory=dict)
    processing: dict[Kind, list[int]] = field(default_factory=dict)


def jobs_truth_of(jobs: Iterable[Job], now: int) -> JobsTruth:
    """The truth about these jobs by now; a job that has vanished counts as it was just before, and is no longer active."""
    truth = JobsTruth()
    for job in jobs:
        if job.created_at > now:
            continue
        gone = job.vanished_at is not None and job.vanished_at <= now
        at = job.vanished_at - 1 if gone and job.vanished_at is not None else now
        standing = job.standing(at)
        key = job.kind, job.room_id
        over = standing.status in _OVER
        truth.requested[key] += 1
        truth.completed[key] += standing.status == "completed"
        truth.failed[key] += standing.status == "failed"
        if not over and not gone:
            truth.active[*key, standing.status] += 1
            if standing.started_at is None:
                truth.starting_since[key] = min(truth.starting_since.get(key, job.created_at), job.created_at)
        if standing.started_at is not None:
            end = standing.stopped_at if standing.stopped_at is not None else standing.updated_at if over else at
            truth.started[key] += 1
            truth.us[key] += max(0, end - standing.started_at)
            truth.start_delays.setdefault(job.kind, []).append(standing.started_at - job.created_at)
        if standing.status == "completed" and standing.stopped_at is not None:
            truth.processing.setdefault(job.kind, []).append(standing.updated_at - standing.stopped_at)
    return truth
