"""docs/operations.md: its backup command and its example of a web configuration."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.config.strict_yaml import ConfigError
from exporter.state.store import Store
from exporter.times import SECOND
from exporter.web import settings as webconfig
from tests.harness import T0, Counting, peer, session

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_backup_command_makes_a_state_file_while_the_exporter_has_it(tmp_path: Path) -> None:
    commands = re.findall(r"^python3 -c '(.*)'", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    assert len(commands) == 1
    counting = Counting(tmp_path / "hms-exporter.db")
    counting.poll(T0 + SECOND, session("s1", {"p1": peer(T0)}))
    subprocess.run([sys.executable, "-c", commands[0]], cwd=tmp_path, check=True)
    copy = Store(tmp_path / "backup.db")
    kept = {state.account for state in counting.store.accounts("w", 0)}
    assert kept
    assert {state.account for state in copy.accounts("w", 0)} == kept
    copy.close()
    counting.store.close()
    with sqlite3.connect(tmp_path / "backup.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_example_of_a_web_configuration_is_valid() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    example = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert example is not None
    text = example[1].replace("$2y$10$...", "$2y$10$" + 53 * "x").replace("  # client", "  client")
    parsed = webconfig.parse(text, Path("/etc"), "web.yaml")
    assert parsed.tls is not None
    assert parsed.tls.client_allowed_sans == {"prometheus.example.org"}
    assert parsed.users.keys() == {"prometheus"}
    with pytest.raises(ConfigError, match="bcrypt"):
        webconfig.parse(example[1], Path("/etc"), "web.yaml")
