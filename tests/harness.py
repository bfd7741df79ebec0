"""What the tests of the counting share: records as the API writes them, a ledger with its state file, and a poller over HTTP."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from exporter.config.config import (
    ApiConfig,
    Config,
    KeyPair,
    LimitsConfig,
    PollConfig,
    RoomById,
    RoomsByName,
    Secret,
    WorkspaceConfig,
)
from exporter.counting.accounts import AccountState, Gauges
from exporter.counting.contribution import Account, room_account
from exporter.counting.ledger import Ledger
from exporter.counting.poll import Poll
from exporter.counting.rooms import KnownRoom
from exporter.counting.scope import Scope
from exporter.hms.client import Api
from exporter.hms.records import decode_session
from exporter.polling.names import NameReader
from exporter.polling.poller import WorkspacePoller
from exporter.publish.exposition import Exposition
from exporter.publish.selfmetrics import SelfMetrics
from exporter.simulator import Session, SimulatedApi, World, truth_of
from exporter.state.store import Store
from exporter.times import HOUR, SECOND, rfc3339

T0 = 1_772_438_400 * SECOND
"""A Monday, 08:00 UTC."""

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where a state file does not wait for a disk: thousands of polls are stored, and what a disk adds is no part of the tests."""

Peers = Mapping[str, Mapping[str, object]]


def at(seconds: float) -> int:
    """A moment so long after `T0`, in microseconds."""
    return T0 + round(seconds * SECOND)


def peer(joined: int, left: int | None = None, role: str = "guest", user: str = "") -> dict[str, Any]:
    """A peer as the API shows it; without `left` it is connected."""
    record: dict[str, Any] = {"name": "Some Body", "role": role, "joined_at": rfc3339(joined)}
    if left is not None:
        record["left_at"] = rfc3339(left)
    if user:
        record["user_id"] = user
    return record


def session(session_id: str, peers: Peers | None = None, *, room: str = "room", started: int = T0, ended: int | None = None) -> bytes:
    """A session's record as the API shows it; without `ended` it is running."""
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
    """One published counter: of an account, and of one of its roles or (`""`) of its sessions; times in microseconds."""

    account: str
    role: str
    name: str


def published(accounts: Iterable[AccountState]) -> dict[Series, int]:
    """Every counter as it is published."""
    found = {}
    for state in accounts:
        owner, totals = state.account.id, state.totals
        found[Series(owner, "", "started")] = totals.published_started
        found[Series(owner, "", "ended")] = totals.published_ended
        found[Series(owner, "", "seconds")] = totals.published_seconds
        for role, of in state.roles.items():
            found[Series(owner, role, "joined")] = of.published_joined
            found[Series(owner, role, "left")] = of.published_left
            found[Series(owner, role, "seconds")] = of.published_seconds
    return found


def settled_seconds(ledger: Ledger) -> dict[str, int]:
    """Participant time of ended sessions by account, over all roles (µs)."""
    return {account.id: sum(role.seconds for role in state.roles.values()) for account, state in ledger.accounts.items()}


def scope_of(keys: Iterable[str]) -> Scope:
    """The rooms that a configuration of these entries asks for: ids, `~` and a pattern, or `*` for all rooms."""
    rooms = [RoomsByName(re.compile(key[1:])) if key.startswith("~") else RoomById(key) for key in keys]
    return Scope(WorkspaceConfig("w", KeyPair(Secret("k"), Secret("s")), None if "*" in keys else tuple(rooms)))


class Counting:
    """A ledger and its state file, told what a poll has read; each room has an account of its own.

    `keys` are the configuration's entries, as `scope_of` has them; a room's name is its id.  Sessions count that end after `since`.
    Peers in the roles `bots` are no people.
    """

    def __init__(self, path: Path, keys: Iterable[str] = ("*",), since: int = T0, bots: frozenset[str] = frozenset()) -> None:
        self.path = path
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
        """A poll begins; the configuration is entered with the first of a process."""
        self._now = Poll(self.ledger, now, HOUR)
        if not self._configured:
            self.ledger.coverage.configure(self.scope, self.since, now, str)
            self._configured = True

    def configure(self, keys: Iterable[str], since: int | None = None) -> None:
        """Other entries, from the next poll on."""
        self.keys, self.since = list(keys), self.since if since is None else since
        self._configured = False

    @property
    def now(self) -> Poll:
        """The poll that has begun last."""
        assert self._now is not None
        return self._now

    @property
    def scope(self) -> Scope:
        """The configuration's rooms."""
        return scope_of(self.keys)

    def see(self, raw: bytes) -> None:
        """A record has been read."""
        digest = hash(raw)
        if self.now.see_unchanged(digest):
            return
        found, rejections = decode_session(raw, self.now.now)
        if found is None:
            self.now.unread(None)
        elif found.id in self.ledger.tracked or self.scope.covers(found.room_id, found.room_id):
            self.now.see(found, found.room_id, None if rejections else digest)

    def assign(self) -> None:
        """Every session belongs to its room's account, which comes as it was stored."""
        for room_id in self.now.unassigned_rooms():
            account = room_account(room_id)
            self.open(account)
            self.now.assign(room_id, room_id, account)

    def open(self, account: Account) -> None:
        """An account comes into use."""
        if account not in self.ledger.accounts:
            stored = self.store.account("w", account)
            if stored is None:
                self.ledger.open(account)
            else:
                self.ledger.restore([stored])

    def end(self, *, complete: bool = True, fresh: Iterable[Account] | None = None, past: bool = False) -> None:
        """The poll has read what it could (`past`: all of the past too); it is counted, stored and, in `committed`, published."""
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
        """The ledger's changes become durable, and then public."""
        self.store.commit("w", self.ledger)
        self.committed = published(self.ledger.accounts.values())

    def poll(self, now: int, *records: bytes, unknown: Iterable[str] = (), complete: bool = True) -> None:
        """A poll that reads these records, and if `complete` all of the past; the API answers 404 for the `unknown` sessions."""
        self.begin(now)
        for raw in records:
            self.see(raw)
        for session_id in unknown:
            self.now.unknown(session_id)
        self.end(complete=complete, past=complete)

    def restart(self) -> None:
        """The process dies at this moment, whatever it was doing, and another one begins: it publishes what the state file holds."""
        self.store.close()
        self.store = Store(self.path)
        self.ledger = Ledger()
        self.ledger.leave_out(self.bots)
        self._configured = False
        self._now = None
        self.store.restore("w", self.ledger)
        self.ledger.restore(self.store.accounts("w", 0))

    def close(self) -> None:
        """The state file is given back."""
        self.store.close()

    def value(self, name: str, role: str = "", room: str = "room") -> int:
        """One published counter; 0 when there is no such series."""
        return published(self.ledger.accounts.values()).get(Series(room, role, name), 0)

    def seconds(self, role: str = "guest", room: str = "room") -> float:
        """Published participant time in seconds."""
        return self.value("seconds", role, room) / SECOND

    def gauges(self, room: str = "room") -> Gauges:
        """The room's gauges."""
        found = self.ledger.accounts[room_account(room)].gauges
        assert found is not None
        return found


# -- over HTTP ----------------------------------------------------------------------------------------------------

QUICK = ApiConfig(timeout=2.0, max_requests_per_second=1000.0, max_retries=0)
FOREVER = LimitsConfig(room_idle_expiry=1e8)
Rooms = list[RoomById | RoomsByName] | None
Key = tuple[str, tuple[tuple[str, str], ...]]
"""A sample's name and labels."""


class NoNames(NameReader):
    """100ms says nothing of rooms."""

    def read(self, wanted: Sequence[str], until: float, monotonic: Callable[[], float] = time.monotonic) -> list[KnownRoom]:
        return []


class Bench:
    """An exporter's poller, its state file and its page, and the API that it polls, whose clock stands still unless it is moved."""

    def __init__(
        self,
        folder: Path,
        world: World,
        rooms: Rooms = None,
        *,
        since: Literal["start"] | datetime = "start",
        limits: LimitsConfig = FOREVER,
        api: ApiConfig = QUICK,
        now: int = T0,
    ) -> None:
        self.world = world
        self.now = now
        self.uptime = 0.0
        """Seconds on the exporter's own steady clock, besides those that really pass."""
        self.path = folder / "state.db"
        self.server = SimulatedApi([world], clock=lambda: self.now)
        self.server.start()
        api = replace(api, base_url=self.server.base_url)
        pair = KeyPair(Secret(world.access_key), Secret(world.secret))
        self.workspace = WorkspaceConfig("w", pair, None if rooms is None else tuple(rooms))
        self.config = Config((self.workspace,), api=api, poll=PollConfig(interval=30.0, since=since), limits=limits)
        self.names = True
        """Whether the names of rooms are asked for after a poll."""
        self._before: dict[Key, float] = {}
        self.begin()

    def monotonic(self) -> float:
        return time.monotonic() + self.uptime

    def begin(self) -> None:
        """A process begins, and publishes what the state file holds."""
        metrics = SelfMetrics("0", "test")
        self.metrics = metrics.workspace("w", self.config.poll.interval)
        self.exposition = Exposition(metrics.render, self.monotonic)
        self.store = Store(self.path)
        self.api = Api(self.config.api, self.workspace.credentials, self.metrics, steady=lambda: self.now)
        self.poller = WorkspacePoller(
            self.workspace, self.config, self.store, self.exposition, self.metrics, self.api, monotonic=self.monotonic
        )
        self.poller.restore()

    def end(self) -> None:
        """It is gone."""
        self.api.stop()
        self.store.close()

    def restart(self) -> None:
        self.end()
        self.begin()
        self.look()

    def close(self) -> None:
        self.end()
        self.server.stop()

    def configure(self, rooms: Rooms, limits: LimitsConfig | None = None) -> None:
        """A reload with other rooms."""
        self.workspace = replace(self.workspace, rooms=None if rooms is None else tuple(rooms))
        self.config = replace(self.config, workspaces=(self.workspace,), limits=limits or self.config.limits)
        self.poller.configure(self.workspace, self.config, self.api)

    def poll(self, seconds: float = 0.0) -> dict[Key, float]:
        """A poll so many seconds later, and what is published then."""
        self.now += round(seconds * SECOND)
        reader = self.poller._names
        if not self.names:
            self.poller._names = NoNames(self.api.client(), self.api.now, self.poller.rejected)
        self.poller.poll()
        self.poller._names = reader
        return self.look()

    def look(self) -> dict[Key, float]:
        """What is published now; no counter of a room may have fallen since it was looked at before."""
        found = self.samples()
        for (name, labels), value in self._before.items():
            if name.endswith("_total") and not name.startswith("hms_exporter_"):
                assert found.get((name, labels), value) >= value, name
        self._before = found
        return found

    def samples(self) -> dict[Key, float]:
        families = text_string_to_metric_families(self.page())
        return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}

    def page(self) -> str:
        return b"".join(self.exposition.page("", "").chunks).decode()

    def value(self, name: str, **labels: str) -> float | None:
        """The sum of the samples of this name with these labels among theirs; `None` when there are none."""
        wanted = set(labels.items())
        values = [value for (of, found), value in self.samples().items() if of == name and wanted <= set(found)]
        return sum(values) if values else None

    def up(self) -> bool:
        return self.value("hms_up") == 1

    def finish(self) -> None:
        """Everything that is scripted has ended, and has been read."""
        self.server.faults.clear()
        self.now = max([self.now, *(call.closed_at or 0 for call in self.world.sessions)])
        for _ in range(6):
            self.poll(30)
        for _ in range(100):  # ended sessions are looked at again a page at a time
            if self.poller.ledger.tracked:
                self.poll(30)
        assert self.up()
        assert self.poller.ledger.coverage.tasks == {}
        assert self.poller.ledger.tracked == {}

    def totals(self) -> dict[str, tuple[int, int, int, int]]:
        """By account: sessions started and ended, their time, and the time of all peers (µs), as they have been settled."""
        found = {}
        for account, state in self.poller.ledger.accounts.items():
            roles = sum(role.seconds for role in state.roles.values())
            if state.totals.started:
                found[account.id] = (state.totals.started, state.totals.ended, state.totals.seconds, roles)
        return found


def script_totals(sessions: list[Session], now: int, since: int) -> dict[str, tuple[int, int, int, int]]:
    """By room, what the script says of those that ended after `since`."""
    truth = truth_of([call for call in sessions if call.closed_at is None or call.closed_at > since], now)
    return {
        room: (truth.started[room], truth.ended[room], truth.session_us[room], truth.room_peer_us[room])
        for room in truth.started
        if truth.started[room]
    }
