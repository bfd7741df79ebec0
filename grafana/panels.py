"""The kinds of panels the dashboards are made of, each with its look decided once.

Numbers of this moment are asked as instant queries, not as the last point of a range: when the data stops, so does the number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, gauge, heatmap, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import prometheus as prometheus_models

DATASOURCE = common_models.DataSourceRef(type_val="prometheus", uid="${datasource}")

JOB = 'job=~"$job", instance=~"$instance"'
WORKSPACE = f'{JOB}, workspace=~"$workspace"'
ROOM = f'{WORKSPACE}, room=~"$room"'

# Before the first success it is counted from the process's start, as the rules do.
_LAST_SUCCESS = f"hms_exporter_last_success_timestamp_seconds{{{WORKSPACE}}}"
_START = f"process_start_time_seconds{{{JOB}}}"
DATA_AGE = f"time() - ({_LAST_SUCCESS} > 0 or {_LAST_SUCCESS} * 0 + on (job, instance) group_left () {_START})"

Step = tuple[str, float | None]
"""A colour, and the value from which on it holds (`None`: from the lowest)."""

PLAIN: tuple[Step, ...] = (("blue", None),)

_REF_IDS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Query:
    """A PromQL query; `legend` is Grafana's template for the name of its series."""

    expr: str
    legend: str = ""
    shape: Literal["lines", "now", "rows", "buckets"] = "lines"

    def built(self, ref_id: str) -> prometheus.Dataquery:
        """The query as the panel holds it."""
        built = prometheus.Dataquery().expr(self.expr).ref_id(ref_id).datasource(DATASOURCE)
        built = built.legend_format(self.legend or "__auto")
        match self.shape:
            case "lines":
                return built.range().format(prometheus_models.PromQueryFormat.TIME_SERIES)
            case "now":
                return built.instant().format(prometheus_models.PromQueryFormat.TIME_SERIES)
            case "rows":
                return built.instant().format(prometheus_models.PromQueryFormat.TABLE)
            case "buckets":
                return built.range().format(prometheus_models.PromQueryFormat.HEATMAP)


class _AnyPanel(Protocol):
    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def datasource(self, datasource: common_models.DataSourceRef) -> Self: ...
    def span(self, w: int) -> Self: ...
    def height(self, h: int) -> Self: ...
    def with_target(self, target: Builder[prometheus_models.Dataquery]) -> Self: ...
    def unit(self, unit: str) -> Self: ...
    def thresholds(self, thresholds: Builder[models.ThresholdsConfig]) -> Self: ...
    def no_value(self, no_value: str) -> Self: ...


P = TypeVar("P", bound=_AnyPanel)


def _dressed(
    panel: P, title: str, description: str, queries: Sequence[Query], unit: str, size: tuple[int, int], steps: Sequence[Step] = PLAIN
) -> P:
    panel.title(title).description(description).datasource(DATASOURCE).span(size[0]).height(size[1]).unit(unit)
    panel.thresholds(
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=colour) for colour, value in steps])
    )
    for ref_id, query in zip(_REF_IDS, queries, strict=False):
        panel.with_target(query.built(ref_id))
    return panel


def optional(panel: P, without: str) -> P:
    """The panel of something that need not be configured: `without` stands in it where it is not."""
    return panel.no_value(without)


def number(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    width: int = 4,
    decimals: int | None = None,
    steps: Sequence[Step] = PLAIN,
    mappings: Sequence[models.ValueMapping] = (),
    names: bool = False,
) -> stat.Panel:
    """A number of this moment, or a few beside each other with their names; coloured by `steps`."""
    panel = _dressed(stat.Panel(), title, description, queries, unit, (width, 4), steps)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.color_mode(common_models.BigValueColorMode.VALUE).graph_mode(common_models.BigValueGraphMode.NONE)
    panel.text_mode(common_models.BigValueTextMode.VALUE_AND_NAME if names else common_models.BigValueTextMode.VALUE)
    if decimals is not None:
        panel.decimals(decimals)
    if mappings:
        panel.mappings(list(mappings))
    return panel


def dial(title: str, description: str, query: Query, *, steps: Sequence[Step], width: int = 4) -> gauge.Panel:
    """A part of a whole: 0 to 1, shown as per cent."""
    panel = _dressed(gauge.Panel(), title, description, [query], "percentunit", (width, 4), steps)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    return panel.min(0).max(1).show_threshold_markers(True)


def lines(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    width: int = 12,
    height: int = 8,
    stacked: bool = False,
    bars: bool = False,
    steps: Sequence[Step] | None = None,
    dashed: str | None = None,
    below_zero: str | None = None,
    min_step: str | None = None,
    least: float | None = 0,
) -> timeseries.Panel:
    """Curves over time.

    `steps` draws lines at those values; `dashed` and `below_zero` are regular expressions over the names of the curves that
    are drawn as a comparison and mirrored downwards; `least` is the axis's lowest value unless the data go below.
    """
    panel = _dressed(timeseries.Panel(), title, description, queries, unit, (width, height), steps or PLAIN)
    panel.line_width(1).fill_opacity(80 if bars else 30 if stacked else 10).show_points(common_models.VisibilityMode.NEVER)
    panel.draw_style(common_models.GraphDrawStyle.BARS if bars else common_models.GraphDrawStyle.LINE)
    panel.legend(
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(common_models.LegendDisplayMode.TABLE)
        .placement(common_models.LegendPlacement.BOTTOM)
        .calcs(["sum"] if bars else ["lastNotNull", "max"])
    )
    panel.tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI).sort(common_models.SortOrder.DESCENDING))
    if least is not None and below_zero is None:
        panel.axis_soft_min(least)
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    if steps:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED))
    if min_step:
        panel.interval(min_step)
    if dashed:
        look = {"fill": "dash", "dash": [6, 6]}
        panel.override_by_regexp(
            dashed, _properties({"custom.lineStyle": look, "custom.fillOpacity": 0, "custom.stacking": {"mode": "none"}})
        )
    if below_zero:
        panel.override_by_regexp(below_zero, _properties({"custom.transform": "negative-Y"}))
    return panel


def bars_now(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str,
    width: int = 8,
    height: int = 8,
    steps: Sequence[Step] = PLAIN,
    full: float | None = None,
) -> bargauge.Panel:
    """One bar for each series, at this moment; a bar of `full` fills its line, without it the longest does."""
    panel = _dressed(bargauge.Panel(), title, description, [query], unit, (width, height), steps)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.orientation(common_models.VizOrientation.HORIZONTAL).display_mode(common_models.BarGaugeDisplayMode.BASIC)
    if full is not None:
        panel.max(full)
    return panel.min(0)


def states(
    title: str, description: str, query: Query, *, mappings: Sequence[models.ValueMapping], width: int, height: int = 5
) -> statetimeline.Panel:
    """How a state changed over time, a line for each series."""
    panel = _dressed(statetimeline.Panel(), title, description, [query], "none", (width, height))
    panel.mappings(list(mappings)).merge_values(True).show_value(common_models.VisibilityMode.NEVER)
    panel.legend(
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(common_models.LegendDisplayMode.LIST)
        .placement(common_models.LegendPlacement.BOTTOM)
        .calcs([])
    )
    return panel


def grid(
    title: str, description: str, query: Query, *, unit: str, cell_unit: str, width: int, height: int = 8, min_step: str | None = None
) -> heatmap.Panel:
    """Cells coloured by value: rows are buckets of `unit` or, when that is "string", the series by name; columns are times."""
    panel = _dressed(heatmap.Panel(), title, description, [query], cell_unit, (width, height))
    panel.calculate(False).cell_gap(1).show_value(common_models.VisibilityMode.NEVER).hide_legend()
    panel.color(
        heatmap.HeatmapColorOptions()
        .mode(heatmap_models.HeatmapColorMode.SCHEME)
        .scheme("Blues")
        .fill("dark-blue")
        .scale(heatmap_models.HeatmapColorScale.EXPONENTIAL)
        .exponent(0.5)
        .steps(64)
        .reverse(False)
    )
    panel.y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(common_models.AxisPlacement.LEFT))
    panel.cell_values(heatmap.CellValues().unit(cell_unit))
    panel.tooltip(heatmap.HeatmapTooltip().mode(common_models.TooltipDisplayMode.SINGLE).y_histogram(False).show_color_scale(False))
    if min_step:
        panel.interval(min_step)
    return panel


@dataclass(frozen=True)
class Column:
    """A column of numbers: its heading, the query that fills it, its unit."""

    title: str
    expr: str
    unit: str = "short"
    decimals: int | None = None


def rooms_table(title: str, description: str, columns: Sequence[Column], *, sort_by: str, width: int = 24, height: int = 10) -> table.Panel:
    """A line for each workspace and room; the room links to its own dashboard, for the same time and the same variables."""
    panel = lines_of(("workspace", "room"), title, description, columns, sort_by=sort_by, width=width, height=height)
    room = "var-workspace=${__data.fields.Workspace:percentencode}&var-room=${__data.fields.Room:percentencode}"
    kept = "${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&${__url_time_range}"
    target = f"/d/hms-room?{room}&{kept}"
    panel.override_by_name("Room", _properties({"links": [{"title": "This room", "url": target}]}))
    return panel


def lines_of(
    labels: Sequence[str], title: str, description: str, columns: Sequence[Column], *, sort_by: str, width: int, height: int
) -> table.Panel:
    """A table with a line for each combination of these labels, which are all that the columns' queries have."""
    queries = [Query(column.expr, shape="rows") for column in columns]
    panel = _dressed(table.Panel(), title, description, queries, "short", (width, height))
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    # A single query's column is named Value, and one of several Value #A.
    names = ["Value"] if len(columns) == 1 else [f"Value #{ref_id}" for ref_id in _REF_IDS[: len(columns)]]
    panel.with_transformation(
        models.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {"Time": True},
                "indexByName": {name: index for index, name in enumerate([*labels, *names])},
                "renameByName": {
                    **{label: label.title() for label in labels},
                    **{name: column.title for name, column in zip(names, columns, strict=True)},
                },
            },
        )
    )
    panel.sort_by([common.TableSortByFieldState().display_name(sort_by).desc(True)])
    for column in columns:
        look: dict[str, object] = {"unit": column.unit}
        if column.decimals is not None:
            look["decimals"] = column.decimals
        panel.override_by_name(column.title, _properties(look))
    return panel


def words(*meanings: tuple[float, str, str]) -> list[models.ValueMapping]:
    """Values shown as a word in a colour."""
    return [
        models.ValueMap(
            options={
                f"{value:g}": models.ValueMappingResult(text=text, color=colour, index=index)
                for index, (value, text, colour) in enumerate(meanings)
            }
        )
    ]


def _properties(values: Mapping[str, object]) -> list[models.DynamicConfigValue]:
    return [models.DynamicConfigValue(id_val=name, value=value) for name, value in values.items()]
