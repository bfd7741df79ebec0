"""Writes deploy/kubernetes/prometheusrule.yaml: the rules of prometheus/rules as the Prometheus operator wants them."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
RULES = tuple(_ROOT / "prometheus/rules" / f"hms-{name}.yml" for name in ("thresholds", "recording", "alerts"))
MANIFEST = _ROOT / "deploy/kubernetes/prometheusrule.yaml"

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


def main() -> int:
    """Writes the file."""
    MANIFEST.write_text(manifest())
    return 0


if __name__ == "__main__":
    sys.exit(main())
