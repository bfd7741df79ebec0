"""`hms-exporter run`: the daemon."""

from __future__ import annotations

import argparse

from exporter import logs
from exporter.commands.options import CommandFailed, add_config_file, add_flags, load
from exporter.daemon import CannotRun, Daemon


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the command."""
    add_config_file(parser)
    add_flags(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the exporter until SIGTERM or SIGINT."""
    config = load(options)
    logs.set_up(config.log.level, config.log.format)
    try:
        Daemon(config, lambda: load(options)).run()
    except CannotRun as error:
        raise CommandFailed(str(error)) from error
    return 0
