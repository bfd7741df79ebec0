"""What rooms are called: read after a poll is published, as far as its time allows, and gone on with after the next."""

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
"""This many failures in a row are no fault of single rooms."""


class NameReader:
    """Reads the names of rooms, a part at a time: one batch is read to its end before the next is begun."""

    def __init__(self, client: Client, now: Callable[[], int], rejected: Callable[[Rejection], None]) -> None:
        self._client = client
        self._now = now
        self._rejected = rejected
        self._going: Iterator[KnownRoom] | None = None
        self._patience = Patience(0.0)

    def read(self, wanted: Sequence[str], until: float, monotonic: Callable[[], float] = time.monotonic) -> list[KnownRoom]:
        """Answers about these rooms, or about those asked for before, until that moment (monotonic seconds).

        An API that fails ends the batch: the polls tell of that, and what is missing is asked for again after the next one.
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
    """The answers about these rooms, in any order; those that the API does not know are among them.  Raises `ApiError`."""
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
    """Whether the next request would fail likewise.  A single room that cannot be had must not keep the others from their names."""
    return error.refused or error.transport or error.throttled
