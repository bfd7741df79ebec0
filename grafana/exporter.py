"""100ms / Exporter: whether the numbers are complete and fresh, and what it costs to have them."""

from __future__ import annotations

from grafana.frame import DashboardPlan, RowPlan
from grafana.panels import DATA_AGE, JOB, WORKSPACE, Query, lines, number, states, words

_STATE = words((1, "complete", "green"), (0, "incomplete", "red"))

_HEALTH = RowPlan(
    "Health",
    [
        number(
            "Last poll",
            "Whether the last poll of every workspace read everything it wanted.",
            Query(f"min(hms_up{{{WORKSPACE}}})", "last poll", "now"),
            unit="none",
            steps=(("red", None), ("green", 1)),
            mappings=_STATE,
        ),
        number(
            "Data is this old",
            "Time since the last poll that read everything, of the workspace where that is longest. Normal is up to one poll interval.",
            Query(f"max({DATA_AGE})", "age", "now"),
            unit="s",
            decimals=0,
            steps=(("green", None), ("orange", 120), ("red", 600)),
        ),
        number(
            "Token expires in",
            "Where it is soonest. Tokens minted from a key pair are renewed an hour before; a ready-made one you must replace.",
            Query(f"min(hms_exporter_token_expiry_timestamp_seconds{{{WORKSPACE}}}) - time()", "expires in", "now"),
            unit="dtdurations",
            decimals=0,
            steps=(("red", None), ("orange", 1800), ("green", 3600)),
        ),
        number(
            "Clock skew",
            "How far the exporter's clock is from the API's. Counting follows the API's, so a skew does no harm to the numbers.",
            Query(
                f"max(abs(hms_exporter_clock_skew_seconds{{{WORKSPACE}}}))",
                "skew",
                "now",
            ),
            unit="s",
            decimals=1,
            steps=(("green", None), ("orange", 30)),
        ),
        number(
            "Rooms with series",
            "Rooms and groups of rooms that have series of their own.",
            Query(f"sum(hms_rooms_tracked{{{WORKSPACE}}})", "rooms", "now"),
        ),
        number(
            "Configuration",
            "Whether the configuration read last is in force.",
            Query(f"min(hms_exporter_config_last_reload_successful{{{JOB}}})", "configuration", "now"),
            unit="none",
            steps=(("red", None), ("green", 1)),
            mappings=words((1, "in force", "green"), (0, "refused", "red")),
        ),
    ],
)

_POLLS = RowPlan(
    "Polls",
    [
        lines(
            "How long polls take",
            "Average and, of ten, the longest but one; dashed the interval: a poll that takes longer makes the next one be skipped.",
            Query(
                f"sum by (workspace) (rate(hms_exporter_poll_duration_seconds_sum{{{WORKSPACE}}}[$__rate_interval])) / "
                f"sum by (workspace) (rate(hms_exporter_poll_duration_seconds_count{{{WORKSPACE}}}[$__rate_interval]))",
                "{{workspace}} average",
            ),
            Query(
                "histogram_quantile(0.9, sum by (workspace, le) "
                f"(rate(hms_exporter_poll_duration_seconds_bucket{{{WORKSPACE}}}[$__rate_interval])))",
                "{{workspace}} 90 %",
            ),
            Query(f"min by (workspace) (hms_exporter_poll_interval_seconds{{{WORKSPACE}}})", "{{workspace}} interval"),
            unit="s",
            dashed=".* interval",
        ),
        lines(
            "Polls per minute",
            "Polls that ended, those of them that did not read everything, and those not begun because the one before still ran.",
            Query(f"sum(rate(hms_exporter_polls_total{{{WORKSPACE}}}[$__rate_interval])) * 60", "ended"),
            Query(f"sum(rate(hms_exporter_poll_failures_total{{{WORKSPACE}}}[$__rate_interval])) * 60", "of those incomplete"),
            Query(f"sum(rate(hms_exporter_polls_skipped_total{{{WORKSPACE}}}[$__rate_interval])) * 60", "skipped"),
            unit="cpm",
        ),
        lines(
            "Age of the data",
            "Time since the last poll that read everything. A saw-tooth up to the poll interval is normal.",
            Query(f"max by (workspace) ({DATA_AGE})", "{{workspace}}"),
            unit="s",
        ),
        states(
            "Last poll read everything",
            "Green: the poll read all it wanted. Red: something was missing.",
            Query(f"min by (workspace) (hms_up{{{WORKSPACE}}})", "{{workspace}}"),
            mappings=_STATE,
            width=12,
            height=8,
        ),
    ],
)

_CALLS = RowPlan(
    "Calls to 100ms",
    [
        lines(
            "Calls per minute, by endpoint",
            "Requests to 100ms's API.",
            Query(f"sum by (endpoint) (rate(hms_exporter_api_requests_total{{{WORKSPACE}}}[$__rate_interval])) * 60", "{{endpoint}}"),
            unit="cpm",
            stacked=True,
        ),
        lines(
            "Calls per minute, by outcome",
            "HTTP status, or timeout (no whole answer in time), connection (none at all), malformed (not what was asked for). "
            "429 means: too many calls.",
            Query(f"sum by (code) (rate(hms_exporter_api_requests_total{{{WORKSPACE}}}[$__rate_interval])) * 60", "{{code}}"),
            unit="cpm",
            stacked=True,
        ),
        lines(
            "Time to answer",
            "From the call to the last byte of the answer: 90 % are faster than this.",
            Query(
                "histogram_quantile(0.9, sum by (endpoint, le) "
                f"(rate(hms_exporter_api_request_duration_seconds_bucket{{{WORKSPACE}}}[$__rate_interval])))",
                "{{endpoint}}",
            ),
            unit="s",
        ),
        lines(
            "Retries, and time spent waiting for 100ms",
            "Retries per minute; and the share of the time in which the exporter waited because 100ms asked it to.",
            Query(f"sum(rate(hms_exporter_api_retries_total{{{WORKSPACE}}}[$__rate_interval])) * 60", "retries per minute"),
            Query(f"sum(rate(hms_exporter_api_throttled_seconds_total{{{WORKSPACE}}}[$__rate_interval]))", "seconds waited per second"),
        ),
    ],
)

_DATA = RowPlan(
    "What is published",
    [
        lines(
            "Rooms",
            "Rooms with series of their own; named by the configuration; unknown to 100ms though named; beyond limits.max_rooms.",
            Query(f"sum(hms_rooms_tracked{{{WORKSPACE}}})", "with series"),
            Query(f"sum(hms_rooms_configured{{{WORKSPACE}}})", "configured"),
            Query(f"sum(hms_rooms_missing{{{WORKSPACE}}})", "missing at 100ms"),
            Query(f"sum(hms_rooms_overflowed{{{WORKSPACE}}})", "overflowed"),
            width=8,
        ),
        lines(
            "Records rejected",
            "Sessions, peers and rooms in 100ms's answers that made no sense and were left out. Each is also logged once.",
            Query(f"sum by (kind) (increase(hms_exporter_records_rejected_total{{{WORKSPACE}}}[$__rate_interval]))", "{{kind}}"),
            width=8,
        ),
        lines(
            "Samples in a scrape",
            "How many numbers Prometheus takes from the exporter each time.",
            Query(f"sum by (instance) (scrape_samples_scraped{{{JOB}}})", "{{instance}}"),
            width=8,
        ),
    ],
)

_PROCESS = RowPlan(
    "Process",
    [
        lines(
            "Memory",
            "Memory that the exporter's process holds.",
            Query(f"sum by (instance) (process_resident_memory_bytes{{{JOB}}})", "{{instance}}"),
            unit="bytes",
            width=8,
        ),
        lines(
            "CPU",
            "Processor time used, as a share of one core.",
            Query(f"sum by (instance) (rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval]))", "{{instance}}"),
            unit="percentunit",
            width=8,
        ),
        lines(
            "Time to scrape",
            "How long Prometheus takes to fetch /metrics.",
            Query(f"max by (instance) (scrape_duration_seconds{{{JOB}}})", "{{instance}}"),
            unit="s",
            width=8,
        ),
    ],
)

PLAN = DashboardPlan(
    uid="hms-exporter",
    title="100ms / Exporter",
    description="The exporter itself: its polls, its calls to 100ms, the age of its data, its process.",
    since="now-3h",
    refresh="30s",
    rows=(_HEALTH, _POLLS, _CALLS, _DATA, _PROCESS),
    rooms=False,
)
