"""The past of recordings and streams: when their live counting begins, and their records, which are read into the work file.

A job that the live counters leave out is part of the base, like a session (see the package).  But a job may have stopped long
before its record says that it is over, because a recording is composed for hours after its stop.  The live counters count it if
the exporter's first read still saw it open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from exporter.commands.backfill.arrange import Since
from exporter.commands.backfill.gather import Span
from exporter.commands.backfill.work import JobRow, Work
from exporter.config.config import CollectConfig, StorageConfig
from exporter.counting.coverage import MARGIN
from exporter.counting.followed import NOT_BEGUN, Followed
from exporter.counting.holdings import Kind
from exporter.counting.jobs import EXTERNAL_STREAMS, LIVE_STREAMS, RECORDINGS
from exporter.counting.scope import Scope
from exporter.hms.client import Api, Client
from exporter.hms.errors import Forbidden, NotFound, TooMuch
from exporter.hms.jobs import Job
from exporter.hms.pace import Patience
from exporter.hms.pages import Page
from exporter.hms.records import Rejection
from exporter.logs import event
from exporter.state.collected import reach, remembered
from exporter.state.view import StateView, look_into

KINDS: dict[str, Kind[Job]] = {kind.name: kind for kind in (RECORDINGS, LIVE_STREAMS, EXTERNAL_STREAMS)}
"""The kinds of jobs, by their keys in `collect`."""
_PATIENCE = Patience(float("inf"))


class JobsPlan(msgspec.Struct, frozen=True):
    """The plan for one kind, in µs: the end of its series, and what the live counters count.

    `since`, `rooms_since` and `otherwise` are as in `Plan`.  `whole` and `rooms_whole` are the first complete reads.
    """

    name: str
    end: int
    otherwise: int
    since: list[tuple[str, int]] = []
    rooms_since: dict[str, int] = {}
    whole: list[tuple[str, int]] = []
    rooms_whole: dict[str, int] = {}

    def span(self, start: int) -> Span:
        """The jobs that affect the steps from `start` on, as in `Plan.span`."""
        sinces = [*(since for _, since in self.since), *self.rooms_since.values(), self.otherwise, start]
        earliest = min(sinces)
        return Span(earliest - KINDS[self.name].reach_back, max(self.end, *sinces), earliest)

    def counts(self, row: JobRow, name: str) -> bool:
        """Whether the live counters count a job."""
        job = row.job
        since = Since(self.since, self.rooms_since, self.otherwise).of(row.room_id, name)
        whole = Since(self.whole, self.rooms_whole, self.otherwise).of(row.room_id, name)
        overdue = job.created < whole - KINDS[self.name].reach_back
        if job.ended is None or job.ended > since:
            # A job that had been open for too long by the first read was not followed.
            return not (overdue and (job.ended is None or job.ended > whole))
        # It had stopped by then; it counts if it was still open in the first read.
        return row.known if row.known is not None else job.changed > whole and not overdue


class LiveKind(msgspec.Struct):
    """A kind in the live exporter's state: `reading` says that a part of its past that counts is still unread."""

    entries: list[tuple[str, Followed]]
    rooms: dict[str, Followed]
    now: int | None


def live_kind(view: StateView, workspace: str, name: str, shares: Callable[[str], bool]) -> LiveKind:
    """A kind in the state, with only those entries that may share a room with the configuration's entries."""
    now, coverage = reach(view, workspace, KINDS[name])
    entries = sorted(coverage.entries.items(), key=lambda item: item[1].entered)
    return LiveKind([(key, of) for key, of in entries if shares(key)], coverage.rooms, now)


def wanted_kinds(collect: CollectConfig) -> list[str]:
    """The kinds that the configuration collects."""
    return [name for name in KINDS if getattr(collect, name)]


def plan_kind(name: str, live: LiveKind, end: int, otherwise: int, *, from_now_on: bool, fixed: bool) -> JobsPlan | None:
    """The plan of one kind; `None` while the live exporter still reads its past.  `end` is final if `fixed` is true."""
    if not live.entries:
        return JobsPlan(name, end, otherwise)
    whole = [of.whole for _, of in live.entries if of.whole is not None]
    if not whole:
        return None
    join = min(of.since for _, of in live.entries) if from_now_on else min(whole)
    rooms = {room_id: of for room_id, of in live.rooms.items() if of.since != NOT_BEGUN}
    return JobsPlan(
        name=name,
        end=min(end, join) if fixed else join,
        otherwise=otherwise,
        since=[(key, of.since) for key, of in live.entries],
        rooms_since={room_id: of.since for room_id, of in rooms.items()},
        whole=[(key, _first_read(of)) for key, of in live.entries],
        rooms_whole={room_id: _first_read(of) for room_id, of in rooms.items()},
    )


def _first_read(followed: Followed) -> int:
    return followed.since if followed.whole is None else followed.whole


# -- reading ----------------------------------------------------------------------------------------------------------


class _Position(msgspec.Struct):
    """How far a list has been read: the cursor, whether it is finished, and the number of invalid records."""

    cursor: str = ""
    done: bool = False
    rejected: int = 0


class Reader:
    """Reads the list of one kind into the work file, newest first; an interrupted run continues where it stopped."""

    def __init__(self, work: Work, client: Client, api: Api, scope: Scope, storage: StorageConfig, workspace: str) -> None:
        self._work, self._client, self._api = work, client, api
        self._scope, self._storage, self._workspace = scope, storage, workspace

    def read(self, plan: JobsPlan, start: int, told: Callable[[int, int], None]) -> int:
        """Reads the list; returns how many records were invalid.  Calls `told` with how much of the time is done.  Raises `ApiError`."""
        note = f"jobs {plan.name}"
        position = msgspec.json.decode(self._work.noted(note) or b"{}", type=_Position)
        if position.done:
            return position.rejected
        try:
            self._read(plan, start, position, told)
        except (NotFound, TooMuch):
            if not position.cursor:
                raise
            position = _Position()  # the cursor of an earlier run is gone
            self._read(plan, start, position, told)
        position.done = True
        self._work.note(**{note: msgspec.json.encode(position)})
        return position.rejected

    def leave_out(self, plan: JobsPlan, start: int, told: Callable[[int, int], None]) -> int:
        """As `read`, but leaves out a kind that the workspace may not read, and logs that."""
        try:
            return self.read(plan, start, told)
        except (Forbidden, NotFound) as error:
            event("warn", "left out, because the workspace may not read it", collector=plan.name, reason=error)
            return 0

    def _read(self, plan: JobsPlan, start: int, position: _Position, told: Callable[[int, int], None]) -> None:
        span, now = plan.span(start), self._api.now()
        seen = look_into(self._storage, lambda view: remembered(view, self._workspace, KINDS[plan.name]))
        parameters = {"start": position.cursor} if position.cursor else {}
        for page in self._client.pages(KINDS[plan.name].route, parameters, _PATIENCE, optional=True):
            jobs = list(self._jobs(page, plan, position))
            rows = [JobRow(plan.name, job, None if seen is None else seen.has(job)) for job in jobs if _has_a_part(job, span)]
            with self._work.transaction():
                self._work.put_jobs(row for row in rows if not self._scope.only_ids or row.room_id in self._scope.ids)
                if page.ends:
                    position.cursor = page.last or ""
                    self._work.note(**{f"jobs {plan.name}": msgspec.json.encode(position)})
            oldest = min((job.created for job in jobs), default=now)
            told(now - oldest, max(1, now - span.first))
            if page.ends and oldest < span.first - MARGIN:
                break

    def _jobs(self, page: Page, plan: JobsPlan, position: _Position) -> Iterator[Job]:
        for raw in page.data or ():
            job = KINDS[plan.name].decode(raw, self._api.now())
            if isinstance(job, Rejection):
                position.rejected += 1
            else:
                yield job


def _has_a_part(job: Job, span: Span) -> bool:
    return job.created <= span.last and (job.ended is None or job.changed > span.over)
