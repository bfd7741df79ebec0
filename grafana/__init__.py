"""Dashboards as code; `python -m grafana` writes the JSON that Grafana loads."""
