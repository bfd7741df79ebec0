"""The dashboards: the committed files equal those of the code, and satisfy Grafana's schema and its linter."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import units

from exporter.publish.families import FAMILIES, sample_names
from exporter.publish.selfmetrics import SelfMetrics
from grafana.build import rendered
from tests.dashboards import FOLDER, REPOSITORY, Json, boxes, dashboards, panels

DASHBOARDS = dashboards()
EACH = pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
EACH_PANEL = pytest.mark.parametrize(
    ("board", "panel"),
    [(board, panel) for board in DASHBOARDS.values() for panel in panels(board)],
    ids=lambda value: value["title"].removeprefix("100ms / ").replace(" ", "-"),
)

# A selector's metric and labels, and the text around it.
_SELECTOR = re.compile(r"(?P<metric>[a-zA-Z_:][\w:]*)\{(?P<labels>[^}]*)\}(?P<range>\[[^\]]+\])?")


def _variables(board: Json) -> dict[str, Json]:
    return {variable["name"]: variable for variable in board["templating"]["list"]}


def _selectors(panel: Json) -> list[re.Match[str]]:
    return [found for target in panel["targets"] for found in _SELECTOR.finditer(target["expr"])]


def test_the_files_are_what_the_code_makes() -> None:
    """`python -m grafana` writes them."""
    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()} == rendered()


@EACH
def test_the_file_is_a_dashboard_of_the_classic_schema(board: Json) -> None:
    """It is the same after it is read into Grafana's own types and written again, so every key is known and of the right type."""
    register_default_plugins()
    again = json.loads(json.dumps(models.Dashboard.from_json(board), cls=JSONEncoder))
    for link in again["links"]:
        link["placement"] = ""  # the types know only one place, which is used beside the usual one
    assert again == board
    assert "spec" not in board
    assert board["schemaVersion"] >= 39


@EACH
def test_a_dashboard_is_found_again_and_cannot_be_edited(board: Json) -> None:
    assert board["title"].startswith("100ms / ")
    assert re.fullmatch(r"hms-[a-z]+", board["uid"])
    assert board["description"]
    assert board["editable"] is False
    assert "100ms" in board["tags"]
    assert "id" not in board, "an id belongs to one Grafana"


def test_every_dashboard_has_an_address_of_its_own() -> None:
    assert len({board["uid"] for board in DASHBOARDS.values()}) == len(DASHBOARDS)
    assert {f"{board['uid']}.json" for board in DASHBOARDS.values()} == set(DASHBOARDS)


@EACH
def test_dashboards_lead_to_each_other_and_keep_variables_and_time(board: Json) -> None:
    (link,) = board["links"]
    assert (link["type"], link["includeVars"], link["keepTime"]) == ("dashboards", True, True)
    assert all(set(link["tags"]) <= set(other["tags"]) for other in DASHBOARDS.values())


@EACH
def test_all_dashboards_have_the_same_variables(board: Json) -> None:
    """Linter: template-datasource-rule, template-job-rule, template-instance-rule, template-on-time-change-reload-rule."""
    variables = _variables(board)
    assert list(variables)[:5] == ["datasource", "job", "instance", "workspace", "room"]
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    assert variables["datasource"]["label"] == "Data source"
    for name in ("job", "instance", "workspace", "room"):
        variable = variables[name]
        assert variable["type"] == "query"
        assert variable["datasource"]["uid"] == "${datasource}"
        assert variable["label"] == name.title()
        assert variable["refresh"] == 2
        if name == "room" and board["uid"] == "hms-room":
            continue  # one room at a time, see below
        assert variable["multi"] is True
        assert variable["includeAll"] is True
        assert variable["allValue"] == ".+"
    for variable in variables.values():
        assert variable["description"]


@EACH
def test_every_variable_is_used_and_every_one_used_exists(board: Json) -> None:
    """The hidden room is an exception: links to other dashboards carry its value along."""
    asked = set(re.findall(r"\$\{?(\w+)", json.dumps([board["panels"], board["templating"], board["annotations"]])))
    built_in = {name for name in asked if name.startswith("__")}
    hidden = {name for name, variable in _variables(board).items() if variable.get("hide") == 2}
    assert asked - built_in == _variables(board).keys() - (hidden & {"room"})


@EACH
def test_no_panel_overlaps_another_or_leaves_the_grid(board: Json) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = set(itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])))
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


@EACH
def test_panels_have_ids_and_titles_of_their_own_and_queries_theirs(board: Json) -> None:
    everything = boxes(board)
    assert len({panel["id"] for panel in everything}) == len(everything)
    titles = [panel["title"] for panel in panels(board)]
    assert len(set(titles)) == len(titles)
    for panel in panels(board):
        assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGHIJ"[: len(panel["targets"])])


@EACH_PANEL
def test_a_panel_says_what_it_shows(board: Json, panel: Json) -> None:
    """Linter: panel-datasource-rule, panel-title-description-rule, panel-units-rule, panel-no-targets-rule."""
    assert panel["title"][0].isupper()
    assert panel["description"].endswith(".")
    assert panel["targets"]
    for place in (panel, *panel["targets"]):
        assert place["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    known = {value for name, value in vars(units).items() if not name.startswith("_")}
    for unit in _units(panel):
        assert unit in known, unit


@EACH_PANEL
def test_a_query_can_be_narrowed_down_by_what_the_dashboard_asks(board: Json, panel: Json) -> None:
    """Linter: target-job-rule, target-instance-rule; and so for workspace and room, where a metric and the dashboard have them."""
    selectors = _selectors(panel)
    assert selectors
    for selector in selectors:
        metric = selector["metric"]
        # Alerts and recorded series may have no instance, and alerts may have no job.
        optional = {"ALERTS": ("job", "instance", "workspace"), "ALERTS_FOR_STATE": ("job", "instance", "workspace")}.get(
            metric, ("instance",) if ":" in metric else ()
        )
        for name in ("job", "instance"):
            assert f'{name}=~"${name}{"|" if name in optional else ""}"' in selector["labels"], selector[0]
        if metric.startswith("ALERTS") or (
            metric.startswith(("hms_", "room:", "workspace"))
            and not metric.startswith(("hms_exporter_config", "hms_exporter_build", "hms_budget"))
        ):
            assert f'workspace=~"$workspace{"|" if "workspace" in optional else ""}"' in selector["labels"], selector[0]
        if board["uid"] == "hms-room" and (metric in _OF_ROOMS or metric.startswith("room:")):
            assert 'room=~"$room"' in selector["labels"], selector[0]


@EACH_PANEL
def test_counters_are_compared_over_time(board: Json, panel: Json) -> None:
    """Linter: target-rate-interval-rule, target-counter-agg-rule.  A count per step is the difference of two moments."""
    for target in panel["targets"]:
        for call, window in re.findall(r"\b(rate|irate)\([^()]*\[([^\]]+)\]", target["expr"]):
            assert window == "$__rate_interval", (call, target["expr"])
        differences = re.sub(
            r"max without \([\w, ]+\) \((\w+\{[^}]*\})\) - max without \([\w, ]+\) \(\1 offset \$__interval\)", "", target["expr"]
        )
        for selector in _SELECTOR.finditer(differences):
            if selector["metric"].endswith(("_total", "_sum", "_count", "_bucket")):
                assert re.search(r"\b(rate|increase)\($", differences[: selector.start()]), target["expr"]


@EACH_PANEL
def test_a_panel_asks_only_for_metrics_that_exist(board: Json, panel: Json) -> None:
    assert {selector["metric"] for selector in _selectors(panel)} <= _KNOWN | _RECORDED.keys()
    # The pattern above misses a metric without labels. One threshold is used so, to tell whether the rules are loaded.
    for target in panel["targets"]:
        text = target["expr"].replace("absent(hms:threshold:stale_seconds)", "")
        assert len(re.findall(r"\b(?:\w+:)?hms_\w+", text)) == len([1 for found in _SELECTOR.finditer(text) if "hms_" in found["metric"]])


@EACH_PANEL
def test_numbers_of_this_moment_are_asked_at_this_moment(board: Json, panel: Json) -> None:
    """The last number of a range would stay after the data have gone."""
    expected = panel["type"] in {"stat", "gauge", "bargauge", "table"}
    assert {target["instant"] for target in panel["targets"]} == {expected}


@EACH_PANEL
def test_curves_have_names(board: Json, panel: Json) -> None:
    if panel["type"] in {"timeseries", "heatmap", "state-timeline"}:
        for target in panel["targets"]:
            assert target["legendFormat"] != "__auto"
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert re.search(rf"\bby \([^)]*\b{label}\b", target["expr"]), f"{label} is not a label of the result"


_NEED_NOT_BE = {
    "hms_webhooks_": "no webhooks so far",
    "hms_join_failures": "no webhooks so far",
    "hms_peer_leaves": "no webhooks so far",
    "hms_webhook_deliveries": "webhook_deliveries is off",
    "hms_recording_asset": "recording_assets is off",
    "hms_client_errors": "client_errors is off",
}


@EACH_PANEL
def test_optional_features_are_not_called_missing_data(board: Json, panel: Json) -> None:
    """Only panels of `budgets`, `prices`, webhooks and optional collectors say that something is not configured."""
    asked = {selector["metric"] for selector in _selectors(panel)}
    expected = "nothing to show" if panel["type"] in {"table", "heatmap"} else None
    if "hms_usage_cost" in asked:
        expected = "no prices configured, or no data"
    elif any(metric.startswith("hms_budget") for metric in asked):
        expected = "no budgets configured, or no data"
    elif expected is None:
        without = next((words for begin, words in _NEED_NOT_BE.items() if any(metric.startswith(begin) for metric in asked)), None)
        expected = without and f"{without}, or no data"
    assert panel["fieldConfig"]["defaults"].get("noValue") == expected


@EACH_PANEL
def test_the_calendar_is_asked_from_the_exporter(board: Json, panel: Json) -> None:
    """An increase since midnight or the first of a month would miss the time before the first scrape and while Prometheus was down."""
    assert "timeFrom" not in panel
    for target in panel["targets"]:
        for selector in _SELECTOR.finditer(target["expr"]):
            if selector["metric"].startswith("hms_usage"):
                assert selector["range"] is None
                assert ("period=" in selector["labels"]) == (selector["metric"] != "hms_usage_cost"), "days and months are not added up"


@EACH_PANEL
def test_an_empty_cell_is_empty(board: Json, panel: Json) -> None:
    """A word in it, such as that of an empty table, would be a link that leads nowhere."""
    if panel["type"] == "table":
        for override in panel["fieldConfig"]["overrides"]:
            assert {"id": "noValue", "value": ""} in override["properties"]


@EACH_PANEL
def test_names_are_not_shown_as_numbers(board: Json, panel: Json) -> None:
    """Grafana would show a room named 007 as 7, and its link would lead to a room 7."""
    if panel["type"] == "table":
        numbers = {target["refId"] for target in panel["targets"]}
        units = [
            setting["value"] for each in panel["fieldConfig"]["overrides"] for setting in each["properties"] if setting["id"] == "unit"
        ]
        assert len([unit for unit in units if unit != "string"]) == len(numbers)
        assert len(units) == len(panel["fieldConfig"]["overrides"])


@EACH_PANEL
def test_bars_are_wide_enough_to_be_told_apart(board: Json, panel: Json) -> None:
    """Over a month as over an hour, in a third of a small screen."""
    if panel["fieldConfig"]["defaults"].get("custom", {}).get("drawStyle") == "bars":
        assert panel["maxDataPoints"] <= 200
        assert panel["interval"] in {"5m", "15m"}


def test_rooms_in_tables_lead_to_their_dashboard() -> None:
    links = [
        link["url"]
        for board in DASHBOARDS.values()
        for panel in panels(board)
        if panel["type"] == "table"
        for override in panel["fieldConfig"]["overrides"]
        if override["matcher"]["options"] == "Room"
        for setting in override["properties"]
        if setting["id"] == "links"
        for link in setting["value"]
    ]
    assert len(links) == 10
    for link in links:
        assert link.startswith("/d/hms-room?")
        for kept in (
            "var-workspace=",
            "var-room=",
            "${datasource:queryparam}",
            "${job:queryparam}",
            "${instance:queryparam}",
            "${__url_time_range}",
        ):
            assert kept in link


def test_provisioning_finds_the_dashboards_and_names_no_place_of_its_own() -> None:
    for path in (REPOSITORY / "grafana" / "provisioning").rglob("*.yml"):
        assert re.findall(r"\$\{(\w+)\}", path.read_text(encoding="utf-8"))


def _units(panel: Json) -> list[Any]:
    overrides = [setting for override in panel["fieldConfig"]["overrides"] for setting in override["properties"]]
    return [panel["fieldConfig"]["defaults"]["unit"], *(setting["value"] for setting in overrides if setting["id"] == "unit")]


_OWN = {
    f"{metric.name}{ending}"
    for metric in SelfMetrics("0", "0").registry.collect()
    for ending in {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(metric.type, ("",))
}
_PUBLISHED = {name for family in FAMILIES for name in sample_names(family)}
_OF_ROOMS = {
    name for name in _PUBLISHED if re.match(r"hms_(sessions|session_start|session_seconds|peers|peer_seconds|users|usage_peer)_", name)
}
_KNOWN = _OWN | _PUBLISHED | {"ALERTS", "ALERTS_FOR_STATE", "scrape_samples_scraped", "scrape_duration_seconds"}

_RECORDED: dict[str, str] = {
    rule["record"]: rule["expr"]
    for group in yaml.safe_load((REPOSITORY / "prometheus" / "rules" / "hms-recording.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}
