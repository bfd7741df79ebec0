"""`hms-exporter report`: participant time by workspace, room, role and day, from the state file.

`read` takes the figures from the state file, also while the exporter runs; `report` makes rows of them and is pure.
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

import msgspec

from exporter.commands.options import CommandFailed, add_config_file, add_flags, load
from exporter.commands.tables import EPOCH, FORMATS, Days, Followed, Knowledge, Report, date_of, moment_of
from exporter.config.config import BotsConfig, Config, ConfigError, StorageConfig
from exporter.counting.contribution import Memory, seconds_by_day
from exporter.counting.scope import EVERYTHING, Scope
from exporter.counting.spans import FOREVER, Span
from exporter.state import tables
from exporter.state.soundness import StoreError
from exporter.state.view import StateView, look, look_into
from exporter.times import DAY, MINUTE

COLUMNS = ("workspace", "room", "role", "day")
_MOST_NOTES = 5
"""Entries of the configuration that are named one by one in the notes."""

_decode_memory = msgspec.msgpack.Decoder(Memory).decode
_decode_spans = msgspec.json.Decoder(list[Span]).decode


class Usage(NamedTuple):
    """Participant time (µs) of one room and role on one day."""

    workspace: str
    room_id: str
    role: str
    day: int
    micros: int


class Books(NamedTuple):
    """What the state file says; `names` are the rooms' names by workspace and id."""

    days: Days
    usage: list[Usage]
    names: Mapping[tuple[str, str], str]
    knowledge: tuple[Knowledge, ...]


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
    parser.add_argument("--sort", choices=("minutes", "name"), default="minutes", help="most minutes first (default), or by name")
    parser.add_argument("--format", choices=tuple(FORMATS), default="table", help="for people (table, the default) or for machines")


def run(options: argparse.Namespace) -> int:
    """Writes the report to standard output."""
    days = parse_days(options.month, options.first, options.last)
    columns = parse_columns(options.by)
    path = vars(options)["--storage.path"]
    # With the state file named, no configuration is needed, and no credentials.
    config = load(options) if path is None or options.config_file is not None else None
    try:
        books = read(StorageConfig(path=Path(path)) if config is None else config.storage, days, options.workspace)
    except StoreError as error:
        raise CommandFailed(str(error)) from error
    bots = (BotsConfig() if config is None else config.bots).roles
    made = report(books, columns, options.sort, {} if config is None else own_names(config), bots)
    sys.stdout.write(FORMATS[options.format](made))
    if options.format == "csv":
        sys.stderr.writelines(f"{note}\n" for note in made.notes)
    return 0


# -- what is asked for ------------------------------------------------------------------------------------------------


def parse_days(month: str | None, first: str | None, last: str | None) -> Callable[[int], Days]:
    """The days that the options ask for, given the day of the last poll.  Raises `ConfigError` that names the option."""
    if month is not None:
        if first is not None or last is not None:
            raise ConfigError("--month: expected either it, or --from and --to")
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


def parse_columns(text: str) -> tuple[str, ...]:
    """The columns of a report, such as `room,role`.  Raises `ConfigError`."""
    columns = tuple(text.split(","))
    if not set(columns) <= set(COLUMNS) or len(set(columns)) < len(columns):
        raise ConfigError(f"--by: expected some of {','.join(COLUMNS)}, each at most once")
    return columns


# -- what the state file says -----------------------------------------------------------------------------------------


def read(storage: StorageConfig, days: Callable[[int], Days], workspace: str | None) -> Books:
    """What the state says of these days.  Raises `StoreError`, and `ConfigError` for an unknown workspace."""
    if storage.url is None:
        return look(storage.path, lambda view: _books(view, days, workspace))
    found = look_into(storage, lambda view: _books(view, days, workspace))
    if found is None:
        raise StoreError("the database holds no state yet")
    return found


def _books(view: StateView, days: Callable[[int], Days], workspace: str | None) -> Books:
    found = {row.name: row.now for row in view.rows(tables.WORKSPACE)}
    if workspace is not None and workspace not in found:
        known = ", ".join(sorted(found)) or "none yet"
        raise ConfigError(f"--workspace: expected one that the state file knows ({known})")
    wanted = sorted(found) if workspace is None else [workspace]
    today = max((found[name] or 0 for name in wanted), default=0) // DAY
    span = days(today)
    usage: list[Usage] = []
    names: dict[tuple[str, str], str] = {}
    knowledge = []
    for name in wanted:
        now = found[name]
        usage += _usage(view, name, now or 0, span)
        names |= {(name, row.id): row.name for row in view.rows(tables.ROOM, "workspace = ? AND name <> ''", (name,))}
        entries = view.rows(tables.FOLLOWED, "workspace = ? AND kind = 'entry'", (name,))
        followed = tuple(Followed(row.key, row.since, row.left) for row in entries)
        pending = tuple(_pending(row) for row in view.rows(tables.CATCH_UP, "workspace = ?", (name,)))
        knowledge.append(Knowledge(name, now, followed, pending))
    return Books(span, usage, names, tuple(knowledge))


def _pending(row: tables.CatchUpRow) -> tuple[int, int | None]:
    """From when on, and up to when, the past is still being read; `None` while that grows."""
    unread = _decode_spans(row.unread)
    return unread[0][0], None if unread[-1][1] == FOREVER else unread[-1][1]


def _usage(view: StateView, workspace: str, now: int, span: Days) -> Iterator[Usage]:
    for settled in view.rows(tables.DAY, "workspace = ? AND day BETWEEN ? AND ?", (workspace, *span)):
        yield Usage(workspace, settled.room_id, settled.role, settled.day, settled.us)
    for running in view.rows(tables.RUNNING, "workspace = ?", (workspace,)):
        if running.kind is None:
            continue  # it is not decided yet whether the room is ours
        until = next(moment for moment in (running.ended, running.observed, now) if moment is not None)
        for (day, role), micros in seconds_by_day(_decode_memory(running.memory), until).items():
            if span.first <= day <= span.last:
                yield Usage(workspace, running.room_id, role, day, micros)


# -- what is made of it -----------------------------------------------------------------------------------------------


def own_names(config: Config) -> dict[tuple[str, str], str]:
    """The names that the configuration gives to rooms, by workspace and id."""
    return {
        (workspace.name, room_id): name
        for workspace in config.workspaces
        for room_id, name in Scope(workspace).ids.items()
        if name is not None
    }


def report(books: Books, by: Sequence[str], sort: str, own: Mapping[tuple[str, str], str], bots: frozenset[str]) -> Report:
    """Sums by the columns of `by`, sorted by `minutes` (falling) or `name`; a room stands as its id and its name, in two columns.

    Time in the roles `bots` is nobody's.
    """
    names = {**books.names, **own}
    sums: dict[tuple[str, ...], int] = {}
    for usage in books.usage:
        if usage.role in bots:
            continue
        key = tuple(_values(usage, by, names))
        sums[key] = sums.get(key, 0) + usage.micros
    columns = tuple(name for column in by for name in (("room_id", "room") if column == "room" else (column,)))
    # By name means by what people read: a room's name before its id.
    order = [index + 1 if name == "room_id" else index - 1 if name == "room" else index for index, name in enumerate(columns)]
    by_name = sorted(sums.items(), key=lambda row: [row[0][index] for index in order])
    rows = sorted(by_name, key=lambda row: -row[1]) if sort == "minutes" else by_name
    return Report(books.days, columns, rows, books.knowledge, (*_notes(books, names), *_left_out(books.usage, bots)))


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
    """Where the figures do not reach as far as was asked for."""
    start, end = books.days.first * DAY, (books.days.last + 1) * DAY
    if not books.knowledge:
        yield "Nothing is known yet: the exporter has not polled."
    for known in books.knowledge:
        of = f"Workspace {known.workspace}: " if len(books.knowledge) > 1 else ""
        if known.until is None:
            yield f"{of}nothing is known yet: it has not been polled."
            continue
        if known.until < end:
            yield f"{of}Running sessions count up to the last poll, {moment_of(known.until)}."
        for begin, until in known.pending:
            upto = "" if until is None else f" up to {moment_of(until)}"
            yield f"{of}NOT COMPLETE: sessions that began from {moment_of(begin)}{upto} are still being read."
        yield from (of + note for note in _beginnings(known, start, end, names))


def _left_out(found: Iterable[Usage], bots: frozenset[str]) -> Iterator[str]:
    left = [usage for usage in found if usage.role in bots]
    if left:
        roles = ", ".join(sorted({usage.role for usage in left}))
        minutes = sum(usage.micros for usage in left) / MINUTE
        yield f"Left out, because they are not people (bots.roles): {minutes:,.2f} minutes of {roles}."


def _beginnings(known: Knowledge, start: int, end: int, names: Mapping[tuple[str, str], str]) -> Iterator[str]:
    late = [entry for entry in known.followed if entry.since > start]
    if late and len({entry.since for entry in late}) == 1 and len(late) == len(known.followed):
        yield f"Knowledge begins at {moment_of(late[0].since)}: sessions that had ended by then are not in these figures."
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
