"""The lines of accounts and workspaces by family: finished bytes for the exposition.

An account's lines are rendered again only when it has changed, because most of a large exposition stays the same from one poll
to the next.  The times of running sessions always change: those of all accounts are rendered together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from exporter.counting.accounts import AccountState
from exporter.counting.ledger import Ledger
from exporter.counting.rooms import KnownRoom
from exporter.publish.account_families import ACCOUNT_FAMILIES, AccountView, MovingFamily
from exporter.publish.families import UP_FAMILY, WORKSPACE_FAMILIES, Overview, WorkspaceView
from exporter.publish.writing import account_labels, created_line, escape, time_lines

_MOVING = tuple((at, family) for at, family in enumerate(ACCOUNT_FAMILIES) if isinstance(family, MovingFamily))
_COUNTERS = tuple((at, family) for at, family in enumerate(ACCOUNT_FAMILIES) if family.kind == "counter")


class Moving(NamedTuple):
    """Lines of a `MovingFamily`, as arguments of `time_lines`."""

    starts: list[bytes]
    micros: list[int]
    ends: list[bytes]


class AccountLines(NamedTuple):
    """An account's lines: one text for each of `ACCOUNT_FAMILIES`.

    While a session of the account runs, the texts of the moving families are empty, and `moving` has one entry for each of them.
    """

    texts: Sequence[bytes]
    moving: Sequence[Moving]


class Columns:
    """The lines of several accounts, family by family."""

    def __init__(self) -> None:
        self._texts: list[Sequence[bytes]] = []
        self._moving = [Moving([], [], []) for _ in _MOVING]

    def add(self, lines: AccountLines) -> None:
        """Adds an account."""
        self._texts.append(lines.texts)
        for column, more in zip(self._moving, lines.moving, strict=False):  # without a running session nothing moves
            column.starts.extend(more.starts)
            column.micros.extend(more.micros)
            column.ends.extend(more.ends)

    def texts(self) -> list[bytes]:
        """One text for each of `ACCOUNT_FAMILIES`."""
        texts = [b"".join(column) for column in zip(*self._texts, strict=True)]
        for (at, _), column in zip(_MOVING, self._moving, strict=True):
            texts[at] += time_lines(*column)
        return texts


class AccountText:
    """An account's lines, cached from poll to poll; only changed families are rendered again.

    Usually nobody joins or leaves a room between two polls; then only times change.
    """

    __slots__ = ("_bots", "_created", "_key", "_moved", "_of", "_starts", "_texts", "_version")

    def __init__(self, bots: frozenset[str] = frozenset()) -> None:
        """Peers in the roles `bots` are not people."""
        self._bots = bots
        self._created: tuple[tuple[object, ...] | None, dict[int, list[bytes]]] = (None, {})
        self._key: tuple[object, ...] | None = None
        self._of: AccountView
        self._version = self._moved = -1
        self._texts: Sequence[bytes] = ()
        self._starts: list[list[bytes]] = []
        """The beginnings of the lines of moving families, while a session runs."""

    def lines(self, workspace: str, label: str, state: AccountState, known: KnownRoom | None) -> AccountLines:
        """The account's lines; `label` is its name."""
        key = (workspace, label, known, state, len(state.roles))
        if key != self._key:
            labels = account_labels(workspace, label, state.account)
            roles = [(role, state.roles[role], f'{{{labels},role="{escape(role)}"}} ') for role in sorted(state.roles)]
            self._of = AccountView(state, known, f"{{{labels}}} ", roles, self._bots)
            self._key, self._version, self._starts = key, -1, []
        of, runs, is_new = self._of, bool(state.sessions), state.version != self._version
        if is_new:
            self._texts = [b"" if isinstance(family, MovingFamily) else family.text(of) for family in ACCOUNT_FAMILIES]
        if runs and not self._starts:
            self._starts = [[start.encode() for start in family.starts(of)] for _, family in _MOVING]
            self._texts = _with_moving(self._texts, [b""] * len(_MOVING))
        elif not runs and (is_new or self._starts or state.moved != self._moved):
            self._starts = []
            self._texts = _with_moving(self._texts, [family.text(of) for _, family in _MOVING])
        self._version, self._moved = state.version, state.moved
        if not runs:
            return AccountLines(self._texts, ())
        moving = zip(self._starts, _MOVING, strict=True)
        return AccountLines(self._texts, [Moving(starts, family.micros(of), []) for starts, (_, family) in moving])

    def openmetrics(self, lines: AccountLines) -> AccountLines:
        """The last lines, with those that show when each counter began, which only OpenMetrics has."""
        kept, created = self._created
        if kept is not self._key:
            roles = [(labels, totals.born) for _, totals, labels in self._of.roles]
            of_room = [(self._of.labels, self._of.state.born)]
            created = {at: [created_line(f.name, *of).encode() for of in (roles if f.by_role else of_room)] for at, f in _COUNTERS}
            self._created = self._key, created
        texts = [_interleaved(text, created[at]) if text and at in created else text for at, text in enumerate(lines.texts)]
        moving = [
            of._replace(ends=[b"\n" + line for line in created[at]] if at in created else [b"\n"] * len(of.starts))
            for of, (at, _) in zip(lines.moving, _MOVING, strict=False)
        ]
        return AccountLines(texts, moving)


def _with_moving(texts: Sequence[bytes], moving: Sequence[bytes]) -> list[bytes]:
    """The texts, with those of the moving families replaced."""
    found = list(texts)
    for (at, _), text in zip(_MOVING, moving, strict=True):
        found[at] = text
    return found


def _interleaved(text: bytes, after: Sequence[bytes]) -> bytes:
    """Merges two lists of lines alternately, because OpenMetrics keeps the lines of a series together."""
    return b"".join(part for line, more in zip(text.splitlines(keepends=True), after, strict=True) for part in (line, more))


def account_lines(workspace: str, label: str, state: AccountState, known: KnownRoom | None) -> list[bytes]:
    """An account's current lines, one text for each of `ACCOUNT_FAMILIES`."""
    columns = Columns()
    columns.add(AccountText().lines(workspace, label, state, known))
    return columns.texts()


def workspace_lines(workspace: str, ledger: Ledger, overview: Overview, *, created: bool = False) -> dict[str, bytes]:
    """A workspace's lines by family; `created` adds when the histograms began."""
    of = WorkspaceView(f'workspace="{escape(workspace)}"', ledger, overview, created)
    return {family.name: family.lines(of).encode() for family in WORKSPACE_FAMILIES}


def up_line(workspace: str, *, up: bool) -> bytes:
    """The line of `UP_FAMILY`."""
    return f'{UP_FAMILY.name}{{workspace="{escape(workspace)}"}} {int(up)}\n'.encode()
