"""What one poll asks of 100ms, in which order, and how far it came.

The order makes that nothing falls between: running sessions first; then those that have ended since the last complete poll;
then those that were running before and are in neither list.  A complete poll moves the time behind which nothing needs to
be asked again to its own beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from exporter.counting.contribution import Account, Tracked, room_account
from exporter.counting.ledger import MARGIN, CatchUp, Ledger
from exporter.counting.rooms import Rooms
from exporter.hms.client import Client
from exporter.hms.errors import ApiError, NotFound
from exporter.hms.pace import Patience
from exporter.hms.pages import Page
from exporter.hms.records import glance
from exporter.polling.planner import Choice, Stretch
from exporter.times import micros, rfc3339


class Reader(Protocol):
    """Who makes use of what is read."""

    ledger: Ledger
    rooms: Rooms

    def begin(self, now: int) -> None:
        """The first answer has come: this is the API's time of the poll (µs)."""

    def see(self, raw: bytes | msgspec.Raw) -> None:
        """A session's record."""

    def settle(self) -> None:
        """Many ended sessions have been seen: they may be added up."""


class Reading:
    """One poll's requests.  `choices` between the wide listing and room by room, for running and ended sessions
    and for the past, are kept from poll to poll.
    """

    def __init__(
        self,
        reader: Reader,
        client: Client,
        choices: tuple[Choice, Choice, Choice],
        patience: Patience,
        monotonic: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._client = client
        self._active, self._ended, self._past = choices
        self._patience = patience
        self._monotonic = monotonic
        self._started = monotonic()
        self.now: int | None = None
        """The API's time of this poll (µs); `None` before the first answer."""
        self.faults: list[str] = []
        self._sent = 0
        self._unread_rooms: set[str] = set()
        self._all_read = False

    def read(self, stretch: Stretch, past_until: float) -> None:
        """Reads everything that a poll wants; what fails is in `faults`, and spoils nothing else.

        The past is read last, a stretch at a time, until `past_until` (monotonic seconds).
        """
        try:
            self._read_running()
            self._read_ended()
            self._read_lost()
            if self.now is not None and not self.faults:
                # Taking everything for read up to a wrong time would lose what happens until then.
                self._client.decide_on_clock(self._patience)
                self._reader.ledger.complete(min(self.now, self._client.time_at(self._sent)))
                self._read_past(stretch, past_until)
        except _GivenUp:
            pass
        except ApiError as error:
            self.faults.append(str(error))
        if self.now is None and not self.faults:
            self.faults.append("100ms answers no list of sessions")

    def fresh(self) -> list[Account] | None:
        """The accounts whose running sessions are all known as of this poll; `None`: every one."""
        ledger = self._reader.ledger
        lost = {tracked.account for tracked in ledger.missing()}
        lost |= {room_account(room_id) for room_id in self._unread_rooms}
        if self._all_read and not lost:
            return None
        return [a for a, state in ledger.accounts.items() if a not in lost and (self._all_read or state.sessions)]

    def _read_running(self) -> None:
        if self._active.wide(self._started):
            try:
                if self._whole(self._active, {"active": "true"}):
                    self._all_read = True
                    return
            except ApiError as error:
                self._failed(error)
                return
        self._all_read = True
        for room_id in self._reader.rooms.scope.ids:
            self._read_room(room_id, {"active": "true"})

    def _read_ended(self) -> None:
        ledger = self._reader.ledger
        if self.now is None:
            return
        since = ledger.horizon if ledger.horizon is not None else self.now - MARGIN
        if self._ended.wide(self._started):
            # One listing serves for both: the sessions that came and went, and, as far as it pays, those that were running.
            oldest = min([since, *(tracked.started for tracked in self._missing())])
            try:
                if self._whole(self._ended, {"active": "false", "after": rfc3339(oldest, 3)}, self._enough(since)):
                    return
            except ApiError as error:
                self._failed(error)
                return
        for room_id in self._reader.rooms.scope.ids:
            oldest = min([since, *(tracked.started for tracked in self._missing() if tracked.room_id == room_id)])
            self._read_room(room_id, {"active": "false", "after": rfc3339(oldest, 3)})

    def _enough(self, since: int) -> Callable[[Page], bool]:
        """Whether a listing of ended sessions need not go on: what is still missing is cheaper to ask for one by one."""
        missing = len(self._missing())

        def enough(page: Page) -> bool:
            nonlocal missing
            found, missing = missing, len(self._missing())
            found -= missing
            return _starts_before(page, since) and not (found >= 2 and missing >= 2)

        return enough

    def _read_lost(self) -> None:
        """Sessions that were running, and are in neither list."""
        for tracked in self._missing():
            try:
                self._reader.see(self._client.record("/sessions", tracked.id, self._patience))
            except NotFound:
                self._reader.ledger.unknown(tracked.id)
            except ApiError as error:
                self._failed(error)

    def _read_past(self, stretch: Stretch, until: float) -> None:
        ledger = self._reader.ledger
        for task in list(ledger.catch_ups):
            assert task.until is not None
            while task in ledger.catch_ups and self._monotonic() < until:
                end = stretch.end(task.frontier, task.until)
                pages, oldest = self._read_stretch(task, end, stretch.most_pages)
                if oldest is None:
                    ledger.caught_up(task, end + 1)
                self._reader.settle()
                stretch.learn(pages, task.frontier, end, oldest)

    def _read_stretch(self, task: CatchUp, end: int, most_pages: int) -> tuple[int, int | None]:
        """Reads the ended sessions that started from the frontier to `end`.

        Returns how many pages that took, and, when it was given up as too many, the start of the oldest session seen.
        """
        scope = self._reader.rooms.scope
        rooms = [room_id for room_id in (task.keys if task.keys is not None else scope.ids) if room_id in scope.ids]
        few = bool(rooms) and (task.keys is not None or scope.only_ids)
        wide = not few or self._past.wide(self._started)
        span = {"active": "false", "after": rfc3339(task.frontier, 3), "before": rfc3339(end + 999, 3)}
        pages = 0
        for of_room in [{}] if wide else [{"room_id": room_id} for room_id in rooms]:
            for page in self._pages({**span, **of_room}):
                self._see(page)
                pages += 1
                if pages >= most_pages and _goes_on(page) and (oldest := _oldest(page)) > task.frontier:
                    if few and pages > len(rooms):
                        self._past.abandoned(self._started)  # most of what the workspace lists is other rooms'
                    return pages, oldest
        return pages, None

    def _read_room(self, room_id: str, parameters: dict[str, str]) -> None:
        try:
            for page in self._pages({**parameters, "room_id": room_id}):
                self._see(page)
        except ApiError as error:
            if isinstance(error, NotFound) and self._reader.rooms.is_missing(room_id):
                return  # a room that does not exist has no sessions; that it is missing is told elsewhere
            self._unread_rooms.add(room_id)
            self._failed(error)

    def _whole(self, choice: Choice, parameters: dict[str, str], enough: Callable[[Page], bool] | None = None) -> bool:
        """Reads a listing of the whole workspace, unless it is not worth its pages; whether it has been read."""
        for pages, page in enumerate(self._pages(parameters), start=1):
            self._see(page)
            if enough is not None and enough(page):
                break
            if not choice.worth_another(pages) and _goes_on(page):
                choice.abandoned(self._started)
                return False
        choice.finished()
        return True

    def _missing(self) -> list[Tracked]:
        """Sessions that ought to have been in the listing of running ones, and have not been seen since."""
        if not self._all_read:
            return []
        rooms = self._reader.rooms
        return [
            tracked
            for tracked in self._reader.ledger.missing()
            if tracked.room_id not in self._unread_rooms and rooms.key(tracked.room_id) is not None
        ]

    def _pages(self, parameters: dict[str, str]) -> Iterator[Page]:
        for page in self._client.pages("/sessions", parameters, self._patience):
            if self.now is None:
                self._sent = self._client.sent
                self._client.decide_on_clock(self._patience)
                self.now = self._client.time_at(self._sent)
                self._reader.begin(self.now)
            yield page

    def _see(self, page: Page) -> None:
        for raw in page.data or ():
            self._reader.see(raw)

    def _failed(self, error: ApiError) -> None:
        """Notes a fault; there is no use in going on when nothing else would be answered, or not in time."""
        self.faults.append(str(error))
        if error.refused or (error.transport and self._monotonic() >= self._patience.until):
            raise _GivenUp


class _GivenUp(Exception):
    pass


def _goes_on(page: Page) -> bool:
    """Whether another page may follow."""
    return bool(page.last) and len(page.data or ()) >= (page.limit or 1)


def _starts_before(page: Page, moment: int) -> bool:
    """Whether the page's oldest session started before this (µs)."""
    return not page.data or 0 < _oldest(page) < moment


def _oldest(page: Page) -> int:
    """When the page's oldest session, its last, started (µs); 0 when that cannot be told."""
    created = glance(page.data[-1]).created_at if page.data else None
    return 0 if created is None else micros(created)
