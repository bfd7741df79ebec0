"""Pictures of the dashboards for the documentation: `python -m grafana.pictures`."""
