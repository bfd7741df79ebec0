"""Measures the cost of the exporter, beside that of the plain exporter a user would write: `python -m bench`."""
