"""What all dashboards share: variables, links to each other, rows on the grid, ids.

Nothing overlaps by construction: panels fill the grid in the order in which a plan names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

from grafana.panels import DATASOURCE

TAG = "100ms"
_COLUMNS = 24


@dataclass(frozen=True)
class RowPlan:
    """A titled row and its panels, from left to right."""

    title: str
    panels: Sequence[Builder[models.Panel]]


@dataclass(frozen=True)
class DashboardPlan:
    """A dashboard before it is placed: `uid` is its address for ever, `since` and `refresh` what it opens with.

    Without `rooms` the choice of rooms is hidden, and only carried along to the other dashboards.
    """

    uid: str
    title: str
    description: str
    since: str
    refresh: str
    rows: Sequence[RowPlan]
    variables: Sequence[Builder[models.VariableModel]] = ()
    timezone: str = "browser"
    rooms: bool = True


def assembled(plan: DashboardPlan) -> models.Dashboard:
    """The finished dashboard: classic schema, read-only, every panel with an id of its own."""
    board = (
        builders.Dashboard(plan.title)
        .uid(plan.uid)
        .description(plan.description)
        .tags([TAG, "prometheus"])
        .readonly()
        .timezone(plan.timezone)
        .time(plan.since, "now")
        .refresh(plan.refresh)
        .timepicker(builders.TimePicker().refresh_intervals(["10s", "30s", "1m", "5m", "15m", "1h"]))
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .variables([*_shared_variables(rooms=plan.rooms), *plan.variables])
        .link(
            builders.DashboardLink("100ms dashboards")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
            .placement("")  # beside the variables; the builder's own choice hides links in a menu
        )
    )
    finished = board.build()
    finished.panels = placed(plan.rows)
    return finished


def placed(rows: Sequence[RowPlan]) -> list[models.Panel | models.RowPanel]:
    """All panels with a place and an id: each as high up as it fits below its row's title, and then as far left."""
    found: list[models.Panel | models.RowPanel] = []
    top = 0
    for row in rows:
        heading = builders.Row(row.title).grid_pos(models.GridPos(x=0, y=top, w=_COLUMNS, h=1)).build()
        heading.id_val = len(found) + 1
        found.append(heading)
        filled = [top + 1] * _COLUMNS
        for builder in row.panels:
            panel = builder.build()
            panel.id_val = len(found) + 1
            size = panel.grid_pos
            assert size is not None  # every kind of panel has a width and a height
            size.y, size.x = min((max(filled[x : x + size.w]), x) for x in range(_COLUMNS - size.w + 1))
            filled[size.x : size.x + size.w] = [size.y + size.h] * size.w
            found.append(panel)
        top = max(filled)
    return found


def text_variable(name: str, label: str, value: str, description: str) -> Builder[models.VariableModel]:
    """A box to type a number into."""
    option = models.VariableOption(selected=True, text=value, value=value)
    return builders.TextBoxVariable(name).label(label).description(description).default_value(value).current(option).options([option])


def _shared_variables(*, rooms: bool) -> list[Builder[models.VariableModel]]:
    return [
        builders.DatasourceVariable("datasource")
        .label("Data source")
        .type("prometheus")
        .description("The Prometheus that scrapes the exporter."),
        _label("job", "Job", "hms_exporter_build_info", "job", "The scrape job."),
        _label("instance", "Instance", 'hms_exporter_build_info{job=~"$job"}', "instance", "The exporter."),
        _label(
            "workspace",
            "Workspace",
            'hms_up{job=~"$job", instance=~"$instance"}',
            "workspace",
            "100ms workspaces, as the configuration names them.",
        ),
        _label(
            "room",
            "Room",
            'hms_sessions_started_total{job=~"$job", instance=~"$instance", workspace=~"$workspace"}',
            "room",
            "Rooms and groups of rooms.",
        ).hide(models.VariableHide.DONT_HIDE if rooms else models.VariableHide.HIDE_VARIABLE),
    ]


def _label(name: str, title: str, selector: str, label: str, description: str) -> builders.QueryVariable:
    query = f"label_values({selector}, {label})"
    everything = models.VariableOption(selected=True, text=["All"], value=["$__all"])
    return (
        builders.QueryVariable(name)
        .label(title)
        .description(description)
        .datasource(common.DataSourceRef(type_val=DATASOURCE.type_val, uid=DATASOURCE.uid))
        .query({"query": query, "refId": f"variable-{name}"})
        .definition(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".+")
        .current(everything)
    )
