"""Messages to a supervisor, over a real socket."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter import notify
from exporter.config import config
from exporter.daemon import Daemon


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(10)
        yield channel


def test_a_state_is_one_datagram(supervisor: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", supervisor.getsockname())
    notify.tell("READY=1")
    assert supervisor.recv(100) == b"READY=1"


def test_an_abstract_socket_is_written_with_an_at_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind("")  # the kernel picks an abstract name
        channel.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + channel.getsockname()[1:].decode())
        notify.tell("WATCHDOG=1")
        assert channel.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", [None, "", "relative", "/nowhere/notify"])
def test_without_a_supervisor_nothing_happens(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify.tell("READY=1")


def test_a_supervisor_that_does_not_read_holds_nothing_up(supervisor: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", supervisor.getsockname())
    began = time.monotonic()
    for _ in range(10_000):
        notify.tell("WATCHDOG=1")
    assert time.monotonic() - began < 10


def test_the_watchdog_is_fed_only_while_the_exporter_is_healthy(supervisor: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", supervisor.getsockname())
    loaded = config.parse("workspaces: [{name: a, management_token: b}]", {}, "config.yaml")
    daemon = Daemon(loaded, lambda: loaded)
    daemon._watch()
    assert supervisor.recv(100) == b"WATCHDOG=1"
    monkeypatch.setattr(daemon, "unhealthy", lambda: "Workspace a: its thread has ended.")
    daemon._watch()
    supervisor.setblocking(False)
    with pytest.raises(BlockingIOError):
        supervisor.recv(100)
