"""The systemd unit, checked by systemd and against the command line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from exporter import cli, daemon
from tests.programs import require

ROOT = Path(__file__).resolve().parent.parent.parent
UNIT = ROOT / "deploy/systemd/hms-exporter.service"


def systemd_analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([require("systemd-analyze"), *arguments], capture_output=True, text=True, check=False)


def settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/hms-exporter/bin/hms-exporter", sys.executable))
    verified = systemd_analyze("verify", "--man=no", unit)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_systemd_finds_little_that_the_unit_exposes() -> None:
    # In tenths of a point: 20 is rated "OK". The network access that the exporter needs takes 9.
    judged = systemd_analyze("security", "--offline=yes", "--threshold=15", "--no-pager", UNIT)
    assert judged.returncode == 0, judged.stdout


def test_the_unit_starts_the_exporter_with_arguments_that_it_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program, *arguments = settings("ExecStart")[0].split()
    assert program.endswith("/bin/hms-exporter")
    monkeypatch.delenv("HMS_ACCESS_KEY", raising=False)
    assert cli.main([argument.replace("/etc/hms-exporter", "/nowhere") for argument in arguments]) == 2
    assert capsys.readouterr().err == "hms-exporter: /nowhere/config.yaml: cannot be read: No such file or directory\n"
    assert f"--storage.path=%S/{settings('StateDirectory')[0]}/hms-exporter.db" in arguments


def test_a_reload_checks_the_configuration_before_the_exporter_reads_it() -> None:
    check, signal = settings("ExecReload")
    config_file = next(argument for argument in settings("ExecStart")[0].split() if argument.startswith("--config.file="))
    assert check.split()[1:] == ["check", config_file]
    # Not /bin/kill: a minimal Debian does not have it, and reloads failed there.
    assert signal == """/bin/sh -c 'kill -HUP "$$MAINPID"'"""


def test_the_watchdog_waits_for_several_signs_of_life() -> None:
    assert settings("Type") == ["notify"]
    assert float(settings("WatchdogSec")[0].removesuffix("s")) >= 3 * daemon._UPKEEP_SECONDS


def test_the_unit_does_not_start_a_refused_configuration_again_and_again() -> None:
    assert settings("Restart") == ["on-failure"]
    assert settings("RestartPreventExitStatus") == [str(cli.BAD_CONFIGURATION)]
