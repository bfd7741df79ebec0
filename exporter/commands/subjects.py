"""The subjects of a report, and how to read them from the state: the time of each meter, and the number of long sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from exporter.commands.tables import MINUTES, Days, Followed, Knowledge, Measure, count_of, moment_of
from exporter.config.config import ConfigError, format_duration, read_flag
from exporter.config.money import Meter
from exporter.config.readers import LONGEST, duration
from exporter.counting.holdings import Kind
from exporter.counting.spans import FOREVER, Span
from exporter.counting.stays import Memory, seconds_by_day
from exporter.publish.beside import LISTED
from exporter.state import tables
from exporter.state.collected import meter_use, reach
from exporter.state.view import StateView
from exporter.times import DAY, whole_seconds

COLUMNS = ("workspace", "room", "role", "day")
_WITHOUT_ROLES = ("workspace", "room", "day")

_decode_memory = msgspec.msgpack.Decoder(Memory).decode
_decode_spans = msgspec.json.Decoder(list[Span]).decode
_decode_lengths = msgspec.json.Decoder(list[int]).decode


class Usage(NamedTuple):
    """The usage of one room on one day: time (µs), or a number of sessions.  `role` is empty for subjects without roles."""

    workspace: str
    room_id: str
    role: str
    day: int
    amount: int


class Subject(NamedTuple):
    """A subject: its measure, its columns, and functions for a workspace's usage, how far it reaches, and what is missing."""

    measure: Measure
    columns: tuple[str, ...]
    gather: Callable[[StateView, tables.WorkspaceRow, Days], Iterator[Usage]]
    knowledge: Callable[[StateView, tables.WorkspaceRow], Knowledge]
    lacks: Callable[[tables.WorkspaceRow, Days], Iterator[str]] = lambda _, __: iter(())


def subject_of(meter: Meter | None, longer_than: str | None) -> Subject:
    """The requested subject: sessions longer than this, or the time of a meter.  Raises `ConfigError`."""
    if longer_than is None:
        return PARTICIPANTS if meter in (None, "peer") else _jobs(next(of.kind for of in LISTED if of.kind.meter == meter))
    if meter is not None:
        raise ConfigError("--sessions-longer-than: expected either this option, or --meter")
    return _sessions(_threshold(longer_than))


# -- participant time -------------------------------------------------------------------------------------------------


def _participants(view: StateView, workspace: tables.WorkspaceRow, span: Days) -> Iterator[Usage]:
    name = workspace.name
    for settled in view.rows(tables.DAY, "workspace = ? AND day BETWEEN ? AND ?", (name, *span)):
        yield Usage(name, settled.room_id, settled.role, settled.day, settled.us)
    for running, until in _unsettled(view, workspace):
        for (day, role), micros in seconds_by_day(_decode_memory(running.memory), until).items():
            if span.first <= day <= span.last:
                yield Usage(name, running.room_id, role, day, micros)


def _unsettled(view: StateView, workspace: tables.WorkspaceRow) -> Iterator[tuple[tables.RunningRow, int]]:
    """The unsettled sessions, and up to when each counts."""
    for running in view.rows(tables.RUNNING, "workspace = ?", (workspace.name,)):
        if running.kind is not None:  # otherwise it is not decided yet whether the room is followed
            yield running, next(moment for moment in (running.ended, running.observed, workspace.now, 0) if moment is not None)


def _of_sessions(view: StateView, workspace: tables.WorkspaceRow) -> Knowledge:
    name = workspace.name
    entries = view.rows(tables.FOLLOWED, "workspace = ? AND kind = 'entry'", (name,))
    pending = [_pending(_decode_spans(row.unread)) for row in view.rows(tables.CATCH_UP, "workspace = ?", (name,))]
    return Knowledge(name, workspace.now, tuple(Followed(row.key, row.since, row.left) for row in entries), tuple(pending))


def _pending(unread: Sequence[Span]) -> tuple[int, int | None]:
    """From when, and up to when, the past is still being read; `None` while the end is open."""
    return unread[0][0], None if unread[-1][1] == FOREVER else unread[-1][1]


PARTICIPANTS = Subject(MINUTES["peer"], COLUMNS, _participants, _of_sessions)


# -- recordings and streams -------------------------------------------------------------------------------------------


def _jobs(kind: Kind[Any]) -> Subject:
    assert kind.meter is not None

    def gather(view: StateView, workspace: tables.WorkspaceRow, span: Days) -> Iterator[Usage]:
        for (_, room_id, day), micros in meter_use(view, workspace.name, kind, *span).items():
            yield Usage(workspace.name, room_id, "", day, micros)

    def knowledge(view: StateView, workspace: tables.WorkspaceRow) -> Knowledge:
        read, coverage = reach(view, workspace.name, kind)
        followed = tuple(Followed(key, of.since, of.left) for key, of in coverage.entries.items())
        return Knowledge(workspace.name, read, followed, tuple(_pending(task.unread) for task in coverage.tasks.values() if task.unread))

    return Subject(MINUTES[kind.meter], _WITHOUT_ROLES, gather, knowledge)


# -- long sessions ----------------------------------------------------------------------------------------------------


def _threshold(text: str) -> int:
    """A length in whole seconds, because lengths are stored in whole seconds, rounded up.  Raises `ConfigError`."""
    seconds = read_flag("--sessions-longer-than", text, duration("0s", LONGEST))
    if seconds != int(seconds):
        raise ConfigError("--sessions-longer-than: expected whole seconds")
    return int(seconds)


def _sessions(threshold: int) -> Subject:

    def gather(view: StateView, workspace: tables.WorkspaceRow, span: Days) -> Iterator[Usage]:
        name = workspace.name
        for row in view.rows(tables.SESSION_LENGTHS, "workspace = ? AND day BETWEEN ? AND ?", (name, *span)):
            longer = sum(seconds > threshold for seconds in _decode_lengths(row.seconds))
            if longer:
                yield Usage(name, row.room_id, "", row.day, longer)
        for running, until in _unsettled(view, workspace):
            day = running.started // DAY
            if span.first <= day <= span.last and whole_seconds(until - running.started) > threshold:
                yield Usage(name, running.room_id, "", day, 1)

    return Subject(
        count_of(f"Sessions longer than {format_duration(threshold)}", "sessions"), _WITHOUT_ROLES, gather, _of_sessions, _lacks_lengths
    )


def _lacks_lengths(workspace: tables.WorkspaceRow, span: Days) -> Iterator[str]:
    if workspace.lengths_from > span.first * DAY:
        yield (
            f"NOT COMPLETE: the lengths of sessions are kept since {moment_of(workspace.lengths_from)}, when the state was upgraded;"
            " sessions that had ended by then are missing."
        )
