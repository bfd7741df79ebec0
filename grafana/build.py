"""All dashboards, from their code to the text of their files.  A further dashboard is a module and a line here."""

from __future__ import annotations

import json
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana import exporter, overview, recordings, room, usage
from grafana.frame import DashboardPlan, assembled

PLANS: tuple[DashboardPlan, ...] = (overview.PLAN, room.PLAN, recordings.PLAN, usage.PLAN, exporter.PLAN)

_OLDEST_GRAFANA = "11.0.0"


def rendered() -> dict[str, str]:
    """The text of each file by its name, as Grafana's file provisioning reads it."""
    return {f"{plan.uid}.json": _text(assembled(plan)) for plan in PLANS}


def portable() -> dict[str, str]:
    """The same as Grafana's catalogue has them: they say what they need, and ask for the data source when imported."""
    return {f"{plan.uid}.json": _text(_for_the_catalogue(json.loads(_text(assembled(plan))))) for plan in PLANS}


def _for_the_catalogue(board: dict[str, Any]) -> dict[str, Any]:
    kinds = sorted({panel["type"] for row in board["panels"] for panel in (row, *row.get("panels", ())) if panel["type"] != "row"})
    source = {"pluginId": "prometheus", "pluginName": "Prometheus", "type": "datasource"}
    for variable in board["templating"]["list"]:
        if variable["name"] == "datasource":
            variable["current"] = {"text": "${DS_PROMETHEUS}", "value": "${DS_PROMETHEUS}"}
    return {
        "__inputs": [
            {"name": "DS_PROMETHEUS", "label": "Prometheus", "description": "The Prometheus that scrapes the exporter.", **source}
        ],
        "__elements": {},
        "__requires": [
            {"type": "grafana", "id": "grafana", "name": "Grafana", "version": _OLDEST_GRAFANA},
            {"type": "datasource", "id": "prometheus", "name": "Prometheus", "version": "1.0.0"},
            *({"type": "panel", "id": kind, "name": kind, "version": ""} for kind in kinds),
        ],
        **board,
        "id": None,
    }


def _text(board: object) -> str:
    return json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"
