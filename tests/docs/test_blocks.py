"""Runs every shell block of the documentation, except those whose comment says why not: <!-- not run by a test: REASON -->."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from exporter.simulator import Company, SimulatedApi
from tests.docs.pages import PAGES, ROOT
from tests.e2e.program import configure, environment, running, wait_until, workspace
from tests.programs import require

_BLOCK = re.compile(
    r"(?:^ *<!-- not run by a test: (?P<reason>.+?) -->\n)?^ *```(?:sh|bash|shell|console)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL
)
_PROGRAMS = ("helm", "promtool", "sqlite3")
"""External programs in blocks that are run."""


class Block(NamedTuple):
    """A block of a page: its place, its commands, and the reason if it is not run."""

    place: str
    text: str
    reason: str | None


def shell_blocks() -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start("text")) + 1
            found.append(Block(f"{page.relative_to(ROOT)}:{line}", match["text"], match["reason"]))
    return found


BLOCKS = shell_blocks()
RUN = [block for block in BLOCKS if block.reason is None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which the blocks run: a configuration, a state file with yesterday's sessions, and a simulated 100ms."""
    folder = tmp_path_factory.mktemp("blocks")
    company = Company(1, time.time_ns() // 1000)
    yesterday = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT00:00:00Z")
    with SimulatedApi([company]) as api:
        credentials = workspace(access_key=company.access_key, secret=company.secret)
        configure(folder, api, credentials, storage={"path": "hms-exporter.db"}, poll={"since": yesterday})
        with running(folder, "--config.file=config.yaml") as program:
            wait_until(lambda: program.value("hms_exporter_catch_up_ratio") == 1, 60, "the past has not been read")
            program.stop()
        for name in ("deploy", "grafana", "prometheus"):
            (folder / name).symlink_to(ROOT / name)
        programs = folder / "bin"
        programs.mkdir()
        (programs / "hms-exporter").write_text(f'#!/bin/sh\nexec {sys.executable} -m exporter "$@"\n')
        (programs / "hms-exporter").chmod(0o755)
        yield folder


def test_there_are_blocks_and_each_one_that_is_not_run_says_why() -> None:
    assert RUN
    assert all(len(block.reason) > 10 for block in BLOCKS if block.reason is not None)


@pytest.mark.slow
@pytest.mark.parametrize("block", RUN, ids=lambda block: block.place)
def test_a_block_of_the_documentation_does_what_it_says(folder: Path, block: Block) -> None:
    for name in _PROGRAMS:
        if re.search(rf"^ *{name}\b", block.text, re.MULTILINE) and not (folder / "bin" / name).exists():
            (folder / "bin" / name).symlink_to(require(name))
    # A backfill must end more than three hours ago and before the live series begin.
    past = (datetime.now(UTC) - timedelta(days=2)).strftime("%Y-%m-%d")
    # Replaces the example dates and paths.
    text = block.text.replace("/var/lib/prometheus", f"{folder}/prometheus-data").replace(
        "--from 2026-08-01", f"--from {past} --to {past} --step 5m"
    )
    env = environment(PATH=f"{folder}/bin:{os.environ['PATH']}", HOME=str(folder))
    ran = subprocess.run(["sh", "-eu", "-c", text], cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=100)
    assert ran.returncode == 0, ran.stderr
