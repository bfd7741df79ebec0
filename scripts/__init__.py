"""Commands for whoever works on the exporter."""
