"""What the exporter costs, measured beside what a user would write instead: `python -m bench`."""
