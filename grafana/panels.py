"""The kinds of panels the dashboards are made of, each with its look decided once.

Each takes a title, what it shows in a sentence, and its queries: PromQL by the name of its series, or PromQL alone.
Numbers of this moment are asked as instant queries, not as the last point of a range: when the data stops, so does the number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models import prometheus as prometheus_models

DATASOURCE = common_models.DataSourceRef(type_val="prometheus", uid="${datasource}")

COUNT = "locale"  # 2,500,000: every digit, in the reader's own way of writing numbers
LENGTH = "dtdhms"  # 08:30:00
HOURS = "h"
SHARE = "percentunit"
PER_MINUTE = "cpm"
SECONDS = "s"

# What is usually far below 1: an axis up to 1 would flatten it.
_BELOW_ONE = (SECONDS, SHARE)

NOTHING = "nothing to show"
"""The text of an empty table or grid. "No data" would be wrong while nobody is in a call, "none" while the exporter is down."""

Queries = str | Mapping[str, str]
"""PromQL; several by the names of their series, which may hold Grafana's {{label}}."""

Step = tuple[str, float | None]
"""A colour, and the value from which on it holds (`None`: from the lowest)."""

PLAIN: tuple[Step, ...] = (("blue", None),)
FILLING: tuple[Step, ...] = (("green", None), ("orange", 0.8), ("red", 1))
"""The colours of something that should not be used up."""

_REF_IDS = "ABCDEFGHIJ"

# A rate needs two samples.  Grafana makes its window four of these, so that targets scraped once a minute have curves too,
# whatever the data source's settings say.
_SCRAPE = "1m"
# A step in which things are counted one by one.
_COUNTED = "5m"
# More bars than this are too thin to be told apart in a panel of a third of a small screen.
_BARS = 170

_Shape = Literal["lines", "now", "rows", "buckets"]


class _AnyPanel(Protocol):
    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def datasource(self, datasource: common_models.DataSourceRef) -> Self: ...
    def span(self, w: int) -> Self: ...
    def height(self, h: int) -> Self: ...
    def with_target(self, target: Builder[prometheus_models.Dataquery]) -> Self: ...
    def unit(self, unit: str) -> Self: ...
    def interval(self, interval: str) -> Self: ...
    def thresholds(self, thresholds: Builder[models.ThresholdsConfig]) -> Self: ...
    def no_value(self, no_value: str) -> Self: ...


P = TypeVar("P", bound=_AnyPanel)


def optional(without: str, panel: P) -> P:
    """The panel of something that need not be configured: `without` stands in it where it is not, or while the exporter is down."""
    return panel.no_value(f"{without}, or no data")


def number(
    title: str,
    description: str,
    queries: Queries,
    *,
    unit: str = COUNT,
    width: int = 4,
    decimals: int = 0,
    steps: Sequence[Step] = PLAIN,
    meanings: Sequence[tuple[float, str, str]] = (),
    link: str | None = None,
) -> stat.Panel:
    """A number of this moment, or a few beside each other with their names; coloured by `steps`."""
    panel = _dressed(stat.Panel(), title, description, queries, "now", unit, (width, 4), steps)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.color_mode(common_models.BigValueColorMode.VALUE).graph_mode(common_models.BigValueGraphMode.NONE)
    named = not isinstance(queries, str)
    panel.text_mode(common_models.BigValueTextMode.VALUE_AND_NAME if named else common_models.BigValueTextMode.VALUE)
    panel.decimals(decimals)
    if meanings:
        panel.mappings(_words(meanings))
    if link:
        panel.override_by_regexp(".*", _properties({"links": [{"title": "More", "url": link}]}))
    return panel


def lines(
    title: str,
    description: str,
    queries: Queries,
    *,
    unit: str = COUNT,
    width: int = 12,
    stacked: bool = False,
    bars: bool = False,
    steps: Sequence[Step] | None = None,
    compared: str | None = None,
    below_zero: str | None = None,
    colors: Mapping[str, str] = {},
    every: str = _SCRAPE,
    sparse: bool = False,
    link: str | None = None,
) -> timeseries.Panel:
    """Curves over time; a name has the same colour in every panel.

    `steps` draws lines at those values; `compared` and `below_zero` are regular expressions over the names of the curves that
    are drawn as a quiet comparison and mirrored downwards; `colors` are by the names of curves, where a colour has a meaning;
    `every` is the shortest step; a curve that is `sparse` has points, without which a value between two gaps would not be seen.
    """
    panel = _dressed(timeseries.Panel(), title, description, queries, "lines", unit, (width, 8), steps or PLAIN, every)
    panel.line_width(1).fill_opacity(80 if bars else 30 if stacked else 10)
    panel.show_points(common_models.VisibilityMode.AUTO if sparse else common_models.VisibilityMode.NEVER)
    panel.draw_style(common_models.GraphDrawStyle.BARS if bars else common_models.GraphDrawStyle.LINE)
    panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    panel.legend(_legend())
    panel.tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI).sort(common_models.SortOrder.DESCENDING))
    if unit not in _BELOW_ONE:
        panel.axis_soft_max(1)  # a chart of zeros alone would run to 100
    if unit == COUNT:
        panel.decimals(0)  # no half peers on the axis
    if below_zero is None:
        panel.axis_soft_min(0)
    else:
        panel.override_by_regexp(below_zero, _properties({"custom.transform": "negative-Y"})).axis_soft_min(-1)
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    if steps:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.DASHED))
    for name, color in colors.items():
        panel.override_by_name(name, _properties({"color": {"mode": "fixed", "fixedColor": color}}))
    if compared:
        panel.override_by_regexp(compared, _properties(_QUIET))
    if link:
        panel.override_by_regexp(".*", _properties({"links": [{"title": "More", "url": link}]}))
    return panel


def steps_of(
    title: str,
    description: str,
    queries: Queries,
    *,
    unit: str = COUNT,
    width: int = 12,
    below_zero: str | None = None,
    colors: Mapping[str, str] = {},
    every: str = _COUNTED,
) -> timeseries.Panel:
    """The counts in each step of the graph, as bars."""
    stacked = below_zero is None
    return lines(
        title, description, queries, unit=unit, width=width, bars=True, stacked=stacked, below_zero=below_zero, colors=colors, every=every
    ).max_data_points(_BARS)


def states(
    title: str, description: str, queries: Queries, *, meanings: Sequence[tuple[float, str, str]], width: int, height: int = 5
) -> statetimeline.Panel:
    """The changes of a state over time, a line for each series."""
    panel = _dressed(statetimeline.Panel(), title, description, queries, "lines", "none", (width, height), every=_SCRAPE)
    panel.mappings(_words(meanings)).merge_values(True).show_value(common_models.VisibilityMode.NEVER)
    return panel.legend(_legend())


def grid(
    title: str, description: str, queries: Queries, *, unit: str, cell_unit: str = COUNT, width: int, height: int = 8, every: str = _SCRAPE
) -> heatmap.Panel:
    """Cells coloured by value: rows are buckets of `unit` or, when that is "string", the series by name; columns are times."""
    panel = _dressed(heatmap.Panel(), title, description, queries, "buckets", cell_unit, (width, height), every=every)
    panel.calculate(False).cell_gap(1).show_value(common_models.VisibilityMode.NEVER).hide_legend().no_value(NOTHING)
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
    panel.cell_values(heatmap.CellValues().unit(cell_unit).decimals(0))
    return panel.tooltip(heatmap.HeatmapTooltip().mode(common_models.TooltipDisplayMode.SINGLE).y_histogram(False).show_color_scale(False))


@dataclass(frozen=True)
class Column:
    """A column of numbers: its heading, the query that fills it, its unit; with `bar` each also as a bar.

    Columns share a table alike, but those with a `width` in pixels.
    """

    title: str
    expr: str
    unit: str = COUNT
    decimals: int = 0
    bar: bool = False
    steps: Sequence[Step] = PLAIN
    width: int | None = None


@dataclass(frozen=True)
class Label:
    """A column of words: the label, its heading, where a click leads, and words to show in the place of some values."""

    name: str
    title: str
    link: str | None = None
    words: Mapping[str, str] | None = None
    wide: bool = False
    width: int | None = None


def rows(
    title: str,
    description: str,
    labels: Sequence[Label],
    columns: Sequence[Column],
    *,
    width: int = 12,
    height: int = 8,
) -> table.Panel:
    """A table with a line for each combination of these labels, most of the first column of numbers first."""
    queries = {column.title: column.expr for column in columns}
    panel = _dressed(table.Panel(), title, description, queries, "rows", COUNT, (width, height))
    panel.cell_height(common_models.TableCellHeight.SM).min_width(80).no_value(NOTHING)
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    # A single query's column is named Value, and one of several Value #A.
    names = ["Value"] if len(columns) == 1 else [f"Value #{ref_id}" for ref_id in _REF_IDS[: len(columns)]]
    order = [*(label.name for label in labels), *names]
    headings = [*(label.title for label in labels), *(column.title for column in columns)]
    panel.with_transformation(
        models.DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {"Time": True},
                "indexByName": {name: index for index, name in enumerate(order)},
                "renameByName": dict(zip(order, headings, strict=True)),
            },
        )
    )
    panel.sort_by([common.TableSortByFieldState().display_name(columns[0].title).desc(True)])
    for label in labels:
        panel.override_by_name(label.title, _properties(_of_label(label)))
    for column in columns:
        panel.override_by_name(column.title, _properties(_of_column(column)))
    return panel


def _of_label(label: Label) -> dict[str, object]:
    # As a number, a room named 007 would be shown, and linked to, as 7.
    look: dict[str, object] = {"unit": "string", "custom.minWidth": 260 if label.wide else 100, **_EMPTY_CELL}
    if label.width:
        look["custom.width"] = label.width
    if label.link:
        look["links"] = [{"title": label.title, "url": label.link}]
    if label.words:
        look["mappings"] = [
            {"type": "value", "options": {value: {"text": text, "index": index} for index, (value, text) in enumerate(label.words.items())}}
        ]
    return look


def _of_column(column: Column) -> dict[str, object]:
    look: dict[str, object] = {"unit": column.unit, "decimals": column.decimals, **_EMPTY_CELL}
    if column.width:
        look["custom.width"] = column.width
    if column.bar:
        look["custom.cellOptions"] = {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
        look["min"] = 0
        look["color"] = {"mode": "thresholds"}
        look["thresholds"] = {"mode": "absolute", "steps": [{"color": colour, "value": value} for colour, value in column.steps]}
        look["custom.minWidth"] = 200
        if column.unit == SHARE:
            look["max"] = 1
    return look


# An empty cell is empty: a word in it would be a link that leads nowhere.
_EMPTY_CELL: Mapping[str, object] = {"noValue": ""}

# A comparison: grey, dashed, not part of the stack.
_QUIET: Mapping[str, object] = {
    "color": {"mode": "fixed", "fixedColor": "#8e8e8e"},
    "custom.lineStyle": {"fill": "dash", "dash": [4, 6]},
    "custom.fillOpacity": 0,
    "custom.stacking": {"mode": "none"},
}


def _dressed(
    panel: P,
    title: str,
    description: str,
    queries: Queries,
    shape: _Shape,
    unit: str,
    size: tuple[int, int],
    steps: Sequence[Step] = PLAIN,
    every: str | None = None,
) -> P:
    panel.title(title).description(description).datasource(DATASOURCE).span(size[0]).height(size[1]).unit(unit)
    panel.thresholds(
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=colour) for colour, value in steps])
    )
    if every:
        panel.interval(every)
    for ref_id, (legend, expr) in zip(_REF_IDS, ({title: queries} if isinstance(queries, str) else queries).items(), strict=False):
        panel.with_target(_query(ref_id, legend, expr, shape, every))
    return panel


def _query(ref_id: str, legend: str, expr: str, shape: _Shape, every: str | None) -> prometheus.Dataquery:
    query = prometheus.Dataquery().expr(expr).ref_id(ref_id).datasource(DATASOURCE)
    query.legend_format("__auto" if shape == "rows" else legend)
    if every:
        query.interval(every)
    match shape:
        case "lines":
            return query.range().format(prometheus_models.PromQueryFormat.TIME_SERIES)
        case "now":
            return query.instant().format(prometheus_models.PromQueryFormat.TIME_SERIES)
        case "rows":
            return query.instant().format(prometheus_models.PromQueryFormat.TABLE)
        case "buckets":
            return query.range().format(prometheus_models.PromQueryFormat.HEATMAP)


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(common_models.LegendDisplayMode.LIST)
        .placement(common_models.LegendPlacement.BOTTOM)
        .calcs([])
    )


def _words(meanings: Sequence[tuple[float, str, str]]) -> list[models.ValueMapping]:
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
