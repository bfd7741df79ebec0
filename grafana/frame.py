"""Shared by all dashboards: variables, annotations, links to each other, rows on the grid, ids.

Nothing overlaps by construction: panels fill the grid in the order in which a plan names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

from grafana.panels import DATASOURCE
from grafana.promql import ALERT_LABELS, HMS_ALERTS, IS_EXPORTER, JOB, RECORDED, UNRECORDED, WORKSPACE

TAG = "100ms"
GRAFANA_VERSION = "12.3.0"
"""The version that the panels are made for; compose.yaml runs it."""

_COLUMNS = 24
# The longer the range a dashboard opens with, the more its queries read, and the less a moment changes what it shows.
_REFRESH = {"now-3h": "30s", "now-6h": "30s", "now-24h": "1m", "now-7d": "15m"}


@dataclass(frozen=True)
class RowPlan:
    """A titled row and its panels, from left to right; a `folded` one opens, and asks Prometheus, when it is clicked."""

    title: str
    panels: Sequence[Builder[models.Panel]]
    folded: bool = False


@dataclass(frozen=True)
class DashboardPlan:
    """A dashboard before it is placed: `uid` is its address for ever, `since` the range it opens with.

    Of `rooms`, "one" is chosen above, or the choice is "hidden" and only carried along to the other dashboards.
    A dashboard that asks for `recorded` series finds out whether they suffice.
    """

    uid: str
    title: str
    description: str
    since: str
    rows: Sequence[RowPlan]
    variables: Sequence[Builder[models.VariableModel]] = ()
    timezone: str = "browser"
    rooms: Literal["one", "hidden"] = "hidden"
    recorded: bool = False


def assembled(plan: DashboardPlan) -> models.Dashboard:
    """The finished dashboard: classic schema, read-only, every panel with an id of its own."""
    shared = [*_shared_variables(), _room_variable(plan.rooms), *([_unrecorded()] if plan.recorded else [])]
    board = (
        builders.Dashboard(plan.title)
        .uid(plan.uid)
        .description(plan.description)
        .tags([TAG, "prometheus"])
        .readonly()
        .timezone(plan.timezone)
        .time(plan.since, "now")
        .refresh(_REFRESH[plan.since])
        .timepicker(builders.TimePicker().refresh_intervals(["30s", "1m", "5m", "15m", "1h"]))
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .variables([*shared, *plan.variables])
        .annotations(_annotations(plan.rooms))
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
    for variable in finished.templating.list_val or () if finished.templating else ():
        if variable.name == UNRECORDED:
            variable.skip_url_sync = True  # computed for each range, so it does not belong in a link
    finished.panels = placed(plan.rows)
    return finished


def placed(rows: Sequence[RowPlan]) -> list[models.Panel | models.RowPanel]:
    """All panels with a place and an id: each as high up as it fits below its row's title, and then as far left."""
    found: list[models.Panel | models.RowPanel] = []
    top = 0
    ids = iter(range(1, 1000))
    for row in rows:
        heading = builders.Row(row.title).grid_pos(models.GridPos(x=0, y=top, w=_COLUMNS, h=1)).collapsed(row.folded).build()
        heading.id_val = next(ids)
        found.append(heading)
        filled = [top + 1] * _COLUMNS
        inside: list[models.Panel] = []
        for builder in row.panels:
            panel = builder.build()
            panel.id_val = next(ids)
            panel.plugin_version = GRAFANA_VERSION
            size = panel.grid_pos
            assert size is not None  # every kind of panel has a width and a height
            size.y, size.x = min((max(filled[x : x + size.w]), x) for x in range(_COLUMNS - size.w + 1))
            filled[size.x : size.x + size.w] = [size.y + size.h] * size.w
            inside.append(panel)
        if row.folded:
            heading.panels = inside
            top += 1
        else:
            found.extend(inside)
            top = max(filled)
    return found


def text_variable(name: str, label: str, value: str, description: str) -> Builder[models.VariableModel]:
    """A box to type a number into."""
    option = models.VariableOption(selected=True, text=value, value=value)
    return builders.TextBoxVariable(name).label(label).description(description).default_value(value).current(option).options([option])


def _shared_variables() -> list[Builder[models.VariableModel]]:
    return [
        builders.DatasourceVariable("datasource")
        .label("Data source")
        .type("prometheus")
        .description("The Prometheus that scrapes the exporter."),
        _everything(_label("job", "Job", "hms_exporter_build_info", "The scrape job.")),
        _everything(_label("instance", "Instance", '{__name__=~"hms_exporter_build_info|hms_up", job=~"$job"}', "The exporter.")),
        _everything(_label("workspace", "Workspace", f"hms_up{{{JOB}}}", "100ms workspaces, as the configuration names them.")),
    ]


def _room_variable(rooms: Literal["one", "hidden"]) -> Builder[models.VariableModel]:
    variable = _label("room", "Room", f"hms_sessions_started_total{{{WORKSPACE}}}", "Rooms and groups of rooms.")
    if rooms == "one":
        return variable.multi(False).include_all(False)
    return _everything(variable).hide(models.VariableHide.HIDE_VARIABLE)


def _unrecorded() -> Builder[models.VariableModel]:
    """Matches every job while the recorded series do not reach back to the beginning of the range, else none."""
    known = f"last_over_time(workspace_role:hms_peer_seconds:increase5m{{{RECORDED}}}[15m] offset $__range)"
    query = f'query_result(label_replace(vector(1) unless on () {known}, "jobs", ".+", "", ""))'
    return (
        _query(UNRECORDED, "Not recorded", query, "Whether the series of single rooms are read, for want of recorded ones.")
        .regex('/jobs="([^"]+)"/')
        .hide(models.VariableHide.HIDE_VARIABLE)
    )


def _label(name: str, title: str, selector: str, description: str) -> builders.QueryVariable:
    return _query(name, title, f"label_values({selector}, {name})", description).sort(models.VariableSort.ALPHABETICAL_ASC)


def _query(name: str, title: str, query: str, description: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(name)
        .label(title)
        .description(description)
        .datasource(common.DataSourceRef(type_val=DATASOURCE.type_val, uid=DATASOURCE.uid))
        .query({"query": query, "refId": f"variable-{name}"})
        .definition(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
    )


def _everything(variable: builders.QueryVariable) -> builders.QueryVariable:
    chosen = models.VariableOption(selected=True, text=["All"], value=["$__all"])
    return variable.multi(True).include_all(True).all_value(".+").current(chosen)


def _annotations(rooms: Literal["one", "hidden"]) -> list[Builder[models.AnnotationQuery]]:
    here = f'{HMS_ALERTS}, room=~"$room|"' if rooms == "one" else HMS_ALERTS
    reloaded = f"hms_exporter_config_last_reload_success_timestamp_seconds{{{JOB}}}"
    started = f"process_start_time_seconds{{{JOB}}}"
    return [
        _annotation("Alerts", "red", f'max by ({ALERT_LABELS}) (ALERTS{{{here}, alertstate="firing"}})')
        .title_format("{{alertname}}")
        .text_format("{{workspace}} {{room}} {{budget}}")
        .tag_keys("severity"),
        _annotation("Restarts", "blue", f"1000 * {started} {IS_EXPORTER}")
        .title_format("The exporter started")
        .text_format("{{instance}}")
        .use_value_for_time(True),
        # The start also reads the configuration.
        _annotation("Reloads", "purple", f"1000 * ({reloaded} > on (job, instance) {started} + 60)")
        .title_format("The configuration was read again")
        .text_format("{{instance}}")
        .use_value_for_time(True),
    ]


def _annotation(name: str, colour: str, expr: str) -> builders.AnnotationQuery:
    return (
        builders.AnnotationQuery()
        .name(name)
        .datasource(common.DataSourceRef(type_val=DATASOURCE.type_val, uid=DATASOURCE.uid))
        .enable(True)
        .icon_color(colour)
        .expr(expr)
        .step("1m")
    )
