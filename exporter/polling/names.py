"""Reads the names of rooms: after a poll is published, as far as its time allows, continued after the next poll."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from msgspec import structs

from exporter.counting.rooms import KnownRoom
from exporter.hms.client import Client
from exporter.hms.errors import ApiError, NotFound
from exporter.hms.pace import Patience
from exporter.hms.records import Rejection, Room, decode_room

_MANY = 20
"""From this many unknown rooms on, listing is cheaper than one request each."""
_FAILURES = 3
"""After this many failures in a row, the API is at fault, not single rooms."""


class NameReader:
    """Reads the names of rooms step by step: one batch is finished before the next begins."""

    def __init__(self, client: Client, now: Callable[[], int], rejected: Callable[[Rejection], None]) -> None:
        self._client = client
        self._now = now
        self._rejected = rejected
        self._going: Iterator[KnownRoom] | None = None
        self._patience = Patience(0.0)

    def read(self, wanted: Sequence[str], until: float, monotonic: Callable[[], float] = time.monotonic) -> list[KnownRoom]:
        """Reads answers about these rooms, or about the rest of the previous batch, until `until` (monotonic seconds).

        An API failure ends the batch: polls report the failure, and the missing names are requested again after the next poll.
        """
        found: list[KnownRoom] = []
        self._patience = Patience(until)
        if self._going is None:
            if not wanted:
                return found
            self._going = read_rooms(self._client, wanted, self._now, self._rejected, lambda: self._patience)
        try:
            for room in self._going:
                found.append(room)
                if monotonic() >= until:
                    return found
        except ApiError:
            pass
        self._going = None
        return found


def read_rooms(
    client: Client,
    wanted: Sequence[str],
    now: Callable[[], int],
    rejected: Callable[[Rejection], None],
    patience: Callable[[], Patience] = Patience.from_now,
) -> Iterator[KnownRoom]:
    """The answers about these rooms, in any order, including rooms that the API does not know.  Raises `ApiError`."""
    left = dict.fromkeys(wanted)
    try:
        if len(left) >= _MANY:
            for page in client.pages("/rooms", {}, patience()):
                found = [room for raw in page.data or () if isinstance(room := decode_room(raw), Room) and room.id in left]
                for room in found:
                    del left[room.id]
                    yield KnownRoom.of(room, now())
                if len(found) < 2 or len(left) < 2:
                    break  # the next page would not save a call
    except ApiError as error:
        if _concerns_all(error):
            raise
    failures = 0
    for room_id in left:
        try:
            answer = decode_room(client.record("/rooms", room_id, patience()))
        except NotFound:
            yield KnownRoom.missing(room_id, now())
        except ApiError as error:
            failures += 1
            if _concerns_all(error) or failures >= _FAILURES:
                raise
        else:
            failures = 0
            if isinstance(answer, Rejection):
                rejected(Rejection("room", (room_id,), answer.subject, answer.reason))
            else:
                yield KnownRoom.of(structs.replace(answer, id=room_id), now())


def _concerns_all(error: ApiError) -> bool:
    """Whether the next request would fail too.  One room that fails must not keep the others from their names."""
    return error.refused or error.transport or error.throttled
