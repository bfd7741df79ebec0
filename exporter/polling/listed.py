"""Reads a list without a time filter, newest first: new items, open items, and the past page by page.

The first page shows what is new.  Further pages are read until every item that was open at the previous read has been seen, or
until requesting the rest by id costs no more.  Older items are the past: a cursor moves down through it, beside the polls.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import chain
from typing import Generic, NamedTuple

import msgspec

from exporter.counting.collected import Collected
from exporter.counting.coverage import MARGIN
from exporter.counting.holdings import Kept
from exporter.counting.spans import FOREVER
from exporter.hms.client import Client
from exporter.hms.errors import ApiError, NotFound, TooMuch
from exporter.hms.items import I
from exporter.hms.pace import Patience
from exporter.hms.pages import Page
from exporter.hms.records import Rejection, record_id

_PAGES_AT_ONCE = 10
"""The number of pages of the past that are read between two writes to the store."""


class Asking(NamedTuple):
    """The means of one read: a connection, a deadline (monotonic seconds), and a function to call between two pages."""

    client: Client
    until: float
    pause: Callable[[], None] = lambda: None
    monotonic: Callable[[], float] = time.monotonic

    @property
    def patience(self) -> Patience:
        """The deadline for retries."""
        return Patience(time.monotonic() + self.until - self.monotonic())

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return self.monotonic() >= self.until


class RoomsOfInterest(NamedTuple):
    """A reader's questions about rooms, and its callbacks for rejected and for odd records."""

    covers: Callable[[str], bool | None]
    name_of: Callable[[str], str | None]
    rejected: Callable[[Rejection], None]
    odd: Callable[[str], None]


class ListReader(Generic[I]):
    """Reads one kind's list into its counters.  The caller assigns accounts to new items, finishes the read and stores it."""

    def __init__(self, collected: Collected[I], rooms: RoomsOfInterest) -> None:
        self._collected = collected
        self._rooms = rooms
        self._nonsense = self._understood = 0
        """The numbers of rejected and of accepted records in the last read."""

    @property
    def behind(self) -> bool:
        """Whether a part of the past is still unread."""
        return any(not task.is_open for task in self._collected.coverage.tasks.values())

    def read(self, asking: Asking, longest_gap: int) -> ApiError | None:
        """Reads new and open items.  Returns an error that came after the first page; raises `ApiError` for one before."""
        collected, route, patience = self._collected, self._collected.kind.route, asking.patience
        pages = asking.client.pages(route, {}, patience, optional=True)
        first = next(pages)
        sent = asking.client.sent
        asking.client.decide_on_clock(patience)
        now = asking.client.time_at(sent)
        collected.begin(now)
        collected.coverage.begin(now, longest_gap)
        horizon = collected.coverage.horizon
        self._nonsense = self._understood = 0
        fault: ApiError | None = None
        oldest, cursor, count = now, "", 0
        try:
            for page in chain([first], pages):
                oldest = min(oldest, self._see(page))
                if not page.ends:
                    continue
                cursor, count = page.last or "", count + 1
                asking.pause()
                if not page.goes_on:
                    oldest, cursor = -FOREVER, ""
                elif (horizon is None or oldest < horizon) and not self._worth_another(oldest, now, count):
                    break
                elif asking.is_over:
                    raise ApiError(f"{route}: the poll's time is over", transport=True)
        except ApiError as error:
            fault = error
        if self._nonsense and not self._understood:
            return fault  # nothing is known of the list: nothing of it was read, so nothing counts as missing from it
        self._has_shown(oldest, horizon, cursor, now)
        return self._look_for_the_rest(oldest, asking, patience) if fault is None else fault

    def _see(self, page: Page) -> int:
        """Counts a page; returns the time of its oldest record, `FOREVER` for an empty page."""
        collected, now = self._collected, self._collected.now or 0
        oldest = FOREVER
        for raw in page.data or ():
            item = collected.kind.decode(raw, now)
            self._understood += not isinstance(item, Rejection)
            if isinstance(item, Rejection):
                self._nonsense += 1
                self._rooms.rejected(item)
                collected.unread(record_id(raw))
                continue
            oldest = min(oldest, item.created)
            if item.id in collected.kept or self._rooms.covers(item.room_id) is not False:
                collected.see(item, self._rooms.name_of(item.room_id))
                if item.oddity is not None:
                    self._rooms.odd(item.oddity)
        return oldest

    def _worth_another(self, oldest: int, now: int, pages: int) -> bool:
        """Whether another page costs less than requesting the items not shown yet one by one."""
        rest = [kept.item.created for kept in self._collected.unseen() if kept.item.created < oldest + MARGIN]
        if not rest:
            return False
        a_page = max(1, (now - oldest) // pages)
        return len(rest) > 1 + (oldest - min(rest)) // a_page

    def _has_shown(self, oldest: int, horizon: int | None, cursor: str, now: int) -> None:
        """Marks everything down to the oldest record shown as read; new items that are still unread become part of the past."""
        coverage = self._collected.coverage
        # Records may be slightly out of order: the last minutes that were shown are read again.
        # Nothing after now counts as read: the next read shows it.
        bottom = oldest if oldest == -FOREVER else min(oldest + MARGIN, now + 1)
        unread = (horizon, bottom - 1) if horizon is not None and bottom > horizon + 2 * MARGIN else None
        coverage.complete(now, unread=unread)
        self._read_down_to(bottom, now, cursor, now)

    def _read_down_to(self, bottom: int, top: int, cursor: str, now: int) -> None:
        coverage = self._collected.coverage
        for task in list(coverage.tasks.values()):
            if any(begin <= top and end >= bottom for begin, end in task.unread):
                coverage.has_read([task], bottom, top, now)
            if cursor and task.number in coverage.tasks and task.unread[-1][1] == bottom - 1:
                task.cursor = cursor
                coverage.changed_tasks.add(task.number)

    def _look_for_the_rest(self, oldest: int, asking: Asking, patience: Patience) -> ApiError | None:
        """Handles open items that the pages did not show: missing if the pages cover their place, otherwise requested one by one."""
        collected = self._collected
        rest: list[Kept[I]] = []
        for kept in collected.unseen():
            if oldest == -FOREVER or kept.item.created >= oldest + MARGIN or not collected.kind.by_id:
                collected.absent(kept)
            else:
                rest.append(kept)
        for kept in sorted(rest, key=lambda kept: kept.observed):
            if asking.is_over:
                return ApiError(f"{collected.kind.route}: the poll's time is over", transport=True)
            try:
                raw = asking.client.record(collected.kind.route, kept.item.id, patience, optional=True)
            except NotFound:
                collected.absent(kept)
            except ApiError as error:
                return error
            else:
                self._see(Page([msgspec.Raw(raw)]))
        return None

    # -- the past -------------------------------------------------------------------------------------------------

    def read_past(self, asking: Asking) -> ApiError | None:
        """Reads some pages of the past, continuing at the stored cursor."""
        coverage, now = self._collected.coverage, self._collected.now or 0
        task = max((task for task in coverage.tasks.values() if not task.is_open), key=lambda task: task.unread[-1][1])
        top = task.unread[-1][1] if task.cursor else now
        count = 0
        oldest = FOREVER
        try:
            parameters = {"start": task.cursor} if task.cursor else {}
            for page in asking.client.pages(self._collected.kind.route, parameters, asking.patience, optional=True):
                oldest = min(oldest, self._see(page))
                if not page.ends:
                    continue
                asking.pause()
                count += 1
                floor = min(of.unread[0][0] for of in coverage.tasks.values())
                if not page.goes_on or oldest < floor - MARGIN:
                    self._read_down_to(-FOREVER, top, "", now)
                    return None
                if oldest + MARGIN <= top:
                    self._read_down_to(oldest + MARGIN, top, page.last or "", now)
                if task.number in coverage.tasks:
                    task.cursor = page.last or ""
                    coverage.changed_tasks.add(task.number)
                if count >= _PAGES_AT_ONCE or asking.is_over or not coverage.tasks:
                    return None
        except ApiError as error:
            if count and asking.is_over:
                return None  # the poll's time is over; the next poll continues
            if isinstance(error, TooMuch | NotFound) and task.cursor and not count:
                task.cursor = ""  # the cursor's item is gone: the list is read again from its beginning
                coverage.changed_tasks.add(task.number)
            return error
        return None
