"""Webhooks to a running exporter: authentication, counting, and how soon the gauges are right."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from exporter.simulator import Fault, SimulatedApi, World
from tests.e2e.program import Program, configure, present, running, total, wait_until, workspace

TOKEN, SIGNATURE = "c4nary-webhook-token", "c4nary-signature-secret"
SLOW = {"poll": {"interval": "5m"}}


def webhooks(**more: Any) -> dict[str, Any]:
    return {"webhooks": {"listen_address": "127.0.0.1:0", "headers": {"X-Hms-Token": TOKEN}, **more}}


def event(kind: str, room_id: str = "", identifier: str | None = None, **data: Any) -> dict[str, Any]:
    """A webhook's body as 100ms writes it, with its private data."""
    return {
        "version": "2.0",
        "id": identifier or f"event-{time.monotonic_ns()}",
        "account_id": "c4nary-user-account",
        "timestamp": "2026-03-01T08:00:00Z",
        "type": kind,
        "data": {"room_id": room_id, "room_name": "C4nary Person's", "user_id": "c4nary-user-1", "user_name": "C4nary Person", **data},
    }


class Sender:
    """Sends webhooks as 100ms does."""

    def __init__(self, program: Program) -> None:
        self.program = program
        found = wait_until(lambda: re.search(r'msg="listening for webhooks" address=(\S+)', program.log))
        self.host, _, port = found[1].partition(":")
        self.port = int(port)
        self.session = requests.Session()

    def url(self, path: str = "/webhooks/default") -> str:
        return f"http://{self.host}:{self.port}{path}"

    def send(self, body: Any, path: str = "/webhooks/default", method: str = "POST", **headers: str) -> requests.Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = headers or {"X-Hms-Token": TOKEN}
        return self.session.request(method, self.url(path), data=raw, headers=headers, timeout=15)

    def rejected(self, reason: str, name: str = "default") -> float:
        return total(self.program.metrics(), "hms_webhooks_rejected_total", workspace=name, reason=reason)

    def received(self, kind: str) -> float:
        return total(self.program.metrics(), "hms_webhooks_received_total", workspace="default", type=kind)


def shows(sender: Sender, name: str, room: str, value: float) -> bool:
    """Whether the room's series of this name add up to this value."""
    return total(sender.program.metrics(), name, room=room) == value


@contextmanager
def exporter(folder: Path, source: SimulatedApi, /, **sections: Any) -> Iterator[Sender]:
    configure(folder, source, **{**webhooks(), **sections})
    with running(folder, "--config.file", "config.yaml") as program:
        wait_until(lambda: program.get("/-/ready").status_code == 200)
        yield Sender(program)


def test_the_gauges_are_right_within_three_seconds_of_an_event_whatever_the_interval_is(
    tmp_path: Path, api: SimulatedApi, world: World
) -> None:
    room, other = world.room(name="r"), world.room(name="other")
    with exporter(tmp_path, api, **SLOW) as sender:
        for number, of in enumerate([room, room, other]):
            with world.lock:
                session = next((s for s in world.sessions if s.room_id == of.id and s.closed_at is None), None)
                session = session or world.open(of.id, present())
                session.join("guest", present(), user_id=f"c4nary-user-{number}", name=f"C4nary Person {number}")
            began = time.monotonic()
            assert sender.send(event("peer.join.success", of.id)).status_code == 200
            wanted = 2 if number == 1 else 1
            name = of.name_at(present())
            wait_until(partial(shows, sender, "hms_peers_active", name, wanted), 3.0)
            assert time.monotonic() - began < 3
        assert session is not None
        with world.lock:
            session.close(present())
        sender.send(event("session.close.success", other.id))
        wait_until(lambda: total(sender.program.metrics(), "hms_sessions_active", room="other") == 0, 3.0)
        assert total(sender.program.metrics(), "hms_sessions_ended_total", room="other") == 1
        assert total(sender.program.metrics(), "hms_sessions_active", room="r") == 1
        assert sender.program.value("hms_up") == 1


def test_a_sender_without_the_secret_is_refused_and_told_nothing(tmp_path: Path, api: SimulatedApi) -> None:
    with exporter(tmp_path, api) as sender:
        body = event("peer.leave.success", reason="peer kicked")
        answers = [
            sender.send(body, X_Other="1"),
            sender.send(body, **{"X-Hms-Token": TOKEN[:-1]}),
            sender.send(body, **{"X-Hms-Token": "ü".encode().decode("latin-1")}),
            sender.send(body, path="/webhooks/other"),
            sender.send(body, path="/"),
            sender.send(body, path="/metrics", method="GET"),
            sender.send(b"", method="GET", **{"X-Hms-Token": TOKEN}),
            sender.send(b"{", **{"X-Hms-Token": TOKEN}),
            sender.send(b"[]", **{"X-Hms-Token": TOKEN}),
            sender.send(b'{"id": "x", "type": "' + b"x" * (64 * 1024), **{"X-Hms-Token": TOKEN}),
        ]
        assert [answer.status_code for answer in answers] == [401, 401, 401, 404, 404, 404, 405, 400, 400, 413]
        assert {len(answer.text.splitlines()) for answer in answers} == {1}
        assert answers[6].headers["Allow"] == "POST"
        wait_until(lambda: sender.rejected("json") == 2)
        found = {reason: sender.rejected(reason) for reason in ("secret", "signature", "size", "json", "method")}
        assert found == {"secret": 3, "signature": 0, "size": 1, "json": 2, "method": 1}
        assert sender.rejected("workspace", "_unknown") == 1
        assert total(sender.program.metrics(), "hms_webhooks_received_total") == 0
        assert TOKEN not in sender.program.log


def test_a_signature_must_be_that_of_the_body(tmp_path: Path, api: SimulatedApi) -> None:
    with exporter(tmp_path, api, webhooks={"listen_address": "127.0.0.1:0", "signature_secret": SIGNATURE}) as sender:
        raw = json.dumps(event("room.end.success")).encode()
        good = hmac.new(SIGNATURE.encode(), raw, hashlib.sha256).hexdigest()
        sent = [sender.send(raw, **{"x-100ms-signature": found}).status_code for found in (good, f"sha256={good}", good[:-1] + "g", "")]
        assert sent == [200, 200, 401, 401]
        assert sender.send(raw + b" ", **{"x-100ms-signature": good}).status_code == 401
        wait_until(lambda: sender.rejected("signature") == 3)
        assert sender.received("room.end.success") == 1


def test_an_event_is_counted_once_however_often_and_late_it_is_sent_restarts_included(
    tmp_path: Path, api: SimulatedApi, world: World
) -> None:
    room = world.room(name="r")
    with world.lock:
        world.open(room.id, present()).join("guest", present())
    events = [
        event("peer.leave.success", room.id, "one", reason="peer kicked", role="guest"),
        event("peer.leave.success", room.id, "two", reason="the cat sat on the keyboard"),
        event("peer.join.failure", room.id, "three", error_message="role not allowed"),
        event("peer.leave.success", "not-followed", "four", reason="peer kicked"),
        event("made.up.type", room.id, "five"),
    ]

    def counted(sender: Sender) -> dict[str, float]:
        page = sender.program.metrics()
        found = {reason: total(page, "hms_peer_leaves_total", reason=reason) for reason in ("peer kicked", "other")}
        found["failures"] = total(page, "hms_join_failures_total", room="r", reason="role not allowed")
        found |= {kind: sender.received(kind) for kind in ("peer.leave.success", "peer.join.failure", "other")}
        return found

    wanted = {"peer kicked": 1, "failures": 1, "peer.leave.success": 3, "peer.join.failure": 1}
    configure(tmp_path, api, workspace(rooms=[room.id]), **{**webhooks(), **SLOW})
    with running(tmp_path, "--config.file", "config.yaml") as program:
        wait_until(lambda: program.get("/-/ready").status_code == 200)
        sender = Sender(program)
        for found in [*events, *reversed(events), *({**found, "is_replay": True, "timestamp": None} for found in events)]:
            assert sender.send(found).status_code == 200
        wait_until(lambda: counted(sender)["failures"] == 1 and counted(sender)["peer kicked"] == 1)
        first = counted(sender)
        assert {key: first[key] for key in wanted} == wanted
        time.sleep(2.5)  # time for an early poll, which must change nothing
        assert counted(sender) == first
        # An event that was answered with 200 is in the state a second later.
        assert sender.send(event("peer.leave.success", room.id, "six", reason="websocket closed")).status_code == 200
        time.sleep(1)
        program.kill()
    with running(tmp_path, "--config.file", "config.yaml") as program:
        wait_until(lambda: program.get("/-/ready").status_code == 200)
        sender = Sender(program)
        for found in events:
            sender.send(found)
        sender.send(
            {**event("peer.leave.success", room.id, "old", reason="peer kicked"), "is_replay": True, "timestamp": "2020-01-01T00:00:00Z"}
        )
        wait_until(lambda: total(program.metrics(), "hms_peer_leaves_total", reason="websocket closed") == 1)
        time.sleep(2.5)  # time for an early poll, which must change nothing
        found = counted(sender)
        assert found == {**first, "peer.leave.success": 4}
    with closing(sqlite3.connect(tmp_path / "state.db")) as db:
        assert "anary" not in "\n".join(db.iterdump())


def test_an_event_is_answered_within_a_tenth_of_a_second_while_polls_hang_and_it_is_stored_all_the_same(
    tmp_path: Path, api: SimulatedApi, world: World
) -> None:
    room = world.room(name="r")
    with exporter(tmp_path, api, api={"timeout": "30s"}) as sender:
        api.faults.add(Fault(kind="stall", seconds=20))
        wait_until(lambda: api.faults.standing()[0].struck > 0)  # a poll has begun, and hangs
        took = []
        for _ in range(5):
            began = time.monotonic()
            assert sender.send(event("peer.leave.success", room.id, reason="peer kicked")).status_code == 200
            took.append(time.monotonic() - began)
        assert sorted(took)[2] < 0.1
        time.sleep(1)  # an answered event is stored within a second
        sender.program.kill()
    with closing(sqlite3.connect(tmp_path / "state.db")) as db:
        assert db.execute("SELECT SUM(value) FROM webhook_count WHERE name = 'leave'").fetchone() == (5,)
        api.faults.clear()


def test_a_flood_and_slow_bodies_leave_the_port_and_the_scrape_alive(tmp_path: Path, api: SimulatedApi) -> None:
    with exporter(tmp_path, api) as sender:
        slow = []
        for _ in range(100):
            client = socket.create_connection((sender.host, sender.port))
            client.sendall(b"POST /webhooks/default HTTP/1.1\r\nHost: x\r\nX-Hms-Token: no\r\nContent-Length: 60000\r\n\r\n{")
            slow.append(client)
        stop = threading.Event()

        def flood() -> None:
            session = requests.Session()
            while not stop.is_set():
                session.post(sender.url(), data=b"x" * 60_000, headers={"X-Hms-Token": "wrong"}, timeout=10)

        threads = [threading.Thread(target=flood) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(10):
                assert sender.send(event("room.end.success")).status_code == 200
                assert sender.program.get("/metrics").status_code == 200
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        wait_until(lambda: sender.received("room.end.success") == 10)
        for client in slow:
            client.close()


def test_early_polls_are_no_more_than_one_in_two_seconds(tmp_path: Path, api: SimulatedApi, world: World) -> None:
    room = world.room(name="r")
    with exporter(tmp_path, api, **SLOW) as sender:
        before = sender.program.value("hms_exporter_polls_total") or 0
        began = time.monotonic()
        while time.monotonic() - began < 5:
            sender.send(event("role.change.success", room.id))
            time.sleep(0.05)
        polls = (sender.program.value("hms_exporter_polls_total") or 0) - before
        assert 2 <= polls <= 4


@pytest.mark.parametrize("given", [{"listen_address": "127.0.0.1:1"}])
def test_without_a_secret_nothing_starts(tmp_path: Path, api: SimulatedApi, given: dict[str, str]) -> None:
    configure(tmp_path, api, webhooks=given)
    program = Program(tmp_path, "--config.file", "config.yaml")
    assert program.process.wait(10) == 2
