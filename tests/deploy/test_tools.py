"""The script that fetches the programs for the tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lab import postgres

ROOT = Path(__file__).resolve().parent.parent.parent


INSTALLED = ("chromium", "nginx", "systemd-analyze", "cc", "buildah", "runc", "debootstrap")


def test_it_is_silent_and_fetches_nothing_when_all_programs_are_there() -> None:
    fetched = all((ROOT / ".tools" / name / ".complete").exists() for name in ("prometheus", "prometheus-2", "base"))
    built = any((ROOT / ".tools/go").glob(".*-*"))
    if not (fetched and built and all(map(shutil.which, INSTALLED)) and postgres.program("postgres")):
        pytest.skip("not everything is there")
    ran = subprocess.run([ROOT / "scripts/fetch-tools"], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
