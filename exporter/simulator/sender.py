"""Sends a workspace's webhooks to a URL as 100ms does: as things happen, with retries after 1, 3 and 10 seconds."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from types import TracebackType
from typing import Final

import msgspec
import requests

from exporter import logs
from exporter.simulator.happenings import Delivery, WebhookEvent
from exporter.simulator.server import Clock, real_clock
from exporter.simulator.shape import fixed_id, fixed_uuid
from exporter.simulator.webhooks import webhook_events
from exporter.simulator.workspace import Workspace
from exporter.times import MINUTE

RETRIES: Final = (1.0, 3.0, 10.0)
"""The waits, in seconds, before each of 100ms's retries."""

SIGNATURE_HEADER: Final = "x-100ms-signature"

_TICK_SECONDS: Final = 0.1
_LOOK_BACK: Final = MINUTE
"""Events that a test scripts this much late, for a moment that has just passed, are still sent."""

_ATTEMPTS_KEPT: Final = 10_000

Plan = Callable[[WebhookEvent], Sequence[float]]
"""The delays, in seconds, of each copy of an event: `[0]` sends it normally, `[]` never, `[0, 5]` twice."""


def at_once(_event: WebhookEvent) -> Sequence[float]:
    """Sends each event once, as it happens."""
    return (0.0,)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One POST; `status` is 0 if it got no answer."""

    event: WebhookEvent
    number: int
    """1 for the first attempt."""
    status: int
    is_replay: bool


@dataclass(order=True, slots=True)
class _Due:
    """A copy of an event, and the moment of the monotonic clock when it is due."""

    at: float
    serial: int
    event: WebhookEvent = field(compare=False)
    number: int = field(compare=False, default=1)
    is_replay: bool = field(compare=False, default=False)


class WebhookSender:
    """Posts the events from `start` to `stop`, or within its `with` block; one at a time, in order except for retries.

    `headers` are sent along; with `signature_secret` the body is signed, and `signature_prefix` precedes the signature.
    Each result also shows in the workspace's own `/analytics/webhooks`.  `plan` scripts which events are lost, late or doubled.
    """

    def __init__(
        self,
        workspace: Workspace,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        signature_secret: str | None = None,
        signature_prefix: str = "",
        clock: Clock = real_clock,
        plan: Plan = at_once,
        retries: Sequence[float] = RETRIES,
        timeout: float = 5,
    ) -> None:
        self.plan = plan
        self._workspace = workspace
        self._url = url
        self._headers = {"Content-Type": "application/json", "User-Agent": "100ms-webhook", **(headers or {})}
        self._signature_secret = signature_secret
        self._signature_prefix = signature_prefix
        self._clock = clock
        self._retries = tuple(retries)
        self._timeout = timeout
        self._account = fixed_id(f"customer {workspace.access_key}")
        self._attempts: deque[Attempt] = deque(maxlen=_ATTEMPTS_KEPT)
        self._lock = threading.Condition()
        self._due: list[_Due] = []
        self._serial = 0
        self._results = 0
        self._posting = False
        self._begun = self._told = 0
        self._seen: dict[str, int] = {}
        self._stopping = False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> WebhookSender:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    @property
    def attempts(self) -> list[Attempt]:
        """The latest POSTs, in the order they ended."""
        with self._lock:
            return list(self._attempts)

    def start(self) -> None:
        """Sends events from this moment of the clock on."""
        self._begun = self._told = self._clock() - 1
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="simulated-webhooks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Sends no more, and waits for the POST in progress.  Calling it twice does no harm."""
        if self._thread is None:
            return
        with self._lock:
            self._stopping = True
            self._lock.notify_all()
        self._thread.join()
        self._thread = None

    def send(self, event: WebhookEvent, *, is_replay: bool = False, after: float = 0) -> None:
        """Posts the event once more, after this many seconds."""
        with self._lock:
            self._push(_Due(time.monotonic() + after, 0, event, 1, is_replay))
            self._lock.notify_all()

    def replay(self, after: int, until: int) -> int:
        """Sends everything that happened later than `after`, up to `until`, again as a replay; returns how many events that are."""
        with self._workspace.lock:
            events = webhook_events(self._workspace, after, until)
        for event in events:
            self.send(event, is_replay=True)
        return len(events)

    def settle(self, timeout: float) -> bool:
        """Waits until all events so far are delivered or given up; returns `False` if that takes more than `timeout` seconds."""
        now = self._clock()
        with self._lock:
            return self._lock.wait_for(lambda: self._told >= now and not self._due and not self._posting, timeout)

    def _run(self) -> None:
        with requests.Session() as http:
            http.trust_env = False
            while True:
                self._notice()
                due = self._next_due()
                if due is None:
                    if self._stopping:
                        return
                    continue
                status = self._post(http, due)
                self._settle_up(due, status)

    def _notice(self) -> None:
        """Queues the events since the last call."""
        now = self._clock()
        with self._workspace.lock:
            events = webhook_events(self._workspace, max(self._begun, min(self._told, now) - _LOOK_BACK), now)
        fresh = [event for event in events if event.id not in self._seen]
        with self._lock:
            for event in fresh:
                self._seen[event.id] = event.at
                for wait in self.plan(event):
                    self._push(_Due(time.monotonic() + wait, 0, event))
            if self._told // MINUTE != now // MINUTE:
                self._seen = {known: at for known, at in self._seen.items() if at >= self._told - 2 * _LOOK_BACK}
            self._told = now
            self._lock.notify_all()

    def _next_due(self) -> _Due | None:
        """The next event to post; `None` if none is due within a moment, or the sender stops."""
        with self._lock:
            wait = min(_TICK_SECONDS, max(0.0, self._due[0].at - time.monotonic())) if self._due else _TICK_SECONDS
            if wait and not self._stopping:
                self._lock.wait(wait)
            if self._stopping or not self._due or self._due[0].at > time.monotonic():
                return None
            self._posting = True
            return heappop(self._due)

    def _post(self, http: requests.Session, due: _Due) -> int:
        body = msgspec.json.encode(due.event.body(self._account, is_replay=due.is_replay))
        headers = dict(self._headers)
        if self._signature_secret is not None:
            signature = hmac.new(self._signature_secret.encode(), body, hashlib.sha256).hexdigest()
            headers[SIGNATURE_HEADER] = self._signature_prefix + signature
        try:
            return http.post(self._url, data=body, headers=headers, timeout=self._timeout, allow_redirects=False).status_code
        except requests.RequestException:
            return 0

    def _settle_up(self, due: _Due, status: int) -> None:
        """Queues the next attempt, or tells the workspace the result."""
        over = status == 200 or due.number > len(self._retries)
        if over:
            self._results += 1
            error = None if status == 200 else f"status {status}" if status else "timeout"
            event = due.event
            result = Delivery(
                fixed_uuid(f"delivery {event.id} {self._results}"), event.at, event.room_id, event.type, error, event.session_id
            )
            self._workspace.beside.deliver(result)
            if error is not None:
                logs.event("warn", "a webhook of the simulated 100ms was given up", type=event.type, error=error)
        with self._lock:
            self._attempts.append(Attempt(due.event, due.number, status, due.is_replay))
            if not over:
                wait = self._retries[due.number - 1]
                self._push(_Due(time.monotonic() + wait, 0, due.event, due.number + 1, due.is_replay))
            self._posting = False
            self._lock.notify_all()

    def _push(self, due: _Due) -> None:
        self._serial += 1
        due.serial = self._serial
        heappush(self._due, due)
