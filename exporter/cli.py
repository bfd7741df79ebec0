"""The command line: arguments, subcommands, exit codes.

What a subcommand needs is imported when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exporter import __version__

if TYPE_CHECKING:
    from exporter.config import Config

CANNOT_RUN = 1
BAD_CONFIGURATION = 2

_COMMANDS = """\
commands:
  run        the exporter (the default)
  check      says what the configuration means and what it costs; --live tries it
  demo       the exporter against a simulated 100ms, all in one process
  simulate   only the simulated 100ms API
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    options = _parser().parse_args(arguments)
    commands = {"run": _run, "check": _check, "demo": _demo, "simulate": _simulate}
    from exporter.config import ConfigError
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
    parser.add_argument("command", nargs="?", default="run", choices=("run", "check", "demo", "simulate"), metavar="command")
    parser.add_argument("--version", action="version", version=f"hms-exporter {__version__}")
    parser.add_argument("--config.file", dest="config_file", type=Path, metavar="FILE", help="the configuration (default: config.yaml)")
    parser.add_argument("--web.listen-address", dest="listen_address", metavar="HOST:PORT", help="where to serve /metrics")
    parser.add_argument("--web.config.file", dest="web_config_file", metavar="FILE", help="TLS and passwords of the HTTP face")
    parser.add_argument("--storage.path", dest="storage_path", metavar="FILE", help="the state file")
    parser.add_argument("--log.level", dest="log_level", metavar="LEVEL", help="debug, info, warn or error")
    parser.add_argument("--log.format", dest="log_format", metavar="FORMAT", help="logfmt or json")
    parser.add_argument("--live", action="store_true", help="check: try each workspace's credentials and rooms")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="demo, simulate: which made-up company (default: 1)")
    return parser


def _load(options: argparse.Namespace, environ: Mapping[str, str]) -> Config:
    from exporter import config

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
    from exporter.check import describe, try_live

    loaded = _load(options, os.environ)
    sys.stdout.write(describe(loaded))
    if options.live:
        report, good = try_live(loaded)
        sys.stdout.write(report)
        return 0 if good else CANNOT_RUN
    return 0


def _demo(options: argparse.Namespace) -> int:
    from exporter.demo import demo

    return demo(options.listen_address, options.storage_path, options.log_level, options.log_format, options.seed)


def _simulate(options: argparse.Namespace) -> int:
    from exporter.demo import simulate

    return simulate(options.listen_address, options.seed)
