"""The rows about this month's money on 100ms / Usage and cost: configured prices and budgets, and who caused it.

What the exporter says of the calendar is exact, so these ask for it at this moment and not for an increase over a range.
"""

from __future__ import annotations

from grafana.frame import RowPlan
from grafana.panels import JOB, ROOM, WORKSPACE, Column, Query, Step, bars_now, lines, lines_of, number, optional, rooms_table

EACH = "job, instance, workspace"
"""What tells workspaces apart."""

# A month that has just begun would promise anything: its first hour counts whole.
_ELAPSED = f'clamp_min(hms_usage_period_elapsed_ratio{{{WORKSPACE}, period="month"}}, 1 / 744)'

_USED_STEPS: tuple[Step, ...] = (("green", None), ("orange", 0.8), ("red", 1))
_NO_PRICES = "no prices configured"
_NO_BUDGETS = "no budgets configured"


def minutes(period: str, by: str = "", rooms: str = ROOM) -> str:
    """Participant minutes of this `day` or `month` so far, in all or by some labels; of the rooms chosen above."""
    group = f"by ({by}) " if by else ""
    return f'sum {group}(hms_usage_peer_seconds{{{rooms}, period="{period}"}}) / 60'


def months_end(rooms: str = ROOM) -> str:
    """Participant minutes that each workspace will have used at the month's end, if it goes on as so far."""
    return f"{minutes('month', EACH, rooms)} / on ({EACH}) {_ELAPSED}"


def at_price(by_workspace: str) -> str:
    """What minutes come to beyond the free ones of each workspace, by the price and the allowance set above."""
    return f"sum(clamp_min({by_workspace} - $free, 0)) * $price"


_COST = f"sum by ({EACH}, currency) (hms_usage_cost{{{WORKSPACE}}})"
_WHOLE = minutes("month", EACH, WORKSPACE)
_ALL = minutes("month", rooms=WORKSPACE)
_WHOLE_END = months_end(WORKSPACE)
# What is billed grows faster than what is used, for the free minutes are used up but once.
_COST_END = (
    f"sum by (currency) ({_COST} * on ({EACH}) group_left () (({_WHOLE_END} - $free) / ({_WHOLE} - $free > 0)) "
    f"or ({_COST} == 0) + on ({EACH}) group_left () (clamp_min({_WHOLE_END} - $free, 0) * $price) "
    f"or {_COST} / on ({EACH}) group_left () {_ELAPSED})"
)

PRICES = RowPlan(
    "What this month costs, by the configured prices",
    [
        optional(
            number(
                "Cost so far",
                "This month's participant minutes by the exporter's `prices`, in all rooms of the workspaces. 100ms's bill decides.",
                Query(f"sum by (currency) (hms_usage_cost{{{WORKSPACE}}})", "{{currency}}", "now"),
                unit="none",
                width=8,
                decimals=2,
                names=True,
            ),
            _NO_PRICES,
        ),
        optional(
            number(
                "Cost at this pace",
                "What the month costs if the rest of it goes like the part so far, given the free minutes set above; as long as nothing is "
                "billed yet, at the price set above. Too low in the month in which collecting began.",
                Query(_COST_END, "{{currency}}", "now"),
                unit="none",
                width=8,
                decimals=2,
                names=True,
            ),
            _NO_PRICES,
        ),
        optional(
            number(
                "A participant minute costs",
                "The cost so far by the minutes so far, on average over roles, the free ones among them.",
                Query(
                    f"sum by (currency) (hms_usage_cost{{{WORKSPACE}}}) / on () group_left () clamp_min({_ALL}, 1)",
                    "{{currency}}",
                    "now",
                ),
                unit="none",
                width=8,
                decimals=5,
                names=True,
            ),
            _NO_PRICES,
        ),
        optional(
            bars_now(
                "Cost by role",
                "Which roles this month's cost so far is for; the free minutes are taken off each in proportion.",
                Query(f"sort_desc(sum by (role, currency) (hms_usage_cost{{{WORKSPACE}}}))", "{{role}}, {{currency}}", "now"),
                unit="none",
                width=8,
            ),
            _NO_PRICES,
        ),
        optional(
            lines(
                "Cost through the month",
                "How the cost of each workspace grew; it starts over with the month.",
                Query(f"sum by (workspace, currency) (hms_usage_cost{{{WORKSPACE}}})", "{{workspace}}, {{currency}}"),
                unit="none",
                width=16,
            ),
            _NO_PRICES,
        ),
    ],
)

# A budget is of no workspace; two exporters of the same budgets tell the same.
_USED = f"max by (budget) (hms_budget_used_ratio{{{JOB}}})"
_OVER = f"max by (budget) (hms_budget_elapsed_ratio{{{JOB}}})"
_SIZE = f"max by (budget) (hms_budget_peer_seconds{{{JOB}}}) / 60"
# As with the month: the first hundredth of the period counts whole.
_BUDGET_END = f"{_USED} / clamp_min({_OVER}, 0.01)"

BUDGETS = RowPlan(
    "Budgets",
    [
        optional(
            bars_now(
                "Used of each budget",
                "How much of its participant minutes the budget's day or month has used so far.",
                Query(f"sort_desc({_USED})", "{{budget}}", "now"),
                unit="percentunit",
                steps=_USED_STEPS,
                full=1,
            ),
            _NO_BUDGETS,
        ),
        optional(
            bars_now(
                "At the period's end, at this pace",
                "How much will be used if the rest of the day or month goes like the part so far. Over 100 % it will not last.",
                Query(f"sort_desc({_BUDGET_END})", "{{budget}}", "now"),
                unit="percentunit",
                steps=_USED_STEPS,
                full=1,
            ),
            _NO_BUDGETS,
        ),
        optional(
            lines(
                "Used, and time passed",
                "Above its dashed line, which is the share of the period that is over, a budget is used faster than it should be.",
                Query(_USED, "{{budget}}"),
                Query(_OVER, "{{budget}}: time passed"),
                unit="percentunit",
                width=8,
                dashed=".*: time passed",
            ),
            _NO_BUDGETS,
        ),
        optional(
            lines_of(
                ("budget",),
                "Every budget",
                "What is planned, what is used, and where it ends at this pace.",
                [
                    Column("Planned minutes", _SIZE, decimals=0),
                    Column("Used minutes", f"{_USED} * {_SIZE}", decimals=0),
                    Column("Used", _USED, unit="percentunit", decimals=1),
                    Column("Time passed", _OVER, unit="percentunit", decimals=1),
                    Column("At the period's end", _BUDGET_END, unit="percentunit", decimals=1),
                ],
                sort_by="Used",
                width=24,
                height=6,
            ),
            _NO_BUDGETS,
        ),
    ],
)

_BY_ROOM = minutes("month", "workspace, room")

WHO = RowPlan(
    "Who caused it, this month",
    [
        rooms_table(
            "Rooms of this month",
            "The 50 rooms with the most participant minutes this month. A room's name opens its own dashboard.",
            [
                Column("This month", f"topk(50, {_BY_ROOM})", decimals=0),
                Column("Today", f"{minutes('day', 'workspace, room')} and on (workspace, room) topk(50, {_BY_ROOM})", decimals=0),
                Column("Share", f"topk(50, {_BY_ROOM}) / on () group_left () ({minutes('month')})", unit="percentunit", decimals=1),
            ],
            sort_by="This month",
            width=14,
            height=12,
        ),
        bars_now(
            "This month by role",
            "Which roles the participant minutes of this month went to.",
            Query(f"sort_desc({minutes('month', 'role')})", "{{role}}", "now"),
            unit="short",
            width=10,
            height=6,
        ),
        bars_now(
            "This month by workspace",
            "Which workspaces the participant minutes of this month went to.",
            Query(f"sort_desc({minutes('month', 'workspace')})", "{{workspace}}", "now"),
            unit="short",
            width=10,
            height=6,
        ),
    ],
)
