"""The lines of usage, costs and budgets that are not part of an account's own lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from exporter.config.money import Budget, Meter, Prices
from exporter.counting.accounts import AccountState
from exporter.counting.contribution import OVERFLOW, Account
from exporter.counting.ledger import Ledger
from exporter.counting.rooms import Rooms
from exporter.counting.usage import BudgetLine, MeterUse, Spent, Sums, by_role, cost, cost_of, spent, spent_of
from exporter.publish.account_families import USAGE_FAMILY, period_lines
from exporter.publish.families import BUDGET_FAMILIES, COST_FAMILY, ELAPSED_FAMILY, METER_FAMILY
from exporter.publish.writing import account_labels, escape
from exporter.times import PERIODS, calendar


class Usage(NamedTuple):
    """A workspace's usage as of `now` (µs): participant time by role, and the other meters that are collected.

    `elsewhere` is the participant time of rooms without series of their own, `whole` that of all rooms, where it was asked for.
    """

    now: int
    elsewhere: Mapping[str, Sums]
    whole: Mapping[str, Sums]
    meters: Mapping[Meter, MeterUse]


def usage_of(ledger: Ledger, rooms: Rooms, meters: Mapping[Meter, MeterUse], now: int, *, whole: bool) -> Usage:
    """A workspace's usage, according to the current series of its rooms; only budgets and prices need its `whole`."""
    bots, today = ledger.bots, calendar(now)
    shown: dict[Account, AccountState] = {account: state for account, state in ledger.accounts.items() if rooms.shown(account)}
    only_ids = rooms.scope.only_ids  # everything else was counted for another configuration
    of_rooms = {meter: use.shown(lambda a: a != OVERFLOW and rooms.shown(a), only_those=only_ids) for meter, use in meters.items()}
    if only_ids:
        return Usage(now, {}, by_role(shown.values(), {}, today, bots) if whole else {}, of_rooms)
    hidden = [state for account, state in ledger.accounts.items() if account == OVERFLOW or account not in shown]
    elsewhere = by_role(hidden, ledger.unloaded, today, bots)
    return Usage(now, elsewhere, by_role(ledger.accounts.values(), ledger.unloaded, today, bots) if whole else {}, of_rooms)


def spent_by_budget(usage: Usage, budgets: Iterable[Budget], ledger: Ledger, rooms: Rooms) -> dict[str, Spent]:
    """A workspace's use of each budget; a budget whose meter is not collected is left out."""
    found = {}
    for budget in budgets:
        if budget.meter == "peer":
            found[budget.name] = Spent(spent(budget, ledger.accounts, rooms.label, usage.whole, ledger.bots), usage.now)
        elif budget.meter in usage.meters:
            found[budget.name] = Spent(spent_of(budget, usage.meters[budget.meter], rooms.label), usage.now)
    return found


def usage_lines(workspace: str, usage: Usage, prices: Prices | None, label: Callable[[Account], str | None]) -> dict[str, bytes]:
    """By family: usage that no account's own lines show, the elapsed part of each period, and the costs."""
    of = f'workspace="{escape(workspace)}"'
    now, elsewhere = usage.now, sorted(usage.elsewhere.items())
    of_peers = [
        period_lines(USAGE_FAMILY.name, f'{{{of},room="_other",role="{escape(role)}"}} ', *sums) for role, sums in elsewhere if any(sums)
    ]
    of_meters = [text for meter, use in usage.meters.items() for text in _meter_lines(workspace, meter, use, label)]
    ratios = [f'{ELAPSED_FAMILY.name}{{{of},period="{period}"}} {calendar(now).elapsed(period, now)!r}\n' for period in PERIODS]
    costs = [] if prices is None else list(_cost_lines(of, usage, prices))
    families = (USAGE_FAMILY, of_peers), (METER_FAMILY, of_meters), (ELAPSED_FAMILY, ratios), (COST_FAMILY, costs)
    return {family.name: "".join(lines).encode() for family, lines in families}


def _meter_lines(workspace: str, meter: Meter, use: MeterUse, label: Callable[[Account], str | None]) -> Iterable[str]:
    for account, sums in use.by_account.items():
        name = label(account)
        if name is not None:
            yield period_lines(METER_FAMILY.name, f'{{{account_labels(workspace, name, account)},meter="{meter}"}} ', *sums)
    if any(use.elsewhere):
        yield period_lines(METER_FAMILY.name, f'{{{account_labels(workspace, OVERFLOW.id, OVERFLOW)},meter="{meter}"}} ', *use.elsewhere)


def _cost_lines(of: str, usage: Usage, prices: Prices) -> Iterable[str]:
    currency = f'currency="{escape(prices.currency)}"'
    for role, found in sorted(cost(prices, usage.whole).items()):
        yield f'{COST_FAMILY.name}{{{of},meter="peer",role="{escape(role)}",{currency}}} {found!r}\n'
    for meter, use in usage.meters.items():
        yield f'{COST_FAMILY.name}{{{of},meter="{meter}",{currency}}} {cost_of(prices, meter, use)!r}\n'


def budget_lines(budgets: Sequence[BudgetLine]) -> dict[str, bytes]:
    """The budgets' lines by family."""
    labels = [(f'{{budget="{escape(of.name)}",period="{of.period}",meter="{of.meter}"}}', of) for of in budgets]
    return {
        family.name: "".join([f"{family.name}{text} {family.value(of)!r}\n" for text, of in labels]).encode() for family in BUDGET_FAMILIES
    }
