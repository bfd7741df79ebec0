"""Writes the runbooks' links into the alerts, and the rules as the Prometheus operator wants them into
deploy/kubernetes/prometheus-operator/prometheusrule.yaml.

    python -m scripts.prometheusrule [RUNBOOKS]

RUNBOOKS is where docs/alerts.md is published, without an anchor; the default is `RUNBOOKS` below.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
RULES = tuple(_ROOT / "prometheus/rules" / f"hms-{name}.yml" for name in ("thresholds", "recording", "alerts"))
ALERTS = _ROOT / "prometheus/rules/hms-alerts.yml"
RUNBOOKS = "https://example.com/hms-exporter/docs/alerts.md"
"""A placeholder. A link in a message must be absolute, and the address is known only where the page is published."""
MANIFEST = _ROOT / "deploy/kubernetes/prometheus-operator/prometheusrule.yaml"

_HEAD = """\
# Written by `make generate` from prometheus/rules; the numbers to adapt are in the group hms-thresholds.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: hms-exporter
  labels:
    app.kubernetes.io/name: hms-exporter
spec:
  groups:
"""


def manifest(rule_files: tuple[Path, ...] = RULES) -> str:
    """The manifest, with the rules' comments."""
    groups = [path.read_text().partition("groups:\n")[2].rstrip("\n") + "\n" for path in rule_files]
    return _HEAD + "\n".join(textwrap.indent(text, "  ") for text in groups)


def linked(alerts: str, runbooks: str) -> str:
    """The file of alerts, each with a link to its section of the page `runbooks`."""
    return re.sub(r"(?m)^( +runbook_url: ).*#(\w+)$", lambda found: f"{found[1]}{runbooks}#{found[2]}", alerts)


def main(arguments: list[str]) -> int:
    """Writes the files."""
    runbooks = arguments[0] if arguments else RUNBOOKS
    if not re.fullmatch(r"https?://[^\s#]+", runbooks):
        sys.stderr.write(f"RUNBOOKS is {runbooks!r}: expected the address of a page, https://..., without an anchor\n")
        return 2
    ALERTS.write_text(linked(ALERTS.read_text(), runbooks))
    MANIFEST.write_text(manifest())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
