"""The committed dashboards as Grafana reads them: panels, queries, variables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / "grafana" / "dashboards"

Json = dict[str, Any]

EVERYTHING = ".+"
"""What "All" stands for."""


class PanelQuery(NamedTuple):
    """A query of a panel, `instant` if it asks for one moment."""

    dashboard: str
    panel: str
    expr: str
    instant: bool


class VariableQuery(NamedTuple):
    """A variable that lists the values of a label."""

    dashboard: str
    variable: str
    selector: str
    label: str


def dashboards() -> dict[str, Json]:
    """Every dashboard by its file's name."""
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def panels(dashboard: Json) -> list[Json]:
    """The panels of a dashboard, including those in folded rows, without the rows themselves."""
    return [panel for panel in boxes(dashboard) if panel["type"] != "row"]


def boxes(dashboard: Json) -> list[Json]:
    """Everything that has a position: rows, panels, and the panels in folded rows."""
    return [box for panel in dashboard["panels"] for box in (panel, *panel.get("panels", ()))]


def panel_queries() -> list[PanelQuery]:
    """Every query of every panel."""
    return [
        PanelQuery(dashboard["title"], panel["title"], target["expr"], target["instant"])
        for dashboard in dashboards().values()
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]


def looked_up() -> list[str]:
    """The PromQL of query variables and of annotations."""
    return [
        *(
            variable["query"]["query"].removeprefix("query_result(").removesuffix(")")
            for dashboard in dashboards().values()
            for variable in dashboard["templating"]["list"]
            if variable["type"] == "query" and variable["query"]["query"].startswith("query_result(")
        ),
        *(annotation["expr"] for dashboard in dashboards().values() for annotation in dashboard["annotations"]["list"]),
    ]


def variable_queries() -> list[VariableQuery]:
    """Every variable whose values come from Prometheus."""
    return list(_variable_queries())


def filled(expr: str, values: Mapping[str, str]) -> str:
    """The query with its variables filled in.  A variable without a value is an error."""
    return re.sub(r"\$\{?(\w+)\}?", lambda found: values[found[1]], expr)


def _variable_queries() -> Iterator[VariableQuery]:
    for dashboard in dashboards().values():
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query" and not variable["query"]["query"].startswith("query_result("):
                found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
                assert found is not None, variable
                yield VariableQuery(dashboard["title"], variable["name"], found[1], found[2])
