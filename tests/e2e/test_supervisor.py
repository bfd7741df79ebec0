"""The program's messages to a supervisor such as systemd."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from exporter.simulator import SimulatedApi, World
from tests.e2e.program import configure, environment, running


@pytest.mark.slow
def test_the_daemon_says_that_it_listens_that_it_works_and_that_it_stops(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(10)
        env = environment(NOTIFY_SOCKET=supervisor.getsockname())
        with running(tmp_path, f"--config.file={configure(tmp_path, api)}", env=env) as program:
            assert [supervisor.recv(100), supervisor.recv(100)] == [b"READY=1", b"WATCHDOG=1"]
            assert program.stop() == 0
        assert supervisor.recv(100) == b"STOPPING=1"
