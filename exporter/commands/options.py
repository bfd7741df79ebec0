"""Shared by several commands: the flags that override the configuration file, and loading the configuration."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter.config import config
from exporter.config.config import Config

FLAGS: Mapping[str, Mapping[str, Any]] = {
    "--web.listen-address": {"action": "append", "metavar": "HOST:PORT", "help": "where to serve /metrics; may be repeated"},
    "--web.systemd-socket": {"action": "store_true", "default": None, "help": "serve on the sockets that systemd passes instead"},
    "--web.telemetry-path": {"metavar": "PATH", "help": "where the metrics are (default: /metrics)"},
    "--web.config.file": {"metavar": "FILE", "help": "TLS, passwords and headers, in the exporter toolkit's format"},
    "--storage.path": {"metavar": "FILE", "help": "the state file"},
    "--log.level": {"metavar": "LEVEL", "help": "debug, info, warn or error"},
    "--log.format": {"metavar": "FORMAT", "help": "logfmt or json"},
}
"""Flags that override the configuration file; each is named after its key there."""


class CommandFailed(Exception):
    """The command failed; the message says why, in one line."""


def add_config_file(parser: argparse.ArgumentParser) -> None:
    """Adds `--config.file`."""
    parser.add_argument("--config.file", dest="config_file", type=Path, metavar="FILE", help="the configuration (default: config.yaml)")


def add_flags(parser: argparse.ArgumentParser, *names: str) -> None:
    """Adds some of `FLAGS`; all of them when none is named."""
    for name in names or FLAGS:
        parser.add_argument(name, dest=name, **FLAGS[name])


def given_flags(options: argparse.Namespace) -> dict[str, Any]:
    """The flags of `FLAGS` that are on the command line, with their values."""
    return {name: value for name, value in vars(options).items() if name in FLAGS and value is not None}


def load(options: argparse.Namespace) -> Config:
    """The configuration that the command line selects.  Raises `ConfigError`."""
    return config.with_flags(config.load(options.config_file, os.environ), given_flags(options))
