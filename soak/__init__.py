"""Endurance: days of made-up life in minutes, and kills by the thousand.  `python -m soak --help`.

A `Life` or a scripted world is the truth, a simulated 100ms on a real socket serves it, an exporter polls that, and a
`Watcher` reads what is published like Prometheus would.  What is published in the end must be the truth to the microsecond,
and no counter may ever be seen to fall.
"""
