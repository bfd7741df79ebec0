"""The HTTP server and its routes.  It knows nothing of metrics but their routes."""
