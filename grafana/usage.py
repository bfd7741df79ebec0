"""100ms / Usage and cost: participant minutes, by calendar and over any range, and what they come to."""

from __future__ import annotations

from grafana.frame import DashboardPlan, RowPlan, text_variable
from grafana.money import BUDGETS, EACH, PRICES, WHO, at_price, minutes, months_end
from grafana.panels import ROOM, Column, Query, bars_now, dial, lines, number, rooms_table

_MINUTES = f"sum(increase(hms_peer_seconds_total{{{ROOM}}}[$__range])) / 60"
_BY_ROOM = f"sum by (workspace, room) (increase(hms_peer_seconds_total{{{ROOM}}}[$__range])) / 60"
_SO_FAR = minutes("month", EACH)

_CALENDAR = RowPlan(
    "By calendar (UTC), whatever the range above",
    [
        number("Today", "Participant minutes since midnight UTC.", Query(minutes("day"), "today", "now"), decimals=0),
        number(
            "This month so far",
            "Participant minutes since the first of the month.",
            Query(minutes("month"), "this month", "now"),
            decimals=0,
        ),
        number(
            "This month at this pace",
            "Where the month ends if the rest of it goes like the part so far. Too low in the month in which collecting began.",
            Query(f"sum({months_end()})", "month's end", "now"),
            decimals=0,
        ),
        number(
            "So far, at the price above",
            "What if: minutes of this month beyond the free ones of each workspace, times the price. Both are set above.",
            Query(at_price(_SO_FAR), "so far", "now"),
            unit="currencyUSD",
            decimals=2,
        ),
        number(
            "At this pace and the price above",
            "What if: what the month costs if the rest of it goes like the part so far. Too low in the month in which collecting began.",
            Query(at_price(months_end()), "month's end", "now"),
            unit="currencyUSD",
            decimals=2,
        ),
        dial(
            "Free allowance used",
            "Minutes of this month in proportion to the free ones set above, of the workspace with the most. Every further one is billed.",
            Query(f"max({_SO_FAR}) / $free", "used", "now"),
            steps=(("green", None), ("orange", 0.8), ("red", 1)),
        ),
    ],
)

_RANGE = RowPlan(
    "In the range above",
    [
        number("Total", "Participant minutes of the range shown.", Query(_MINUTES, "minutes", "now"), decimals=0, width=8),
        number(
            "Sessions",
            "Calls that ended in the range shown, and those that still run.",
            Query(
                f"round(sum(increase(hms_sessions_ended_total{{{ROOM}}}[$__range])) + sum(hms_sessions_active{{{ROOM}}}))",
                "sessions",
                "now",
            ),
            width=8,
        ),
        number(
            "Value",
            "Minutes of the range shown times the price, the free allowance left aside.",
            Query(f"{_MINUTES} * $price", "value", "now"),
            unit="currencyUSD",
            decimals=2,
            width=8,
        ),
        lines(
            "Participant minutes by workspace",
            "The stays of all people added up, in each step of the graph: what 100ms bills.",
            Query(f"sum by (workspace) (increase(hms_peer_seconds_total{{{ROOM}}}[$__interval])) / 60", "{{workspace}}"),
            bars=True,
            stacked=True,
            min_step="1h",
        ),
        lines(
            "Participant minutes by role",
            "The same by role: 100ms's prices differ between those who publish and those who only watch.",
            Query(f"sum by (role) (increase(hms_peer_seconds_total{{{ROOM}}}[$__interval])) / 60", "{{role}}"),
            bars=True,
            stacked=True,
            min_step="1h",
        ),
    ],
)

_WHERE = RowPlan(
    "Who and where, in the range above",
    [
        rooms_table(
            "Rooms that cost most",
            "The 50 rooms with the most participant minutes in the range shown. A room's name opens its own dashboard.",
            [
                Column("Participant minutes", f"topk(50, {_BY_ROOM})", decimals=0),
                Column("Share", f"topk(50, {_BY_ROOM}) / on () group_left () ({_MINUTES})", unit="percentunit", decimals=1),
                Column("Value", f"topk(50, {_BY_ROOM}) * $price", unit="currencyUSD", decimals=2),
            ],
            sort_by="Participant minutes",
            width=14,
            height=12,
        ),
        bars_now(
            "Total by role",
            "Which roles the minutes of the range shown went to.",
            Query(f"sort_desc(sum by (role) (increase(hms_peer_seconds_total{{{ROOM}}}[$__range])) / 60)", "{{role}}", "now"),
            unit="short",
            width=10,
            height=6,
        ),
        bars_now(
            "Total by workspace",
            "Which workspaces the minutes of the range shown went to.",
            Query(f"sort_desc(sum by (workspace) (increase(hms_peer_seconds_total{{{ROOM}}}[$__range])) / 60)", "{{workspace}}", "now"),
            unit="short",
            width=10,
            height=6,
        ),
    ],
)

PLAN = DashboardPlan(
    uid="hms-usage",
    title="100ms / Usage and cost",
    description="Participant minutes, budgets and costs, by workspace, room and role, in UTC. The boxes above are for what-ifs.",
    since="now-7d",
    refresh="5m",
    rows=(_CALENDAR, BUDGETS, PRICES, WHO, _RANGE, _WHERE),
    variables=(
        text_variable(
            "price",
            "Price per minute (USD)",
            "0.004",
            "What a participant minute might cost beyond the free ones; the exporter's `prices` have panels of their own.",
        ),
        text_variable("free", "Free minutes a month", "10000", "Participant minutes a month and workspace that are not billed."),
    ),
    timezone="utc",
)
