"""Budgets and costs by meter, from the usage of this day and this month.  Pure.

A workspace's usage is the sum of its accounts in memory and of the settled time of those that have left it.  Participant time
is known by role; the time of recordings and streams is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from exporter.config.money import Budget, Meter, Prices
from exporter.counting.accounts import AccountState, PeriodSums
from exporter.counting.contribution import Account
from exporter.times import MINUTE, SECOND, Calendar, Period, calendar

Sums = tuple[int, int]
"""Time of this UTC day and of this UTC month (µs)."""


class MeterUse(NamedTuple):
    """A workspace's use of a meter without roles: by account in memory, and in sum for those that have left it."""

    by_account: Mapping[Account, Sums]
    elsewhere: Sums = (0, 0)

    @property
    def whole(self) -> Sums:
        """The use of the whole workspace."""
        days, months = zip(self.elsewhere, *self.by_account.values(), strict=True)
        return sum(days), sum(months)

    def at(self, read: int, now: int) -> MeterUse:
        """The use as of `now`: what was read at `read` counts only if it is of the same day or month (µs)."""
        same = tuple(_same_period(period, read, now) for period in ("day", "month"))
        return MeterUse({account: _where(same, sums) for account, sums in self.by_account.items()}, _where(same, self.elsewhere))

    def shown(self, is_shown: Callable[[Account], bool], *, only_those: bool) -> MeterUse:
        """The same with accounts that are not shown added to the rest, or left out."""
        found = {account: sums for account, sums in self.by_account.items() if is_shown(account)}
        if only_those:
            return MeterUse(found)
        hidden = MeterUse({account: sums for account, sums in self.by_account.items() if account not in found}, self.elsewhere)
        return MeterUse(found, hidden.whole)


def _where(wanted: tuple[bool, ...], sums: Sums) -> Sums:
    day, month = (time if yes else 0 for yes, time in zip(wanted, sums, strict=True))
    return day, month


class Spent(NamedTuple):
    """One workspace's use of a budget (µs), as of a moment of its API's clock (µs)."""

    micros: int
    now: int


class BudgetLine(NamedTuple):
    """A budget as published: its size in seconds, the used fraction, and the elapsed fraction of its period."""

    name: str
    period: Period
    meter: Meter
    seconds: float
    used: float
    elapsed: float


def by_role(states: Iterable[AccountState], unloaded: Mapping[str, PeriodSums], now: Calendar, bots: frozenset[str]) -> dict[str, Sums]:
    """A workspace's usage of this day and this month by role (µs), without the roles `bots`."""
    sums: dict[str, list[int]] = {role: [*periods.at(now)] for role, periods in unloaded.items()}
    for state in states:
        for role, totals in state.roles.items():
            entry = sums.setdefault(role, [0, 0])
            entry[0] += totals.usage_day
            entry[1] += totals.usage_month
    return {role: (day, month) for role, (day, month) in sums.items() if role not in bots}


def spent(
    budget: Budget,
    states: Mapping[Account, AccountState],
    label: Callable[[Account], str | None],
    whole: Mapping[str, Sums],
    bots: frozenset[str],
) -> int:
    """A workspace's use of a budget of participant time (µs).

    `whole` is its usage by role without `bots`; `label` gives the names of its accounts.
    """
    index = _index(budget)
    if budget.rooms is None:
        return sum(sums[index] for role, sums in whole.items() if budget.roles is None or role in budget.roles)
    return sum(
        (totals.usage_day, totals.usage_month)[index]
        for account, state in states.items()
        if account.id in budget.rooms or label(account) in budget.rooms
        for role, totals in state.roles.items()
        if role not in bots and (budget.roles is None or role in budget.roles)
    )


def spent_of(budget: Budget, use: MeterUse, label: Callable[[Account], str | None]) -> int:
    """A workspace's use of a budget of another meter (µs)."""
    index = _index(budget)
    if budget.rooms is None:
        return use.whole[index]
    return sum(sums[index] for account, sums in use.by_account.items() if account.id in budget.rooms or label(account) in budget.rooms)


def _index(budget: Budget) -> int:
    return 0 if budget.period == "day" else 1


def cost(prices: Prices, whole: Mapping[str, Sums]) -> dict[str, float]:
    """The cost of this month's participant time so far, by role, in the prices' currency.

    The free minutes are deducted from every role in proportion, so that the roles' costs add up to the workspace's.
    """
    minutes = sum(month for _, month in whole.values()) / MINUTE
    billed = max(0.0, 1 - prices.free_peer_minutes / minutes) if minutes else 0.0
    return {role: month / MINUTE * prices.of(role) * billed for role, (_, month) in whole.items()}


def cost_of(prices: Prices, meter: Meter, use: MeterUse) -> float:
    """The cost of this month's time of another meter so far, in the prices' currency."""
    assert meter != "peer"
    return max(0.0, use.whole[1] / MINUTE - prices.free_minutes(meter)) * prices.per_minute(meter)


def lines(budgets: Iterable[Budget], spent_by_workspace: Mapping[str, Mapping[str, Spent]]) -> list[BudgetLine]:
    """The budgets as published, from the workspaces' use of each; a budget without any report is left out."""
    found = []
    for budget in budgets:
        parts = [told[budget.name] for told in spent_by_workspace.values() if budget.name in told]
        if parts:
            now = max(part.now for part in parts)
            size = budget.minutes * 60
            used = sum(part.micros for part in parts if _same_period(budget.period, part.now, now)) / SECOND / size
            elapsed = calendar(now).elapsed(budget.period, now)
            found.append(BudgetLine(budget.name, budget.period, budget.meter, size, used, elapsed))
    return found


def _same_period(period: Period, a: int, b: int) -> bool:
    """Whether two moments are in the same period: use that was last read in an earlier period does not count in this one."""
    one, other = calendar(a), calendar(b)
    return one.day == other.day if period == "day" else one.month == other.month
