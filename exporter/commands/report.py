"""`hms-exporter report`: shows participant time, or the number of long sessions, by workspace, room, role and day, from the state.

`read` takes the figures from the state, even while the exporter runs; `report` is pure and makes rows of them.
Times are microseconds, days are counted from the epoch, UTC.  Running sessions count up to the last poll.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from exporter.commands.options import CommandFailed, add_config_file, add_flags, load
from exporter.commands.subjects import COLUMNS, PARTICIPANTS, Subject, Usage, subject_of
from exporter.commands.tables import EPOCH, FORMATS, Days, Knowledge, Measure, Report, date_of, moment_of
from exporter.config.config import METERS, BotsConfig, Config, ConfigError, StorageConfig
from exporter.counting.scope import EVERYTHING, Scope
from exporter.state import tables
from exporter.state.soundness import StoreError
from exporter.state.view import StateView, look, look_into
from exporter.times import DAY, MINUTE

_MOST_NOTES = 5
"""How many entries of the configuration the notes name one by one."""


class Books(NamedTuple):
    """The figures of the state; `names` are the rooms' names by workspace and id, `lacks` says in words what is missing."""

    measure: Measure
    days: Days
    usage: list[Usage]
    names: Mapping[tuple[str, str], str]
    knowledge: tuple[Knowledge, ...]
    lacks: tuple[str, ...]


# -- the command ------------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the command."""
    add_config_file(parser)
    add_flags(parser, "--storage.path")
    parser.add_argument("--month", metavar="MONTH", help="a month such as 2026-11 (default: the current month)")
    parser.add_argument("--from", dest="first", metavar="DAY", help="the first day (UTC), such as 2026-11-15")
    parser.add_argument("--to", dest="last", metavar="DAY", help="the last day, inclusive (default: today)")
    parser.add_argument("--workspace", metavar="NAME", help="only this workspace")
    parser.add_argument("--by", default="room", metavar="COLUMNS", help="workspace, room, role, day, separated by commas (default: room)")
    parser.add_argument("--meter", choices=METERS, help="the meter of the minutes (default: peer)")
    longer = "count the sessions longer than this, such as 5m, instead of minutes"
    parser.add_argument("--sessions-longer-than", metavar="LENGTH", help=longer)
    parser.add_argument("--sort", choices=("minutes", "name"), default="minutes", help="most first (default), or by name")
    parser.add_argument("--format", choices=tuple(FORMATS), default="table", help="for people (table, the default) or for machines")


def run(options: argparse.Namespace) -> int:
    """Writes the report to standard output."""
    days = parse_days(options.month, options.first, options.last)
    subject = subject_of(options.meter, options.sessions_longer_than)
    columns = parse_columns(options.by, subject.columns)
    path = vars(options)["--storage.path"]
    # If the state file is given, neither a configuration nor credentials are needed.
    config = load(options) if path is None or options.config_file is not None else None
    try:
        books = read(StorageConfig(path=Path(path)) if config is None else config.storage, days, options.workspace, subject)
    except StoreError as error:
        raise CommandFailed(str(error)) from error
    bots = (BotsConfig() if config is None else config.bots).roles
    made = report(books, columns, options.sort, {} if config is None else own_names(config), bots)
    sys.stdout.write(FORMATS[options.format](made))
    if options.format == "csv":
        sys.stderr.writelines(f"{note}\n" for note in made.notes)
    return 0


# -- options ----------------------------------------------------------------------------------------------------------


def parse_days(month: str | None, first: str | None, last: str | None) -> Callable[[int], Days]:
    """The days that the options select, given the day of the last poll.  Raises `ConfigError` that names the option."""
    if month is not None:
        if first is not None or last is not None:
            raise ConfigError("--month: expected either this option, or --from and --to")
        start = _month(month)
        return lambda _: Days(start, _month_end(start))
    if first is None and last is not None:
        raise ConfigError("--to: expected --from beside it")
    begin = parse_day("--from", first) if first is not None else None
    end = parse_day("--to", last) if last is not None else None
    if begin is None:
        return lambda today: Days(_month_start(today), _month_end(today))
    if end is not None and end < begin:
        raise ConfigError("--to: expected a day that is not before --from")
    return lambda today: Days(begin, max(begin, today) if end is None else end)


def parse_day(option: str, text: str) -> int:
    """A day such as 2026-11-15.  Raises `ConfigError`."""
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return (date.fromisoformat(text) - EPOCH).days
    except ValueError:
        pass
    raise ConfigError(f"{option}: expected a day such as 2026-11-15")


def _month(text: str) -> int:
    try:
        if re.fullmatch(r"\d{4}-\d\d", text):
            return (date.fromisoformat(f"{text}-01") - EPOCH).days
    except ValueError:
        pass
    raise ConfigError("--month: expected a month such as 2026-11")


def _month_start(day: int) -> int:
    return ((EPOCH + timedelta(days=day)).replace(day=1) - EPOCH).days


def _month_end(day: int) -> int:
    return _month_start(_month_start(day) + 31) - 1


def parse_columns(text: str, known: tuple[str, ...] = COLUMNS) -> tuple[str, ...]:
    """The columns of a report, such as `room,role`.  Raises `ConfigError`."""
    columns = tuple(text.split(","))
    if not set(columns) <= set(known) or len(set(columns)) < len(columns):
        raise ConfigError(f"--by: expected some of {','.join(known)}, each at most once")
    return columns


# -- reading the state ------------------------------------------------------------------------------------------------


def read(storage: StorageConfig, days: Callable[[int], Days], workspace: str | None, subject: Subject = PARTICIPANTS) -> Books:
    """The state's figures of these days.  Raises `StoreError`, and `ConfigError` for an unknown workspace."""
    if storage.url is None:
        return look(storage.path, lambda view: _books(view, days, workspace, subject))
    found = look_into(storage, lambda view: _books(view, days, workspace, subject))
    if found is None:
        raise StoreError("the database holds no state yet")
    return found


def _books(view: StateView, days: Callable[[int], Days], workspace: str | None, subject: Subject) -> Books:
    found = {row.name: row for row in view.rows(tables.WORKSPACE)}
    if workspace is not None and workspace not in found:
        known = ", ".join(sorted(found)) or "none yet"
        raise ConfigError(f"--workspace: expected one that the state file knows ({known})")
    wanted = sorted(found) if workspace is None else [workspace]
    today = max((found[name].now or 0 for name in wanted), default=0) // DAY
    span = days(today)
    usage: list[Usage] = []
    names: dict[tuple[str, str], str] = {}
    knowledge = []
    lacks = []
    for name in wanted:
        usage += subject.gather(view, found[name], span)
        lacks += [f"Workspace {name}: {text}" if len(wanted) > 1 else text for text in subject.lacks(found[name], span)]
        names |= {(name, row.id): row.name for row in view.rows(tables.ROOM, "workspace = ? AND name <> ''", (name,))}
        knowledge.append(subject.knowledge(view, found[name]))
    return Books(subject.measure, span, usage, names, tuple(knowledge), tuple(lacks))


# -- making the report ------------------------------------------------------------------------------------------------


def own_names(config: Config) -> dict[tuple[str, str], str]:
    """The names that the configuration gives to rooms, by workspace and id."""
    return {
        (workspace.name, room_id): name
        for workspace in config.workspaces
        for room_id, name in Scope(workspace).ids.items()
        if name is not None
    }


def report(books: Books, by: Sequence[str], sort: str, own: Mapping[tuple[str, str], str], bots: frozenset[str]) -> Report:
    """Sums by the columns of `by`, sorted by `minutes` (descending) or `name`; a room takes two columns, its id and its name.

    Time in the roles `bots` is left out.
    """
    names = {**books.names, **own}
    sums: dict[tuple[str, ...], int] = {}
    for usage in books.usage:
        if usage.role in bots:
            continue
        key = tuple(_values(usage, by, names))
        sums[key] = sums.get(key, 0) + usage.amount
    columns = tuple(name for column in by for name in (("room_id", "room") if column == "room" else (column,)))
    # Sorting by name uses what people read: a room's name before its id.
    order = [index + 1 if name == "room_id" else index - 1 if name == "room" else index for index, name in enumerate(columns)]
    by_name = sorted(sums.items(), key=lambda row: [row[0][index] for index in order])
    rows = sorted(by_name, key=lambda row: -row[1]) if sort == "minutes" else by_name
    notes = (*books.lacks, *_notes(books, names), *_left_out(books.usage, bots))
    return Report(books.measure, books.days, columns, rows, books.knowledge, notes)


def _values(usage: Usage, by: Iterable[str], names: Mapping[tuple[str, str], str]) -> Iterator[str]:
    for column in by:
        if column == "room":
            yield usage.room_id
            yield names.get((usage.workspace, usage.room_id), usage.room_id)
        elif column == "day":
            yield date_of(usage.day)
        else:
            yield usage.workspace if column == "workspace" else usage.role


def _notes(books: Books, names: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """Notes on where the figures are less complete than requested."""
    start, end = books.days.first * DAY, (books.days.last + 1) * DAY
    things = books.measure.things
    read = "poll" if things == "sessions" else "read"
    if not books.knowledge:
        yield "Nothing is known yet: the exporter has not polled."
    for known in books.knowledge:
        of = f"Workspace {known.workspace}: " if len(books.knowledge) > 1 else ""
        if known.until is None:
            yield f"{of}nothing is known yet: {'it has not been polled' if read == 'poll' else f'{things} have not been read'}."
            continue
        if known.until < end:
            yield f"{of}Running {things} count up to the last {read}, {moment_of(known.until)}."
        for begin, until in known.pending:
            upto = "" if until is None else f" up to {moment_of(until)}"
            yield f"{of}NOT COMPLETE: {things} that began from {moment_of(begin)}{upto} are still being read."
        yield from (of + note for note in _beginnings(known, start, end, names, things))


def _left_out(found: Iterable[Usage], bots: frozenset[str]) -> Iterator[str]:
    left = [usage for usage in found if usage.role in bots]
    if left:
        roles = ", ".join(sorted({usage.role for usage in left}))
        minutes = sum(usage.amount for usage in left) / MINUTE
        yield f"Left out, because they are not people (bots.roles): {minutes:,.2f} minutes of {roles}."


def _beginnings(known: Knowledge, start: int, end: int, names: Mapping[tuple[str, str], str], things: str) -> Iterator[str]:
    late = [entry for entry in known.followed if entry.since > start]
    if late and len({entry.since for entry in late}) == 1 and len(late) == len(known.followed):
        yield f"Knowledge begins at {moment_of(late[0].since)}: {things} that had ended by then are not in these figures."
        late = []
    for entry in sorted(late, key=lambda entry: entry.since)[:_MOST_NOTES]:
        yield f"{_subject(entry.key, known.workspace, names)}: knowledge begins at {moment_of(entry.since)}."
    if len(late) > _MOST_NOTES:
        yield f"{len(late) - _MOST_NOTES:,} more entries of the configuration have a later beginning of their own."
    gone = [entry for entry in known.followed if entry.left is not None and entry.left < end]
    for entry in sorted(gone, key=lambda entry: entry.left or 0)[:_MOST_NOTES]:
        yield f"{_subject(entry.key, known.workspace, names)}: not followed any more since {moment_of(entry.left or 0)}."
    if len(gone) > _MOST_NOTES:
        yield f"{len(gone) - _MOST_NOTES:,} more entries of the configuration are not followed any more."


def _subject(key: str, workspace: str, names: Mapping[tuple[str, str], str]) -> str:
    if key == EVERYTHING:
        return "Every room"
    return f"Rooms named {key[1:]}" if key.startswith("~") else f"Room {names.get((workspace, key), key)}"
