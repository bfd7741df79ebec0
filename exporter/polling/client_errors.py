"""Asks 100ms for the client errors of ended sessions: one call for each session, unless it has many errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from exporter.counting.changes import Over
from exporter.counting.client_errors import TOLD_FOR, count
from exporter.hms.client_errors import ClientError, decode_client_error
from exporter.hms.errors import ApiError, Forbidden, NotFound
from exporter.hms.pages import EVENTS
from exporter.hms.records import Rejection
from exporter.polling.listed import Asking
from exporter.publish.added import CLIENT_ERROR_FAMILIES
from exporter.state.sums import Additions

_ROUTE = "/analytics/events"
SINCE = "client_errors.since"
"""The mark from which sessions count, by their end."""
_AT_ONCE = 50
"""How many sessions are read before their errors are stored."""
_MOST_FAILURES = 3
"""After this many failures in a row, the collector itself counts as failed, not only the sessions."""
_UNKNOWN_READS = 3
"""After this many reads that do not know a session while others are answered, it counts as a session without errors."""
_TRY_AGAIN = 600.0
"""Seconds until a session that fails alone is tried again."""


class _Failing(NamedTuple):
    """A session that cannot be read: the error, when to try again (monotonic seconds), and how often it was unknown."""

    error: ApiError
    again: float
    unknown: int


_Found = dict[str, tuple[Over, list[ClientError]]]


class ClientErrors:
    """Reads the waiting sessions, the earliest first.  A session that fails alone keeps waiting, without delaying others."""

    name = "client_errors"
    families = CLIENT_ERROR_FAMILIES

    def __init__(self, rejected: Callable[[Rejection], None]) -> None:
        self._rejected = rejected
        self._failing: dict[str, _Failing] = {}
        self._answered = False
        """Whether any session was ever answered: if so, an unknown session may be the only one."""
        self.behind = False

    def beginning(self, additions: Additions, since: int) -> dict[str, int]:
        """The marks to remember at the first poll."""
        return {} if SINCE in additions.marks else {SINCE: since}

    def read(self, asking: Asking, additions: Additions, now: int) -> ApiError | None:
        """Reads some of the waiting sessions.

        Returns the error of single sessions.  Raises `ApiError` if all of them may be affected, and `StoreError`.
        """
        found: _Found = {}
        failed: dict[str, ApiError] = {}
        in_a_row = 0
        self.behind = False
        for session_id, over in self._due(additions, asking.monotonic()).items():
            if asking.is_over or len(found) >= _AT_ONCE:
                self.behind = True
                break
            try:
                found[session_id] = over, [] if over.ended < now - TOLD_FOR else self._ask(asking, session_id, over)
                in_a_row = 0
            except ApiError as error:
                if found and asking.is_over:  # the poll's time has cut it short
                    self.behind = True
                    break
                if isinstance(error, Forbidden) or error.refused or error.transport or error.throttled:
                    self._store(additions, found)
                    raise
                failed[session_id], in_a_row = error, in_a_row + 1
                if in_a_row >= _MOST_FAILURES:
                    break
            asking.pause()
        fault = self._note(failed, found, asking.monotonic(), of_all=in_a_row >= _MOST_FAILURES)
        self._store(additions, found)
        if fault is not None:
            raise fault
        first = next((failing.error for failing in self._failing.values()), None)
        return None if first is None else ApiError(f"{len(self._failing)} sessions cannot be read: {first}")

    def quiet(self, _additions: Additions, _now: int) -> bool:
        """Never, because no call is made when no session waits."""
        return False

    def _due(self, additions: Additions, now: float) -> dict[str, Over]:
        """The sessions that are due; if all have failed, the earliest, to see whether it still fails."""
        waiting = additions.waiting(_AT_ONCE + 1 + len(self._failing))
        self._failing = {session_id: failing for session_id, failing in self._failing.items() if session_id in waiting}
        due = {i: over for i, over in waiting.items() if i not in self._failing or self._failing[i].again <= now}
        return due or dict(list(waiting.items())[:1])

    def _ask(self, asking: Asking, session_id: str, over: Over) -> list[ClientError]:
        parameters = {"room_id": over.room_id, "session_id": session_id, "error": "true"}
        errors = []
        for page in asking.client.pages(_ROUTE, parameters, asking.patience, EVENTS, optional=True):
            for raw in page.data or ():
                error = decode_client_error(raw)
                if isinstance(error, Rejection):
                    self._rejected(error)
                elif error is not None:
                    errors.append(error)
        self._answered = True
        return errors

    def _note(self, failed: dict[str, ApiError], found: _Found, now: float, *, of_all: bool) -> ApiError | None:
        """Moves failed sessions behind the others.  Returns the error that may affect all sessions, if there is one."""
        alone = bool(found) and not of_all
        for session_id, error in failed.items():
            before = self._failing.get(session_id, _Failing(error, now, 0))
            unknown = before.unknown + (alone and isinstance(error, NotFound))
            # A session that was asked early, because no other was due, keeps the moment of its next try.
            again = before.again if before.again > now else now + _TRY_AGAIN
            self._failing[session_id] = _Failing(error, again, unknown)
        fault = None if alone else next(iter(failed.values()), None)
        return ApiError(str(fault)) if isinstance(fault, NotFound) and self._answered and len(failed) == 1 else fault

    def _store(self, additions: Additions, found: _Found) -> None:
        """Counts and stores what was read.  A session that has been unknown for long stops waiting too: it has no errors."""
        done = {session_id for session_id, failing in self._failing.items() if failing.unknown >= _UNKNOWN_READS} | found.keys()
        if done:
            additions.open({over.account for over, errors in found.values() if errors})
            for session_id, (over, errors) in found.items():
                count(additions.sums, session_id, over, errors)
            additions.commit({}, done)
            self._failing = {session_id: failing for session_id, failing in self._failing.items() if session_id not in done}
