"""The timetable of the made-up company: who meets when, in which room, on which days.

Each plan generates one room's sessions of one day from random numbers of that day alone, so that any day can be generated
by itself, and repeatedly.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from exporter.simulator.shape import Shape, object_id
from exporter.simulator.timeline import Peer, Session
from exporter.times import DAY, HOUR, MINUTE, SECOND

_FIRST: Final = (
    "Amara Björn Chiara Dmytro Elif Farid Greta Haruto Inés Jonas Kavya Léa Mateus Ngozi Olena Priya Quentin Rosa Søren Tomás "
    "Uma Václav Wanjiru Ximena Yusuf Zoë Łukasz Şirin Þóra 美咲 伟 Андрей Ελένη"
)
_LAST: Final = (
    "Adeyemi Bjørnsen Castillo Dvořák Eriksson Fischer García Hansen Ito Jovanović Kowalski Lindqvist Müller Nair Okafor Petrov "
    "Quispe Rao Sørensen Tanaka Ünal Vasquez Weber Xu Yilmaz Zhang O'Neill Nguyễn D'Amico"
)

_TUESDAY: Final = 1
_THURSDAY: Final = 3
_SATURDAY: Final = 5

# The first number of each kind of people; see `person`.
_STAFF: Final = 0
_TEACHERS: Final = 100
_STUDENTS: Final = 1_000
_VIEWERS: Final = 10_000
_CUSTOMERS: Final = 100_000

RECORDER_ROLE: Final = "__internal_recorder"
"""The role of 100ms's own recorder."""

_SHARE_OF_DROPS: Final = 0.05
_SHARE_OF_LATE_LEAVES: Final = 0.04
_SHARE_OF_GHOSTS: Final = 0.01
_DROP_NOTICED_AFTER: Final = 60 * SECOND


@lru_cache(maxsize=4096)
def person(number: int) -> tuple[str, str]:
    """The user id and name of a made-up person, always the same for the same number."""
    first, last = _FIRST.split(), _LAST.split()
    return f"person-{number:06d}", f"{first[number % len(first)]} {last[number % len(last)]}"


class RoomDay:
    """Builds one room's day: its random numbers, its clock, its sessions."""

    def __init__(self, room_id: str, day: int, rng: random.Random, owner: Mapping[str, str], lock: threading.RLock) -> None:
        self.room_id = room_id
        self.start = day * DAY
        self.weekday = (day + 3) % 7
        """0 is Monday: the epoch's first day was a Thursday."""
        self.rng = rng
        self.sessions: list[Session] = []
        self._owner = owner
        self._lock = lock

    @property
    def weekend(self) -> bool:
        """Whether it is Saturday or Sunday."""
        return self.weekday >= _SATURDAY

    def open(self, at: int) -> Session:
        """Begins a call."""
        session_id = self.session_id(len(self.sessions), at)
        session = Session(id=session_id, room_id=self.room_id, created_at=at, owner=self._owner, shape=Shape(), lock=self._lock)
        self.sessions.append(session)
        return session

    def session_id(self, index: int, at: int) -> str:
        """The id of the day's call with this index (from 0), which begins at `at`."""
        return object_id(at, int.from_bytes(blake2b(f"{self.room_id}/{index}".encode(), digest_size=5).digest()))

    def some(self, low: float, high: float) -> int:
        """A random time from `low` to `high` seconds, to the millisecond as 100ms records it."""
        return round(self.rng.uniform(low, high) * 1000) * 1000

    def join(self, session: Session, role: str, number: int, at: int) -> Peer:
        """The person with this number joins."""
        user_id, name = person(number)
        return session.join(role, at, user_id, name)

    def stay(self, session: Session, role: str, number: int, joined_at: int, left_at: int) -> Peer:
        """A person's visit, sometimes with a network drop, a leave that is noticed late, or one that is never noticed (a ghost).

        Returns the peer that is connected at the end of the visit.
        """
        rng = self.rng
        peer = self.join(session, role, number, joined_at)
        if left_at - joined_at > 10 * MINUTE and rng.random() < _SHARE_OF_DROPS:
            lost_at = joined_at + self.some(120, 300)
            peer.leave(lost_at, recorded_at=lost_at + _DROP_NOTICED_AFTER, reason="ice connection state closed")
            peer = self.join(session, role, number, lost_at + self.some(4, 40))
        fate = rng.random()
        if fate < _SHARE_OF_LATE_LEAVES:
            peer.leave(left_at, recorded_at=left_at + _DROP_NOTICED_AFTER, reason="websocket closed")
        elif fate > _SHARE_OF_GHOSTS + _SHARE_OF_LATE_LEAVES:
            peer.leave(left_at)
        return peer


Plan = Callable[[RoomDay], None]


@dataclass(frozen=True, slots=True)
class Offer:
    """A room and its plan."""

    name: str
    template: str
    region: str
    plan: Plan
    enabled: bool = True
    max_duration_seconds: int | None = None


def _meeting(day: RoomDay, at: int, minutes: float, people: list[int], host: str = "host", others: str = "guest") -> None:
    """The first of the people opens the call; the others join one by one and leave towards the end."""
    begin = at + day.some(-90, 120)
    end = begin + day.some(minutes * 54, minutes * 66)
    session = day.open(begin)
    for index, number in enumerate(people):
        joined_at = begin + day.some(0.1, 2 if index == 0 else 180)
        day.stay(session, host if index == 0 else others, number, joined_at, end - day.some(0.2, 40))
    session.close(end)


def standup(day: RoomDay) -> None:
    """A quarter of an hour every working morning."""
    if not day.weekend:
        _meeting(day, day.start + 9 * HOUR, 15, [_STAFF + number for number in range(9) if number == 0 or day.rng.random() < 0.9])


def design_review(day: RoomDay) -> None:
    """An hour on Tuesdays and Thursdays."""
    if day.weekday in (_TUESDAY, _THURSDAY):
        _meeting(day, day.start + 14 * HOUR, 55, [_STAFF + number for number in range(4, 11)])


def interviews(day: RoomDay) -> None:
    """Three to five on a working day, with one applicant and two of the staff."""
    if not day.weekend:
        for hour in sorted(day.rng.sample(range(8, 18), day.rng.randint(3, 5))):
            people = [_STAFF + day.rng.randrange(12), _CUSTOMERS + day.rng.randrange(5_000), _STAFF + 12 + day.rng.randrange(12)]
            _meeting(day, day.start + hour * HOUR, 45, people)


def coffee(day: RoomDay) -> None:
    """Open rooms for everyone, in the breaks of working days."""
    if not day.weekend:
        for hour, minute in ((7, 30), (10, 30), (15, 0)):
            people = day.rng.sample(range(_STAFF, _STAFF + 30), day.rng.randint(2, 9))
            _meeting(day, day.start + hour * HOUR + minute * MINUTE, 20, people, "guest")


def all_hands(day: RoomDay) -> None:
    """Late on Thursdays, across midnight, so that every continent can attend."""
    if day.weekday == _THURSDAY:
        _meeting(day, day.start + 23 * HOUR + 15 * MINUTE, 85, [_STAFF + number for number in range(day.rng.randint(45, 60))])


def wall_screen(day: RoomDay) -> None:
    """Two meetings a day.  After each, one screen stays connected alone until shortly before the limit of 12 hours."""
    for begin in (5 * HOUR + 20 * MINUTE, 17 * HOUR + 25 * MINUTE):
        opened_at = day.start + begin + day.some(0, 60)
        session = day.open(opened_at)
        day.join(session, "host", _STAFF + 30, opened_at + day.some(0.1, 1))
        for number in range(day.rng.randint(2, 4)):
            day.join(session, "guest", _STAFF + number, opened_at + day.some(5, 60)).leave(opened_at + day.some(900, 1_500))
        session.close(opened_at + 11 * HOUR + 45 * MINUTE)


def lessons(school: int) -> Plan:
    """A classroom's plan: four or five lessons on working days, one on Saturdays, with a teacher and always the same students."""

    def plan(day: RoomDay) -> None:
        count = (5, 4, 5, 4, 4, 1, 0)[day.weekday]
        for hour in sorted(day.rng.sample((7, 8, 9, 10, 11, 13, 14, 15), count)):
            begin = day.start + hour * HOUR + school * 2 * MINUTE + day.some(0, 90)
            end = begin + 44 * MINUTE + day.some(0, 180)
            session = day.open(begin)
            day.stay(session, "teacher", _TEACHERS + school, begin + day.some(0.1, 2), end - day.some(0.1, 2))
            for number in range(24):
                if day.rng.random() < 0.8:
                    joined_at = begin + day.some(2, 240)
                    day.stay(session, "student", _STUDENTS + 100 * school + number, joined_at, end - day.some(1, 90))
            session.close(end)

    return plan


def conversation_times(day: RoomDay) -> list[tuple[int, int]]:
    """When each hour of language practice begins and ends.  Call it first: it must take the day's first random numbers."""
    begins = [day.start + hour * HOUR + 30 * MINUTE + day.some(5, 20) for hour in range(24)]
    return [(begin, begin + 59 * MINUTE + day.some(0, 20)) for begin in begins]


def conversation(day: RoomDay) -> None:
    """Language practice round the clock: a new call at half past each hour, with people dropping in as they like."""
    for hour, (begin, end) in enumerate(conversation_times(day)):
        session = day.open(begin)
        day.stay(session, "teacher", _TEACHERS + 50 + hour // 4, begin + day.some(0.1, 1), end - day.some(0.1, 2))
        for _ in range(day.rng.randint(10, 22)):
            joined_at = begin + day.some(2, 3_000)
            left_at = min(joined_at + day.some(300, 2_400), end - day.some(1, 30))
            day.stay(session, "student", _STUDENTS + 5_000 + day.rng.randrange(400), joined_at, left_at)
        session.close(end)


def webinar_times(day: RoomDay) -> list[tuple[int, int]]:
    """When each webinar begins and ends.  Call it first: it must take the day's first random numbers."""
    begins = [day.start + hour * HOUR + day.some(0, 30) for hour in ((8, 13, 18), (10,), ())[max(0, day.weekday - 4)]]
    return [(begin, begin + 50 * MINUTE + day.some(0, 900)) for begin in begins]


def webinar(day: RoomDay) -> None:
    """Three on a working day with hundreds of viewers, some of whom are called on stage; a small one on Saturdays.

    They are recorded.  The recorder joins as a peer in every other webinar only: 100ms does not document whether it joins.
    """
    for index, (begin, end) in enumerate(webinar_times(day)):
        session = day.open(begin)
        for number, role in enumerate(("host", "host", "stage", "stage", "stage")):
            day.stay(session, role, _STAFF + number, begin + day.some(0.1, 20), end - day.some(0.1, 5))
        for _ in range(day.rng.randint(60, 120) if day.weekend else day.rng.randint(180, 420)):
            joined_at = begin + min(day.some(1, 420), day.some(1, 2_000))
            left_at = end - day.some(1, 60) if day.rng.random() < 0.7 else joined_at + day.some(60, 600)
            viewer = day.stay(session, "viewer", _VIEWERS + day.rng.randrange(3_000), joined_at, left_at)
            if viewer.left_at is not None and viewer.left_at - viewer.joined_at > 9 * MINUTE and day.rng.random() < 0.05:
                called_at = viewer.joined_at + day.some(60, 240)
                viewer.change_role("stage", called_at)
                viewer.change_role("viewer", called_at + day.some(60, 240))
        if index % 2 == 0:
            session.join(RECORDER_ROLE, begin + 15 * SECOND, "beam", "Beam").leave(end - SECOND)
        session.close(end)


def open_house_times(day: RoomDay) -> list[tuple[int, int]]:
    """When each call of the open house begins and ends."""
    begins = [day.start + hour * HOUR + SECOND // 2 for hour in range(0, 24, 2)]
    return [(begin, begin + 2 * HOUR - 2 * SECOND) for begin in begins]


def open_house(day: RoomDay) -> None:
    """A lounge that never closes for more than a moment: somebody joins or leaves every eight seconds, day and night.

    In each slot one visitor joins, and one who joined a while ago leaves.
    """
    slot, crowd = 16 * SECOND, 16
    for index, (begin, end) in enumerate(open_house_times(day)):
        session = day.open(begin)
        day.stay(session, "host", _STAFF + 40 + 2 * index, begin + day.some(0.1, 0.5), end - day.some(0.1, 0.5))
        slots = (end - begin) // slot
        for first in range(-crowd, slots, crowd):
            leaving_in = day.rng.sample(range(first + crowd, first + 2 * crowd), crowd)
            for index, leaves in enumerate(leaving_in):
                came = first + index
                joined_at = begin + day.some(0.5, 3) if came < 0 else begin + came * slot + day.some(1, 2)
                left_at = begin + leaves * slot + day.some(9, 10)
                if joined_at < end:
                    visitor = day.join(session, "viewer", _VIEWERS + day.rng.randrange(3_000), joined_at)
                    if day.rng.random() < 0.08 and left_at - joined_at > 2 * MINUTE and left_at < end:
                        visitor.change_role("stage", joined_at + day.some(30, 90))
                    visitor.leave(min(left_at, end - day.some(0.1, 1)))
        session.close(end)


def support(pause: float) -> Plan:
    """A help line's plan: short calls one after another, with `pause` seconds between them at noon and more at night."""

    def plan(day: RoomDay) -> None:
        end_of_day = day.start + DAY - 5 * SECOND
        at = day.start + day.some(1, 6)
        while at < end_of_day - MINUTE:
            end = min(at + day.some(45, 150), end_of_day)
            session = day.open(at)
            day.join(session, "customer", _CUSTOMERS + day.rng.randrange(20_000), at + day.some(0.1, 1)).leave(end - day.some(2, 6))
            agent = _STAFF + 60 + day.rng.randrange(15)
            day.stay(session, "agent", agent, at + day.some(2, 8), end - day.some(0.1, 1))
            session.close(end)
            at = end + day.some(1, 6) + round(pause * _quiet(day, end) * day.rng.uniform(0.5, 1.5)) * SECOND

    return plan


def _quiet(day: RoomDay, at: int) -> float:
    """How many times rarer calls are than at noon of a working day."""
    hours_from_noon = abs((at - day.start) / HOUR - 12)
    return (1 + (hours_from_noon / 4) ** 2) * (2 if day.weekend else 1)


def _nothing(_day: RoomDay) -> None:
    """The room is not used."""


PROGRAMME: Final = (
    Offer("daily-standup", "meeting", "eu", standup),
    Offer("design-review", "meeting", "eu", design_review),
    Offer("interviews", "meeting", "eu", interviews, max_duration_seconds=2 * 3600),
    Offer("coffee-corner", "meeting", "in", coffee),
    Offer("all-hands", "meeting", "in", all_hands),
    Offer("office-wall-screen", "meeting", "eu", wall_screen),
    Offer("class-north-algebra", "classroom", "eu", lessons(0)),
    Offer("class-north-history", "classroom", "eu", lessons(1)),
    Offer("class-south-physics", "classroom", "in", lessons(2)),
    Offer("class-south-geometry", "classroom", "in", lessons(3)),
    Offer("class-south-music", "classroom", "in", lessons(4)),
    Offer("class-online-conversation", "classroom", "in", conversation),
    Offer("product-webinar", "webinar", "eu", webinar),
    Offer("open-house", "webinar", "in", open_house),
    Offer("support-frontline", "support", "in", support(0)),
    Offer("support-billing", "support", "eu", support(120)),
    Offer("support-technical", "support", "eu", support(60)),
    Offer("old-training", "classroom", "eu", _nothing, enabled=False),
)
"""Every room of the company, from the oldest to the newest."""
