"""Endurance tests: simulated days in minutes, and thousands of kills.  `python -m soak --help`.

A `Life` or a scripted world is the truth, a simulated 100ms on a real socket serves it, an exporter polls that, and a
`Watcher` reads the page as Prometheus would.  The final counters must equal the truth to the microsecond, and no counter may
ever fall.
"""
