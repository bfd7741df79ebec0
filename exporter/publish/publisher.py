"""Publishes a workspace: renders what has changed, reuses the rest, and replaces everything in one step."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import repeat

from exporter.config.config import Config
from exporter.config.money import Meter
from exporter.counting.accounts import AccountState
from exporter.counting.contribution import Account
from exporter.counting.ledger import Ledger
from exporter.counting.rooms import Rooms
from exporter.counting.usage import MeterUse
from exporter.publish.account_families import ACCOUNT_FAMILIES
from exporter.publish.budgets import BudgetBoard
from exporter.publish.exposition import Exposition, Section
from exporter.publish.families import COST_FAMILY, METER_FAMILY, UP_FAMILY, Overview
from exporter.publish.status import MOST_ROOMS, RoomStatus, WorkspaceStatus
from exporter.publish.text import AccountText, Columns, up_line, workspace_lines
from exporter.publish.usage import spent_by_budget, usage_lines, usage_of
from exporter.publish.webhooks import Counters, room_sections
from exporter.times import SECOND

SHOWN_INTERVALS = 3
"""For how many poll intervals gauges keep their last good value."""


class Publisher:
    """A workspace's part of the exposition, which is renewed after each poll."""

    def __init__(self, workspace: str, config: Config, exposition: Exposition, board: BudgetBoard, monotonic: Callable[[], float]) -> None:
        self._name = workspace
        self._exposition = exposition
        self._board = board
        self._monotonic = monotonic
        self._sections: Mapping[str, Sequence[Section]] = {}
        self.heard: Callable[[], Counters] | None = None
        """The counters of webhooks, if webhooks are received."""
        self.beside: Callable[[Mapping[Account, str]], Mapping[str, Sequence[Section]]] | None = None
        """Returns the sections of collectors, for the accounts that have a label."""
        self.metered: Callable[[int], Mapping[Meter, MeterUse]] = lambda _: {}
        """Returns the workspace's use of the collected meters, as of a moment (µs)."""
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Applies a configuration."""
        self._config = config
        self._texts: dict[Account, AccountText] = {}
        self._budgets = [budget for budget in config.budgets if budget.workspace in (None, self._name)]
        self.rooms_of_budgets: frozenset[str] = frozenset().union(*(budget.rooms or () for budget in self._budgets))
        """The names and ids of the rooms of budgets."""

    def forget(self, account: Account) -> None:
        """Forgets an account that has left memory."""
        self._texts.pop(account, None)

    def publish_down(self) -> None:
        """Sets `hms_up` to 0 because the last poll did not finish; everything else stays."""
        self._show({**self._sections, UP_FAMILY.name: [Section(up_line(self._name, up=False))]})

    def publish(self, ledger: Ledger, rooms: Rooms, good_since: float | None, status: WorkspaceStatus) -> WorkspaceStatus:
        """Renders and publishes what has changed; returns the status with the current figures.

        `good_since` is when the last poll had read everything, or `None` if it had not.
        """
        shown: defaultdict[float, Columns] = defaultdict(Columns)
        beginnings: defaultdict[float, Columns] = defaultdict(Columns)
        created = self._config.web.created_timestamps
        sessions = peers = users = tracked = 0
        lifetime = SHOWN_INTERVALS * self._config.poll.interval
        now = self._monotonic()
        running: list[tuple[str, AccountState]] = []
        alive = False
        for account, state in ledger.accounts.items():
            label = rooms.label(account) if rooms.shown(account) else None
            if label is None:
                continue
            known = rooms.known.get(account.id) if account.kind == "room" else None
            text = self._texts.get(account)
            if text is None:
                text = self._texts[account] = AccountText(ledger.bots)
            lines = text.lines(self._name, label, state, known)
            expires = state.fresh + lifetime if state.gauges is not None else 0.0
            shown[expires].add(lines)
            if created:
                beginnings[expires].add(text.openmetrics(lines))
            tracked += account.id != "_other"
            if state.gauges is not None and expires > now:
                alive = True
                sessions += state.gauges.sessions
                peers += sum(state.gauges.peers.values())
                users += state.gauges.users
                if state.gauges.sessions:
                    running.append((label, state))
        sections = self._usage(ledger, rooms)
        for expires, columns in sorted(shown.items()):
            more = beginnings[expires].texts() if created else repeat(None)
            for family, column, of_openmetrics in zip(ACCOUNT_FAMILIES, columns.texts(), more, strict=False):
                whole = of_openmetrics if family.kind == "counter" else None
                until = expires if family.expires else float("inf")
                sections.setdefault(family.name, []).append(Section(column, until, openmetrics=whole))
        overview = Overview.of(rooms, tracked)
        sections |= self._of_workspace(ledger, overview)
        sections |= {name: list(of) for name, of in self._beside(ledger, rooms).items()}
        if self.heard is not None:
            labels = {a: rooms.label(a) for a in ledger.accounts if rooms.shown(a)}
            sections |= {n: list(of) for n, of in room_sections(self._name, self.heard(), labels.get, created=created).items()}
        # A poll that takes longer than gauges are shown must not count as a good one meanwhile.
        ends = now if good_since is None else good_since + lifetime
        sections[UP_FAMILY.name] = [Section(up_line(self._name, up=True), ends), Section(up_line(self._name, up=False), begins=ends)]
        self._show(sections)
        if not alive:
            return replace(status, rooms=tracked, sessions=None, peers=None, users=None, busiest=())
        return replace(status, rooms=tracked, sessions=sessions, peers=peers, users=users, busiest=_busiest(running, ledger.bots))

    def publish_beside(self, ledger: Ledger, rooms: Rooms, *, durable: bool) -> None:
        """Renews only the data of collectors, with its costs and its use of budgets.

        Costs and budgets also include sessions: they stay as they are unless the ledger is `durable`.
        """
        usage = self._usage(ledger, rooms) if durable else {}
        of_meters = {family.name: usage[family.name] for family in (METER_FAMILY, COST_FAMILY) if family.name in usage}
        self._show({**self._sections, **self._beside(ledger, rooms), **of_meters})

    def _beside(self, ledger: Ledger, rooms: Rooms) -> Mapping[str, Sequence[Section]]:
        if self.beside is None:
            return {}
        return self.beside({a: label for a in ledger.accounts if rooms.shown(a) and (label := rooms.label(a)) is not None})

    def _of_workspace(self, ledger: Ledger, overview: Overview) -> dict[str, list[Section]]:
        texts = workspace_lines(self._name, ledger, overview)
        if not self._config.web.created_timestamps:
            return {name: [Section(text)] for name, text in texts.items()}
        whole = workspace_lines(self._name, ledger, overview, created=True)
        return {name: [Section(text, openmetrics=whole[name])] for name, text in texts.items()}

    def _usage(self, ledger: Ledger, rooms: Rooms) -> dict[str, list[Section]]:
        """Usage that no account's own lines show: of rooms without series, of recordings and streams, in money, and of budgets."""
        if ledger.now is None:
            return {}
        is_added_up = self._config.prices is not None or bool(self._budgets)
        usage = usage_of(ledger, rooms, self.metered(ledger.now), ledger.now, whole=is_added_up)
        self._board.tell(self._name, spent_by_budget(usage, self._budgets, ledger, rooms))
        return {name: [Section(text)] for name, text in usage_lines(self._name, usage, self._config.prices, rooms.label).items()}

    def _show(self, sections: Mapping[str, Sequence[Section]]) -> None:
        self._sections = sections
        self._exposition.publish(self._name, sections)


def _busiest(running: Sequence[tuple[str, AccountState]], bots: frozenset[str]) -> tuple[RoomStatus, ...]:
    """The rooms for the landing page, from all with a running session."""

    def peers(of: tuple[str, AccountState]) -> tuple[int, str]:
        gauges = of[1].gauges
        return -sum(gauges.peers.values()) if gauges is not None else 0, of[0]

    return tuple(
        RoomStatus(
            label,
            sum(gauges.peers.values()),
            gauges.users,
            gauges.sessions,
            (gauges.oldest_start or 0) / SECOND,
            sum(totals.usage_day for role, totals in state.roles.items() if role not in bots) / (60 * SECOND),
        )
        for label, state in heapq.nsmallest(MOST_ROOMS, running, key=peers)
        if (gauges := state.gauges) is not None
    )
