"""Pieces of the file: blocks of lines, and the names and labels before their values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from exporter.commands.backfill.work import Work
from exporter.counting.contribution import Account
from exporter.counting.scope import Scope
from exporter.publish.families import header
from exporter.publish.family import Family
from exporter.publish.writing import escape

VALUE_BYTES = 9
"""A value's usual length, for the size forecast."""
_CHUNK_LINES = 20_000


class Block(NamedTuple):
    """A part of the file: `lines` samples of about `width` bytes."""

    chunks: Callable[[], Iterator[bytes]]
    series: int = 0
    lines: int = 0
    width: int = 0


class Naming:
    """The names and labels of a workspace's series."""

    def __init__(self, work: Work, workspace: str, labels: Mapping[str, str], scope: Scope) -> None:
        self._work = work
        self._scope = scope
        self.workspace = f'workspace="{escape(workspace)}"'
        self._extra = "".join(f',{name}="{escape(value)}"' for name, value in labels.items())

    def labels(self, account: Account) -> str:
        """The labels of an account."""
        if account.kind == "group":
            return f'{self.workspace},room="{escape(account.id)}"'
        room = self._work.room(account.id)
        label = self._scope.ids.get(account.id) or (room.name if room is not None else "") or account.id
        return f'{self.workspace},room_id="{escape(account.id)}",room="{escape(label)}"'

    def prefix(self, name: str, labels: str) -> str:
        """The text before a value."""
        return f"{name}{{{labels}{self._extra}}} "


def heading(family: Family) -> Iterator[bytes]:
    """The lines before a family."""
    yield header(family, openmetrics=True)


def same(prefix: str, value: str, run: range) -> list[str]:
    """The lines of steps with the same value."""
    head = f"{prefix}{value} "
    return [f"{head}{step}\n" for step in run]


def chunks(groups: Iterable[list[str]]) -> Iterator[bytes]:
    """Joins lines to chunks large enough to write."""
    lines: list[str] = []
    for group in groups:
        lines += group
        if len(lines) >= _CHUNK_LINES:
            yield "".join(lines).encode()
            lines = []
    if lines:
        yield "".join(lines).encode()
