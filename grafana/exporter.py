"""100ms / Exporter: whether the numbers are complete and fresh, and the exporter's resources."""

from __future__ import annotations

from grafana.frame import DashboardPlan, RowPlan
from grafana.panels import LENGTH, PER_MINUTE, SECONDS, SHARE, lines, number, states, steps_of
from grafana.promql import DATA_AGE, IS_EXPORTER, JOB, WORKSPACE, average, grown, once, per_minute, quantile, summed

_OF_SEVERAL = "Of several exporters, the one with the most."
_STATE = ((1, "complete", "green"), (0, "incomplete", "red"))


def _least(metric: str) -> str:
    return f"min({once(f'{metric}{{{WORKSPACE}}}')})"


def _rooms(kind: str) -> str:
    return summed(f"hms_rooms_{kind}{{{WORKSPACE}}}")


def _of_process(expr: str) -> dict[str, str]:
    return {"{{instance}}": f"max by (instance) ({expr} {IS_EXPORTER})"}


_HEALTH = RowPlan(
    "Health",
    [
        number(
            "Last poll",
            "Whether the last poll of every workspace read everything it wanted.",
            _least("hms_up"),
            unit="none",
            steps=(("red", None), ("green", 1)),
            meanings=_STATE,
        ),
        number(
            "Data is this old",
            "Time since the last complete poll, of the workspace where that is longest. Normal is up to one poll interval.",
            f"max({DATA_AGE})",
            unit=LENGTH,
            steps=(("green", None), ("orange", 120), ("red", 600)),
        ),
        number(
            "Token expires in",
            "Where it is soonest. Tokens minted from a key pair are renewed an hour before; a ready-made one you must replace.",
            f"{_least('hms_exporter_token_expiry_timestamp_seconds')} - time()",
            unit=LENGTH,
            steps=(("red", None), ("orange", 1800), ("green", 3600)),
        ),
        number(
            "Clock skew",
            "How far the exporter's clock is from the API's. Counting follows the API's, so a skew does no harm to the numbers.",
            f"max(abs(hms_exporter_clock_skew_seconds{{{WORKSPACE}}}))",
            unit=SECONDS,
            decimals=1,
            steps=(("green", None), ("orange", 30)),
        ),
        number("Rooms with series", "Rooms and groups of rooms that have series of their own.", _rooms("tracked")),
        number(
            "Configuration",
            "Whether the configuration read last is in force.",
            f"min(hms_exporter_config_last_reload_successful{{{JOB}}})",
            unit="none",
            steps=(("red", None), ("green", 1)),
            meanings=((1, "in force", "green"), (0, "refused", "red")),
        ),
    ],
)

_POLLS = RowPlan(
    "Polls",
    [
        lines(
            "How long polls take",
            "Average, and what nine of ten stay below; dashed the interval: a poll that takes longer makes the next one be skipped.",
            {
                "{{workspace}} average": average("hms_exporter_poll_duration_seconds", "workspace"),
                "{{workspace}} 90 %": quantile(0.9, "hms_exporter_poll_duration_seconds", "workspace"),
                "{{workspace}} interval": f"min by (workspace) ({once(f'hms_exporter_poll_interval_seconds{{{WORKSPACE}}}')})",
            },
            unit=SECONDS,
            compared=".* interval",
        ),
        lines(
            "Polls per minute",
            f"Polls that ended, those of them that were incomplete, and those not begun because the one before still ran. {_OF_SEVERAL}",
            {
                "ended": per_minute("hms_exporter_polls_total", WORKSPACE),
                "of those incomplete": per_minute("hms_exporter_poll_failures_total", WORKSPACE),
                "skipped": per_minute("hms_exporter_polls_skipped_total", WORKSPACE),
            },
            unit=PER_MINUTE,
            colors={"ended": "blue", "of those incomplete": "orange", "skipped": "red"},
        ),
        lines(
            "Age of the data",
            "Time since the last complete poll. A saw-tooth up to the poll interval is normal.",
            {"{{workspace}}": f"max by (workspace) ({DATA_AGE})"},
            unit=LENGTH,
        ),
        states(
            "Last poll read everything",
            "Green: the poll read all it wanted. Red: something was missing.",
            {"{{workspace}}": f"max by (workspace) ({once(f'hms_up{{{WORKSPACE}}}')})"},
            meanings=_STATE,
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
            f"Requests to 100ms's API. {_OF_SEVERAL}",
            {"{{endpoint}}": per_minute("hms_exporter_api_requests_total", WORKSPACE, "endpoint")},
            unit=PER_MINUTE,
            stacked=True,
        ),
        lines(
            "Calls per minute, by outcome",
            "HTTP status, or timeout (no whole answer in time), connection (none at all), malformed (not what was asked for). "
            f"429 means: too many calls. {_OF_SEVERAL}",
            {"{{code}}": per_minute("hms_exporter_api_requests_total", WORKSPACE, "code")},
            unit=PER_MINUTE,
            stacked=True,
        ),
        lines(
            "Time to answer",
            "From the call to the last byte of the answer: 90 % are faster than this.",
            {"{{endpoint}}": quantile(0.9, "hms_exporter_api_request_duration_seconds", "endpoint")},
            unit=SECONDS,
            sparse=True,
        ),
        lines(
            "Retries, and time spent waiting for 100ms",
            "Retries per minute; and the share of the time spent waiting because 100ms asked for it, added up over workspaces.",
            {
                "retries per minute": per_minute("hms_exporter_api_retries_total", WORKSPACE),
                "seconds waited per second": summed(f"rate(hms_exporter_api_throttled_seconds_total{{{WORKSPACE}}}[$__rate_interval])"),
            },
            unit="short",
        ),
    ],
)

_DATA = RowPlan(
    "What is published",
    [
        lines(
            "Rooms",
            "Rooms with series of their own; named by the configuration; unknown to 100ms though named; beyond limits.max_rooms.",
            {
                "with series": _rooms("tracked"),
                "configured": _rooms("configured"),
                "missing at 100ms": _rooms("missing"),
                "overflowed": _rooms("overflowed"),
            },
            width=8,
        ),
        steps_of(
            "Records rejected",
            "Sessions, peers and rooms in 100ms's answers that made no sense and were left out. Each is also logged once.",
            {kind: grown("hms_exporter_records_rejected_total", f'{WORKSPACE}, kind="{kind}"') for kind in ("session", "peer", "room")},
            width=8,
        ),
        lines(
            "Samples in a scrape",
            "How many numbers Prometheus takes from the exporter each time.",
            _of_process(f"scrape_samples_scraped{{{JOB}}}"),
            width=8,
        ),
    ],
)

_COLLECTORS = RowPlan(
    "Beside sessions",
    [
        states(
            "Last read of each collector",
            "Green: it read all it wanted, in every workspace. Red: something was missing; sessions and peers are not affected.",
            {"{{collector}}": f"min by (collector) (hms_collector_up{{{WORKSPACE}}})"},
            meanings=_STATE,
            width=24,
            height=7,
        ),
    ],
)

_PROCESS = RowPlan(
    "Process",
    [
        lines(
            "Memory",
            "Memory that the exporter's process holds.",
            _of_process(f"process_resident_memory_bytes{{{JOB}}}"),
            unit="bytes",
            width=8,
        ),
        lines(
            "CPU",
            "Processor time used, as a share of one core.",
            _of_process(f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])"),
            unit=SHARE,
            width=8,
        ),
        lines(
            "Time to scrape",
            "How long Prometheus takes to fetch /metrics.",
            _of_process(f"scrape_duration_seconds{{{JOB}}}"),
            unit=SECONDS,
            width=8,
        ),
    ],
)

PLAN = DashboardPlan(
    uid="hms-exporter",
    title="100ms / Exporter",
    description="The exporter itself: its polls, its calls to 100ms, the age of its data, its process.",
    since="now-3h",
    rows=(_HEALTH, _POLLS, _CALLS, _COLLECTORS, _DATA, _PROCESS),
    rooms="hidden",
)
