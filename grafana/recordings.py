"""100ms / Recordings and streams: jobs and their outcomes, and 100ms's data on webhooks and joins."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from grafana.frame import DashboardPlan, RowPlan
from grafana.links import ROOM_OF_ROW
from grafana.panels import LENGTH, PER_MINUTE, SECONDS, Column, Label, lines, number, optional, rows, steps_of
from grafana.promql import WORKSPACE, grown, once, per_minute, quantile, summed, zero

KINDS: Mapping[str, str] = {"recording": "Recordings", "live_stream": "Live streams", "external_stream": "External streams"}
"""The kinds of jobs, by the label `meter`, and what people call them."""
KIND = Label("meter", "Kind", words=KINDS)

_NO_ASSETS = "recording_assets is off"
_NO_DELIVERIES = "webhook_deliveries is off"
_NO_ERRORS = "client_errors is off"
_NO_WEBHOOKS = "no webhooks so far"

_ROOM_LABELS = (Label("workspace", "Workspace"), Label("room", "Room", ROOM_OF_ROW, wide=True))
_EACH_ROOM = "workspace, room"

FAILED: Mapping[str, str] = {"failed": "red"}
_STATUSES: Mapping[str, str] = {"starting": "yellow", "running": "green", "stopping": "orange", "post_processing": "blue"}
"""The colours of the states of open jobs. There should be little yellow."""

# A distribution of jobs is sparse: a rate over some minutes would be empty most of the time.
_SPARSE = "15m"


def of_each_kind(query: Callable[[str], str]) -> str:
    """The same query of every kind of job, told apart by the label `meter`."""
    return " or ".join(f'label_replace({query(kind)}, "meter", "{kind}", "", "")' for kind in KINDS)


def _all_kinds(query: Callable[[str], str]) -> str:
    """The sum over all kinds; 0 where there has been nothing of a kind."""
    return " + ".join(f"({query(kind)} or {zero()})" for kind in KINDS)


def _active(kind: str, status: str) -> str:
    return summed(f'hms_{kind}s_active{{{WORKSPACE}, status="{status}"}}')


def _increase(kind: str, what: str, by: str = "") -> str:
    return summed(f"increase(hms_{kind}{what}_total{{{WORKSPACE}}}[$__range])", by)


def _waiting(kind: str) -> str:
    return f"time() - min({once(f'hms_{kind}_starting_since_timestamp_seconds{{{WORKSPACE}}}')})"


def _by_label(counter: str, label: str) -> str:
    return summed(f"increase({counter}{{{WORKSPACE}}}[$__interval])", label)


def _most(counter: str, label: str) -> str:
    """By how much a counter rose in the range shown, by room and a further label."""
    return summed(f"increase({counter}{{{WORKSPACE}}}[$__range])", f"{_EACH_ROOM}, {label}")


def _deliveries(status: str) -> str:
    return summed(f'increase(hms_webhook_deliveries_total{{{WORKSPACE}, status="{status}"}}[$__interval])')


_NOW = RowPlan(
    "Right now",
    [
        *(
            number(f"{name} now", f"{name} that run at the collector's last read.", f"{_active(kind, 'running')} or {zero()}")
            for kind, name in KINDS.items()
        ),
        number(
            "Not started yet",
            "Recordings and streams that were asked for and have not started. A few seconds are normal.",
            _all_kinds(lambda kind: _active(kind, "starting")),
            steps=(("green", None), ("orange", 1)),
        ),
        number(
            "Oldest of these",
            "How long ago the oldest of those that have not started was asked for; 0 when there is none. An alert fires after two minutes.",
            f"max({of_each_kind(_waiting)}) or {zero()}",
            unit=LENGTH,
            steps=(("green", None), ("orange", 60), ("red", 120)),
        ),
        number(
            "Failed in the range",
            "Recordings and streams that failed in the range shown.",
            f"round({_all_kinds(lambda kind: _increase(kind, 's_failed'))})",
            steps=(("green", None), ("red", 1)),
        ),
    ],
)

_COURSE = RowPlan(
    "What was asked for, and what became of it",
    [
        *(
            steps_of(
                name,
                f"{name} asked for (up) and failed (down), in each step of the graph.",
                {
                    "asked for": grown(f"hms_{kind}s_requested_total", WORKSPACE),
                    "failed": grown(f"hms_{kind}s_failed_total", WORKSPACE),
                },
                below_zero="failed",
                colors=FAILED,
                width=8,
                every=_SPARSE,
            )
            for kind, name in KINDS.items()
        ),
        *(
            lines(
                f"{name} by status",
                f"{name} that are under way at each read: asked for, running, being stopped, being processed.",
                {
                    "{{status}}": f"{summed(f'hms_{kind}s_active{{{WORKSPACE}}}', 'status')} or "
                    f'on () label_replace({zero()}, "status", "none", "", "")'
                },
                stacked=True,
                width=8,
                colors=_STATUSES,
            )
            for kind, name in KINDS.items()
        ),
        rows(
            "Failures by room",
            "The 50 rooms with the most failures in the range shown. 100ms's dashboard has the reason of each.",
            [KIND, *_ROOM_LABELS],
            [
                Column(
                    "Failed",
                    f"topk(50, round({of_each_kind(lambda kind: _increase(kind, 's_failed', _EACH_ROOM))}) > 0)",
                    bar=True,
                    steps=(("red", None),),
                )
            ],
            width=24,
            height=7,
        ),
        rows(
            "Minutes by room",
            "The 50 rooms with the most recorded or streamed minutes in the range shown, running ones included up to the last read.",
            [KIND, *_ROOM_LABELS],
            [Column("Minutes", f"topk(50, ({of_each_kind(lambda kind: _increase(kind, '_seconds', _EACH_ROOM))}) / 60 > 0)", bar=True)],
            width=24,
            height=10,
        ),
    ],
)

_SPEED = RowPlan(
    "How fast",
    [
        lines(
            "From asked for to started",
            "Nine of ten of the jobs that started lately took less than this. An alert fires after two minutes.",
            {name: quantile(0.9, f"hms_{kind}_start_delay_seconds") for kind, name in KINDS.items()},
            unit=SECONDS,
            every=_SPARSE,
            sparse=True,
        ),
        lines(
            "From stopped to completed",
            "Nine of ten of the jobs that were completed lately were processed in less than this.",
            {name: quantile(0.9, f"hms_{kind}_processing_seconds") for kind, name in KINDS.items()},
            unit=LENGTH,
            every=_SPARSE,
            sparse=True,
        ),
    ],
)

_MESSAGES = RowPlan(
    "Webhooks, joins and leaves",
    [
        optional(
            _NO_WEBHOOKS,
            lines(
                "Webhooks received per minute",
                "Events that 100ms told the exporter of, by type. They make polls come at once.",
                {"{{type}}": per_minute("hms_webhooks_received_total", WORKSPACE, "type")},
                unit=PER_MINUTE,
                stacked=True,
            ),
        ),
        optional(
            _NO_DELIVERIES,
            steps_of(
                "Deliveries of webhooks",
                "What 100ms says of its webhooks to everybody that it was told of: delivered (up) and failed (down).",
                {
                    "success": _deliveries("success"),
                    "failed": _deliveries("failed"),
                },
                below_zero="failed",
                colors=FAILED,
            ),
        ),
        optional(
            _NO_WEBHOOKS,
            steps_of(
                "Webhooks refused",
                "Requests at the port for webhooks that were refused in each step of the graph, by reason.",
                {"{{reason}}": _by_label("hms_webhooks_rejected_total", "reason")},
                width=8,
            ),
        ),
        optional(
            _NO_WEBHOOKS,
            steps_of(
                "Joins that failed",
                "People who could not join, by the reason that 100ms gives. Only webhooks tell of them.",
                {"{{reason}}": _by_label("hms_join_failures_total", "reason")},
                width=8,
            ),
        ),
        optional(
            _NO_WEBHOOKS,
            steps_of(
                "Why peers left",
                "Peers that left, by the reason that 100ms gives. Only webhooks tell of them.",
                {"{{reason}}": _by_label("hms_peer_leaves_total", "reason")},
                width=8,
            ),
        ),
        rows(
            "Joins that failed by room",
            "The 50 rooms with the most failed joins in the range shown.",
            [*_ROOM_LABELS, Label("reason", "Reason", wide=True)],
            [
                Column(
                    "Failed joins",
                    f"topk(50, round({_most('hms_join_failures_total', 'reason')}) > 0)",
                    bar=True,
                    steps=(("red", None),),
                )
            ],
            width=24,
            height=7,
        ),
    ],
)

_ASSETS = RowPlan(
    "What was recorded (collect.recording_assets)",
    [
        optional(
            _NO_ASSETS,
            steps_of(
                "Minutes of assets",
                "The length of what was recorded, by type. One recording makes several assets of the same length: types are not added up.",
                {"{{type}}": f"{_by_label('hms_recording_asset_seconds_total', 'type')} / 60"},
                width=8,
                every=_SPARSE,
            ),
        ),
        optional(
            _NO_ASSETS,
            steps_of(
                "Bytes of assets",
                "The size of what was recorded, by type.",
                {"{{type}}": _by_label("hms_recording_asset_bytes_total", "type")},
                unit="bytes",
                width=8,
                every=_SPARSE,
            ),
        ),
        optional(
            _NO_ASSETS,
            steps_of(
                "Assets",
                "Files that recordings made, by status.",
                {"{{status}}": _by_label("hms_recording_assets_total", "status")},
                width=8,
                every=_SPARSE,
            ),
        ),
    ],
    folded=True,
)

_ERRORS = RowPlan(
    "Errors of clients (collect.client_errors)",
    [
        optional(
            _NO_ERRORS,
            steps_of(
                "Errors by type",
                "Errors that browsers and apps reported, read when the session has ended.",
                {"{{type}}": _by_label("hms_client_errors_total", "type")},
                every=_SPARSE,
            ),
        ),
        optional(
            _NO_ERRORS,
            steps_of(
                "Errors by SDK",
                "The same by the SDK that reported them.",
                {"{{sdk}}": _by_label("hms_client_errors_by_sdk_total", "sdk")},
                every=_SPARSE,
            ),
        ),
        rows(
            "Errors by room and code",
            "The 50 most frequent in the range shown. 100ms's documentation lists the codes.",
            [*_ROOM_LABELS, Label("type", "Type", width=160), Label("error_code", "Code", width=100)],
            [
                Column(
                    "Errors",
                    f"topk(50, round({_most('hms_client_errors_total', 'type, error_code')}) > 0)",
                    bar=True,
                )
            ],
            width=24,
            height=10,
        ),
    ],
    folded=True,
)

PLAN = DashboardPlan(
    uid="hms-recordings",
    title="100ms / Recordings and streams",
    description="Recordings and streams: asked for, started, failed, how fast; webhooks and deliveries; failed joins and why peers left.",
    since="now-24h",
    rows=(_NOW, _COURSE, _SPEED, _MESSAGES, _ASSETS, _ERRORS),
    rooms="hidden",
)
