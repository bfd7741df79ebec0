"""The HTTP server and its routes. It does not know what the metrics are."""
