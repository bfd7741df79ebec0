"""Arguments, help, versions and exit codes; what the commands do is tested end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter import __version__
from exporter.cli import main

FLAGS = ("--config.file", "--web.listen-address", "--web.config.file", "--storage.path", "--log.level", "--log.format")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HMS_ACCESS_KEY", "HMS_SECRET", "HMS_MANAGEMENT_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def exit_code(*arguments: str) -> int:
    """The exit code, however it comes about."""
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else -1


def test_version_is_one_line_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--version") == 0
    assert capsys.readouterr() == (f"hms-exporter {__version__}\n", "")


def test_help_names_every_command_and_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--help") == 0
    shown, errors = capsys.readouterr()
    assert errors == ""
    for word in ("run", "check", "demo", "simulate", "--live", "--version", *FLAGS):
        assert word in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("walk",),
        ("run", "check"),
        ("--no-such-flag",),
        ("--config.file",),
        ("--config", "x"),
        ("demo", "--seed=many"),
        ("--log.level=loud",),
        ("--log.format=xml",),
        ("--web.listen-address=10100",),
        ("--web.listen-address=:99999",),
        ("--web.listen-address=",),
        ("--storage.path=",),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.yaml").write_text("workspaces: [{name: a, access_key: k, secret: s}]")
    assert exit_code(*arguments) == 2
    shown, errors = capsys.readouterr()
    assert shown == ""
    assert errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("flag", ["--log.level", "--log.format", "--web.listen-address"])
def test_a_flags_fault_is_told_by_its_name(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.yaml").write_text("workspaces: [{name: a, access_key: k, secret: s}]")
    assert exit_code("check", f"{flag}=?") == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"hms-exporter: {flag}: expected ")
    assert errors.count("\n") == 1


def test_a_bad_configuration_is_one_line_that_names_file_and_key(capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.yaml").write_text("workspaces: [{name: a, access_key: k, secret: s}]\nlog: {level: loud}")
    assert exit_code("run") == 2
    assert capsys.readouterr() == ("", "hms-exporter: config.yaml: log.level: expected debug, info, warn or error, found 'loud'\n")


def test_a_good_configuration_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    Path("config.yaml").write_text("workspaces: [{name: prod, access_key: k, secret: s}]")
    assert exit_code("check") == 0
    shown, errors = capsys.readouterr()
    assert "Workspace prod: every room" in shown
    assert errors == ""
