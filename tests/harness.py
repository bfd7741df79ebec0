"""Helpers for the tests of counting: records as the API writes them, and a ledger with its state file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from exporter.config.config import KeyPair, RoomById, RoomsByName, Secret, WorkspaceConfig
from exporter.counting.accounts import AccountState, Gauges, RoleTotals, SessionTotals
from exporter.counting.contribution import Account, room_account
from exporter.counting.ledger import Ledger
from exporter.counting.poll import Poll
from exporter.counting.scope import Scope
from exporter.hms.records import decode_session
from exporter.hms.steps import decode_step
from exporter.publish.status import Status
from exporter.simulator import Session, truth_of
from exporter.state.store import Store
from exporter.times import HOUR, SECOND, rfc3339
from exporter.web.landing import render
from lab import counters
from lab.bench import START, Bench
from lab.counters import Sums, true_sums

T0 = START
"""A Monday, 08:00 UTC."""

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""A folder in memory where possible. Tests store thousands of polls, and should not wait for the disk."""

Peers = Mapping[str, Mapping[str, object]]


def at(seconds: float) -> int:
    """A moment after `T0`, in microseconds."""
    return T0 + round(seconds * SECOND)


def peer(joined: int, left: int | None = None, role: str = "guest", user: str = "") -> dict[str, Any]:
    """A peer as the API shows it.  Without `left` it is connected."""
    record: dict[str, Any] = {"name": "Some Body", "role": role, "joined_at": rfc3339(joined)}
    if left is not None:
        record["left_at"] = rfc3339(left)
    if user:
        record["user_id"] = user
    return record


def session(session_id: str, peers: Peers | None = None, *, room: str = "room", started: int = T0, ended: int | None = None) -> bytes:
    """A session's record as the API shows it.  Without `ended` it is running."""
    record = {
        "id": session_id,
        "room_id": room,
        "active": ended is None,
        "peers": dict(peers or {}),
        "created_at": rfc3339(started),
        "updated_at": rfc3339(started if ended is None else ended),
    }
    return json.dumps(record).encode()


class Series(NamedTuple):
    """A published counter of an account, for one of its roles or (`""`) for its sessions.  Times are in microseconds."""

    account: str
    role: str
    name: str


def published(accounts: Iterable[AccountState]) -> dict[Series, int]:
    """Every counter as it is published."""
    found: dict[Series, int] = {}
    for state in accounts:
        by_role: dict[str, SessionTotals | RoleTotals] = {"": state.totals, **state.roles}
        for role, totals in by_role.items():
            found |= {Series(state.account.id, role, name): value for name, value in counters.published(totals).items()}
    return found


def settled_seconds(ledger: Ledger) -> dict[str, int]:
    """Participant time of ended sessions by account, over all roles (µs)."""
    return {account.id: sum(role.seconds for role in state.roles.values()) for account, state in ledger.accounts.items()}


def scope_of(keys: Iterable[str]) -> Scope:
    """The scope of a configuration with these entries: an id, `~` and a pattern, or `*` for all rooms."""
    rooms = [RoomsByName(re.compile(key[1:])) if key.startswith("~") else RoomById(key) for key in keys]
    return Scope(WorkspaceConfig("w", KeyPair(Secret("k"), Secret("s")), None if "*" in keys else tuple(rooms)))


class Counting:
    """A ledger and its state file, which tests feed with the records of polls.  Each room has an account of its own.

    `keys` are the configuration's entries, as `scope_of` has them; a room's name is its id.  Sessions count that end after `since`.
    Peers in the roles `bots` are no people.  Without `steps` each record is decoded whole.
    """

    def __init__(
        self, path: Path, keys: Iterable[str] = ("*",), since: int = T0, bots: frozenset[str] = frozenset(), *, steps: bool = True
    ) -> None:
        self.path = path
        self.steps = steps
        self.bots = bots
        self.keys = list(keys)
        self.since = since
        self.store = Store(path)
        self.ledger = Ledger()
        self.ledger.leave_out(bots)
        self._configured = False
        self._now: Poll | None = None
        self.committed: dict[Series, int] = {}
        """What was published last."""

    def begin(self, now: int) -> None:
        """Begins a poll.  The first poll of a process also enters the configuration."""
        self._now = Poll(self.ledger, now, HOUR)
        if not self._configured:
            self.ledger.coverage.configure(self.scope, self.since, now, str)
            self._configured = True

    def configure(self, keys: Iterable[str], since: int | None = None) -> None:
        """Uses other entries from the next poll on."""
        self.keys, self.since = list(keys), self.since if since is None else since
        self._configured = False

    @property
    def now(self) -> Poll:
        """The beginning of the latest poll."""
        assert self._now is not None
        return self._now

    @property
    def scope(self) -> Scope:
        """The configuration's rooms."""
        return scope_of(self.keys)

    def see(self, raw: bytes) -> None:
        """Takes in a record."""
        digest = hash(raw)
        if self.now.see_unchanged(digest):
            return
        step = decode_step(raw, self.now.now, self.now.known) if self.steps else None
        if step is not None:
            if step.session.id in self.ledger.tracked or self.scope.covers(step.session.room_id, step.session.room_id):
                self.now.see_step(step, step.session.room_id, digest)
            return
        found, rejections = decode_session(raw, self.now.now)
        if found is None:
            self.now.unread(None)
        elif found.id in self.ledger.tracked or self.scope.covers(found.room_id, found.room_id):
            self.now.see(found, found.room_id, None if rejections else digest)

    def assign(self) -> None:
        """Assigns every session to its room's account, which is loaded as it was stored."""
        for room_id in self.now.unassigned_rooms():
            account = room_account(room_id)
            self.open(account)
            self.now.assign(room_id, room_id, account)

    def open(self, account: Account) -> None:
        """Takes an account into use."""
        if account not in self.ledger.accounts:
            stored = self.store.account("w", account)
            if stored is None:
                self.ledger.open(account)
            else:
                self.ledger.restore([stored])

    def end(self, *, complete: bool = True, fresh: Iterable[Account] | None = None, past: bool = False) -> None:
        """Ends the poll (`past`: it has read all of the past too). It is counted, stored and, in `committed`, published."""
        coverage, now = self.ledger.coverage, self.now.now
        if complete:
            coverage.complete(now)
        for (first, last), tasks in coverage.unread_spans(now) if past else ():
            coverage.has_read(tasks, first, last, now)
        self.assign()
        self.now.finish(fresh, 0.0)
        self.ledger.forget(str)
        self.commit()

    def commit(self) -> None:
        """Stores the ledger's changes, then publishes them."""
        self.store.commit("w", self.ledger)
        self.committed = published(self.ledger.accounts.values())

    def poll(self, now: int, *records: bytes, unknown: Iterable[str] = (), complete: bool = True) -> None:
        """A poll that reads these records and, if `complete`, all of the past.  The API answers 404 for the `unknown` sessions."""
        self.begin(now)
        for raw in records:
            self.see(raw)
        for session_id in unknown:
            self.now.unknown(session_id)
        self.end(complete=complete, past=complete)

    def restart(self) -> None:
        """Kills the process and starts another one, which publishes the content of the state file."""
        self.store.close()
        self.store = Store(self.path)
        self.ledger = Ledger()
        self.ledger.leave_out(self.bots)
        self._configured = False
        self._now = None
        self.store.restore("w", self.ledger)
        self.ledger.restore(self.store.accounts("w", 0))

    def close(self) -> None:
        """Closes the state file."""
        self.store.close()

    def value(self, name: str, role: str = "", room: str = "room") -> int:
        """A published counter; 0 if there is no such series."""
        return published(self.ledger.accounts.values()).get(Series(room, role, name), 0)

    def seconds(self, role: str = "guest", room: str = "room") -> float:
        """Published participant time in seconds."""
        return self.value("seconds", role, room) / SECOND

    def gauges(self, room: str = "room") -> Gauges:
        """The room's gauges."""
        found = self.ledger.accounts[room_account(room)].gauges
        assert found is not None
        return found


def script_totals(sessions: list[Session], now: int, since: int) -> dict[str, Sums]:
    """The script's totals by room, for sessions that ended after `since`."""
    return true_sums(truth_of([call for call in sessions if call.closed_at is None or call.closed_at > since], now))


def places_of(mark: str, bench: Bench, caplog: pytest.LogCaptureFixture) -> list[str]:
    """The places (pages, log, state) in which a text appears."""
    status = Status("1", "", 0.0, bench.config.poll.interval, (bench.poller.status,))
    places = {
        "/metrics": bench.page(),
        "/metrics in OpenMetrics": b"".join(bench.exposition.page("application/openmetrics-text", "").chunks).decode(),
        "the landing page": render(status, 0.0),
        "the log": caplog.text + "".join(str(vars(record)) for record in caplog.records),
        **{file.name: file.read_bytes().decode(errors="replace") for file in bench.state_file.parent.iterdir()},
    }
    return [place for place, text in places.items() if mark in text]
