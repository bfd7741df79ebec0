"""A report as a table, as CSV and as JSON.  Pure.  Times are microseconds, days are counted from the epoch, UTC."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from exporter.config.money import Meter
from exporter.times import MINUTE, SECOND, rfc3339

EPOCH = date(1970, 1, 1)


class Days(NamedTuple):
    """A range of days, both inclusive; `None` means "as far as known"."""

    first: int
    last: int


class Followed(NamedTuple):
    """An entry of the configuration: its figures include sessions that ended after `since`, and nothing new after `left`."""

    key: str
    since: int
    left: int | None


class Knowledge(NamedTuple):
    """How far a workspace's figures reach: up to the poll at `until`, and the still unread part of the past (from, to)."""

    workspace: str
    until: int | None
    followed: tuple[Followed, ...]
    pending: tuple[tuple[int, int | None], ...]


class Measure(NamedTuple):
    """A report's measure: its title, the counted things, and the column's name and format, for people and for machines."""

    title: str
    things: str
    column: str
    shown: Callable[[int], str]
    name: str
    exact: Callable[[int], str]

    def number(self, value: int) -> float:
        """A value for JSON."""
        text = self.exact(value)
        return float(text) if "." in text else int(text)


class Report(NamedTuple):
    """A report's rows: the values of its columns, and its measure (time in µs)."""

    measure: Measure
    days: Days
    by: tuple[str, ...]
    rows: list[tuple[tuple[str, ...], int]]
    knowledge: tuple[Knowledge, ...]
    notes: tuple[str, ...]

    @property
    def total(self) -> int:
        """The sum of all rows."""
        return sum(value for _, value in self.rows)


def as_table(made: Report) -> str:
    """For people: minutes, shares and totals; control characters in names are replaced."""
    shown = [index for index, name in enumerate(made.by) if name != "room_id"]
    total = made.total
    told = made.measure.shown
    head = [*(made.by[index] for index in shown), made.measure.column, "share"]
    body = [[*(_printable(values[index]) for index in shown), told(value), _share(value, total)] for values, value in made.rows]
    foot = ["total", *[""] * (len(shown) - 1), told(total), _share(total, total)]
    widths = [max(_width(row[index]) for row in (head, *body, foot)) for index in range(len(head))]
    rule = "-" * (sum(widths) + 2 * len(widths) - 2)
    days = made.days
    lines = [f"{made.measure.title} from {date_of(days.first)} to {date_of(days.last)} (UTC)", ""]
    lines += [_line(head, widths), rule, *(_line(row, widths) for row in body)]
    lines += [rule, _line(foot, widths)] if body else ["nothing"]
    if made.notes:
        lines += ["", *made.notes]
    return "\n".join(lines) + "\n"


def as_csv(made: Report) -> str:
    """For machines: one line for each row, times in seconds to the millisecond."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*made.by, made.measure.name])
    writer.writerows([*values, made.measure.exact(value)] for values, value in made.rows)
    return text.getvalue()


def as_json(made: Report) -> str:
    """For machines: the rows, their total, and the period for which the figures are complete."""
    measure = made.measure
    answer = {
        "from": date_of(made.days.first),
        "to": date_of(made.days.last),
        f"total_{measure.name}": measure.number(made.total),
        "rows": [{**dict(zip(made.by, values, strict=True)), measure.name: measure.number(value)} for values, value in made.rows],
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
    """The number of terminal columns that a text takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _minutes(micros: int) -> str:
    return f"{micros / MINUTE:,.2f}"


def _share(micros: int, total: int) -> str:
    return f"{micros / total:.1%}" if total else ""


def _exact(micros: int) -> str:
    seconds, rest = divmod((micros + 500) // 1000, 1000)
    return f"{seconds}.{rest:03d}"


def time_of(words: str, things: str) -> Measure:
    """A measure of time, in minutes for people; `words` name the meter."""
    return Measure(f"{words} minutes", things, "minutes", _minutes, "seconds", _exact)


def count_of(title: str, things: str) -> Measure:
    """A measure that counts things."""
    return Measure(title, things, things, "{:,}".format, things, str)


MINUTES: Mapping[Meter, Measure] = {
    "peer": time_of("Participant", "sessions"),
    "recording": time_of("Recording", "recordings"),
    "live_stream": time_of("Live stream", "live streams"),
    "external_stream": time_of("External stream", "external streams"),
}
"""The time of each meter."""


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def date_of(day: int) -> str:
    """A day (from the epoch) as ISO 8601."""
    return (EPOCH + timedelta(days=day)).isoformat()


def moment_of(at: int) -> str:
    """A moment (µs) as text, to the second."""
    return f"{datetime.fromtimestamp(at // SECOND, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _moment_or_none(at: int | None) -> str | None:
    return None if at is None else rfc3339(at, 0)


FORMATS: Mapping[str, Callable[[Report], str]] = {"table": as_table, "csv": as_csv, "json": as_json}
"""The ways to show a report, by their names on the command line."""
