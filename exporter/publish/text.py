"""The lines of accounts and workspaces by family: finished bytes for the exposition.

An account's lines are rendered again only when it has changed, because most of a large exposition stays the same from one poll
to the next.
"""

from __future__ import annotations

from collections.abc import Sequence

from exporter.counting.accounts import AccountState
from exporter.counting.ledger import Ledger
from exporter.counting.rooms import KnownRoom
from exporter.publish.families import (
    ACCOUNT_FAMILIES,
    UP_FAMILY,
    WORKSPACE_FAMILIES,
    AccountView,
    Overview,
    WorkspaceView,
)
from exporter.publish.writing import account_labels, created_line, escape

_MOVING = tuple((at, family) for at, family in enumerate(ACCOUNT_FAMILIES) if family.moves)
_COUNTERS = tuple((at, family) for at, family in enumerate(ACCOUNT_FAMILIES) if family.kind == "counter")


def _interleaved(text: bytes, after: Sequence[bytes]) -> bytes:
    """Merges two lists of lines alternately, because OpenMetrics keeps the lines of a series together."""
    return b"".join(part for line, more in zip(text.splitlines(keepends=True), after, strict=True) for part in (line, more))


class AccountText:
    """An account's lines, cached from poll to poll; only changed families are rendered again.

    Usually nobody joins or leaves a room between two polls; then only the families that move with time change.
    """

    __slots__ = ("_bots", "_created", "_key", "_lines", "_moved", "_of_role", "_of_room", "_version")

    def __init__(self, bots: frozenset[str] = frozenset()) -> None:
        """Peers in the roles `bots` are not people."""
        self._bots = bots
        self._created: tuple[tuple[object, ...] | None, list[list[bytes]]] = (None, [])
        self._key: tuple[object, ...] | None = None
        self._version = self._moved = -1
        self._of_room = ""
        self._of_role: list[tuple[str, str]] = []
        self._lines: tuple[bytes, ...] = ()

    def lines(self, workspace: str, label: str, state: AccountState, known: KnownRoom | None) -> tuple[bytes, ...]:
        """One text for each of `ACCOUNT_FAMILIES`; `label` is the account's name."""
        key = (workspace, label, known, len(state.roles))
        if key != self._key:
            self._key = key
            self._version = -1
            labels = account_labels(workspace, label, state.account)
            self._of_room = f"{{{labels}}} "
            self._of_role = [(role, f'{{{labels},role="{escape(role)}"}} ') for role in sorted(state.roles)]
        if state.version != self._version:
            of = self._view(state, known)
            self._lines = tuple([family.lines(of).encode() for family in ACCOUNT_FAMILIES])
        elif state.moved != self._moved:
            of = self._view(state, known)
            lines = list(self._lines)
            for at, family in _MOVING:
                lines[at] = family.lines(of).encode()
            self._lines = tuple(lines)
        self._version, self._moved = state.version, state.moved
        return self._lines

    def openmetrics(self, state: AccountState) -> tuple[bytes, ...]:
        """The last lines with those that show when each counter began, which only OpenMetrics has."""
        kept, created = self._created
        if kept is not self._key:
            roles = [(labels, state.roles[role].born) for role, labels in self._of_role]
            of_room = [(self._of_room, state.born)]
            created = [
                [created_line(family.name, *of).encode() for of in (roles if family.by_role else of_room)] for _, family in _COUNTERS
            ]
            self._created = self._key, created
        lines = list(self._lines)
        for (at, _), beginnings in zip(_COUNTERS, created, strict=True):
            lines[at] = _interleaved(lines[at], beginnings)
        return tuple(lines)

    def _view(self, state: AccountState, known: KnownRoom | None) -> AccountView:
        roles = [(role, state.roles[role], labels) for role, labels in self._of_role]
        return AccountView(state, known, self._of_room, roles, self._bots)


def account_lines(workspace: str, label: str, state: AccountState, known: KnownRoom | None) -> tuple[bytes, ...]:
    """An account's current lines, one text for each of `ACCOUNT_FAMILIES`."""
    return AccountText().lines(workspace, label, state, known)


def workspace_lines(workspace: str, ledger: Ledger, overview: Overview, *, created: bool = False) -> dict[str, bytes]:
    """A workspace's lines by family; `created` adds when the histograms began."""
    of = WorkspaceView(f'workspace="{escape(workspace)}"', ledger, overview, created)
    return {family.name: family.lines(of).encode() for family in WORKSPACE_FAMILIES}


def up_line(workspace: str, *, up: bool) -> bytes:
    """The line of `UP_FAMILY`."""
    return f'{UP_FAMILY.name}{{workspace="{escape(workspace)}"}} {int(up)}\n'.encode()
