"""`hms-exporter dashboards DIR` and `hms-exporter rules DIR`: write the files that Grafana and Prometheus load into a folder.

An installed exporter has them in its package; in a clone of the project they are in their source folders.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Literal, NamedTuple

from exporter.commands.options import CommandFailed

Kind = Literal["dashboards", "rules"]
Fate = Literal["written", "unchanged", "kept"]

_IN_A_CLONE: Mapping[Kind, str] = {"dashboards": "grafana/dashboards", "rules": "prometheus/rules"}
_SUFFIX: Mapping[Kind, str] = {"dashboards": ".json", "rules": ".yml"}
_SAYS: Mapping[Fate, str] = {
    "written": "written",
    "unchanged": "is already there",
    "kept": "differs and is kept; --force overwrites it",
}


class Outcome(NamedTuple):
    """What happened to one file."""

    path: Path
    fate: Fate

    def __str__(self) -> str:
        return f"{self.path}: {_SAYS[self.fate]}"


def carried(kind: Kind) -> dict[str, bytes]:
    """The exporter's files of this kind, by name."""
    package = files("exporter")
    folder = package / "assets" / kind
    if not folder.is_dir():
        folder = package / ".." / _IN_A_CLONE[kind]
    found = {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.name.endswith(_SUFFIX[kind])}
    return dict(sorted(found.items()))


def linked(content: bytes, runbooks: str | None) -> bytes:
    """The file with its links to runbooks pointing to the page `runbooks`, if it is given."""
    if runbooks is None:
        return content
    found = re.search(rb"(?m)^ +runbook_url: (\S+)#\w+$", carried("rules")["hms-alerts.yml"])
    assert found is not None  # each alert has one
    return content.replace(found[1] + b"#", runbooks.encode() + b"#")


def write(kind: Kind, folder: Path, *, force: bool = False, runbooks: str | None = None) -> list[Outcome]:
    """Writes the files into `folder`, which is created.  An existing file that differs is kept, unless `force` is true.

    Raises `CommandFailed`.
    """
    if runbooks is not None and not re.fullmatch(r"https?://[^\s#\"\\]+", runbooks):
        raise CommandFailed(f"--runbooks: expected the address of a page, https://..., without an anchor, found {runbooks!r}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandFailed(f"{folder}: cannot be created: {error.strerror}") from None
    files_now = {name: linked(content, runbooks) for name, content in carried(kind).items()}
    return [Outcome(folder / name, _put(folder / name, content, force=force)) for name, content in files_now.items()]


def _put(path: Path, content: bytes, *, force: bool) -> Fate:
    try:
        if path.exists():
            if path.read_bytes() == content:
                return "unchanged"
            if not force:
                return "kept"
        # Renamed into place, because Grafana and Prometheus may read it at any time.
        scratch = path.with_name(f".{path.name}.new")
        scratch.write_bytes(content)
        scratch.replace(path)
    except OSError as error:
        raise CommandFailed(f"{path}: cannot be written: {error.strerror}") from None
    return "written"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the folder, and the flags."""
    parser.usage = "%(prog)s DIR [options]"
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder, which is created")
    parser.add_argument("--force", action="store_true", help="overwrite files that differ")
    parser.add_argument("--runbooks", metavar="URL", help="where docs/alerts.md is published, for the links to runbooks")


def run(kind: Kind, options: argparse.Namespace) -> int:
    """Writes the files and says what happened to each: exit code 1 if one was kept because it differs."""
    outcomes = write(kind, options.folder, force=options.force, runbooks=options.runbooks)
    sys.stdout.write("".join(f"{outcome}\n" for outcome in outcomes))
    return int(any(outcome.fate == "kept" for outcome in outcomes))
