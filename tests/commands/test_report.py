"""Reports from the state file of a running or stopped exporter, for any range of days, for people and for machines."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from exporter import cli
from exporter.commands import report, tables
from exporter.commands.report import parse_days
from exporter.commands.subjects import subject_of
from exporter.commands.tables import Days
from exporter.config.config import ConfigError, StorageConfig
from exporter.counting.rooms import KnownRoom
from exporter.state.soundness import StoreError
from exporter.times import DAY, HOUR, SECOND
from tests.harness import T0, Counting, at, peer, session

MIDNIGHT = (T0 // DAY + 1) * DAY
"""The midnight after `T0`, which is 2026-03-02 08:00 UTC."""
MARCH = Days(20513, 20543)
BOTS = frozenset({"recorder"})


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Counting]:
    """A running exporter that has counted two ended sessions of two rooms, one of them across midnight, and follows a third."""
    counting = Counting(tmp_path / "state.db")
    counting.poll(T0)
    counting.poll(
        MIDNIGHT + 2 * HOUR,
        session("one", {"a": peer(at(10), at(70.5)), "b": peer(at(10), at(40), "host")}, room="r1", started=at(0), ended=at(100)),
        session("two", {"c": peer(MIDNIGHT - 60 * SECOND, MIDNIGHT + 120 * SECOND)}, room="r2", started=at(600), ended=MIDNIGHT + HOUR),
        session("three", {"d": peer(MIDNIGHT + 2 * HOUR - 30 * SECOND)}, room="r2", started=MIDNIGHT + HOUR),
    )
    rooms = [
        KnownRoom("r1", "daily, stand-up", "", "", "", enabled=True, exists=True, fetched_at=1),
        KnownRoom("r2", "美咲's lounge", "", "", "", enabled=True, exists=True, fetched_at=1),
    ]
    counting.store.commit("w", counting.ledger, rooms)
    yield counting
    counting.close()


def made(path: Path, by: str = "room", sort: str = "minutes", days: Days = MARCH) -> tables.Report:
    return report.report(report.read(StorageConfig(path=path), lambda _: days, None), report.parse_columns(by), sort, {}, BOTS)


def seconds(found: tables.Report) -> dict[tuple[str, ...], float]:
    return {key: micros / SECOND for key, micros in found.rows}


class TestSums:
    """Usage is added up ..."""

    def test_by_room_with_running_sessions_up_to_the_last_poll(self, counting: Counting) -> None:
        assert seconds(made(counting.path)) == {("r2", "美咲's lounge"): 210.0, ("r1", "daily, stand-up"): 90.5}

    def test_by_day_with_stays_split_at_midnight(self, counting: Counting) -> None:
        assert seconds(made(counting.path, "day")) == {("2026-03-02",): 150.5, ("2026-03-03",): 150.0}

    def test_by_any_columns_in_any_order(self, counting: Counting) -> None:
        assert seconds(made(counting.path, "role,workspace")) == {("guest", "w"): 270.5, ("host", "w"): 30.0}
        assert made(counting.path, "day,room").by == ("day", "room_id", "room")
        assert seconds(made(counting.path, "day,role,room"))["2026-03-02", "host", "r1", "daily, stand-up"] == 30.0

    def test_of_the_wanted_days_only(self, counting: Counting) -> None:
        first = T0 // DAY
        assert made(counting.path, "room", days=Days(first + 1, first + 1)).total == 150 * SECOND
        assert made(counting.path, "room", days=Days(first - 30, first - 1)).rows == []

    def test_most_minutes_first_or_by_name(self, counting: Counting) -> None:
        assert [key[0] for key, _ in made(counting.path, sort="minutes").rows] == ["r2", "r1"]
        assert [key[0] for key, _ in made(counting.path, sort="name").rows] == ["r1", "r2"]

    def test_to_the_same_whether_or_not_the_exporter_runs(self, counting: Counting) -> None:
        before = made(counting.path, "workspace,room,role,day")
        counting.close()
        assert made(counting.path, "workspace,room,role,day") == before


class TestBots:
    """Time in roles that are not people's is left out ..."""

    def test_and_a_note_says_how_much(self, counting: Counting) -> None:
        books = report.read(StorageConfig(path=counting.path), lambda _: MARCH, None)
        found = report.report(books, ("role",), "minutes", {}, frozenset({"host", "nobody"}))
        assert seconds(found) == {("guest",): 270.5}
        assert found.notes[-1] == "Left out, because they are not people (bots.roles): 0.50 minutes of host."

    def test_by_the_roles_of_the_configuration(self, counting: Counting, capsys: pytest.CaptureFixture[str]) -> None:
        config = counting.path.with_name("config.yaml")
        config.write_text("workspaces: [{name: w, access_key: k, secret: s}]\nbots: {roles: [guest]}")
        arguments = ["--config.file", os.fspath(config), "--storage.path", os.fspath(counting.path), "--format", "csv", "--by", "role"]
        assert cli.main(["report", *arguments]) == 0
        assert capsys.readouterr().out == "role,seconds\nhost,30.000\n"


class TestSessions:
    """How many sessions were longer than a given time ..."""

    @pytest.fixture
    def lengths(self, tmp_path: Path) -> Iterator[Counting]:
        """Ended sessions of 5 min, a microsecond more, a second less, and across midnight; one still running, one not yet settled."""
        counting = Counting(tmp_path / "state.db")
        counting.poll(T0)
        ended = [
            session("five", {}, room="r1", started=at(0), ended=at(300)),
            session("more", {}, room="r1", started=at(0), ended=at(300) + 1),
            session("less", {}, room="r2", started=at(0), ended=at(299)),
            session("midnight", {}, room="r2", started=MIDNIGHT - HOUR, ended=MIDNIGHT + 2 * HOUR),
        ]
        counting.poll(MIDNIGHT + 3 * HOUR - 60 * SECOND, *ended, session("unsettled", {}, room="r3", started=MIDNIGHT + HOUR))
        running = session("runs", {}, room="r1", started=MIDNIGHT + 2 * HOUR)
        unsettled = session("unsettled", {}, room="r3", started=MIDNIGHT + HOUR, ended=MIDNIGHT + 3 * HOUR - 10 * SECOND)
        counting.poll(MIDNIGHT + 3 * HOUR, running, unsettled)
        yield counting
        counting.close()

    def longer(self, path: Path, length: str, by: str = "room", days: Days = MARCH) -> dict[tuple[str, ...], int]:
        subject = subject_of(None, length)
        books = report.read(StorageConfig(path=path), lambda _: days, None, subject)
        made = report.report(books, report.parse_columns(by, subject.columns), "minutes", {}, BOTS)
        return {key if by != "room" else key[:1]: count for key, count in made.rows}

    def test_by_room_exactly_at_any_length_of_whole_seconds(self, lengths: Counting) -> None:
        assert self.longer(lengths.path, "0s") == {("r1",): 3, ("r2",): 2, ("r3",): 1}
        assert self.longer(lengths.path, "298s") == {("r1",): 3, ("r2",): 2, ("r3",): 1}
        assert self.longer(lengths.path, "299s") == {("r1",): 3, ("r2",): 1, ("r3",): 1}
        assert self.longer(lengths.path, "5m") == {("r1",): 2, ("r2",): 1, ("r3",): 1}
        assert self.longer(lengths.path, "2h") == {("r2",): 1}
        assert self.longer(lengths.path, "3h") == {}

    def test_by_the_day_on_which_they_began(self, lengths: Counting) -> None:
        assert self.longer(lengths.path, "5m", "day") == {("2026-03-02",): 2, ("2026-03-03",): 2}
        assert self.longer(lengths.path, "5m", "day,room")["2026-03-02", "r2", "r2"] == 1
        first = T0 // DAY
        assert self.longer(lengths.path, "5m", "day", Days(first + 1, first + 1)) == {("2026-03-03",): 2}

    def test_follows_what_the_second_look_says_of_an_end(self, lengths: Counting) -> None:
        assert self.longer(lengths.path, "2h")[("r2",)] == 1
        late = session("unsettled", {}, room="r3", started=MIDNIGHT + HOUR, ended=MIDNIGHT + 3 * HOUR + 10 * SECOND)
        lengths.poll(MIDNIGHT + 3 * HOUR + 180 * SECOND, late)
        assert self.longer(lengths.path, "2h") == {("r2",): 1, ("r3",): 1}
        lengths.poll(MIDNIGHT + 3 * HOUR + 240 * SECOND, late)
        assert self.longer(lengths.path, "2h") == {("r2",): 1, ("r3",): 1}, "settled, and counted once"

    def test_adds_to_what_was_stored_before_a_restart(self, lengths: Counting) -> None:
        begin = MIDNIGHT + 3 * HOUR
        for number in (1, 2, 3):
            lengths.restart()
            start = begin + (4 * number - 3) * HOUR
            lengths.poll(start + 3 * HOUR, session(f"next-{number}", {}, room="r2", started=start, ended=start + 2 * HOUR + SECOND))
        assert self.longer(lengths.path, "2h", "day,room") == {("2026-03-02", "r2", "r2"): 1, ("2026-03-03", "r2", "r2"): 3}

    def test_says_from_when_on_lengths_are_kept(self, tmp_path: Path) -> None:
        """The state of an earlier version did not keep lengths: sessions settled by its last poll are missing."""
        path = tmp_path / "state.db"
        path.write_bytes(gzip.decompress((Path(__file__).parents[1] / "state" / "files" / "state-5.db.gz").read_bytes()))
        books = report.read(StorageConfig(path=path), lambda _: MARCH, None, subject_of(None, "1m"))
        notes = report.report(books, ("workspace",), "name", {}, BOTS).notes
        missing = [note for note in notes if note.startswith("Workspace w: NOT COMPLETE: the lengths of sessions are kept since 2026-03-0")]
        assert len(missing) == 1
        assert missing[0].endswith("when the state was upgraded; sessions that had ended by then are missing.")
        later = report.read(StorageConfig(path=path), lambda _: Days(MARCH.last, MARCH.last), None, subject_of(None, "1m"))
        assert later.lacks == ()

    def test_says_nothing_of_the_kind_for_a_state_that_has_always_kept_them(self, lengths: Counting) -> None:
        books = report.read(StorageConfig(path=lengths.path), lambda _: MARCH, None, subject_of(None, "1m"))
        assert books.lacks == ()

    def test_as_a_table_and_for_machines(self, lengths: Counting, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["report", "--storage.path", os.fspath(lengths.path), "--sessions-longer-than", "5m", "--by", "day"]
        assert cli.main(arguments) == 0
        assert capsys.readouterr().out.startswith(
            "Sessions longer than 5m from 2026-03-01 to 2026-03-31 (UTC)\n\nday         sessions   share\n"
        )
        assert cli.main([*arguments, "--format", "csv", "--sort", "name"]) == 0
        assert capsys.readouterr().out == "day,sessions\n2026-03-02,2\n2026-03-03,2\n"
        assert cli.main([*arguments, "--format", "json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["total_sessions"], found["rows"][0]) == (4, {"day": "2026-03-02", "sessions": 2})

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["5"], "--sessions-longer-than: expected a duration from 0s to 3650d, found '5' (a unit is missing, as in 30s)"),
            (["500ms"], "--sessions-longer-than: expected whole seconds"),
            (["5m", "--by", "role"], "--by: expected some of workspace,room,day, each at most once"),
        ],
    )
    def test_refuses_in_one_line(self, lengths: Counting, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
        assert cli.main(["report", "--storage.path", os.fspath(lengths.path), "--sessions-longer-than", *arguments]) == 2
        assert capsys.readouterr().err == f"hms-exporter: {message}\n"


class TestReading:
    """The state file ..."""

    def test_is_neither_changed_nor_locked(self, counting: Counting) -> None:
        folder = {path.name: path.read_bytes() for path in counting.path.parent.iterdir()}
        made(counting.path)
        after = {path.name: path.read_bytes() for path in counting.path.parent.iterdir()}
        del folder["state.db-shm"], after["state.db-shm"]  # SQLite's files for readers
        assert after == folder
        counting.poll(MIDNIGHT + 3 * HOUR)

    def test_is_left_alone_when_nobody_has_it_open(self, counting: Counting) -> None:
        counting.close()
        made(counting.path)
        assert [path.name for path in counting.path.parent.iterdir()] == ["state.db"]

    def test_may_be_read_only_in_a_read_only_folder(self, counting: Counting) -> None:
        counting.close()
        folder = counting.path.parent
        counting.path.chmod(stat.S_IRUSR)
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
        try:
            assert made(counting.path).total == 300.5 * SECOND
        finally:
            folder.chmod(stat.S_IRWXU)

    def test_that_is_missing_or_of_another_kind_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="there is no state file"):
            made(tmp_path / "state.db")
        (tmp_path / "text").write_text("not a database, and long enough to look at: " * 10)
        with pytest.raises(StoreError, match="not a state file"):
            made(tmp_path / "text")
        with closing(sqlite3.connect(tmp_path / "other.db")) as other:
            other.execute("CREATE TABLE day (us INTEGER)")
        with pytest.raises(StoreError, match="a database of another program"):
            made(tmp_path / "other.db")

    def test_that_has_changed_on_the_disk_is_refused(self, counting: Counting) -> None:
        counting.close()
        with closing(sqlite3.connect(counting.path)) as db:
            db.execute("UPDATE day SET us = us + 1")
            db.commit()
        with pytest.raises(StoreError, match="damaged"):
            made(counting.path)


class TestKnowledge:
    """The report says ..."""

    def test_where_knowledge_begins_and_that_the_present_is_running(self, counting: Counting) -> None:
        assert made(counting.path).notes == (
            "Running sessions count up to the last poll, 2026-03-03 02:00:00 UTC.",
            "Knowledge begins at 2026-03-02 08:00:00 UTC: sessions that had ended by then are not in these figures.",
        )

    def test_nothing_when_everything_is_known(self, counting: Counting) -> None:
        counting.poll(MIDNIGHT + 2 * DAY)
        assert made(counting.path, days=Days(MIDNIGHT // DAY, MIDNIGHT // DAY)).notes == ()

    def test_that_the_past_is_still_being_read(self, tmp_path: Path) -> None:
        counting = Counting(tmp_path / "state.db", since=T0 - 10 * DAY)
        counting.begin(T0)
        counting.end()
        counting.close()
        notes = made(counting.path).notes
        assert "NOT COMPLETE: sessions that began from 2026-02-19 19:00:00 UTC up to 2026-03-02 08:00:00 UTC are still being read." in notes

    def test_which_rooms_came_later_and_which_have_gone(self, tmp_path: Path) -> None:
        counting = Counting(tmp_path / "state.db", keys=["r1"])
        counting.poll(T0)
        counting.configure(["~class-.*"], since=at(3600))
        counting.poll(at(3600))
        counting.close()
        assert made(counting.path).notes[1:] == (
            "Room r1: knowledge begins at 2026-03-02 08:00:00 UTC.",
            "Rooms named class-.*: knowledge begins at 2026-03-02 09:00:00 UTC.",
            "Room r1: not followed any more since 2026-03-02 09:00:00 UTC.",
        )


class TestTexts:
    """It is shown ..."""

    def test_as_a_table_for_people(self, counting: Counting) -> None:
        assert tables.as_table(made(counting.path, "room,role")) == (
            "Participant minutes from 2026-03-01 to 2026-03-31 (UTC)\n"
            "\n"
            "room             role   minutes   share\n"
            "---------------------------------------\n"
            "美咲's lounge    guest     3.50   69.9%\n"
            "daily, stand-up  guest     1.01   20.1%\n"
            "daily, stand-up  host      0.50   10.0%\n"
            "---------------------------------------\n"
            "total                      5.01  100.0%\n"
            "\n"
            "Running sessions count up to the last poll, 2026-03-03 02:00:00 UTC.\n"
            "Knowledge begins at 2026-03-02 08:00:00 UTC: sessions that had ended by then are not in these figures.\n"
        )

    def test_with_thousands_separators(self) -> None:
        large = tables.Report(tables.MINUTES["peer"], MARCH, ("role",), [(("host",), 123_456_789 * 60 * SECOND)], (), ())
        assert "123,456,789.00" in tables.as_table(large)

    def test_without_control_characters(self) -> None:
        nasty = tables.Report(tables.MINUTES["peer"], MARCH, ("role",), [(("\x1b[31mred",), SECOND)], (), ())
        assert "\x1b" not in tables.as_table(nasty)

    def test_as_csv_to_the_millisecond(self, counting: Counting) -> None:
        rows = list(csv.reader(io.StringIO(tables.as_csv(made(counting.path, "room,day")))))
        assert rows[0] == ["room_id", "room", "day", "seconds"]
        assert ["r1", "daily, stand-up", "2026-03-02", "90.500"] in rows
        assert len(rows) == 4

    def test_as_json_with_what_is_known(self, counting: Counting) -> None:
        found = json.loads(tables.as_json(made(counting.path, "role")))
        assert found["rows"] == [{"role": "guest", "seconds": 270.5}, {"role": "host", "seconds": 30.0}]
        assert (found["from"], found["to"], found["total_seconds"]) == ("2026-03-01", "2026-03-31", 300.5)
        assert found["knowledge"] == [
            {"workspace": "w", "since": "2026-03-02T08:00:00Z", "until": "2026-03-03T02:00:00Z", "complete": True}
        ]
        assert len(found["notes"]) == 2


class TestDays:
    """The days are ..."""

    TODAY = 20519  # 2026-03-07

    @pytest.mark.parametrize(
        ("month", "first", "last", "expected"),
        [
            (None, None, None, Days(20513, 20543)),
            ("2026-02", None, None, Days(20485, 20512)),
            ("2024-02", None, None, Days(19754, 19782)),
            (None, "2026-03-02", "2026-03-03", Days(20514, 20515)),
            (None, "2026-03-02", None, Days(20514, 20519)),
        ],
    )
    def test_as_asked_for(self, month: str | None, first: str | None, last: str | None, expected: Days) -> None:
        assert parse_days(month, first, last)(self.TODAY) == expected

    @pytest.mark.parametrize(
        ("month", "first", "last", "message"),
        [
            ("2026-13", None, None, "--month: expected a month such as 2026-11"),
            ("2026-2", None, None, "--month: expected a month such as 2026-11"),
            ("2026-02", "2026-02-01", None, "--month: expected either this option, or --from and --to"),
            (None, "2026-02-30", None, "--from: expected a day such as 2026-11-15"),
            (None, "yesterday", None, "--from: expected a day such as 2026-11-15"),
            (None, None, "2026-02-01", "--to: expected --from beside it"),
            (None, "2026-02-02", "2026-02-01", "--to: expected a day that is not before --from"),
        ],
    )
    def test_refused(self, month: str | None, first: str | None, last: str | None, message: str) -> None:
        with pytest.raises(ConfigError) as refused:
            parse_days(month, first, last)
        assert str(refused.value) == message


class TestCommand:
    """`hms-exporter report` ..."""

    def run(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
        code = cli.main(["report", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    def test_needs_no_configuration_beside_the_state_file(self, counting: Counting, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, err = self.run(capsys, "--storage.path", os.fspath(counting.path))
        assert (code, err) == (0, "")
        assert "from 2026-03-01 to 2026-03-31" in out, "the month of the last poll"

    def test_keeps_notes_out_of_a_csv(self, counting: Counting, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, err = self.run(capsys, "--storage.path", os.fspath(counting.path), "--format", "csv")
        assert code == 0
        assert out.startswith("room_id,room,seconds\n")
        assert "Knowledge begins" in err

    def test_takes_names_from_the_configuration(self, counting: Counting, capsys: pytest.CaptureFixture[str]) -> None:
        config = counting.path.with_name("config.yaml")
        config.write_text("workspaces: [{name: w, access_key: k, secret: s, rooms: [{id: r1, name: my own name}]}]")
        code, out, _ = self.run(capsys, "--config.file", os.fspath(config), "--storage.path", os.fspath(counting.path))
        assert code == 0
        assert "my own name" in out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--by", "room,user"], "--by: expected some of workspace,room,role,day, each at most once"),
            (["--by", "room,room"], "--by: expected some of workspace,room,role,day, each at most once"),
            (["--workspace", "x"], "--workspace: expected one that the state file knows (w)"),
        ],
    )
    def test_refuses_in_one_line(self, counting: Counting, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
        code, out, err = self.run(capsys, "--storage.path", os.fspath(counting.path), *arguments)
        assert (code, out, err) == (2, "", f"hms-exporter: {message}\n")

    def test_without_a_state_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        code, _, err = self.run(capsys, "--storage.path", os.fspath(tmp_path / "none.db"))
        assert (code, err) == (1, f"hms-exporter: {tmp_path}/none.db: there is no state file\n")
