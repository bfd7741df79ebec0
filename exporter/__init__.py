"""A Prometheus exporter for 100ms.live: it polls the sessions of a workspace and publishes exact counts."""

__version__ = "0.1.0"
