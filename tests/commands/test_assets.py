"""`dashboards DIR` and `rules DIR` write the files, and never overwrite a changed one unless asked to."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from exporter import cli
from exporter.commands import assets
from exporter.commands.assets import Kind
from exporter.commands.options import CommandFailed
from tests.programs import require

ROOT = Path(__file__).resolve().parent.parent.parent
KINDS: dict[Kind, Path] = {"dashboards": ROOT / "grafana/dashboards", "rules": ROOT / "prometheus/rules"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_of_the_project_is_written_into_a_folder_that_is_made(kind: Kind, tmp_path: Path) -> None:
    folder = tmp_path / "new" / kind
    outcomes = assets.write(kind, folder)
    kept_here = {path.name: path.read_bytes() for path in KINDS[kind].iterdir()}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept_here
    assert {(outcome.path.name, outcome.fate) for outcome in outcomes} == {(name, "written") for name in kept_here}


def test_the_files_can_be_read_by_grafana_and_prometheus_and_are_what_they_load(tmp_path: Path) -> None:
    assets.write("dashboards", tmp_path)
    assets.write("rules", tmp_path)
    umask = os.umask(0)
    os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~umask}
    assert all(json.loads(path.read_text())["uid"] == path.stem for path in tmp_path.glob("*.json"))
    subprocess.run([require("promtool"), "check", "rules", *tmp_path.glob("*.yml")], check=True, capture_output=True)


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    assets.write("rules", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert {outcome.fate for outcome in assets.write("rules", tmp_path)} == {"unchanged"}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_file_that_differs_is_kept_and_the_others_are_written(tmp_path: Path) -> None:
    mine = tmp_path / "hms-thresholds.yml"
    mine.write_text("groups: []\n")
    outcomes = {outcome.path.name: outcome for outcome in assets.write("rules", tmp_path)}
    assert mine.read_text() == "groups: []\n"
    assert str(outcomes.pop(mine.name)) == f"{mine}: differs and is kept; --force overwrites it"
    assert {outcome.fate for outcome in outcomes.values()} == {"written"}


def test_with_force_a_file_that_differs_is_overwritten_and_files_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / "hms-thresholds.yml").write_text("groups: []\n")
    (tmp_path / "my-own.yml").write_text("groups: []\n")
    assert {outcome.fate for outcome in assets.write("rules", tmp_path, force=True)} == {"written"}
    assert (tmp_path / "hms-thresholds.yml").read_bytes() == (KINDS["rules"] / "hms-thresholds.yml").read_bytes()
    assert (tmp_path / "my-own.yml").read_text() == "groups: []\n"


def test_links_to_runbooks_lead_to_the_given_page(tmp_path: Path) -> None:
    page = "https://wiki.example.org/calls/alerts"
    for kind in KINDS:
        assets.write(kind, tmp_path, runbooks=page)
    alerts = (tmp_path / "hms-alerts.yml").read_text()
    assert alerts.count(f"runbook_url: {page}#hms") == alerts.count("runbook_url:") > 20
    assert f'"url": "{page}#${{__value.text}}"' in (tmp_path / "hms-overview.json").read_text()


@pytest.mark.parametrize("page", ["docs/alerts.md", "https://wiki.example.org/alerts#top", "ftp://wiki.example.org"])
def test_a_link_that_would_be_dead_in_a_message_is_refused(page: str, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"--runbooks: expected the address of a page"):
        assets.write("rules", tmp_path, runbooks=page)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_and_a_file_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandFailed, match=r"/file: cannot be created: File exists$"):
        assets.write("rules", tmp_path / "file")
    (tmp_path / "hms-alerts.yml").mkdir()
    with pytest.raises(CommandFailed, match=r"/hms-alerts.yml: cannot be written: Is a directory$"):
        assets.write("rules", tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_tells_the_outcome_of_each_file_and_fails_for_one_that_is_kept(
    kind: Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new"
    first = min(KINDS[kind].iterdir()).name
    assert cli.main([kind, str(folder)]) == 0
    assert f"{folder}/{first}: written\n" in capsys.readouterr().out
    (folder / first).write_text("mine")
    assert cli.main([kind, str(folder)]) == 1
    assert f"{folder}/{first}: differs and is kept; --force overwrites it\n" in capsys.readouterr().out
    assert cli.main([kind, str(folder), "--force"]) == 0
    assert cli.main([kind, str(tmp_path / "new" / first)]) == 1
    assert capsys.readouterr().err == f"hms-exporter: {folder}/{first}: cannot be created: File exists\n"
