"""A start with a large state file: the exporter answers health checks and obeys SIGTERM while it restores."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from bench.exporters import Exporter
from bench.servers import free_port
from bench.start import warm_state
from bench.traffic import SECRET

pytestmark = pytest.mark.slow


def test_health_and_sigterm_do_not_wait_for_a_large_state(tmp_path: Path) -> None:
    """`python -m bench --only start` measures the same with 200,000 rooms."""
    warm_state(tmp_path / "state.db", 30_000)
    nobody = f"http://127.0.0.1:{free_port()}"
    with Exporter(tmp_path, nobody, SECRET, limits={"max_rooms": 30_000}) as exporter:
        healthy = exporter.healthy()
        ready = requests.get(f"http://127.0.0.1:{exporter.port}/-/ready", timeout=10)
        stopped = exporter.stop()
    assert (ready.status_code, ready.text.strip()) == (503, "The state is still being read.")
    assert healthy < 5, "2 s on a machine that does nothing else"
    assert stopped < 5
