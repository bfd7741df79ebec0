"""A poll of only those rooms in which something has just happened, when it is cheaper than a poll of everything.

It does not move the coverage: the next poll of everything handles whatever this one does not find.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import msgspec

from exporter.counting.poll import Poll
from exporter.hms.client import Client
from exporter.hms.errors import ApiError, NotFound
from exporter.hms.pace import Patience
from exporter.hms.pages import Page
from exporter.times import rfc3339

_ALONE = 3
"""Up to this many sessions that left a room's list of running ones are requested one by one; more are read by a listing."""


class EarlyReading:
    """The requests of one early poll.  `begin` asks for the first page, then `records` yields what is read."""

    def __init__(self, client: Client, rooms: Iterable[str], patience: Patience) -> None:
        self._client = client
        self.rooms = list(rooms)
        self._patience = patience
        self._first: Iterator[Page] = iter(())
        self.read: list[str] = []
        """The rooms that have been read completely."""
        self.fault: str | None = None

    def begin(self) -> int | None:
        """Returns the API's time; `None` when nothing was answered."""
        pages = self._running(self.rooms[0])
        try:
            first = next(pages, None)
            if first is None:
                return None
            sent = self._client.sent
            self._client.decide_on_clock(self._patience)
        except NotFound:
            return None  # a room that does not exist, which polls of everything report
        except ApiError as error:
            self.fault = str(error)
            return None
        self._first = chain([first], pages)
        return self._client.time_at(sent)

    def records(self, poll: Poll) -> Iterator[msgspec.Raw]:
        """The running sessions of each room, and those that ran before and are no longer listed as running."""
        for number, room_id in enumerate(self.rooms):
            try:
                for page in self._first if number == 0 else self._running(room_id):
                    yield from page.data or ()
                yield from self._lost(poll, room_id)
            except NotFound:
                pass  # a room that does not exist, which polls of everything report
            except ApiError as error:
                self.fault = str(error)
                if error.refused or error.transport or error.throttled:
                    return
                continue
            self.read.append(room_id)

    def _running(self, room_id: str) -> Iterator[Page]:
        return self._client.pages("/sessions", {"active": "true", "room_id": room_id}, self._patience)

    def _lost(self, poll: Poll, room_id: str) -> Iterator[msgspec.Raw]:
        lost = [tracked for tracked in poll.missing() if tracked.room_id == room_id]
        if len(lost) > _ALONE:
            since = rfc3339(min(tracked.started for tracked in lost), 3)
            for page in self._client.pages("/sessions", {"active": "false", "room_id": room_id, "after": since}, self._patience):
                yield from page.data or ()
            return
        for tracked in lost:
            try:
                yield msgspec.Raw(self._client.record("/sessions", tracked.id, self._patience))
            except NotFound:
                continue  # whole polls decide when a session counts as vanished
