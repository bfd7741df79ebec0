"""Shared by tests, soak and bench: an exporter against a simulated 100ms, and its expected counters."""
