"""`hms-exporter check`: says what a configuration means, what it costs, and whether 100ms accepts it."""

from __future__ import annotations

import argparse
import os
import sys

from exporter.commands import healthy
from exporter.commands.options import add_config_file, add_flags, given_flags, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the command, including those of `run`, because it checks a run."""
    add_config_file(parser)
    add_flags(parser)
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--live", action="store_true", help="try each workspace's credentials and rooms")
    way.add_argument("--healthy", action="store_true", help="ask the running exporter whether it is healthy")


def run(options: argparse.Namespace) -> int:
    """Describes the configuration and, with `--live`, tries it: exit code 1 if 100ms does not accept it.

    With `--healthy` it asks the running exporter instead: exit code 1 if it is not healthy.
    """
    if options.healthy:
        return _ask(options)
    # Imported late: a health check runs every few seconds, and importing the API client would take half of its time.
    from exporter.commands.meaning import describe, try_live

    config = load(options)
    sys.stdout.write(describe(config))
    if not options.live:
        return 0
    sys.stdout.flush()
    report, good = try_live(config)
    sys.stdout.write(report)
    return 0 if good else 1


def _ask(options: argparse.Namespace) -> int:
    verdict = healthy.ask(healthy.door(healthy.configuration(options.config_file, os.environ, given_flags(options))))
    sys.stdout.write(f"{verdict}\n")
    return int(not verdict.healthy)
