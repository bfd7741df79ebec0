"""What rooms are called: read beside the polls, so that no poll waits for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence

from msgspec import structs

from exporter.counting.rooms import KnownRoom
from exporter.hms.client import Api, Client
from exporter.hms.errors import ApiError, NotFound
from exporter.hms.pace import Patience
from exporter.hms.records import Rejection, Room, decode_room
from exporter.logs import failure

_MANY = 20
"""From so many unknown rooms on, pages of the list of rooms are cheaper than asking for each."""
_FAILURES = 3
"""So many in a row are no fault of the rooms."""
_TOGETHER = 50
"""Answers that are handed over at once."""


def read_rooms(client: Client, wanted: Sequence[str], now: Callable[[], int], rejected: Callable[[Rejection], None]) -> Iterator[KnownRoom]:
    """The answers about these rooms, in any order; those that the API does not know are among them.  Raises `ApiError`."""
    left = dict.fromkeys(wanted)
    try:
        if len(left) >= _MANY:
            for page in client.pages("/rooms", {}, Patience.from_now()):
                found = [room for raw in page.data or () if isinstance(room := decode_room(raw), Room) and room.id in left]
                for room in found:
                    del left[room.id]
                    yield KnownRoom.of(room, now())
                if len(found) < 2 or len(left) < 2:
                    break  # the next page would not save a call
    except ApiError as error:
        if _is_of_all(error):
            raise
    failures = 0
    for room_id in left:
        try:
            answer = decode_room(client.record("/rooms", room_id, Patience.from_now()))
        except NotFound:
            yield KnownRoom.missing(room_id, now())
        except ApiError as error:
            failures += 1
            if _is_of_all(error) or failures >= _FAILURES:
                raise
        else:
            failures = 0
            if isinstance(answer, Rejection):
                rejected(Rejection("room", (room_id,), answer.subject, answer.reason))
            else:
                yield KnownRoom.of(structs.replace(answer, id=room_id), now())


def _is_of_all(error: ApiError) -> bool:
    """Whether the next request would fail likewise: a list or a room that cannot be had must not keep the others from their names."""
    return error.refused or error.transport or error.throttled


class NameReader:
    """A thread that asks about rooms, one batch after the other, and hands over what it learns."""

    def __init__(self, api: Api, workspace: str, learn: Callable[[list[KnownRoom]], None], rejected: Callable[[Rejection], None]) -> None:
        self._api = api
        self._learn = learn
        self._rejected = rejected
        self._wanted: queue.SimpleQueue[Sequence[str] | None] = queue.SimpleQueue()
        self._busy = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"names-{workspace}", daemon=True)

    def start(self) -> None:
        """Begins to wait for work."""
        self._thread.start()

    def ask(self, rooms: Sequence[str]) -> bool:
        """Asks for these rooms, unless it is still busy with those before; whether it does."""
        if not rooms or self._busy.is_set() or self._api.stopped.is_set():
            return False
        self._busy.set()
        self._wanted.put(rooms)
        return True

    def stop(self) -> None:
        """Ends after the request under way, which the stopped API cuts off."""
        self._wanted.put(None)

    def _run(self) -> None:
        client = self._api.client()
        while (wanted := self._wanted.get()) is not None:
            try:
                self._read(client, wanted)
            except ApiError:
                pass  # the polls tell of an API that does not answer; what is missing is asked for again after the next
            except Exception:  # noqa: BLE001 (a fault here must not end the thread: names would stay unknown for ever)
                failure("reading the names of rooms failed")
            finally:
                self._busy.clear()
        client.close()

    def _read(self, client: Client, wanted: Sequence[str]) -> None:
        learnt: list[KnownRoom] = []
        try:
            for room in read_rooms(client, wanted, self._api.now, self._rejected):
                learnt.append(room)
                if len(learnt) >= _TOGETHER:
                    self._learn(learnt)
                    learnt = []
        finally:
            if learnt:
                self._learn(learnt)
