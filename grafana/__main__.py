"""Writes every dashboard's JSON: `python -m grafana` beside the code, `python -m grafana --portable FOLDER` for Grafana's catalogue."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from grafana.build import portable, rendered

FOLDER = Path(__file__).parent / "dashboards"


def main() -> None:
    """Writes the files, and removes those of dashboards that are no more."""
    parser = argparse.ArgumentParser(prog="python -m grafana", description="Writes the dashboards' JSON.")
    parser.add_argument("--portable", type=Path, metavar="FOLDER", help="write the form that Grafana's catalogue imports, into FOLDER")
    folder = parser.parse_args().portable
    if folder is None:
        _write(FOLDER, rendered())
    else:
        _write(folder, portable())


def _write(folder: Path, pages: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("hms-*.json"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
