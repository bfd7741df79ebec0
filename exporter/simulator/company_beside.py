"""The made-up company's jobs, client errors and webhook deliveries."""

from __future__ import annotations

import random
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from operator import attrgetter
from typing import Final, Protocol

from exporter.simulator.beside import EventQuery, JobQuery, Shelf, UnknownCursorError, fits
from exporter.simulator.happenings import ClientEvent, Delivery, JoinFailure
from exporter.simulator.jobs import Asset, Job, Kind
from exporter.simulator.jobs_programme import JOB_PLANS, JobDay
from exporter.simulator.programme import RoomDay
from exporter.simulator.shape import fixed_uuid, id_time
from exporter.simulator.timeline import Room, Session
from exporter.simulator.webhooks import webhook_events
from exporter.simulator.workspace import SessionQuery
from exporter.times import DAY, HOUR, SECOND

BAD_HOUR: Final = 15
"""From 15:00 to 16:00 UTC, the company's own server accepts few of its webhooks."""

_SHARE_LOST_THEN: Final = 0.6
_SHARE_LOST: Final = 0.004
_SHARE_OF_ERRORS: Final = 0.02
_SHARE_WITHOUT_SESSION: Final = 0.1
_ERRORS: Final = (
    ("client.join.failed", 4006, "ICEFailure"),
    ("client.connect.failed", 1003, "WebSocketConnectionLost"),
    ("client.publish.failed", 3001, "CantAccessCaptureDevice"),
    ("client.subscribe.failed", 4003, "InvalidSDP"),
    ("client.disconnected", 1000, "Disconnected"),
)
_SDKS: Final = ("web", "web", "android", "ios", "flutter")
_REASONS: Final = ("role not allowed", "network disconnection", "duplicate peer id")
_DAYS_KEPT: Final = 100
_ERRORS_KEPT: Final = 4096
_EVENTS_REACH_BACK: Final = 2 * DAY


class _Calls(Protocol):
    """The queries that this module sends to the company itself."""

    lock: threading.RLock

    def list_sessions(self, query: SessionQuery, now: int) -> list[Session]: ...

    def find_session(self, session_id: str, now: int) -> Session | None: ...

    def sessions_since(self, after: int, now: int) -> list[Session]: ...

    def find_room(self, room_id: str, now: int) -> Room | None: ...

    @property
    def beside(self) -> CompanyBeside: ...


@dataclass(slots=True)
class _MadeUp:
    """The jobs and assets of one day, in ascending order."""

    jobs: list[Job] = field(default_factory=list)
    assets: list[Asset] = field(default_factory=list)


class CompanyBeside:
    """The company's `Beside`, generated on demand; `rooms` maps the names of its rooms to their ids."""

    def __init__(self, calls: _Calls, seed: int, first_day: int, rooms: Mapping[str, str]) -> None:
        self._calls = calls
        self._seed = seed
        self._first_day = first_day
        self._plans = {rooms[name]: plan for name, plan in JOB_PLANS.items()}
        self._days: OrderedDict[int, _MadeUp] = OrderedDict()
        self._sent: Shelf[Delivery] = Shelf()
        self._sending_since: int | None = None
        self._errors_kept: OrderedDict[str, tuple[ClientEvent, ...]] = OrderedDict()

    def list_jobs(self, query: JobQuery, now: int) -> list[Job]:
        """At most `limit` jobs.  Raises `UnknownCursorError`."""
        newest, cursor = self._begin(query.start, now)
        page: list[Job] = []
        for day in self._back_from(newest):
            for job in reversed(self._made_up(day).jobs):
                if job.kind == query.kind and (cursor is None or job.order < cursor) and fits(job, query, now):
                    page.append(job)
                    if len(page) == query.limit:
                        return page
        return page

    def find_job(self, kind: Kind, job_id: str, now: int) -> Job | None:
        """The job with this id, if the API knows it."""
        at = id_time(job_id)
        if at is None or not self._first_day * DAY <= at <= now:
            return None
        return next((job for job in self._made_up(at // DAY).jobs if job.id == job_id and job.kind == kind), None)

    def jobs_since(self, after: int, now: int) -> list[Job]:
        """Every job that was requested by `now` and whose record changed later than `after`; perhaps others too."""
        days = range(max(self._first_day, after // DAY - 1), now // DAY + 1)
        return [job for day in days for job in self._made_up(day).jobs if job.created_at <= now]

    def list_assets(self, query: JobQuery, now: int) -> list[Asset]:
        """At most `limit` assets.  Raises `UnknownCursorError`."""
        newest, cursor = self._begin(query.start, now)
        page: list[Asset] = []
        for day in self._back_from(newest):
            # A job that is requested before midnight can be ready after it.
            ready = [asset for made in (day - 1, day) for asset in self._made_up(made).assets if asset.created_at // DAY == day]
            for asset in sorted(ready, key=attrgetter("order"), reverse=True):
                if (cursor is None or asset.order < cursor) and fits(asset, query, now):
                    page.append(asset)
                    if len(page) == query.limit:
                        return page
        return page

    def deliveries(self, query: EventQuery) -> list[Delivery]:
        """All webhook deliveries that match `query`: made up until the first one is really sent."""
        truly = [delivery for delivery in self._sent.between(query.room_id, query.after, query.before) if _wanted(delivery.event, query)]
        until = query.before if self._sending_since is None else min(query.before, self._sending_since - 1)
        if until < query.after:
            return truly
        made_up = [
            Delivery(
                fixed_uuid(f"delivery {event.id}"), event.at, event.room_id, event.type, self._fate(event.id, event.at), event.session_id
            )
            for event in reversed(webhook_events(self._calls, query.after - 1, until))
            if query.room_id in (None, event.room_id) and _wanted(event.type, query)
        ]
        return truly + made_up

    def client_events(self, query: EventQuery) -> list[ClientEvent]:
        """All client events that match `query`; without a session only those of the last two days, because each must be generated."""
        if query.session_id is not None:
            session = self._calls.find_session(query.session_id, query.before)
            sessions = [session] if session is not None and session.room_id == query.room_id else []
        else:
            after = max(query.after, query.before - _EVENTS_REACH_BACK)
            wanted = SessionQuery(sys.maxsize, room_id=query.room_id, after=after, before=query.before)
            sessions = self._calls.list_sessions(wanted, query.before)
        found = [event for session in sessions for event in self._errors(session)]
        return sorted(
            (
                event
                for event in found
                if query.after <= event.at <= query.before and _wanted(event.type, query) and query.session_id in (None, event.session_id)
            ),
            key=attrgetter("order"),
            reverse=True,
        )

    def join_failures(self, after: int, until: int) -> list[JoinFailure]:
        """All failed joins later than `after`, up to `until`, oldest first."""
        failures = [
            JoinFailure(
                fixed_uuid(f"failure {event.id}"), event.at, event.room_id, _REASONS[event.at // SECOND % len(_REASONS)], event.role
            )
            for session in self._calls.sessions_since(after - HOUR, until)
            for event in self._errors(session)
            if event.type == "client.join.failed" and after < event.at <= until
        ]
        return sorted(failures, key=attrgetter("order"))

    def deliver(self, delivery: Delivery) -> None:
        """Records the result of a webhook that was really sent."""
        with self._calls.lock:
            if self._sending_since is None:
                self._sending_since = delivery.at
            self._sent.add(delivery, delivery.room_id)

    def _begin(self, start: str | None, now: int) -> tuple[int, tuple[int, str] | None]:
        if start is None:
            return now, None
        at = id_time(start)
        if at is None or not self._first_day * DAY <= at <= now:
            raise UnknownCursorError(start)
        return at, (at, start)

    def _back_from(self, newest: int) -> Iterator[int]:
        return iter(range(newest // DAY, self._first_day - 1, -1))

    def _made_up(self, day: int) -> _MadeUp:
        with self._calls.lock:
            made = self._days.pop(day, None)
            if made is None:
                made = _MadeUp()
                for room_id, plan in self._plans.items():
                    # The same random numbers as for the calls of that day: they decide when the calls are.
                    calls = random.Random(f"{self._seed}/{room_id}/{day}")  # noqa: S311 -- a repeatable company, not cryptography
                    own = random.Random(f"{self._seed}/{room_id}/{day}/jobs")  # noqa: S311 -- likewise
                    room_day = JobDay(RoomDay(room_id, day, calls, {}, self._calls.lock), own, self._calls.lock)
                    plan(room_day)
                    made.jobs += room_day.jobs
                    made.assets += room_day.assets
                made.jobs.sort(key=attrgetter("order"))
            self._days[day] = made
            while len(self._days) > _DAYS_KEPT:
                self._days.popitem(last=False)
            return made

    def _errors(self, session: Session) -> tuple[ClientEvent, ...]:
        """The errors of the people in a call, and of those who could not join it."""
        with self._calls.lock:
            errors = self._errors_kept.pop(session.id, None)
            self._errors_kept[session.id] = errors = self._errors_of(session) if errors is None else errors
            while len(self._errors_kept) > _ERRORS_KEPT:
                self._errors_kept.popitem(last=False)
            return errors

    def _errors_of(self, session: Session) -> tuple[ClientEvent, ...]:
        rng = random.Random(f"{self._seed}/{session.id}/errors")  # noqa: S311 -- a repeatable company, not cryptography
        errors = []
        for peer in session.peers:
            if rng.random() < _SHARE_OF_ERRORS:
                kind, code, name = rng.choice(_ERRORS)
                known = kind != "client.join.failed" or rng.random() > _SHARE_WITHOUT_SESSION
                errors.append(
                    ClientEvent(
                        fixed_uuid(f"error {peer.id}"),
                        peer.joined_at + rng.randrange(SECOND, 5 * SECOND),
                        session.room_id,
                        kind,
                        session.id if known else None,
                        peer.id,
                        error_code=code,
                        error_name=name,
                        role=peer.roles[0][1],
                        sdk=rng.choice(_SDKS),
                    )
                )
        return tuple(errors)

    def _fate(self, event_id: str, at: int) -> str | None:
        """Why the webhook of this event did not arrive; `None` if it did."""
        lost = _SHARE_LOST_THEN if at % DAY // HOUR == BAD_HOUR else _SHARE_LOST
        chance = int.from_bytes(blake2b(f"{self._seed}/{event_id}".encode(), digest_size=4).digest()) / 2**32
        return "timeout" if chance < lost else None


def _wanted(kind: str, query: EventQuery) -> bool:
    return not query.types or kind in query.types
