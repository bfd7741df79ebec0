"""`hms-exporter report`: participant time by workspace, room, role and day, from the state file, also while the exporter runs.

`read` takes from the state file what a report is made of; all the rest is pure.  Times are microseconds, days are counted
from the epoch, UTC.  Running sessions are in it up to the last poll.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec

from exporter.config.config import Config, ConfigError
from exporter.counting.contribution import Memory, seconds_by_day
from exporter.counting.ledger import CatchUp
from exporter.counting.scope import EVERYTHING, Scope
from exporter.state.view import StateView, look
from exporter.times import DAY, SECOND, rfc3339

COLUMNS = ("workspace", "room", "role", "day")
_MINUTE = 60 * SECOND
_EPOCH = date(1970, 1, 1)
_MOST_NOTES = 5
"""Rooms with a beginning of their own that are named one by one."""

_decode_memory = msgspec.msgpack.Decoder(Memory).decode
_decode_catch_ups = msgspec.json.Decoder(list[CatchUp]).decode


class Days(NamedTuple):
    """A range of days, both inclusive; `None` stands for "as far as is known"."""

    first: int
    last: int


class Usage(NamedTuple):
    """Participant time (µs) of one room and role on one day."""

    workspace: str
    room_id: str
    role: str
    day: int
    micros: int


class Followed(NamedTuple):
    """What an entry of the configuration knows: of `key`, sessions that ended after `since`; nothing new after `left`."""

    key: str
    since: int
    left: int | None


class Knowledge(NamedTuple):
    """How far a workspace's figures reach: up to the poll at `until`, and what of the past is still to be read (from, to)."""

    workspace: str
    until: int | None
    followed: tuple[Followed, ...]
    pending: tuple[tuple[int, int | None], ...]


class Books(NamedTuple):
    """What the state file says; `names` are the rooms' names by workspace and id."""

    days: Days
    usage: list[Usage]
    names: Mapping[tuple[str, str], str]
    knowledge: tuple[Knowledge, ...]


class Report(NamedTuple):
    """Rows of a report: the values of its columns, and participant time (µs)."""

    days: Days
    by: tuple[str, ...]
    rows: list[tuple[tuple[str, ...], int]]
    knowledge: tuple[Knowledge, ...]
    notes: tuple[str, ...]

    @property
    def total(self) -> int:
        """The sum of all rows."""
        return sum(micros for _, micros in self.rows)


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
            return (date.fromisoformat(text) - _EPOCH).days
    except ValueError:
        pass
    raise ConfigError(f"{option}: expected a day such as 2026-11-15")


def _month(text: str) -> int:
    try:
        if re.fullmatch(r"\d{4}-\d\d", text):
            return (date.fromisoformat(f"{text}-01") - _EPOCH).days
    except ValueError:
        pass
    raise ConfigError("--month: expected a month such as 2026-11")


def _month_start(day: int) -> int:
    return ((_EPOCH + timedelta(days=day)).replace(day=1) - _EPOCH).days


def _month_end(day: int) -> int:
    return _month_start(_month_start(day) + 31) - 1


def parse_columns(text: str) -> tuple[str, ...]:
    """The columns of a report, such as `room,role`.  Raises `ConfigError`."""
    columns = tuple(text.split(","))
    if not set(columns) <= set(COLUMNS) or len(set(columns)) < len(columns):
        raise ConfigError(f"--by: expected some of {','.join(COLUMNS)}, each at most once")
    return columns


# -- what the state file says -----------------------------------------------------------------------------------------


def read(path: Path, days: Callable[[int], Days], workspace: str | None) -> Books:
    """What the state file at `path` says of these days.  Raises `StoreError`, and `ConfigError` for an unknown workspace."""
    return look(path, lambda view: _books(view, days, workspace))


def _books(view: StateView, days: Callable[[int], Days], workspace: str | None) -> Books:
    found = {name: (now, catch_ups) for name, now, _, catch_ups in view.rows("workspace")}
    if workspace is not None and workspace not in found:
        known = ", ".join(sorted(found)) or "none yet"
        raise ConfigError(f"--workspace: expected one that the state file knows ({known})")
    wanted = sorted(found) if workspace is None else [workspace]
    today = max((found[name][0] or 0 for name in wanted), default=0) // DAY
    span = days(today)
    usage: list[Usage] = []
    names: dict[tuple[str, str], str] = {}
    knowledge = []
    for name in wanted:
        now, catch_ups = found[name]
        usage += _usage(view, name, now or 0, span)
        names |= {(name, row[1]): row[2] for row in view.rows("room", "workspace = ? AND name <> ''", (name,))}
        followed = tuple(Followed(row[1], row[2], row[4]) for row in view.rows("entry", "workspace = ?", (name,)))
        pending = tuple((task.frontier, task.until) for task in _decode_catch_ups(catch_ups))
        knowledge.append(Knowledge(name, now, followed, pending))
    return Books(span, usage, names, tuple(knowledge))


def _usage(view: StateView, workspace: str, now: int, span: Days) -> Iterator[Usage]:
    settled = view.rows("day", "workspace = ? AND day BETWEEN ? AND ?", (workspace, *span))
    for _, day, _, _, room_id, role, micros in settled:
        yield Usage(workspace, room_id, role, day, micros)
    for _, _, room_id, kind, _, _, ended, observed, _, memory in view.rows("running", "workspace = ?", (workspace,)):
        if kind is None:
            continue  # it is not decided yet whether the room is ours
        until = ended if ended is not None else observed if observed is not None else now
        for (day, role), micros in seconds_by_day(_decode_memory(memory), until).items():
            if span.first <= day <= span.last:
                yield Usage(workspace, room_id, role, day, micros)


# -- what is made of it -----------------------------------------------------------------------------------------------


def own_names(config: Config) -> dict[tuple[str, str], str]:
    """The names that the configuration gives to rooms, by workspace and id."""
    return {
        (workspace.name, room_id): name
        for workspace in config.workspaces
        for room_id, name in Scope(workspace).ids.items()
        if name is not None
    }


def report(books: Books, by: Sequence[str], sort: str, own: Mapping[tuple[str, str], str]) -> Report:
    """Sums by the columns of `by`, sorted by `minutes` (falling) or `name`; a room stands as its id and its name, in two columns."""
    names = {**books.names, **own}
    sums: dict[tuple[str, ...], int] = {}
    for usage in books.usage:
        key = tuple(_values(usage, by, names))
        sums[key] = sums.get(key, 0) + usage.micros
    columns = tuple(name for column in by for name in (("room_id", "room") if column == "room" else (column,)))
    # By name means by what people read: a room's name before its id.
    order = [index + 1 if name == "room_id" else index - 1 if name == "room" else index for index, name in enumerate(columns)]
    by_name = sorted(sums.items(), key=lambda row: [row[0][index] for index in order])
    rows = sorted(by_name, key=lambda row: -row[1]) if sort == "minutes" else by_name
    return Report(books.days, columns, rows, books.knowledge, tuple(_notes(books, names)))


def _values(usage: Usage, by: Iterable[str], names: Mapping[tuple[str, str], str]) -> Iterator[str]:
    for column in by:
        if column == "room":
            yield usage.room_id
            yield names.get((usage.workspace, usage.room_id), usage.room_id)
        elif column == "day":
            yield _date(usage.day)
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
            yield f"{of}Running sessions count up to the last poll, {_moment(known.until)}."
        for begin, until in known.pending:
            upto = "" if until is None else f" up to {_moment(until)}"
            yield f"{of}NOT COMPLETE: sessions that began from {_moment(begin)}{upto} are still being read."
        yield from (of + note for note in _beginnings(known, start, end, names))


def _beginnings(known: Knowledge, start: int, end: int, names: Mapping[tuple[str, str], str]) -> Iterator[str]:
    late = [entry for entry in known.followed if entry.since > start]
    if late and len({entry.since for entry in late}) == 1 and len(late) == len(known.followed):
        yield f"Knowledge begins at {_moment(late[0].since)}: sessions that had ended by then are not in these figures."
        late = []
    for entry in sorted(late, key=lambda entry: entry.since)[:_MOST_NOTES]:
        yield f"{_subject(entry.key, known.workspace, names)}: knowledge begins at {_moment(entry.since)}."
    if len(late) > _MOST_NOTES:
        yield f"So it does, at moments of their own, for {len(late) - _MOST_NOTES:,} more entries of the configuration."
    gone = [entry for entry in known.followed if entry.left is not None and entry.left < end]
    for entry in sorted(gone, key=lambda entry: entry.left or 0)[:_MOST_NOTES]:
        yield f"{_subject(entry.key, known.workspace, names)}: not followed any more since {_moment(entry.left or 0)}."
    if len(gone) > _MOST_NOTES:
        yield f"Nor are {len(gone) - _MOST_NOTES:,} more entries of the configuration."


def _subject(key: str, workspace: str, names: Mapping[tuple[str, str], str]) -> str:
    if key == EVERYTHING:
        return "Every room"
    return f"Rooms named {key[1:]}" if key.startswith("~") else f"Room {names.get((workspace, key), key)}"


# -- how it is shown --------------------------------------------------------------------------------------------------


def as_table(made: Report) -> str:
    """For people: minutes, their share, totals; names are shown without control characters."""
    shown = [index for index, name in enumerate(made.by) if name != "room_id"]
    total = made.total
    head = [*(made.by[index] for index in shown), "minutes", "share"]
    body = [[*(_printable(values[index]) for index in shown), _minutes(micros), _share(micros, total)] for values, micros in made.rows]
    foot = ["total", *[""] * (len(shown) - 1), _minutes(total), _share(total, total)]
    widths = [max(_width(row[index]) for row in (head, *body, foot)) for index in range(len(head))]
    rule = "-" * (sum(widths) + 2 * len(widths) - 2)
    days = made.days
    lines = [f"Participant minutes from {_date(days.first)} to {_date(days.last)} (UTC)", ""]
    lines += [_line(head, widths), rule, *(_line(row, widths) for row in body)]
    lines += [rule, _line(foot, widths)] if body else ["nothing"]
    if made.notes:
        lines += ["", *made.notes]
    return "\n".join(lines) + "\n"


def as_csv(made: Report) -> str:
    """For machines: a line a row, seconds to the millisecond."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*made.by, "seconds"])
    writer.writerows([*values, _exact(micros)] for values, micros in made.rows)
    return text.getvalue()


def as_json(made: Report) -> str:
    """For machines: the rows, their total, and how far the knowledge reaches."""
    answer = {
        "from": _date(made.days.first),
        "to": _date(made.days.last),
        "total_seconds": float(_exact(made.total)),
        "rows": [{**dict(zip(made.by, values, strict=True)), "seconds": float(_exact(micros))} for values, micros in made.rows],
        "knowledge": [
            {
                "workspace": known.workspace,
                "since": _moment_or_none(min((entry.since for entry in known.followed), default=None)),
                "until": _moment_or_none(known.until),
                "complete": known.until is not None and not known.pending,
            }
            for known in made.knowledge
        ],
        "notes": list(made.notes),
    }
    return json.dumps(answer, ensure_ascii=False, indent=1) + "\n"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    texts = [cell + " " * (width - _width(cell)) for cell, width in zip(cells[:-2], widths[:-2], strict=True)]
    numbers = [cell.rjust(width) for cell, width in zip(cells[-2:], widths[-2:], strict=True)]
    return "  ".join(texts + numbers).rstrip()


def _width(text: str) -> int:
    """Columns of a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _minutes(micros: int) -> str:
    return f"{micros / _MINUTE:,.2f}"


def _share(micros: int, total: int) -> str:
    return f"{micros / total:.1%}" if total else ""


def _exact(micros: int) -> str:
    seconds, rest = divmod((micros + 500) // 1000, 1000)
    return f"{seconds}.{rest:03d}"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _date(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).isoformat()


def _moment(at: int) -> str:
    return f"{datetime.fromtimestamp(at // SECOND, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _moment_or_none(at: int | None) -> str | None:
    return None if at is None else rfc3339(at, 0)
