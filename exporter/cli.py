"""The command line: arguments, subcommands, exit codes.

What a subcommand needs is imported when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exporter import __version__

if TYPE_CHECKING:
    from exporter.config.config import Config

CANNOT_RUN = 1
BAD_CONFIGURATION = 2

_COMMAND_NAMES = ("run", "check", "demo", "simulate", "report", "backfill")

_COMMANDS = """\
commands:
  run        the exporter (the default)
  check      says what the configuration means and what it costs; --live tries it
  demo       the exporter against a simulated 100ms, all in one process
  simulate   only the simulated 100ms API
  report     participant minutes by room, role and day, from the state file, also while the exporter runs
  backfill   the past, read from the API, as OpenMetrics for promtool
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    # Until the daemon takes it over: to be told to stop while still starting is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    options = _parse(arguments)
    if not sys.warnoptions:
        # Libraries' words to programmers: no events of ours, and one tells how long a secret is.
        warnings.simplefilter("ignore")
    commands = {"run": _run, "check": _check, "demo": _demo, "simulate": _simulate, "report": _report, "backfill": _backfill}
    from exporter.config.config import ConfigError
    from exporter.daemon import CannotRun

    try:
        return commands[options.command](options)
    except ConfigError as error:
        return _fail(error, BAD_CONFIGURATION)
    except CannotRun as error:
        return _fail(error, CANNOT_RUN)
    except KeyboardInterrupt:
        return 0


def _fail(error: Exception, code: int) -> int:
    sys.stderr.write(f"hms-exporter: {error}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hms-exporter",
        description="Prometheus exporter for 100ms.live: exact sessions, peers and participant minutes of your rooms.",
        epilog=_COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("command", nargs="?", default="run", choices=_COMMAND_NAMES, metavar="command")
    parser.add_argument("--version", action="version", version=f"hms-exporter {__version__}")
    parser.add_argument("--config.file", dest="config_file", type=Path, metavar="FILE", help="the configuration (default: config.yaml)")
    parser.add_argument("--web.listen-address", dest="listen_address", metavar="HOST:PORT", help="where to serve /metrics")
    parser.add_argument("--web.config.file", dest="web_config_file", metavar="FILE", help="TLS and passwords of the HTTP face")
    parser.add_argument("--storage.path", dest="storage_path", metavar="FILE", help="the state file")
    parser.add_argument("--log.level", dest="log_level", metavar="LEVEL", help="debug, info, warn or error")
    parser.add_argument("--log.format", dest="log_format", metavar="FORMAT", help="logfmt or json")
    check = parser.add_argument_group("check")
    check.add_argument("--live", action="store_true", default=None, help="try each workspace's credentials and rooms")
    demo = parser.add_argument_group("demo, simulate")
    demo.add_argument("--seed", type=int, metavar="N", help="which made-up company (default: 1)")
    past = parser.add_argument_group("report, backfill")
    past.add_argument("--from", dest="first", metavar="DAY", help="from this day on (UTC); backfill takes a time too")
    past.add_argument("--to", dest="last", metavar="DAY", help="to this day, inclusive; backfill: to where the live series begin")
    past.add_argument("--workspace", metavar="NAME", help="this workspace alone")
    report = parser.add_argument_group("report")
    report.add_argument("--month", metavar="MONTH", help="such as 2026-11 (default: this month)")
    report.add_argument("--by", metavar="COLUMNS", help="workspace, room, role, day, with commas between (default: room)")
    report.add_argument("--sort", choices=("minutes", "name"), help="most minutes first (the default), or by name")
    report.add_argument("--format", choices=("table", "csv", "json"), help="for people (the default) or machines")
    backfill = parser.add_argument_group("backfill")
    backfill.add_argument("--output", type=Path, metavar="FILE", help="the file to write")
    backfill.add_argument("--step", metavar="DURATION", help="between two samples, 5m at most (default: poll.interval)")
    backfill.add_argument("--label", action="append", metavar="NAME=VALUE", help="a label for every series, such as job; may be repeated")
    return parser


_ONLY_FOR = {
    "config_file": ("run", "check", "report", "backfill"),
    "web_config_file": ("run", "check"),
    "live": ("check",),
    "seed": ("demo", "simulate"),
    **dict.fromkeys(("first", "last", "workspace"), ("report", "backfill")),
    **dict.fromkeys(("month", "by", "sort", "format"), ("report",)),
    **dict.fromkeys(("output", "step", "label"), ("backfill",)),
}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; an option of another command is refused, as an unknown one is."""
    parser = _parser()
    options = parser.parse_args(arguments)
    flags = {"first": "from", "last": "to", "config_file": "config.file", "web_config_file": "web.config.file"}
    for name, commands in _ONLY_FOR.items():
        if getattr(options, name) is not None and options.command not in commands:
            parser.error(f"--{flags.get(name, name)} is for {' and '.join(commands)}")
    return options


def _load(options: argparse.Namespace, environ: Mapping[str, str]) -> Config:
    from exporter.config import config

    return config.with_flags(
        config.load(options.config_file, environ),
        listen_address=options.listen_address,
        web_config_file=options.web_config_file,
        storage_path=options.storage_path,
        log_level=options.log_level,
        log_format=options.log_format,
    )


def _run(options: argparse.Namespace) -> int:
    from exporter import logs
    from exporter.daemon import Daemon

    loaded = _load(options, os.environ)
    logs.set_up(loaded.log.level, loaded.log.format)
    Daemon(loaded, lambda: _load(options, os.environ)).run()
    return 0


def _check(options: argparse.Namespace) -> int:
    from exporter.commands.check import describe, try_live

    loaded = _load(options, os.environ)
    sys.stdout.write(describe(loaded))
    if options.live:
        report, good = try_live(loaded)
        sys.stdout.write(report)
        return 0 if good else CANNOT_RUN
    return 0


def _demo(options: argparse.Namespace) -> int:
    from exporter.commands.demo import demo

    return demo(options.listen_address, options.storage_path, options.log_level, options.log_format, options.seed or 1)


def _simulate(options: argparse.Namespace) -> int:
    from exporter.commands.demo import simulate

    return simulate(options.listen_address, options.seed or 1)


def _report(options: argparse.Namespace) -> int:
    from exporter.commands import report
    from exporter.state.file import StoreError

    days = report.parse_days(options.month, options.first, options.last)
    columns = report.parse_columns(options.by or "room")
    # With the state file named, credentials and all the rest of a configuration are not needed.
    config = _load(options, os.environ) if options.storage_path is None or options.config_file is not None else None
    try:
        books = report.read(Path(options.storage_path) if config is None else config.storage.path, days, options.workspace)
    except StoreError as error:
        return _fail(error, CANNOT_RUN)
    made = report.report(books, columns, options.sort or "minutes", {} if config is None else report.own_names(config))
    form = options.format or "table"
    sys.stdout.write({"table": report.as_table, "csv": report.as_csv, "json": report.as_json}[form](made))
    if form == "csv":
        sys.stderr.writelines(f"{note}\n" for note in made.notes)
    return 0


def _backfill(options: argparse.Namespace) -> int:
    from exporter import logs
    from exporter.commands.backfill.command import BackfillError, Wanted, backfill
    from exporter.config.config import ConfigError

    for name in ("first", "output"):
        if getattr(options, name) is None:
            raise ConfigError(f"--{'from' if name == 'first' else name}: backfill needs it")
    loaded = _load(options, os.environ)
    logs.set_up(loaded.log.level, loaded.log.format)
    wanted = Wanted(options.first, options.last, options.output, options.step, options.workspace, options.label or ())
    try:
        backfill(loaded, wanted)
    except BackfillError as error:
        return _fail(error, CANNOT_RUN)
    return 0
