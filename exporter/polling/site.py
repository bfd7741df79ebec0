"""One collector at work in a workspace."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from exporter.config.money import Meter
from exporter.counting.collected import Collected
from exporter.counting.usage import MeterUse
from exporter.hms.errors import ApiError, Forbidden, NotFound
from exporter.logs import event
from exporter.polling.listed import Asking, ListReader, RoomsOfInterest
from exporter.polling.turns import QUIET_AFTER, Turn
from exporter.publish.beside import Listed
from exporter.publish.collected import CollectedText
from exporter.publish.exposition import Section

_TELL_AGAIN = 60.0
"""Minimum seconds between two log lines of a fault that keeps changing."""
_LEAST = 0.1
"""The part of a poll's interval that must be left for a collector to begin."""
_ENOUGH = 0.25
"""A read that is cut short by the end of the poll's time counts against 100ms only if it had at least this part of an interval."""


class TimeLeft(NamedTuple):
    """The time that a poll which began at `started` leaves for collectors."""

    asking: Asking
    started: float
    interval: float

    def suffices(self, turn: Turn) -> bool:
        """Whether another collector may begin: one that would be cut short waits for the next poll, and does not fail."""
        left = self.asking.until - self.asking.monotonic()
        return left >= _LEAST * self.interval or (left > 0 and turn.is_late(self.started))

    def was_little(self, begun: float) -> bool:
        """Whether a read that began at `begun` had too little time."""
        return self.asking.until - begun < _ENOUGH * self.interval

    def failed(self, turn: Turn, fault: str | ApiError | None, begun: float) -> None:
        """Notes that a turn that began at `begun` did not read everything; running out of time is a fault only if it keeps happening."""
        little = self.was_little(begun)
        if isinstance(fault, Forbidden | NotFound):
            turn.silenced(self.started, str(fault))
        elif not (isinstance(fault, ApiError) and fault.transport and self.asking.is_over and turn.was_cut_short(enough=not little)):
            turn.failed(self.started, str(fault))
        elif little:
            turn.waited(self.started)


class AtWork:
    """One collector at work in a workspace: its turns, and the last log line about it."""

    def __init__(self, name: str, turn: Turn) -> None:
        self.name = name
        self.turn = turn
        self.told: tuple[str, float] | None = None

    def tell(self, workspace: str, now: float) -> None:
        """Logs when a fault begins, changes or ends."""
        turn, about = self.turn, {"workspace": workspace, "collector": self.name}
        if turn.reason is None:
            if self.told is not None:
                event("info", "a collector succeeds again", **about)
            self.told = None
        elif turn.state == "silent":
            if self.told is None or self.told[0] != turn.reason:
                more = f"it is not read for a day or until a reload; collect.{self.name}: false turns it off"
                event("warn", "a collector may not be read", **about, reason=turn.reason, more=more)
            self.told = turn.reason, now
        elif self.told is None or (self.told[0] != turn.reason and now - self.told[1] >= _TELL_AGAIN):
            event("warn", "a collector waits" if turn.state == "waiting" else "a collector failed", **about, reason=turn.reason)
            self.told = turn.reason, now


class Site(AtWork):
    """A collector that reads a list: its counters, its reader, its text."""

    def __init__(self, workspace: str, listed: Listed, rooms: RoomsOfInterest, turn: Turn) -> None:
        super().__init__(listed.kind.name, turn)
        self.collected: Collected[Any] = Collected(listed.kind)
        self.reader = ListReader(self.collected, rooms)
        self.text = CollectedText(workspace, listed.families)
        self.restored = self.entered = self.read = False
        """Whether its stored data is loaded; whether it knows the current configuration; whether it was read since then."""
        self.durable = True
        """Whether all its counts are stored: only then they may be shown."""
        self.shown: Mapping[str, Sequence[Section]] = {}
        self.used: tuple[MeterUse, int] | None = None
        """Its use that is billed by the minute, and as of when (µs)."""
        self.odd: set[str] = set()

    def quiet(self) -> bool:
        """Whether nothing is open and nothing has changed for long."""
        collected = self.collected
        return not any(kept.open for kept in collected.kept.values()) and (collected.now or 0) - collected.newest > QUIET_AFTER


def use_of_meters(sites: Collection[Site], now: int) -> Mapping[Meter, MeterUse]:
    """The use of the collected meters at a moment (µs); only what is stored."""
    for site in sites:
        collected = site.collected
        if site.durable and collected.now is not None:
            of_accounts, elsewhere = collected.usage()
            counted = {account: sums for account, sums in of_accounts.items() if collected.holdings[account].tallies}
            site.used = MeterUse(counted, elsewhere), collected.now
    found = ((site.collected.kind.meter, site.used) for site in sites)
    return {meter: used[0].at(used[1], now) for meter, used in found if meter is not None and used is not None}
