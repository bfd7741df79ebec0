"""The command line: finds the command, parses its flags, and turns the outcome into an exit code.

A command is one module in `exporter.commands` and one line in `COMMANDS`.  Only the module of the command that runs is
imported, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

from exporter import __version__

CANNOT_RUN = 1
BAD_CONFIGURATION = 2

COMMANDS = {
    "run": "run the exporter (the default)",
    "check": "say what the configuration means and costs; --live tries it, --healthy asks the running exporter",
    "demo": "run the exporter against a simulated 100ms, in one process",
    "simulate": "run only the simulated 100ms API",
    "report": "show participant minutes by room, role and day, from the state file",
    "state": "copy the state between a file and a PostgreSQL database",
    "backfill": "write the past, read from the API, as OpenMetrics for promtool",
    "dashboards": "write the dashboards for Grafana into a folder",
    "rules": "write the alerts and recording rules for Prometheus into a folder",
}
"""Each command's name, which is also that of its module in `exporter.commands`, and its line of help."""

_DESCRIPTION = "Prometheus exporter for 100ms.live: exact sessions, peers and participant minutes of your rooms."
_OWN_FLAGS = ("-h", "--help", "--version")


class Command(Protocol):
    """The interface of a module in `exporter.commands`."""

    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the command's flags."""

    def run(self, options: argparse.Namespace) -> int:
        """Runs the command; returns its exit code.  Raises `ConfigError` (exit code 2) or `CommandFailed` (1)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    command, options = _parse(sys.argv[1:] if arguments is None else arguments)
    if not sys.warnoptions:
        # Library warnings are for programmers, and one of them reveals the length of a secret.
        warnings.simplefilter("ignore")
    from exporter.commands.options import CommandFailed
    from exporter.config.strict_yaml import ConfigError

    try:
        return command.run(options)
    except ConfigError as error:
        return _fail(error, BAD_CONFIGURATION)
    except CommandFailed as error:
        return _fail(error, CANNOT_RUN)
    except KeyboardInterrupt:
        return 0


def _fail(error: Exception, code: int) -> int:
    sys.stderr.write(f"hms-exporter: {error}\n")
    return code


def _parse(arguments: Sequence[str]) -> tuple[Command, argparse.Namespace]:
    """The command and its options.  Ends the process for `--help`, `--version` and wrong usage, as argparse does."""
    words = list(arguments)
    if not words or (words[0].startswith("-") and words[0] not in _OWN_FLAGS):
        words.insert(0, "run")
    parser = argparse.ArgumentParser(
        prog="hms-exporter",
        usage="%(prog)s [command] [options]",
        description=_DESCRIPTION,
        epilog="`hms-exporter COMMAND --help` shows the options of a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"hms-exporter {__version__}")
    subparsers = parser.add_subparsers(dest="command", prog=parser.prog, title="commands", metavar="command")
    parsers = {
        name: subparsers.add_parser(
            name, help=line, description=f"{line[0].upper()}{line[1:]}.", usage="%(prog)s [options]", allow_abbrev=False
        )
        for name, line in COMMANDS.items()
    }
    name = words[0]
    if name in COMMANDS:
        command = cast(Command, import_module(f"exporter.commands.{name}"))
        command.add_arguments(parsers[name])
    options, unknown = parser.parse_known_args(words)
    if unknown:
        parsers[name].error(f"unrecognized arguments: {' '.join(unknown)}")
    return command, options
