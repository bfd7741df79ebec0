"""The requests of one poll, in order. It yields the records that it reads; the poller counts them.

First the running sessions, then those that ended since the last complete poll, then those that were running before and are in
neither list, then ended ones that are due for a second look.  This order ensures that no session is missed.  A room or page
that fails is noted; everything else is still read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from itertools import chain

import msgspec

from exporter.counting.contribution import Account, Tracked, room_account
from exporter.counting.coverage import MARGIN, Coverage
from exporter.counting.followed import CatchUp
from exporter.counting.poll import Poll
from exporter.counting.rooms import Rooms
from exporter.counting.spans import Span
from exporter.hms.client import Client
from exporter.hms.errors import ApiError, NotFound
from exporter.hms.pace import Patience
from exporter.hms.pages import Page
from exporter.hms.records import glance
from exporter.polling.planner import Choices, Stretch, windows
from exporter.times import MINUTE, micros, rfc3339

_ALONE_EVERY = 5 * MINUTE
"""How often a session that is in no listing is requested; a poll requests at most one of them."""
_LOOKS_A_PAGE = 20
"""A poll spends one page on this many ended sessions that are due for a second look, and at least one page in all."""


class Reading:
    """One poll's requests.  `begin` requests the first page, then `present` and, stretch by stretch, `past` yield records."""

    def __init__(self, client: Client, rooms: Rooms, choices: Choices, patience: Patience, monotonic: Callable[[], float]) -> None:
        self._client = client
        self._rooms = rooms
        self._choices = choices
        self._patience = patience
        self._monotonic = monotonic
        self._started = monotonic()
        self.now: int | None = None
        """The API's time of this poll (µs); `None` before the first answer."""
        self.faults: list[str] = []
        self._sent = 0
        self._unread_rooms: dict[str, None] = {}
        self._all_read = False
        self._unread: Span | None = None
        self._running: Iterator[Page] = iter(())

    # -- the present ----------------------------------------------------------------------------------------------

    def begin(self) -> int | None:
        """Requests the first page of running sessions.  Returns the API's time, `None` if there was no answer."""
        pages = self._read_running()
        first = next(pages, None)
        self._running = pages if first is None else chain([first], pages)
        if self.now is None and not self.faults:
            self.faults.append("100ms does not answer with a list of sessions")
        return self.now

    def present(self, poll: Poll) -> Iterator[msgspec.Raw]:
        """The records of the present; when all are counted, the coverage moves on as far as they reach."""
        coverage = poll.ledger.coverage
        try:
            for page in self._running:
                yield from page.data or ()
            read = yield from self._read_ended(poll)
            yield from self._read_lost(poll)
            yield from self._look_again(poll)
            if read:
                # If the time is wrong, marking everything up to it as read would lose what happens until then.
                self._client.decide_on_clock(self._patience)
                begun_at = min(poll.now, self._client.time_at(self._sent))
                coverage.complete(begun_at, whole=self._all_read, failed=list(self._unread_rooms), unread=self._unread)
        except _GivenUp:
            pass
        except ApiError as error:
            self.faults.append(str(error))

    def fresh(self, poll: Poll) -> list[Account] | None:
        """The accounts whose running sessions are all known as of this poll; `None` means every account."""
        lost = {tracked.account for tracked in poll.missing() if self._is_asked_for(tracked)}
        lost |= {room_account(room_id) for room_id in self._unread_rooms}
        if self._all_read and not lost:
            return None
        return [a for a, state in poll.ledger.accounts.items() if a not in lost and (self._all_read or state.sessions)]

    def _read_running(self) -> Iterator[Page]:
        try:
            if self._choices.running.wide(self._started):
                try:
                    if (yield from self._whole("running", {"active": "true"})):
                        self._all_read = True
                        return
                except ApiError as error:
                    self._failed(error)
                    return
            for room_id in self._rooms.scope.ids:
                yield from self._read_room(room_id, {"active": "true"})
            self._all_read = True
        except _GivenUp:
            pass

    def _read_ended(self, poll: Poll) -> Generator[msgspec.Raw, None, bool]:
        """Returns whether the coverage may move on."""
        coverage = poll.ledger.coverage
        since = coverage.horizon if coverage.horizon is not None else poll.now - MARGIN
        if self._choices.ended.wide(self._started):
            oldest = poll.now
            try:
                for page in self._listing("ended", {"active": "false", "after": rfc3339(since, 3)}):
                    yield from page.data or ()
                    oldest = min(oldest, _oldest(page) or oldest)
                if not self._abandoned:
                    return True
            except ApiError as error:
                self._failed(error)
                if oldest == poll.now or error.transport or error.throttled:
                    return False
                self._unread = since, oldest  # the records of the failed pages are read later, as a catch-up
                return True
        wanted: dict[str, int] = {}
        for tracked in [*self._missing(poll), *poll.to_look_at()]:
            wanted[tracked.room_id] = min(tracked.started, wanted.get(tracked.room_id, since))
        for room_id in self._rooms.scope.ids:
            behind = coverage.entries[room_id].behind
            oldest = min([since, wanted.get(room_id, since), *([] if behind is None else [behind])])
            failed = room_id in self._unread_rooms
            for page in self._read_room(room_id, {"active": "false", "after": rfc3339(oldest, 3)}):
                yield from page.data or ()
            if not failed and room_id not in self._unread_rooms:
                coverage.caught_up(room_id)
        return True

    def _read_lost(self, poll: Poll) -> Iterator[msgspec.Raw]:
        """Sessions that were running and are in neither list: several at a time if a listing shows them, otherwise one by one."""
        lost = self._missing(poll)
        if not self._choices.ended.rooms_only(self._started):
            # A single session is requested by its id: this costs no more, and shows whether the API still knows it.
            yield from self._in_windows(poll, lost, pages=len(lost), least=2)
        for tracked in self._missing(poll):
            yield from self._read_one(poll, tracked)

    def _look_again(self, poll: Poll) -> Iterator[msgspec.Raw]:
        due = poll.to_look_at()
        looking = [tracked for tracked in due if not tracked.vanished]
        if not self._choices.ended.rooms_only(self._started):
            yield from self._in_windows(poll, looking, pages=max(1, len(looking) // _LOOKS_A_PAGE))
        alone = [tracked for tracked in due if tracked.vanished or not self._is_asked_for(tracked)]
        # A listing by room does not show sessions in rooms that are no longer followed, but they are still followed to their end.
        alone += [t for t in poll.missing() if not self._is_asked_for(t) and poll.now - t.tried >= _ALONE_EVERY]
        if alone:
            yield from self._read_one(poll, min(alone, key=lambda tracked: tracked.tried))

    def _read_one(self, poll: Poll, tracked: Tracked) -> Iterator[msgspec.Raw]:
        tracked.tried = poll.now
        try:
            yield msgspec.Raw(self._client.record("/sessions", tracked.id, self._patience))
        except NotFound:
            poll.unknown(tracked.id)
        except ApiError as error:
            self._failed(error)

    def _in_windows(self, poll: Poll, wanted: list[Tracked], pages: int, least: int = 1) -> Iterator[msgspec.Raw]:
        """Ended sessions, by listings of the time around their starts, the fullest first, with at most this many pages.

        Listings that would show fewer than `least` of them are skipped.
        """
        if not wanted:
            return
        ended = [tracked.started for tracked in poll.ledger.ended.values()]
        known = sorted([*ended, *(started for _, started in poll.ledger.settled.values())])
        for first, last in windows([tracked.started for tracked in wanted], known, self._choices.page_size):
            inside = {tracked.id for tracked in wanted if first <= tracked.started <= last}
            if pages <= 0 or len(inside) < least:
                return
            try:
                for page in self._pages({"active": "false", "after": rfc3339(first, 3), "before": rfc3339(last + 999, 3)}):
                    pages -= page.ends
                    yield from page.data or ()
                    found = {glance(raw).id for raw in page.data or ()} & inside
                    inside -= found
                    if page.ends and (not inside or pages <= 0 or len(found) < 2):
                        break
            except ApiError as error:
                self._failed(error)

    # -- the past -------------------------------------------------------------------------------------------------

    def past(self, poll: Poll, stretch: Stretch) -> Iterator[msgspec.Raw] | None:
        """The ended sessions of the next stretch of the past; `None` if nothing can be read now.

        The coverage is updated as the records are counted, even when a page fails.
        """
        piece = stretch.next(poll.ledger.coverage.unread_spans(poll.now), self._monotonic())
        if piece is None or self.faults_end_it:
            return None
        return self._read_stretch(poll.ledger.coverage, stretch, *piece, poll.now)

    faults_end_it = False
    """Whether the next request would fail too."""

    def _read_stretch(self, coverage: Coverage, stretch: Stretch, span: Span, tasks: list[CatchUp], now: int) -> Iterator[msgspec.Raw]:
        first, last = span
        rooms = coverage.rooms_of(tasks)
        wide = rooms is None or self._choices.past.wide(self._started)
        parameters = {"active": "false", "after": rfc3339(first, 3), "before": rfc3339(last + 999, 3)}
        cursor = tasks[0].cursor if wide and len(tasks) == 1 else ""
        pages, read_from = 0, last + 1
        try:
            for of_room in [{}] if wide else [{"room_id": room_id} for room_id in rooms or ()]:
                for page in self._pages({**parameters, **of_room, **({"start": cursor} if cursor else {})}):
                    yield from page.data or ()
                    if not page.goes_on:
                        continue
                    pages += 1
                    # Listings are newest first: everything newer than the last record has been shown.
                    read_from = min(read_from, (_oldest(page) // 1000 + 1) * 1000)
                    if wide and read_from > last:
                        cursor = page.last or ""
                    if pages >= stretch.most_pages and (wide or not stretch.is_shortest(first, last)):
                        if rooms is not None and wide and pages > len(rooms):
                            self._choices.past.abandoned(self._started)  # most records of the workspace belong to other rooms
                        self._read_partly(coverage, stretch, (first, last), tasks, read_from if wide else last + 1, cursor, now)
                        return
        except ApiError as error:
            self._failed(error)
            self.faults_end_it = error.refused or error.transport or error.throttled
            if wide and pages:
                self._read_partly(coverage, stretch, (first, last), tasks, read_from, cursor, now)
            elif not self.faults_end_it:
                stretch.failed(first, last, self._monotonic())
            return
        coverage.has_read(tasks, first, last, now)
        stretch.finished(pages)

    def _read_partly(
        self, coverage: Coverage, stretch: Stretch, span: Span, tasks: list[CatchUp], read_from: int, cursor: str, now: int
    ) -> None:
        first, last = span
        if read_from <= last:
            coverage.has_read(tasks, max(first, read_from), last, now)
        elif len(tasks) == 1 and cursor:
            tasks[0].cursor = cursor  # all records shown began in the same millisecond: reading continues there
            coverage.changed_tasks.add(tasks[0].number)
        stretch.too_long(first, last, read_from)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _read_room(self, room_id: str, parameters: dict[str, str]) -> Iterator[Page]:
        try:
            yield from self._pages({**parameters, "room_id": room_id})
        except ApiError as error:
            if isinstance(error, NotFound) and self._rooms.is_missing(room_id):
                return  # a room that does not exist has no sessions; its absence is reported elsewhere
            self._unread_rooms[room_id] = None
            self._failed(error)

    _abandoned = False

    def _listing(self, kind: str, parameters: dict[str, str]) -> Iterator[Page]:
        """A listing of the whole workspace, abandoned (`_abandoned`) when it takes too many pages."""
        choice = self._choices.running if kind == "running" else self._choices.ended
        self._abandoned = False
        pages = 0
        for page in self._pages(parameters):
            yield page
            pages += page.ends
            if page.goes_on and not choice.worth_another(pages):
                choice.abandoned(self._started)
                self._abandoned = True
                return
        choice.finished()

    def _whole(self, kind: str, parameters: dict[str, str]) -> Generator[Page, None, bool]:
        """As `_listing`; returns whether it was read to its end."""
        yield from self._listing(kind, parameters)
        return not self._abandoned

    def _missing(self, poll: Poll) -> list[Tracked]:
        """Sessions that the listing of running ones should have shown, and that have not been seen since."""
        if not self._all_read:
            return []
        return [tracked for tracked in poll.missing() if tracked.room_id not in self._unread_rooms and self._is_asked_for(tracked)]

    def _is_asked_for(self, tracked: Tracked) -> bool:
        """Whether the listings include this running session: room by room, they include only the rooms of the configuration."""
        return not self._choices.running.rooms_only(self._started) or tracked.room_id in self._rooms.scope.ids

    def _pages(self, parameters: dict[str, str]) -> Iterator[Page]:
        for page in self._client.pages("/sessions", parameters, self._patience):
            if self.now is None:
                self._sent = self._client.sent
                self._client.decide_on_clock(self._patience)
                self.now = self._client.time_at(self._sent)
            yield page

    def _failed(self, error: ApiError) -> None:
        """Notes a fault; raises `_GivenUp` if no other request would be answered, or not in time."""
        self.faults.append(str(error))
        if error.refused or (error.transport and self._monotonic() >= self._patience.until):
            raise _GivenUp


class _GivenUp(Exception):
    pass


def _oldest(page: Page) -> int:
    """When the page's oldest session, the last one, started (µs); 0 if unknown."""
    created = glance(page.data[-1]).created_at if page.data else None
    return 0 if created is None else micros(created)
