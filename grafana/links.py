"""Links: to another dashboard with the same time and data source, or to the runbook of an alert."""

from __future__ import annotations

from pathlib import Path

import yaml

_RULES = Path(__file__).parent.parent / "prometheus" / "rules" / "hms-alerts.yml"

_KEPT = "${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&${__url_time_range}"
_ROW = "var-workspace=${__data.fields.Workspace:percentencode}"

ROOM_OF_ROW = f"/d/hms-room?{_ROW}&var-room=${{__data.fields.Room:percentencode}}&{_KEPT}"
USAGE_OF_ROW = f"/d/hms-usage?{_ROW}&{_KEPT}"
OVERVIEW_OF_CURVE = f"/d/hms-overview?var-workspace=${{__field.labels.workspace:percentencode}}&{_KEPT}"
EXPORTER = f"/d/hms-exporter?${{workspace:queryparam}}&{_KEPT}"


def runbooks() -> tuple[str, dict[str, str]]:
    """The link to an alert's runbook, and the text that stands for each alert in it: the rules' own `runbook_url`.

    Grafana shows the text of a cell in the place of `${__value.text}`; a page's anchors are in lower case, alerts are not.
    """
    groups = yaml.safe_load(_RULES.read_text(encoding="utf-8"))["groups"]
    urls = {rule["alert"]: rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"] if "alert" in rule}
    pages = {url.partition("#")[0] for url in urls.values()}
    if len(pages) != 1:
        raise ValueError(f"{_RULES.name}: every runbook_url must be on one page, but these are: {', '.join(sorted(pages))}")
    no_alert = {"No alert is firing": "", "The alert rules are not loaded": ""}
    return f"{pages.pop()}#${{__value.text}}", {name: url.partition("#")[2] for name, url in sorted(urls.items())} | no_alert
