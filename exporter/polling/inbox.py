"""Webhooks from when they are answered until they are stored: each event is counted, and requests an early poll."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from exporter.counting import webhooks as counting
from exporter.counting.contribution import Account
from exporter.hms.webhooks import Event, MalformedEvent, decode_event
from exporter.logs import event, failure
from exporter.publish.exposition import Exposition
from exporter.publish.webhooks import workspace_sections
from exporter.state import webhooks as state
from exporter.state.store import Store, StoreError

REASONS = ("secret", "signature", "size", "json", "method")
"""The reasons for refusing a workspace's request."""
UNKNOWN = "_unknown"
"""The workspace label of requests for a workspace that does not exist."""
_GATHER_SECONDS = 0.1
"""Events that arrive within this time are stored together, with one write."""
_RETRY_SECONDS = 1.0
_MOST_WAITING = 10_000
"""The maximum number of events that wait to be stored: beyond it, 100ms is asked to try again."""

Taken = Literal["taken", "malformed", "busy"]


class Hearing:
    """One workspace's webhooks, counted and stored.  Its methods may be called from any thread.

    `now` gives the API's time; `early` is called with the rooms in which something has happened.
    """

    def __init__(self, workspace: str, store: Store, now: Callable[[], int], early: Callable[[Iterable[str]], None]) -> None:
        self.workspace = workspace
        self._store = store
        self._now = now
        self._early = early
        self._lock = threading.Lock()
        self._heard = state.restore(store, workspace)
        self._shown = dict(self._heard.counters)
        reasons = ("workspace",) if workspace == UNKNOWN else REASONS
        for reason in reasons:
            self._heard.reject(reason, 0, now())
        self._commit()

    def take(self, events: Iterable[Event], rejected: Mapping[str, int]) -> None:
        """Counts and stores events.  Raises `StoreError`; the next call then stores these events too."""
        events = list(events)
        with self._lock:
            try:
                now = self._now()
                known = state.known(self._store, self.workspace, [found.digest for found in events])
                self._heard.take(events, known, now)
                for reason, times in rejected.items():
                    self._heard.reject(reason, times, now)
                self._commit()
            finally:
                # Also when nothing can be stored: the sessions are polled in any case.
                if events:
                    self._early(found.room_id for found in events)

    def _commit(self) -> None:
        changed = set(self._heard.changed)
        state.commit(self._store, self.workspace, self._heard, self._now())
        for key in changed:
            found = self._heard.counters.get(key)
            if found is not None:
                self._shown[key] = found
            else:
                self._shown.pop(key, None)

    def place(self, owners_of: Callable[[list[str]], Mapping[str, Account | None]]) -> None:
        """Moves waiting counts to their accounts.

        `owners_of` returns the accounts of the rooms that are decided, `None` for a room that is not followed.  It may take long, so
        events can be stored meanwhile.  Raises `StoreError`.
        """
        owners = owners_of(self.waiting_rooms())
        with self._lock:
            for room_id, account in owners.items():
                self._heard.assign(counting.waiting(room_id), account)
            if self._heard.changed:
                self._commit()

    @property
    def waits(self) -> bool:
        """Whether any counts wait for their account."""
        return bool(self._heard.waiting)

    def waiting_rooms(self) -> list[str]:
        """The rooms of the waiting counts."""
        with self._lock:
            return [owner.id for owner in self._heard.waiting]

    def shown(self) -> dict[counting.Key, counting.Counter]:
        """The counters as stored."""
        with self._lock:
            return dict(self._shown)


class Inbox:
    """The webhooks of all workspaces: `take` and `reject` only queue, a thread does the rest."""

    def __init__(self, store: Store, exposition: Exposition) -> None:
        self._store = store
        self._exposition = exposition
        self._created = False
        self._lock = threading.Condition()
        self._events: dict[str, list[Event]] = {}
        self._rejected: dict[str, Counter[str]] = {}
        self._waiting = 0
        self._hearings: dict[str, Hearing] = {UNKNOWN: Hearing(UNKNOWN, store, lambda: time.time_ns() // 1000, lambda _: None)}
        self._stopped = False
        self._fails = False
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def hearing(self, workspace: str, now: Callable[[], int], early: Callable[[Iterable[str]], None]) -> Hearing:
        """Begins to receive the webhooks of a workspace.  Raises `StoreError`."""
        hearing = self._hearings[workspace] = Hearing(workspace, self._store, now, early)
        self._publish([workspace])
        return hearing

    def forget(self, workspace: str) -> None:
        """Stops receiving the webhooks of a workspace that was removed from the configuration."""
        self._hearings.pop(workspace, None)
        self._exposition.publish(_group(workspace), None)

    def configure(self, *, created: bool) -> None:
        """Sets whether the creation times of counters are published."""
        self._created = created
        self._publish(list(self._hearings))

    def start(self) -> None:
        """Starts the thread that stores events."""
        self._publish(list(self._hearings))
        self._thread.start()

    def take(self, workspace: str, body: bytes) -> Taken:
        """Queues a webhook; returns whether it is valid, and whether there was room for it."""
        if self._waiting >= _MOST_WAITING or workspace not in self._hearings:
            return "busy"
        try:
            found = decode_event(body)
        except MalformedEvent:
            return "malformed"
        with self._lock:
            self._events.setdefault(workspace, []).append(found)
            self._waiting += 1
            self._lock.notify()
        return "taken"

    def reject(self, workspace: str, reason: str) -> None:
        """Counts a refused request."""
        with self._lock:
            self._rejected.setdefault(workspace, Counter())[reason] += 1
            self._lock.notify()

    def stop(self) -> None:
        """Stores the queued events, and ends the thread."""
        with self._lock:
            self._stopped = True
            self._lock.notify()
        if self._thread.ident is not None:
            self._thread.join(2 * _RETRY_SECONDS)

    def _run(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._stopped or self._events or self._rejected)
                events, rejected = self._events, self._rejected
                self._events, self._rejected, self._waiting = {}, {}, 0
                stopped = self._stopped
            try:
                self._store_all(events, rejected)
            except Exception:  # noqa: BLE001 (the thread must survive any error)
                failure("webhooks could not be counted")
            if stopped:
                return
            time.sleep(_RETRY_SECONDS if self._fails else _GATHER_SECONDS)  # to gather more events for one write

    def _store_all(self, events: dict[str, list[Event]], rejected: dict[str, Counter[str]]) -> None:
        stored, fault = [], None
        for workspace in {**events, **rejected}:
            hearing = self._hearings.get(workspace)
            if hearing is None:
                continue
            try:
                hearing.take(events.get(workspace, ()), rejected.get(workspace, {}))
                stored.append(workspace)
            except StoreError as error:
                fault = error
                # Events that were counted already are recognized: they are only stored.
                with self._lock:
                    self._events[workspace] = [*events.get(workspace, ()), *self._events.get(workspace, ())]
                    self._waiting += len(events.get(workspace, ()))
        if fault is not None and not self._fails:
            event("warn", "webhooks cannot be stored", reason=fault)
        elif fault is None and self._fails:
            event("info", "webhooks are stored again")
        self._fails = fault is not None
        self._publish(stored)

    def _publish(self, workspaces: Iterable[str]) -> None:
        for workspace in workspaces:
            hearing = self._hearings.get(workspace)
            if hearing is not None:
                self._exposition.publish(_group(workspace), workspace_sections(workspace, hearing.shown(), created=self._created))


def _group(workspace: str) -> str:
    """The exposition's group of sections that change with each webhook, separate from those that change with each poll."""
    return f"{workspace}\0webhooks"
