"""Details of the dashboards on which an engineer on call relies: how numbers, curves and tables are drawn, and which rows are folded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import _jsonnet  # type: ignore[import-untyped]  # it ships without types
import pytest
import yaml

from grafana.build import portable, rendered
from tests.dashboards import REPOSITORY, Json, boxes, dashboards, looked_up, panels

DASHBOARDS = dashboards()
EACH = pytest.mark.parametrize("board", DASHBOARDS.values(), ids=DASHBOARDS)
EACH_PANEL = pytest.mark.parametrize(
    ("board", "panel"),
    [(board, panel) for board in DASHBOARDS.values() for panel in panels(board)],
    ids=lambda value: value["title"].removeprefix("100ms / ").replace(" ", "-"),
)

# The fields of a mixin are hidden, so the test names those to write.
_VISIBLE = "local m = import 'mixin.libsonnet'; {[name]: m[name] for name in std.objectFieldsAll(m)}"

_LOSES_DIGITS = {"short", "dtdurations"}
_MIXED = {"Retries, and time spent waiting for 100ms"}  # retries and shares are small numbers


def _panel(board: str, title: str) -> Json:
    (found,) = [panel for panel in panels(DASHBOARDS[f"hms-{board}.json"]) if panel["title"] == title]
    return found


def _settings(panel: Json, name: str) -> Json:
    (found,) = [override for override in panel["fieldConfig"]["overrides"] if override["matcher"]["options"] == name]
    return {setting["id"]: setting["value"] for setting in found["properties"]}


def test_an_alert_without_a_workspace_is_in_the_table_and_leads_to_its_runbook() -> None:
    table = _panel("overview", "Alerts that are firing")
    assert table["type"] == "table"
    assert 'workspace=~"$workspace|"' in table["targets"][0]["expr"]
    alerts = yaml.safe_load((REPOSITORY / "prometheus" / "rules" / "hms-alerts.yml").read_text(encoding="utf-8"))["groups"]
    urls = {rule["alert"]: rule["annotations"]["runbook_url"] for group in alerts for rule in group["rules"] if "alert" in rule}
    runbook = _settings(table, "Runbook")
    (link,), (words,) = runbook["links"], runbook["mappings"]
    for alert, url in urls.items():
        assert link["url"].replace("${__value.text}", words["options"][alert]["text"]) == url


@EACH_PANEL
def test_what_every_program_publishes_is_asked_of_exporters_alone(board: Json, panel: Json) -> None:
    for target in panel["targets"]:
        if re.search(r"\b(process|scrape)_", target["expr"]):
            assert "on (job, instance) hms_exporter_build_info{" in target["expr"]


@EACH_PANEL
def test_copies_of_further_exporters_are_left_out_before_any_sum(board: Json, panel: Json) -> None:
    for target in panel["targets"]:
        for found in re.finditer(r"\bsum(?: by \([^)]*\))? ?\(", target["expr"]):
            inside = target["expr"][found.end() :].lstrip("(").removeprefix("clamp_min(")
            # Every sum is over series in which the copies are already left out, or over such a sum.
            assert inside.startswith(("max without (instance, pod, node) (", "sum by (job, workspace")), found[0] + inside[:60]


def test_recorded_series_do_not_double_either() -> None:
    groups = yaml.safe_load((REPOSITORY / "prometheus" / "rules" / "hms-recording.yml").read_text(encoding="utf-8"))["groups"]
    rules = {rule["record"]: rule["expr"] for group in groups for rule in group["rules"]}
    used = {name for board in DASHBOARDS.values() for name in re.findall(r"\b\w+:hms_\w+:\w+", json.dumps(board))}
    assert used <= rules.keys()
    for name in used:
        if name.endswith(("rate5m", "increase5m")):
            assert "max without (instance, pod, node)" in rules[name]


@EACH_PANEL
def test_numbers_and_durations_keep_their_digits(board: Json, panel: Json) -> None:
    units = {panel["fieldConfig"]["defaults"]["unit"]}
    for override in panel["fieldConfig"]["overrides"]:
        units |= {setting["value"] for setting in override["properties"] if setting["id"] == "unit"}
    assert not units & _LOSES_DIGITS or panel["title"] in _MIXED


def test_the_actual_cost_is_open_and_the_calculator_is_last_and_folded() -> None:
    rows = [box for box in DASHBOARDS["hms-usage.json"]["panels"] if box["type"] == "row"]
    assert rows[-1]["title"].startswith("What if")
    assert rows[-1]["collapsed"]
    for panel in panels(DASHBOARDS["hms-usage.json"]):
        asks = any(re.search(r"\$(price|free)\b", target["expr"]) for target in panel["targets"])
        assert asks == (panel in rows[-1]["panels"]), panel["title"]


@EACH
def test_no_query_reads_all_rooms_at_many_moments_where_they_are_recorded(board: Json) -> None:
    """With thousands of rooms such a subquery fails after a week. A query of all rooms at one moment is cheap."""
    for panel in panels(board):
        for target in panel["targets"]:
            for inner in re.findall(r"max_over_time\((.*?)\[\$__range:", target["expr"]):
                assert "workspace:hms" in inner or 'job=~"$unrecorded"' in inner
            assert target["expr"].count("topk(") <= 1
            if board["uid"] != "hms-room" and not target["instant"]:
                for metric in re.findall(
                    r"\bhms_(?:sessions|peers|users|peer_seconds)_\w+\{[^}]*\}", re.sub(r"\w+:hms_\w+:\w+", "", target["expr"])
                ):
                    assert 'job=~"$unrecorded"' in metric, panel["title"]
        assert sum("topk(" in target["expr"] for target in panel["targets"]) <= 1


def test_one_room_at_a_time() -> None:
    (room,) = [variable for variable in DASHBOARDS["hms-room.json"]["templating"]["list"] if variable["name"] == "room"]
    assert room["multi"] is False
    assert room["includeAll"] is False
    assert "hide" not in room or room["hide"] == 0


@EACH
def test_a_long_range_is_refreshed_less_often(board: Json) -> None:
    seconds = {"30s": 30, "1m": 60, "5m": 300, "15m": 900}[board["refresh"]]
    hours = {"now-3h": 3, "now-6h": 6, "now-24h": 24, "now-7d": 168}[board["time"]["from"]]
    assert seconds >= {3: 30, 6: 30, 24: 60, 168: 900}[hours]
    assert board["refresh"] in board["timepicker"]["refresh_intervals"]


@EACH_PANEL
def test_a_table_has_room_for_names(board: Json, panel: Json) -> None:
    """A room's name needs 220 pixels. In a window of 1366 Grafana gives each column the same share, or more if it must have more."""
    if panel["type"] == "table":
        looks = {
            column["matcher"]["options"]: {each["id"]: each["value"] for each in column["properties"]}
            for column in panel["fieldConfig"]["overrides"]
        }
        fixed = {heading: look["custom.width"] for heading, look in looks.items() if "custom.width" in look}
        share = (panel["gridPos"]["w"] / 24 * 1320 - sum(fixed.values())) / (len(looks) - len(fixed))
        assert share >= 220
        for heading, look in looks.items():
            assert len(heading) <= 20
            assert heading in fixed or look.get("custom.minWidth", 0) <= share, "the table would have to be scrolled"


@EACH_PANEL
def test_a_chart_is_plain(board: Json, panel: Json) -> None:
    assert panel["type"] != "bargauge", "a single bar would fill it"
    if panel["type"] in {"timeseries", "state-timeline"}:
        assert panel["options"]["legend"]["displayMode"] == "list"
    if panel["type"] == "timeseries":
        look = panel["fieldConfig"]["defaults"]
        flat = look["unit"] in {"s", "percentunit"}  # milliseconds and an idle processor, on an axis up to 1
        assert look["custom"].get("axisSoftMax") == (None if flat else 1), "a chart of zeros would run to 100"
        assert look["color"]["mode"] == "palette-classic-by-name", "a role has one colour everywhere"
        assert look["unit"] != "locale" or look["decimals"] == 0, "nobody counts half peers"


@pytest.mark.parametrize("title", ["Peers by workspace", "Sessions by workspace"])
def test_last_week_is_quiet(title: str) -> None:
    look = _settings(_panel("overview", title), "all, last week")
    assert look["color"]["mode"] == "fixed"
    assert look["custom.fillOpacity"] == 0
    assert look["custom.lineStyle"]["fill"] == "dash"


@EACH
def test_annotations_tell_of_alerts_restarts_and_reloads(board: Json) -> None:
    assert [annotation["name"] for annotation in board["annotations"]["list"]] == ["Alerts", "Restarts", "Reloads"]
    for annotation in board["annotations"]["list"]:
        assert annotation["enable"] is True
        assert annotation["expr"] in looked_up()
        assert annotation["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_rows_of_optional_features_are_folded() -> None:
    board = DASHBOARDS["hms-usage.json"]
    say_so = [
        panel["title"]
        for panel in board["panels"]
        if panel["type"] != "row" and panel["fieldConfig"]["defaults"].get("noValue") not in {None, "nothing to show"}
    ]
    assert say_so == ["Cost this month"]
    folded = [row for row in board["panels"] if row["type"] == "row" and row["collapsed"]]
    assert [len(row["panels"]) for row in folded] == [2, 5, 4]
    for row in board["panels"]:
        if row["type"] == "row" and not row["collapsed"]:
            assert row["panels"] == []


@EACH_PANEL
def test_rates_bear_a_scrape_every_minute(board: Json, panel: Json) -> None:
    """Grafana's window is four times the query's shortest step, whatever interval the data source has."""
    for target in panel["targets"]:
        if "$__rate_interval" in target["expr"]:
            assert target["interval"] in {"1m", "15m"}


def test_the_data_source_is_told_how_often_prometheus_scrapes() -> None:
    source = yaml.safe_load((REPOSITORY / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))
    assert source["datasources"][0]["jsonData"]["timeInterval"] == "${HMS_SCRAPE_INTERVAL}"


def test_every_panel_says_which_grafana_it_was_made_for() -> None:
    image = yaml.safe_load((REPOSITORY / "compose.yaml").read_text(encoding="utf-8"))["services"]["grafana"]["image"]
    assert {panel["pluginVersion"] for board in DASHBOARDS.values() for panel in panels(board)} == {image.partition(":")[2]}


def test_curves_and_tables_have_links() -> None:
    linked = {panel["title"] for board in DASHBOARDS.values() for panel in panels(board) if '"id": "links"' in json.dumps(panel)}
    assert {"Peers by workspace", "Data is this old", "Alerts that are firing", "Rooms in use", "Rooms of this month"} <= linked


def test_the_form_for_the_catalogue_says_what_it_needs() -> None:
    for name, text in portable().items():
        board = json.loads(text)
        assert [wanted["name"] for wanted in board.pop("__inputs")] == ["DS_PROMETHEUS"]
        required = board.pop("__requires")
        kinds = {box["type"] for box in boxes(board)} - {"row"}
        assert {(need["type"], need["id"]) for need in required} == {
            ("grafana", "grafana"),
            ("datasource", "prometheus"),
            *(("panel", kind) for kind in kinds),
        }
        assert board.pop("__elements") == {}
        assert board.pop("id") is None
        assert board["templating"]["list"][0].pop("current")["value"] == "${DS_PROMETHEUS}"
        provisioned = json.loads(rendered()[name])
        provisioned["templating"]["list"][0].pop("current", None)
        assert board == provisioned


def test_the_mixin_holds_the_same_files() -> None:
    mixin = json.loads(_jsonnet.evaluate_snippet("test", _VISIBLE, jpathdir=[str(REPOSITORY)]))
    assert mixin["grafanaDashboards"] == DASHBOARDS
    groups: dict[bool, list[Json]] = {True: [], False: []}
    for path in sorted(Path(REPOSITORY / "prometheus" / "rules").glob("*.yml")):
        groups[path.name == "hms-alerts.yml"] += yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    assert mixin["prometheusAlerts"]["groups"] == groups[True]
    assert mixin["prometheusRules"]["groups"] == groups[False]
