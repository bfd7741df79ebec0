"""Budgets and costs, from the ledger's sums of this day and this month. Pure.

A workspace's usage is the sum over its accounts in memory, plus the time settled by accounts that are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from exporter.config.money import Budget, Prices
from exporter.counting.accounts import AccountState, PeriodSums
from exporter.counting.contribution import Account
from exporter.times import MINUTE, SECOND, Calendar, Period, calendar


class Spent(NamedTuple):
    """What one workspace has used of a budget (µs), as of a moment of its API's clock (µs)."""

    micros: int
    now: int


class BudgetLine(NamedTuple):
    """A budget as published: its size in seconds, how much of it is used (1 is all), how much of its period is over."""

    name: str
    seconds: float
    used: float
    elapsed: float


def by_role(
    states: Iterable[AccountState], unloaded: Mapping[str, PeriodSums], now: Calendar, bots: frozenset[str]
) -> dict[str, tuple[int, int]]:
    """A workspace's usage of this day and this month by role (µs); that of `bots` is none."""
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
    whole: Mapping[str, tuple[int, int]],
    bots: frozenset[str],
) -> int:
    """What a workspace has used of a budget (µs); `whole` is its usage by role without `bots`, `label` what its accounts are called."""
    index = 0 if budget.period == "day" else 1
    if budget.rooms is None:
        return sum(sums[index] for role, sums in whole.items() if budget.roles is None or role in budget.roles)
    return sum(
        (totals.usage_day, totals.usage_month)[index]
        for account, state in states.items()
        if account.id in budget.rooms or label(account) in budget.rooms
        for role, totals in state.roles.items()
        if role not in bots and (budget.roles is None or role in budget.roles)
    )


def cost(prices: Prices, whole: Mapping[str, tuple[int, int]]) -> dict[str, float]:
    """What this month has cost so far by role, in the prices' currency.

    The free minutes are taken off every role in proportion, so that the roles' costs add up to the workspace's.
    """
    minutes = sum(month for _, month in whole.values()) / MINUTE
    billed = max(0.0, 1 - prices.free_peer_minutes / minutes) if minutes else 0.0
    return {role: month / MINUTE * prices.of(role) * billed for role, (_, month) in whole.items()}


def lines(budgets: Iterable[Budget], spent_by_workspace: Mapping[str, Mapping[str, Spent]]) -> list[BudgetLine]:
    """The budgets as published, of what the workspaces have used of each; one that no workspace has told of is left out."""
    found = []
    for budget in budgets:
        parts = [told[budget.name] for told in spent_by_workspace.values() if budget.name in told]
        if parts and budget.meter == "peer":
            now = max(part.now for part in parts)
            size = budget.minutes * 60
            used = sum(part.micros for part in parts if _same_period(budget.period, part.now, now)) / SECOND / size
            found.append(BudgetLine(budget.name, size, used, calendar(now).elapsed(budget.period, now)))
    return found


def _same_period(period: Period, a: int, b: int) -> bool:
    """Whether two moments are in one period. A workspace that was last read in an earlier period has used nothing of this one."""
    one, other = calendar(a), calendar(b)
    return one.day == other.day if period == "day" else one.month == other.month
