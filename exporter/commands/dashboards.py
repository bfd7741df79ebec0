"""`hms-exporter dashboards DIR`: writes Grafana's dashboards into a folder."""

from __future__ import annotations

import argparse

from exporter.commands import assets


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the folder, and the flag that overwrites."""
    assets.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Writes the dashboards: exit code 1 if a file was kept because it differs.  Raises `CommandFailed`."""
    return assets.run("dashboards", options)
