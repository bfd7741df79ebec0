"""Jobs, assets and events of a workspace beside its rooms and sessions, and the queries for them: scripted, or none at all."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, Generic, Protocol, TypeVar

from exporter.simulator.happenings import ClientEvent, Delivery, JoinFailure
from exporter.simulator.jobs import Asset, Job, Kind
from exporter.times import HOUR

LONGEST_JOB: Final = 26 * HOUR
"""The longest time from a job's request to its last change."""


class UnknownCursorError(LookupError):
    """The id after which a page should start does not exist in this workspace."""


@dataclass(frozen=True, slots=True)
class JobQuery:
    """A page of jobs of one kind, or of assets (no kind).  `None` matches anything; the page begins after the id `start`."""

    limit: int
    kind: Kind | None = None
    room_id: str | None = None
    session_id: str | None = None
    status: str | None = None
    start: str | None = None


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Events from `after` to `before` (µs, inclusive); a room, a session or types narrow them down."""

    after: int
    before: int
    room_id: str | None = None
    session_id: str | None = None
    types: frozenset[str] = frozenset()


class Beside(Protocol):
    """Jobs and events of one workspace; times in microseconds since the epoch, lists newest first."""

    def list_jobs(self, query: JobQuery, now: int) -> list[Job]:
        """At most `limit` jobs.  Raises `UnknownCursorError`."""

    def find_job(self, kind: Kind, job_id: str, now: int) -> Job | None:
        """The job with this id, if the API knows it."""

    def jobs_since(self, after: int, now: int) -> list[Job]:
        """Every job that was requested by `now` and whose record changed later than `after`; perhaps others too."""

    def list_assets(self, query: JobQuery, now: int) -> list[Asset]:
        """At most `limit` assets.  Raises `UnknownCursorError`."""

    def deliveries(self, query: EventQuery) -> list[Delivery]:
        """All webhook deliveries that match `query`."""

    def client_events(self, query: EventQuery) -> list[ClientEvent]:
        """All events reported by clients that match `query`."""

    def join_failures(self, after: int, until: int) -> list[JoinFailure]:
        """All failed joins later than `after`, up to `until`, oldest first."""

    def deliver(self, delivery: Delivery) -> None:
        """Records the result of a webhook that was really sent."""


class Nothing:
    """The `Beside` of a workspace without jobs and events."""

    def list_jobs(self, query: JobQuery, now: int) -> list[Job]:
        """None."""
        return []

    def find_job(self, kind: Kind, job_id: str, now: int) -> Job | None:
        """None."""
        return None

    def jobs_since(self, after: int, now: int) -> list[Job]:
        """None."""
        return []

    def list_assets(self, query: JobQuery, now: int) -> list[Asset]:
        """None."""
        return []

    def deliveries(self, query: EventQuery) -> list[Delivery]:
        """None."""
        return []

    def client_events(self, query: EventQuery) -> list[ClientEvent]:
        """None."""
        return []

    def join_failures(self, after: int, until: int) -> list[JoinFailure]:
        """None."""
        return []

    def deliver(self, delivery: Delivery) -> None:
        """Does nothing."""


class _Listed(Protocol):
    """An item with a place in a listing."""

    @property
    def order(self) -> tuple[int, str]:
        """A moment (µs), then an id."""


_L = TypeVar("_L", bound=_Listed)


class Shelf(Generic[_L]):
    """Items in ascending order: all of them, and those of each room."""

    def __init__(self) -> None:
        self.by_id: dict[str, _L] = {}
        self._rows: dict[str | None, list[_L]] = {}

    def add(self, item: _L, room_id: str) -> None:
        """Adds an item.  Raises `ValueError` if its id is taken."""
        if item.order[1] in self.by_id:
            raise ValueError(f"there is a {item.order[1]} already")
        self.by_id[item.order[1]] = item
        for key in (None, room_id):
            insort(self._rows.setdefault(key, []), item, key=_by_order)

    def newest_first(self, room_id: str | None, now: int, start: str | None = None) -> Iterator[_L]:
        """The room's items up to `now`, beginning with the one before `start`.  Raises `UnknownCursorError`."""
        row = self._rows.get(room_id, [])
        end = bisect_right(row, now, key=_by_time)
        if start is not None:
            cursor = self.by_id.get(start)
            if cursor is None:
                raise UnknownCursorError(start)
            end = min(end, bisect_left(row, cursor.order, key=_by_order))
        return (row[index] for index in range(end - 1, -1, -1))

    def between(self, room_id: str | None, after: int, before: int) -> Sequence[_L]:
        """The room's items from `after` to `before`, inclusive, newest first."""
        row = self._rows.get(room_id, [])
        return row[bisect_left(row, after, key=_by_time) : bisect_right(row, before, key=_by_time)][::-1]


_by_order = attrgetter("order")


def _by_time(item: _Listed) -> int:
    return item.order[0]


class Scripted:
    """The `Beside` of a scripted workspace: it holds what tests put into it."""

    def __init__(self, lock: threading.RLock) -> None:
        self.jobs: dict[Kind, Shelf[Job]] = {"recording": Shelf(), "live_stream": Shelf(), "external_stream": Shelf()}
        self.assets: Shelf[Asset] = Shelf()
        self.sent: Shelf[Delivery] = Shelf()
        self.reported: Shelf[ClientEvent] = Shelf()
        self.refused: Shelf[JoinFailure] = Shelf()
        self._lock = lock

    def list_jobs(self, query: JobQuery, now: int) -> list[Job]:
        """At most `limit` jobs.  Raises `UnknownCursorError`."""
        assert query.kind is not None
        with self._lock:
            page: list[Job] = []
            for job in self.jobs[query.kind].newest_first(query.room_id, now, query.start):
                if fits(job, query, now):
                    page.append(job)
                    if len(page) == query.limit:
                        break
            return page

    def find_job(self, kind: Kind, job_id: str, now: int) -> Job | None:
        """The job with this id, if the API knows it."""
        job = self.jobs[kind].by_id.get(job_id)
        return job if job is not None and job.exists(now) else None

    def jobs_since(self, after: int, now: int) -> list[Job]:
        """Every job that was requested by `now` and whose record changed later than `after`; perhaps others too."""
        with self._lock:
            return [job for shelf in self.jobs.values() for job in shelf.between(None, after - LONGEST_JOB, now)]

    def list_assets(self, query: JobQuery, now: int) -> list[Asset]:
        """At most `limit` assets.  Raises `UnknownCursorError`."""
        with self._lock:
            page: list[Asset] = []
            for asset in self.assets.newest_first(query.room_id, now, query.start):
                if fits(asset, query, now):
                    page.append(asset)
                    if len(page) == query.limit:
                        break
            return page

    def deliveries(self, query: EventQuery) -> list[Delivery]:
        """All webhook deliveries that match `query`."""
        with self._lock:
            found = self.sent.between(query.room_id, query.after, query.before)
            return [delivery for delivery in found if not query.types or delivery.event in query.types]

    def client_events(self, query: EventQuery) -> list[ClientEvent]:
        """All events reported by clients that match `query`."""
        with self._lock:
            return [
                event
                for event in self.reported.between(query.room_id, query.after, query.before)
                if (not query.types or event.type in query.types) and query.session_id in (None, event.session_id)
            ]

    def join_failures(self, after: int, until: int) -> list[JoinFailure]:
        """All failed joins later than `after`, up to `until`, oldest first."""
        with self._lock:
            return list(self.refused.between(None, after + 1, until))[::-1]

    def deliver(self, delivery: Delivery) -> None:
        """Records the result of a webhook that was really sent."""
        with self._lock:
            self.sent.add(delivery, delivery.room_id)


def fits(item: Job | Asset, query: JobQuery, now: int) -> bool:
    """Whether the item matches the query and exists by `now`."""
    if not item.exists(now) or query.session_id not in (None, item.session_id) or query.room_id not in (None, item.room_id):
        return False
    if query.status is None:
        return True
    return query.status == (item.standing(now).status if isinstance(item, Job) else item.status)
