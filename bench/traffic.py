"""A busy workspace as the bytes that 100ms would send: a running session in each room, some of which change between polls."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta

from exporter.counting.rooms import KnownRoom

PAGE = 100
SERIES, PLAIN_SERIES = 80, 53
"""The number of series of such a room, here and in the plain exporter."""
SECRET = "a-secret-of-the-benchmark-that-opens-nothing"  # noqa: S105 (not a secret: it opens nothing)
_LEAVES = 10
"""This many peers of a session leave as it changes. After that only its `updated_at` moves, so that its size stays the same."""
_OWNER = '"customer_id":"60b8e1d96eb86d8101b5735a","app_id":"60b8e1d96eb86d8101b57359"'


class Traffic:
    """`sessions` running sessions with `peers` peers each, a third of them gone, spread over `roles` roles in turn.

    They began within the hour before `now`.  With 50 peers in 12 roles a session takes 13.5 KB of JSON, and `SERIES` series.
    """

    def __init__(self, sessions: int, peers: int = 50, roles: int = 12) -> None:
        self._random = random.Random(1)  # noqa: S311 (the same workspace every time)
        self._began = datetime.now(UTC) - timedelta(hours=1)
        self._roles = roles
        self._gone = peers // 3
        self._peers = [[self._peer(number, place) for place in range(peers)] for number in range(sessions)]
        self._changes = [0] * sessions
        self._next = 0
        self.records = [self._record(number, _time(self._began)) for number in range(sessions)]
        """The sessions' records as JSON, newest first."""

    def change(self, share: float, at: int) -> int:
        """Changes this share of the sessions at that moment (µs), other ones each time; returns their number.

        The moment must be after the last poll: a leave recorded late would make the exporter hold its counters.
        """
        count = round(len(self.records) * share)
        moment = _time(datetime.fromtimestamp(at / 1e6, UTC))
        for _ in range(count):
            number = self._next % len(self.records)
            self._next += 1
            self._changes[number] += 1
            if self._changes[number] <= _LEAVES:
                leaving = self._gone + self._changes[number] - 1
                self._peers[number][leaving] += f',"left_at":"{moment}"'
            self.records[number] = self._record(number, moment)
        return count

    def pages(self) -> list[bytes]:
        """The listing of running sessions, page by page."""
        starts = range(0, len(self.records), PAGE)
        return [self.page(start) for start in starts] or [b'{"limit":%d,"data":null}' % PAGE]

    def page(self, start: int) -> bytes:
        """The page that begins with that session."""
        shown = self.records[start : start + PAGE]
        last = _session_id(start + len(shown) - 1).encode()
        return b'{"limit":%d,"data":[%b],"last":"%b"}' % (PAGE, b",".join(shown), last)

    def of_room(self, number: int) -> bytes:
        """The answer to a request for one room."""
        return b'{"limit":%d,"data":[%b],"last":"%b"}' % (PAGE, self.records[number], _session_id(number).encode())

    def rooms(self) -> dict[str, str]:
        """Every room's id and name."""
        return {room_id(number): f"room-{number}" for number in range(len(self.records))}

    def _peer(self, number: int, place: int) -> str:
        """A peer's JSON without its end."""
        key, user = uuid.UUID(int=self._random.getrandbits(128)), uuid.UUID(int=self._random.getrandbits(128))
        joined = self._began + timedelta(seconds=self._random.random() * 3000)
        text = (
            f'"{key}":{{"id":"{key}","session_id":"{_session_id(number)}","name":"Some Person {place}",'
            f'"role":"role-{place % self._roles}","user_id":"{user}","joined_at":"{_time(joined)}"'
        )
        return text + f',"left_at":"{_time(joined + timedelta(seconds=300))}"' if place < self._gone else text

    def _record(self, number: int, updated: str) -> bytes:
        shown = "},".join(self._peers[number])
        return (
            f'{{"id":"{_session_id(number)}","room_id":"{room_id(number)}",{_OWNER},"active":true,'
            f'"peers":{{{shown}}}}},"created_at":"{_time(self._began)}","updated_at":"{updated}"}}'
        ).encode()


def room_id(number: int) -> str:
    """The id of the room with this index."""
    return f"6165{number:020x}"


def known_rooms(count: int, fetched_at: int) -> list[KnownRoom]:
    """The rooms as 100ms knows them."""
    return [
        KnownRoom(
            room_id(number), f"room-{number}", "default", "60b8e1d96eb86d8101b57358", "eu", enabled=True, exists=True, fetched_at=fetched_at
        )
        for number in range(count)
    ]


def _session_id(number: int) -> str:
    return f"6205{number:020x}"


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
