"""Arguments, help, version and exit codes.  The commands themselves are tested end to end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import exporter.commands
from exporter import __version__
from exporter.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parent.parent

FLAGS = {
    "--config.file",
    "--web.listen-address",
    "--web.systemd-socket",
    "--web.telemetry-path",
    "--web.config.file",
    "--storage.path",
    "--log.level",
    "--log.format",
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HMS_ACCESS_KEY", "HMS_SECRET", "HMS_MANAGEMENT_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def exit_code(*arguments: str) -> int:
    """The exit code, whether returned or raised."""
    try:
        return main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else -1


def test_version_is_one_line_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--version") == 0
    assert capsys.readouterr() == (f"hms-exporter {__version__}\n", "")


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> tuple[str, set[str]]:
    """The output of `--help`, and the flags in it."""
    assert exit_code(*command, "--help") == 0
    shown, errors = capsys.readouterr()
    assert errors == ""
    return shown, set(re.findall(r"(?<![\w-])--[a-z][a-z.-]*[a-z]", shown)) - {"--help"}


def test_help_names_every_command_with_a_line_about_it(capsys: pytest.CaptureFixture[str]) -> None:
    shown, flags = help_of(capsys)
    for name, line in COMMANDS.items():
        assert re.search(rf"^ +{name}\s+{re.escape(line[:30])}", shown, re.MULTILINE)
    assert "--version" in flags


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("run", FLAGS),
        ("check", FLAGS | {"--live", "--healthy"}),
        ("demo", {"--web.listen-address", "--storage.path", "--log.level", "--log.format", "--seed"}),
        ("simulate", {"--web.listen-address", "--seed", "--webhook-url", "--webhook-header", "--webhook-signature-secret"}),
        (
            "report",
            {
                "--config.file",
                "--storage.path",
                "--month",
                "--from",
                "--to",
                "--workspace",
                "--by",
                "--sort",
                "--format",
                "--meter",
                "--sessions-longer-than",
            },
        ),
        (
            "backfill",
            {"--config.file", "--storage.path", "--log.level", "--log.format", "--from", "--to", "--workspace", "--output", "--step"}
            | {"--label"},
        ),
        ("dashboards", {"--force", "--runbooks"}),
        ("rules", {"--force", "--runbooks"}),
    ],
)
def test_the_help_of_a_command_shows_its_own_flags_alone(command: str, flags: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert help_of(capsys, command)[1] == flags


def test_every_command_is_a_module_of_its_name() -> None:
    folder = Path(exporter.commands.__file__).parent
    assert [name for name in COMMANDS if not (folder / f"{name}.py").exists() and not (folder / name).is_dir()] == []


@pytest.mark.parametrize(
    ("arguments", "program", "message"),
    [
        (("walk",), "hms-exporter", "argument command: invalid choice: 'walk'"),
        (("--no-such-flag",), "hms-exporter run", "unrecognized arguments: --no-such-flag"),
        (("--live",), "hms-exporter run", "unrecognized arguments: --live"),
        (("run", "--live"), "hms-exporter run", "unrecognized arguments: --live"),
        (("check", "--month=2026-11"), "hms-exporter check", "unrecognized arguments: --month=2026-11"),
        (("demo", "--config.file=x"), "hms-exporter demo", "unrecognized arguments: --config.file=x"),
        (
            ("simulate", "--webhook-url=nowhere"),
            "hms-exporter simulate",
            "argument --webhook-url: expected a URL such as http://127.0.0.1:10101/webhooks/default",
        ),
        (
            ("simulate", "--webhook-header=secret"),
            "hms-exporter simulate",
            "argument --webhook-header: expected NAME:VALUE, such as x-hms-token:abc",
        ),
        (("report", "--sort=room"), "hms-exporter report", "argument --sort: invalid choice: 'room'"),
        (("backfill",), "hms-exporter backfill", "the following arguments are required: --from, --output"),
    ],
)
def test_wrong_usage_is_one_line_of_usage_and_the_message(
    arguments: tuple[str, ...], program: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*arguments) == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage == f"usage: {program} {'[command] ' if program == 'hms-exporter' else ''}[options]"
    assert error.startswith(f"{program}: error: {message}")


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
        ("--web.listen-address=:1", "--web.listen-address=:1"),
        ("--web.telemetry-path=metrics",),
        ("--web.telemetry-path=/-/ready",),
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


@pytest.mark.parametrize("arguments", [("--log.level=debug",), ("run", "--log.level=debug")])
def test_the_flags_of_run_need_no_command(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(*arguments) == 2, "there is no configuration"
    assert capsys.readouterr().err.startswith("hms-exporter: no configuration: expected a file config.yaml here")


# -- signals ------------------------------------------------------------------------------------------------------------

# Prints a line once the handlers are set, which is the first thing that the process does.
_START = """
import signal, sys
from exporter.__main__ import main

def install(number, handler, install=signal.signal):
    install(number, handler)
    if number == signal.SIGTERM:
        signal.signal = install
        print(flush=True)

signal.signal = install
sys.exit(main())
"""


def interrupted(folder: Path, number: signal.Signals, delay: float, *arguments: str) -> tuple[int, str]:
    """The exit code and stderr of a process that gets a signal this many seconds after its start."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HMS_")} | {"PYTHONPATH": os.fspath(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", _START, *arguments], cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)  # so that the signal comes at a different stage of the start each time
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    return process.returncode, errors


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["run", "demo"])
def test_a_signal_ends_it_without_a_traceback_at_any_moment_of_the_first_second(
    command: str, number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", os.fspath(tmp_path))
    Path("config.yaml").write_text(
        "workspaces: [{name: a, access_key: k, secret: s}]\napi: {base_url: 'http://127.0.0.1:1'}\nweb: {listen_address: 127.0.0.1:0}"
    )
    arguments = ["run"] if command == "run" else ["demo", "--web.listen-address=127.0.0.1:0"]
    for delay in (0, 0.005, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0):
        code, errors = interrupted(tmp_path, number, delay, *arguments)
        assert code == 0, (delay, errors)
        assert "Traceback" not in errors
        assert not list(tmp_path.glob("hms-exporter-demo-*")), "nothing is left behind"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_ends_changes_nothing(number: signal.Signals) -> None:
    """When Python shuts down after the command, the exit code remains that of the command."""
    script = (
        "import atexit, os, sys; from exporter import cli; from exporter.__main__ import main;"
        f" cli.main = lambda: 2; atexit.register(lambda: os.kill(os.getpid(), {int(number)})); sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "")
