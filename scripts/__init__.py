"""Commands for developers of the exporter."""
