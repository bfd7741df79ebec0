"""The made-up company's recordings and streams: one room's jobs of one day, without generating who was in the calls.

The webinars are recorded and pushed to a video site, the open house is streamed, language practice is recorded every hour.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Final

from exporter.simulator.jobs import Asset, Job, Kind
from exporter.simulator.programme import RoomDay, conversation_times, open_house_times, webinar_times
from exporter.simulator.shape import fixed_uuid, object_id
from exporter.times import MINUTE, SECOND

_BYTES_A_SECOND: Final = 180_000
_CHAT_BYTES: Final = 40_000
_GIVEN_UP_AFTER: Final = 40 * MINUTE
_CRASHES_AFTER: Final = 20 * MINUTE
_NEVER_START: Final = 2
_FAIL: Final = 2
_OUTLIVES_ITS_CALL: Final = 5
"""The open house's 10 o'clock stream: it stops a little later than its call."""


class JobDay:
    """Builds one room's jobs of one day.  Only the jobs use `rng`; `day` says when the calls are."""

    def __init__(self, day: RoomDay, rng: random.Random, lock: threading.RLock) -> None:
        self.day = day
        self.rng = rng
        self.jobs: list[Job] = []
        self.assets: list[Asset] = []
        self._lock = lock

    def ask(self, kind: Kind, index: int, begin: int, at: int) -> Job:
        """Requests a job in the call with this index, which began at `begin`."""
        name = f"{self.day.room_id}/{kind}/{index}"
        job = Job(
            kind,
            id=object_id(at, int.from_bytes(blake2b(name.encode(), digest_size=5).digest())),
            room_id=self.day.room_id,
            session_id=self.day.session_id(index, begin),
            created_at=at,
            started_by=fixed_uuid(f"{name}/{self.day.start}"),
            lock=self._lock,
        )
        self.jobs.append(job)
        return job

    def some(self, low: float, high: float) -> int:
        """A random time from `low` to `high` seconds, to the millisecond."""
        return round(self.rng.uniform(low, high) * 1000) * 1000

    def film(self, job: Job, begin: int, end: int, *types: str) -> None:
        """Scripts a recording that runs, is composed, and leaves a file of each type."""
        done_at = end + self.some(100, 420)
        job.start(begin).stop(end).complete(done_at)
        seconds = (end - begin) / SECOND
        for index, kind in enumerate(types):
            size = round(seconds * _BYTES_A_SECOND) if kind == "room-composite" else _CHAT_BYTES
            asset_id = object_id(done_at, int.from_bytes(blake2b(f"{job.id}/{index}".encode(), digest_size=5).digest()))
            self.assets.append(Asset(asset_id, job.id, job.room_id, job.session_id, kind, done_at, "completed", seconds, size))


JobPlan = Callable[[JobDay], None]


def webinar_jobs(made: JobDay) -> None:
    """Each webinar is recorded, with its chat and a transcript, and pushed to a video site."""
    for index, (begin, end) in enumerate(webinar_times(made.day)):
        recording = made.ask("recording", index, begin, begin + 3 * SECOND)
        made.film(recording, recording.created_at + made.some(6, 14), end - SECOND, "room-composite", "chat", "transcript")
        push = made.ask("external_stream", index, begin, begin + made.some(20, 40))
        push.start(push.created_at + made.some(4, 9)).stop(end - 10 * SECOND, by=push.started_by).complete(end - 8 * SECOND)


def open_house_jobs(made: JobDay) -> None:
    """Each call is streamed from beginning to end, one of them a little longer."""
    for index, (begin, end) in enumerate(open_house_times(made.day)):
        stream = made.ask("live_stream", index, begin, begin + made.some(2, 8))
        over = end + 50 * SECOND if index == _OUTLIVES_ITS_CALL else end - SECOND
        stream.start(stream.created_at + made.some(8, 20)).stop(over).complete(over + made.some(20, 60))


def conversation_jobs(made: JobDay) -> None:
    """Each hour is recorded; a few recordings a day never begin, or break off."""
    times = conversation_times(made.day)
    unlucky = made.rng.sample(range(len(times)), _NEVER_START + _FAIL)
    for index, (begin, end) in enumerate(times):
        recording = made.ask("recording", index, begin, begin + made.some(5, 15))
        started_at = recording.created_at + made.some(6, 14)
        if index in unlucky[:_NEVER_START]:
            recording.fail(recording.created_at + _GIVEN_UP_AFTER)
        elif index in unlucky:
            recording.start(started_at).fail(started_at + _CRASHES_AFTER, stopped_at=started_at + _CRASHES_AFTER)
        else:
            made.film(recording, started_at, end - made.some(1, 20), "room-composite")


JOB_PLANS: Final[Mapping[str, JobPlan]] = {
    "product-webinar": webinar_jobs,
    "open-house": open_house_jobs,
    "class-online-conversation": conversation_jobs,
}
"""The rooms, by name, in which calls are recorded or streamed."""
