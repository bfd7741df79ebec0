"""All dashboards, from their code to the text of their files.  A further dashboard is a module and a line here."""

from __future__ import annotations

import json

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana import exporter, overview, room, usage
from grafana.frame import DashboardPlan, assembled

PLANS: tuple[DashboardPlan, ...] = (overview.PLAN, room.PLAN, usage.PLAN, exporter.PLAN)


def rendered() -> dict[str, str]:
    """The text of each file by its name, as Grafana's file provisioning reads it."""
    return {f"{plan.uid}.json": json.dumps(assembled(plan), cls=JSONEncoder, indent=2, sort_keys=True) + "\n" for plan in PLANS}
