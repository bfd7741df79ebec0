"""100ms / Usage and cost: participant minutes, budgets and costs, by calendar and over any range."""

from __future__ import annotations

from grafana.frame import DashboardPlan, RowPlan, text_variable
from grafana.links import ROOM_OF_ROW, USAGE_OF_ROW
from grafana.panels import FILLING, SHARE, Column, Label, lines, number, optional, rows, steps_of
from grafana.promql import JOB, WORKSPACE, calendar_minutes, minutes, nobody, of_today, once, summed, zero
from grafana.recordings import KIND, KINDS

_METER = Label("meter", "Kind", words={"peer": "Participants", "": "Participants", **KINDS})

_NO_PRICES = "no prices configured"
_NO_BUDGETS = "no budgets configured"

_ROOMS = (Label("workspace", "Workspace"), Label("room", "Room", ROOM_OF_ROW, wide=True))
_WORKSPACES = (Label("workspace", "Workspace", USAGE_OF_ROW),)
_ROLES = (Label("role", "Role"),)

# The labels that tell workspaces apart.
_EACH = "job, workspace"
_SO_FAR = calendar_minutes("month", _EACH)
# A projection from the first minutes of a month would be meaningless, so its first hour counts whole.
_MONTH_OVER = once(f'hms_usage_period_elapsed_ratio{{{WORKSPACE}, period="month"}}')
_MONTHS_END = f"{_SO_FAR} / on ({_EACH}) clamp_min({_MONTH_OVER}, 1 / 744)"


_THIS_MONTH = 'period="month"'
_PARTICIPANTS = ', meter=~"peer|"'  # older exporters have no other meter, and no label for it
_OTHERS = ', meter!~"peer|"'


def _cost(by: str, of: str = "", ago: str = "") -> str:
    """The cost of this month so far, in all or `of` some meters."""
    offset = f" offset {ago}" if ago else ""
    return summed(of_today(f"hms_usage_cost{{{WORKSPACE}{of}}}{offset}", ago), by)


_CALENDAR = RowPlan(
    "By calendar (UTC), whatever the range above",
    [
        number("Today", "Participant minutes since midnight UTC.", f"{calendar_minutes('day')} or {zero()}", width=6),
        number(
            "This month so far",
            "Participant minutes since the first of the month.",
            f"{calendar_minutes('month')} or {zero()}",
            width=6,
        ),
        number(
            "This month at this pace",
            "Where the month ends if the rest of it goes like the part so far. Too low in the month in which collecting began.",
            f"sum({_MONTHS_END}) or {zero()}",
            width=6,
        ),
        optional(
            _NO_PRICES,
            number(
                "Cost this month",
                "This month's minutes by the exporter's `prices`, in all rooms of the workspaces. 100ms's bill decides.",
                {"{{currency}}": _cost("currency")},
                width=6,
                decimals=2,
            ),
        ),
    ],
)

# A budget belongs to no workspace. Two exporters with the same budgets publish the same values.
_BUDGET = "budget, meter"
_USED = f"max by ({_BUDGET}) ({of_today(f'hms_budget_used_ratio{{{JOB}}}')})"
_OVER = f"max by ({_BUDGET}) ({of_today(f'hms_budget_elapsed_ratio{{{JOB}}}')})"
_SIZE = f"max by ({_BUDGET}) (hms_budget_seconds{{{JOB}}}) / 60"
# As with the month: the first hundredth of the period counts whole.
_BUDGET_END = f"{_USED} / clamp_min({_OVER}, 0.01)"

_BUDGETS = RowPlan(
    "Budgets",
    [
        optional(
            _NO_BUDGETS,
            rows(
                "Every budget",
                "What is planned, what is used, and where it ends if the rest of its period goes like the part so far. "
                "Over 100 % it will not last.",
                [Label("budget", "Budget", wide=True), _METER],
                [
                    Column("Used", _USED, SHARE, decimals=1, bar=True, steps=FILLING),
                    Column("Time passed", _OVER, SHARE, decimals=1, width=120),
                    Column("At the period's end", _BUDGET_END, SHARE, decimals=1, bar=True, steps=FILLING),
                    Column("Planned minutes", _SIZE, width=150),
                ],
                width=24,
                height=6,
            ),
        ),
        optional(
            _NO_BUDGETS,
            lines(
                "Used, and time passed",
                "Above its dashed line, which is the share of the period that is over, a budget is used faster than it should be.",
                {"{{budget}}": _USED, "{{budget}}: time passed": _OVER},
                unit=SHARE,
                width=24,
                compared=".*: time passed",
            ),
        ),
    ],
    folded=True,
)

_COST = _cost(f"{_EACH}, currency", _PARTICIPANTS)
_DAY_AGO = _cost(f"{_EACH}, currency", _PARTICIPANTS, ago="1d")
_MINUTES_DAY_AGO = calendar_minutes("month", _EACH, ago="1d")
# The price of a further minute: the last day's cost divided by its minutes, because free minutes are used up only once a month.
# If nothing was used on that day, and on the first of a month, it is the average of the month so far.
_FURTHER = (
    f"(({_COST} - {_DAY_AGO} > 0) / on ({_EACH}) group_left () ({_SO_FAR} - {_MINUTES_DAY_AGO} > 0) "
    f"or {_COST} / on ({_EACH}) group_left () clamp_min({_SO_FAR}, 1))"
)
_OF_PARTICIPANTS = f"sum by (currency) (({_COST} > 0) + {_FURTHER} * on ({_EACH}) group_left () ({_MONTHS_END} - {_SO_FAR}))"
_OF_OTHERS = f"sum by (currency) ({_cost(f'{_EACH}, currency', _OTHERS)} / on ({_EACH}) group_left () clamp_min({_MONTH_OVER}, 1 / 744))"
_COST_END = f"{_OF_PARTICIPANTS} + {_OF_OTHERS} or {_OF_PARTICIPANTS} or {_OF_OTHERS}"

_PRICES = RowPlan(
    "What this month costs, by the configured prices",
    [
        optional(
            _NO_PRICES,
            number(
                "Cost at this pace",
                "What the month costs if the rest of it goes like the part so far and each further participant minute costs what those "
                "of the last day did. It has an answer once something is billed: while the free minutes last, nobody knows. "
                "Too low in the month in which collecting began.",
                {"{{currency}}": _COST_END},
                width=6,
                decimals=2,
            ),
        ),
        optional(
            _NO_PRICES,
            number(
                "A participant minute costs",
                "The cost so far by the minutes so far, on average over roles, the free ones among them.",
                {"{{currency}}": f"{_cost('currency')} / on () group_left () clamp_min({calendar_minutes('month')}, 1)"},
                width=6,
                decimals=5,
            ),
        ),
        optional(
            _NO_PRICES,
            rows(
                "Cost by role",
                "Which roles this month's cost so far is for; the free minutes are taken off each in proportion.",
                [*_ROLES, Label("currency", "Currency")],
                [Column("Cost", _cost("role, currency", _PARTICIPANTS), decimals=2, bar=True)],
                height=6,
            ),
        ),
        optional(
            _NO_PRICES,
            rows(
                "Cost by kind",
                "What this month's cost so far is for: participants, recordings, streams.",
                [_METER, Label("currency", "Currency")],
                [Column("Cost", _cost("meter, currency"), decimals=2, bar=True)],
                height=6,
            ),
        ),
        optional(
            _NO_PRICES,
            lines(
                "Cost through the month",
                "How the cost of each workspace grew; it starts over with the month.",
                {"{{workspace}}, {{currency}}": _cost("workspace, currency")},
                width=24,
            ),
        ),
    ],
    folded=True,
)

_WHO = RowPlan(
    "Who caused it, this month",
    [
        rows(
            "Rooms of this month",
            "The 50 rooms with the most participant minutes this month. A room's name opens its own dashboard.",
            _ROOMS,
            [Column("Minutes", f"topk(50, {calendar_minutes('month', 'workspace, room')} > 0)", bar=True)],
            width=24,
            height=12,
        ),
        rows(
            "This month by role",
            "Which roles the participant minutes of this month went to.",
            _ROLES,
            [Column("Minutes", calendar_minutes("month", "role"), bar=True)],
            width=12,
            height=6,
        ),
        rows(
            "This month by workspace",
            "Which workspaces the participant minutes of this month went to. A workspace's name shows it alone.",
            _WORKSPACES,
            [Column("Minutes", f"{calendar_minutes('month', 'workspace')} or {zero('workspace')}", bar=True)],
            width=12,
            height=6,
        ),
    ],
)


def _jobs_minutes(by: str) -> str:
    """Minutes of recordings and streams of this month so far."""
    return f"{summed(of_today(f'hms_usage_seconds{{{WORKSPACE}, {_THIS_MONTH}}}'), by)} / 60"


_JOBS = RowPlan(
    "Recordings and streams, this month",
    [
        rows(
            "Minutes by kind",
            "Minutes of recordings and streams since the first of the month.",
            [KIND],
            [Column("Minutes", _jobs_minutes("meter"), bar=True)],
            width=24,
            height=6,
        ),
        rows(
            "Recorded and streamed rooms",
            "The 50 rooms with the most of them. A room's name opens its own dashboard.",
            [KIND, *_ROOMS],
            [Column("Minutes", f"topk(50, {_jobs_minutes('meter, workspace, room')} > 0)", bar=True)],
            width=24,
            height=8,
        ),
    ],
)

_RANGE = RowPlan(
    "In the range above",
    [
        number("Total", "Participant minutes of the range shown.", f"{minutes()} or {zero()}", width=12),
        number(
            "Sessions",
            "Calls that ended in the range shown, and those that still run.",
            f"round(({summed(f'increase(hms_session_duration_seconds_count{{{WORKSPACE}}}[$__range])')} or {zero()}) "
            f"+ ({summed(f'hms_sessions_active{{{WORKSPACE}}}')} or {zero()}))",
            width=12,
        ),
        steps_of(
            "Participant minutes by workspace",
            "The stays of all peers added up, in each step of the graph: what 100ms bills.",
            {"{{workspace}}": f"{minutes('workspace', '$__interval')} or {zero('workspace')}"},
        ),
        steps_of(
            "Participant minutes by role",
            "The same by role: 100ms's prices differ between those who publish and those who only watch.",
            {"{{role}}": f"{minutes('role', '$__interval')} or {nobody()}"},
        ),
        rows(
            "Rooms that cost most",
            "The 50 rooms with the most participant minutes in the range shown. A room's name opens its own dashboard.",
            _ROOMS,
            [Column("Minutes", f"topk(50, {minutes('workspace, room', level='room')} > 0)", bar=True)],
            width=24,
            height=12,
        ),
        rows(
            "Total by role",
            "Which roles the minutes of the range shown went to.",
            _ROLES,
            [Column("Minutes", minutes("role"), bar=True)],
            width=12,
            height=6,
        ),
        rows(
            "Total by workspace",
            "Which workspaces the minutes of the range shown went to. A workspace's name shows it alone.",
            _WORKSPACES,
            [Column("Minutes", f"{minutes('workspace')} or {zero('workspace')}", bar=True)],
            width=12,
            height=6,
        ),
    ],
)


def _at_price(by_workspace: str) -> str:
    return f"(sum(clamp_min({by_workspace} - $free, 0)) or {zero()}) * $price"


_WHAT_IF = RowPlan(
    "What if: at the price and the free minutes typed in above, whatever is configured",
    [
        number(
            "The month so far, USD",
            "Minutes of this month beyond the free ones of each workspace, times the price.",
            _at_price(_SO_FAR),
            width=6,
            decimals=2,
        ),
        number(
            "The month at this pace, USD",
            "What the month would cost if the rest of it goes like the part so far. Too low in the month in which collecting began.",
            _at_price(_MONTHS_END),
            width=6,
            decimals=2,
        ),
        number(
            "The range above, USD",
            "Minutes of the range shown times the price, the free ones left aside.",
            f"({minutes()} or {zero()}) * $price",
            width=6,
            decimals=2,
        ),
        number(
            "Free minutes used",
            "Minutes of this month in proportion to the free ones, of the workspace with the most. Every further one would be billed.",
            f"(max({_SO_FAR}) or {zero()}) / $free",
            width=6,
            unit=SHARE,
            steps=FILLING,
        ),
    ],
    folded=True,
)

PLAN = DashboardPlan(
    uid="hms-usage",
    title="100ms / Usage and cost",
    description="Participant minutes, budgets and costs, by workspace, room and role, in UTC. The boxes above are for the last row.",
    since="now-7d",
    rows=(_CALENDAR, _BUDGETS, _PRICES, _WHO, _JOBS, _RANGE, _WHAT_IF),
    variables=(
        text_variable(
            "price",
            "What if: USD a minute",
            "0.004",
            "A price for the last row alone; `prices` in the exporter's configuration make the costs.",
        ),
        text_variable("free", "What if: free minutes a month", "10000", "Minutes a month and workspace that the last row does not bill."),
    ),
    timezone="utc",
    rooms="hidden",
    recorded=True,
)
