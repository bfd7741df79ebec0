"""A small made-up company that lives in real time and has weeks of history: the account of `demo` and `simulate`."""

from __future__ import annotations

import random
import threading
from collections import OrderedDict
from hashlib import blake2b
from operator import attrgetter
from typing import Final

from exporter.simulator.beside import UnknownCursorError
from exporter.simulator.company_beside import CompanyBeside
from exporter.simulator.programme import PROGRAMME, Offer, Plan, RoomDay
from exporter.simulator.shape import fixed_id, id_time, object_id
from exporter.simulator.timeline import Room, Session
from exporter.simulator.workspace import RoomQuery, SessionQuery, select_rooms
from exporter.times import DAY, SECOND

ACCESS_KEY: Final = "demo-access-key"
"""Not a secret: it opens only the simulated API."""

SECRET: Final = "demo-secret-that-opens-only-the-simulator"  # noqa: S105 -- it opens only the simulated API
"""Not a secret: it opens only the simulated API."""

PAST_DAYS: Final = 40

_OPENING: Final = 1_577_836_800 * SECOND
"""2020-01-01: when the first room was created; each further room came a day later."""

_LONGEST_SESSION_DAYS: Final = 1  # a session that runs now began today or yesterday: the limit is 12 hours
_DAYS_KEPT: Final = 4


class Company:
    """A workspace that is generated on demand, and is always the same for the same `seed`.

    Its history begins `PAST_DAYS` days before the day of `now` (microseconds since the epoch).  Days are generated room by room
    when a query needs them, and the most recently used are cached: it can run for months and answer about any day of them.
    """

    def __init__(self, seed: int, now: int, *, access_key: str = ACCESS_KEY, secret: str = SECRET) -> None:
        self.access_key = access_key
        self.secret = secret
        self.lock = threading.RLock()
        self._seed = seed
        self._first_day = now // DAY - PAST_DAYS
        self._owner = {"customer_id": fixed_id(f"customer {access_key}"), "app_id": fixed_id(f"app {access_key}")}
        self._days: OrderedDict[tuple[str, int], list[Session]] = OrderedDict()
        self._plans: dict[str, Plan] = {}
        self._rooms: list[Room] = []
        for index, offer in enumerate(PROGRAMME):
            room = self._furnished(offer, _OPENING + index * DAY)
            self._rooms.append(room)
            self._plans[room.id] = offer.plan
        self.beside = CompanyBeside(self, seed, self._first_day, {room.name_at(now): room.id for room in self._rooms})
        """Recordings, streams and other events."""

    @property
    def rooms(self) -> list[Room]:
        """Every room, from the oldest to the newest."""
        return list(self._rooms)

    def list_sessions(self, query: SessionQuery, now: int) -> list[Session]:
        """At most `limit` sessions, newest first.  Raises `UnknownCursorError`."""
        if query.id is not None:
            session = self.find_session(query.id, now)
            return [session] if session is not None and _fits(session, query, now) else []
        newest = now if query.before is None else min(now, query.before)
        oldest = self._first_day * DAY
        if query.active:
            oldest = max(oldest, (now // DAY - _LONGEST_SESSION_DAYS) * DAY)
        if query.after is not None:
            oldest = max(oldest, query.after)
        cursor = None
        if query.start is not None:
            last = self.find_session(query.start, now)
            if last is None:
                raise UnknownCursorError(query.start)
            newest, cursor = min(newest, last.created_at), last.order
        page: list[Session] = []
        for day in range(newest // DAY, oldest // DAY - 1, -1):
            for session in reversed(self._begun_on(day, query.room_id)):
                if (cursor is None or session.order < cursor) and _fits(session, query, now):
                    page.append(session)
                    if len(page) == query.limit:
                        return page
        return page

    def find_session(self, session_id: str, now: int) -> Session | None:
        """The session with this id, if the API knows it."""
        created_at = id_time(session_id)
        if created_at is None or not self._first_day * DAY <= created_at <= now:
            return None
        return next((session for session in self._begun_on(created_at // DAY) if session.id == session_id), None)

    def sessions_since(self, after: int, now: int) -> list[Session]:
        """Every session that began by `now` and was still running later than `after`; perhaps others too."""
        first = max(self._first_day, after // DAY - _LONGEST_SESSION_DAYS)
        days = range(first, now // DAY + 1)
        return [
            session
            for day in days
            for session in self._begun_on(day)
            if session.created_at <= now and (session.closed_at is None or session.closed_at > after)
        ]

    def list_rooms(self, query: RoomQuery, now: int) -> list[Room]:
        """At most `limit` rooms, newest first.  Raises `UnknownCursorError`."""
        return select_rooms(self._rooms, query, now)

    def find_room(self, room_id: str, now: int) -> Room | None:
        """The room with this id, if the API knows it."""
        return next((room for room in self._rooms if room.id == room_id and room.exists(now)), None)

    def _furnished(self, offer: Offer, created_at: int) -> Room:
        serial = int.from_bytes(blake2b(f"{self._seed}/{offer.name}".encode(), digest_size=5).digest())
        return Room(
            id=object_id(created_at, serial),
            name=offer.name,
            template=offer.template,
            template_id=fixed_id(f"{self._seed}/{offer.template}"),
            region=offer.region,
            enabled=offer.enabled,
            max_duration_seconds=offer.max_duration_seconds,
            created_at=created_at,
            customer_id=self._owner["customer_id"],
            lock=self.lock,
        )

    def _begun_on(self, day: int, room_id: str | None = None) -> list[Session]:
        """The sessions that begin on that day, in ascending order."""
        with self.lock:
            if room_id is not None:
                return self._made_up(room_id, day)
            return sorted((session for known in self._plans for session in self._made_up(known, day)), key=attrgetter("order"))

    def _made_up(self, room_id: str, day: int) -> list[Session]:
        plan = self._plans.get(room_id)
        if plan is None:
            return []
        sessions = self._days.pop((room_id, day), None)
        if sessions is None:
            rng = random.Random(f"{self._seed}/{room_id}/{day}")  # noqa: S311 -- a repeatable company, not cryptography
            room_day = RoomDay(room_id, day, rng, self._owner, self.lock)
            plan(room_day)
            sessions = room_day.sessions
        self._days[room_id, day] = sessions
        while len(self._days) > _DAYS_KEPT * len(self._plans):
            self._days.popitem(last=False)
        return sessions


def _fits(session: Session, query: SessionQuery, now: int) -> bool:
    return (
        session.created_at <= now
        and (query.active is None or session.active(now) == query.active)
        and (query.room_id is None or session.room_id == query.room_id)
        and (query.after is None or session.created_at >= query.after)
        and (query.before is None or session.created_at <= query.before)
    )
