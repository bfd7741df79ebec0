"""`state copy`: every row arrives, from a file to a database and back, and the source stays untouched."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exporter.cli import main
from exporter.config.config import Secret, StorageConfig
from exporter.state.postgres import connect, prepare, try_lock
from exporter.state.store import Store
from exporter.state.tables import TABLES
from exporter.state.view import StateView, look, look_into
from tests.postgres import Server, fresh
from tests.state.test_machine_faults import full_state
from tests.state.test_migrations import kept
from tests.state.test_store import contents, fill

pytestmark = pytest.mark.slow  # starts a PostgreSQL of its own


@pytest.fixture
def name(postgres: Server) -> str:
    """A new database for the test."""
    return fresh(postgres)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A state file with something in every table."""
    made = tmp_path / "from" / "state.db"
    made.parent.mkdir()
    kept(2, made)
    Store(made).close()
    return made


def rows(view: StateView) -> dict[str, list[Any]]:
    return {table.name: sorted(view.rows(table), key=repr) for table in TABLES}


def test_from_a_file_to_a_database_and_back_every_row_arrives(
    postgres: Server, name: str, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(path.parent)
    url_file = tmp_path / "url"
    url_file.write_text(postgres.url(name) + "\n")
    assert main(["state", "copy", str(path), f"@{url_file}"]) == 0
    assert "Copied" in capsys.readouterr().out
    assert contents(path.parent) == before
    wanted = look(path, rows)
    assert sum(map(len, wanted.values())) > 50
    assert look_into(StorageConfig(url=Secret(postgres.url(name))), rows) == wanted
    back = tmp_path / "new" / "folder" / "state.db"
    assert main(["state", "copy", postgres.url(name), str(back)]) == 0
    assert look(back, rows) == wanted
    assert back.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_the_counts_of_every_collector_arrive_and_come_back(postgres: Server, name: str, tmp_path: Path) -> None:
    path = full_state(tmp_path)
    wanted = look(path, rows)
    assert {table: len(found) for table, found in wanted.items() if not found} == {}
    assert main(["state", "copy", str(path), postgres.url(name)]) == 0
    assert look_into(StorageConfig(url=Secret(postgres.url(name))), rows) == wanted
    back = tmp_path / "back" / "state.db"
    assert main(["state", "copy", postgres.url(name), str(back)]) == 0
    assert look(back, rows) == wanted


def test_a_file_of_an_earlier_version_is_copied_as_of_this_one_and_left_as_it_is(postgres: Server, name: str, tmp_path: Path) -> None:
    old = tmp_path / "from" / "state.db"
    old.parent.mkdir()
    kept(2, old)
    before = contents(old.parent)
    assert main(["state", "copy", str(old), postgres.url(name)]) == 0
    assert contents(old.parent) == before
    assert look_into(StorageConfig(url=Secret(postgres.url(name))), rows) == look(old, rows)


def refused(capsys: pytest.CaptureFixture[str], source: str, target: str, code: int = 1) -> str:
    assert main(["state", "copy", source, target]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err


def test_a_source_that_is_missing_or_in_use_is_refused_and_nothing_is_made(
    postgres: Server, name: str, tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "to" / "state.db"
    assert "there is no state file" in refused(capsys, str(tmp_path / "none.db"), str(target))
    assert "holds no state" in refused(capsys, postgres.url(name), str(target))
    counting = fill(tmp_path / "used.db")
    assert "in use" in refused(capsys, str(tmp_path / "used.db"), str(target))
    counting.close()
    holder = connect(postgres.url(name))
    assert try_lock(holder)
    assert "in use" in refused(capsys, postgres.url(name), str(target))
    assert "in use" in refused(capsys, str(path), postgres.url(name))
    holder.close()
    assert not target.parent.exists()
    assert postgres.sql(name, "SELECT to_regclass('hms.state')") == [(None,)]


def test_a_target_that_holds_a_state_is_refused_and_left_as_it_is(
    postgres: Server, name: str, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.db"
    fill(other).close()
    before = other.read_bytes()
    assert "the file exists already" in refused(capsys, str(path), str(other))
    assert other.read_bytes() == before
    assert main(["state", "copy", str(path), postgres.url(name)]) == 0
    capsys.readouterr()
    assert "holds a state already" in refused(capsys, str(other), postgres.url(name))
    assert look_into(StorageConfig(url=Secret(postgres.url(name))), rows) == look(path, rows)


def test_a_database_where_an_exporter_made_its_tables_and_counted_nothing_is_free(postgres: Server, name: str, path: Path) -> None:
    connection = connect(postgres.url(name))
    prepare(connection)
    connection.close()
    assert main(["state", "copy", str(path), postgres.url(name)]) == 0


def test_a_damaged_source_is_refused_and_nothing_is_made(
    postgres: Server, name: str, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE day SET us = us + 1")
        db.commit()
    target = tmp_path / "to" / "state.db"
    assert "damaged" in refused(capsys, str(path), str(target))
    assert "damaged" in refused(capsys, str(path), postgres.url(name))
    assert not target.parent.exists()
    assert postgres.sql(name, "SELECT to_regclass('hms.state')") == [(None,)]


def test_a_password_is_shown_nowhere(tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for url in ("postgresql://me:c4nary@127.0.0.1:1/none", "postgresql://me:c4nary@[bad/none"):
        main(["state", "copy", str(path), url])
        told = capsys.readouterr()
        assert "c4nary" not in told.out + told.err
    assert main(["state", "copy", str(path), "mysql://me:c4nary@host/none"]) == 2
    assert "c4nary" not in capsys.readouterr().err
    assert main(["state", "copy", str(path), f"@{tmp_path / 'none'}"]) == 2


def test_a_report_reads_the_database_as_it_reads_the_file(
    postgres: Server, name: str, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["state", "copy", str(path), postgres.url(name)]) == 0
    capsys.readouterr()
    assert main(["report", "--storage.path", str(path), "--from", "2026-03-01", "--to", "2026-03-10", "--format", "csv"]) == 0
    wanted = capsys.readouterr().out
    config = tmp_path / "config.yaml"
    config.write_text(f"workspaces: [{{name: w, access_key: k, secret: s}}]\nstorage: {{url: '{postgres.url(name)}'}}\n")
    assert main(["report", "--config.file", str(config), "--from", "2026-03-01", "--to", "2026-03-10", "--format", "csv"]) == 0
    assert capsys.readouterr().out == wanted
    assert "room" in wanted
