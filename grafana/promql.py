"""The PromQL that the dashboards share.

Two exporters may publish the same truth, so series of a workspace are first made one by `max without (instance, pod, node)` and
only then added up.  What covers all rooms, or a long range, is read from the recording rules; where those do not reach back to
the beginning of the range, from the series of the rooms.
"""

from __future__ import annotations

JOB = 'job=~"$job", instance=~"$instance"'
WORKSPACE = f'{JOB}, workspace=~"$workspace"'
ROOM = f'{WORKSPACE}, room=~"$room"'

RECORDED = 'job=~"$job", instance=~"$instance|", workspace=~"$workspace"'
"""Selects recorded series, most of which belong to no instance."""

# The hidden variable matches every job where the recorded series are too young, and none where they suffice: then the
# series of all the rooms are not read at all.
UNRECORDED = "unrecorded"
RAW = f'job=~"${UNRECORDED}"'

ALERT_LABELS = "alertname, severity, workspace, room, budget"
_EMPTY_TOO = 'job=~"$job|", instance=~"$instance|", workspace=~"$workspace|"'
HMS_ALERTS = f'alertname=~"Hms.+", {_EMPTY_TOO}'
"""Selects the exporter's alerts.  Several have no label `workspace`, and that of a vanished exporter has no `instance`."""

IS_EXPORTER = f"and on (job, instance) hms_exporter_build_info{{{JOB}}}"
"""Limits metrics that every program publishes to the exporters."""


def once(expr: str) -> str:
    """The expression without the copies of further exporters."""
    return f"max without (instance, pod, node) ({expr})"


def summed(expr: str, by: str = "") -> str:
    """The sum, in all or by some labels, in which series of several exporters count once."""
    return f"sum{_grouped(by)} ({once(expr)})"


def zero(by: str = "") -> str:
    """0 for workspaces whose last poll was complete: an idle workspace has the number 0, not missing data."""
    complete = once(f"hms_up{{{WORKSPACE}}}")
    return f"0 * sum{_grouped(by)} ({complete} == 1)"


def nobody() -> str:
    """A curve of zeros in the place of curves by role, where no role has been seen yet."""
    return f'on () label_replace({zero()}, "role", "nobody", "", "")'


def now(metric: str, where: str = ROOM, by: str = "", ago: str = "") -> str:
    """A gauge of rooms at this moment, or some time `ago`; 0 while nothing runs."""
    offset = f" offset {ago}" if ago else ""
    known = summed(f"{metric}{{{where}}}{offset}", by)
    return known if ago else f"{known} or {zero(by)}"


def over_time(metric: str, level: str, by: str = "", ago: str = "") -> str:
    """A gauge of all rooms as a curve, by labels that the rule of this `level` keeps."""
    offset = f" offset {ago}" if ago else ""
    raw = summed(f"{metric}{{{WORKSPACE}, {RAW}}}{offset}", by)
    recorded = summed(f"{level}:{metric}:sum{{{RECORDED}}}{offset}", by)
    curve = f"{raw} or {recorded}"
    if ago:
        return curve
    return f"{curve} or {nobody()}" if by == "role" else f"{curve} or {zero(by)}"


def per_minute(counter: str, where: str, by: str = "") -> str:
    """The rate of a counter."""
    rate = f"{summed(f'rate({counter}{{{where}}}[$__rate_interval])', by)} * 60"
    return f"{rate} or {nobody()}" if by == "role" else rate


def all_per_minute(counter: str) -> str:
    """The same of all rooms together."""
    recorded = f"workspace:{counter.removesuffix('_total')}:rate5m"
    raw = summed(f"rate({counter}{{{WORKSPACE}, {RAW}}}[$__rate_interval])")
    return f"({raw} or {summed(f'{recorded}{{{RECORDED}}}')} or {zero()}) * 60"


def grown(counter: str, where: str = ROOM) -> str:
    """The rise of a counter in each step of a graph. It is exact, because nothing is extrapolated as `increase` does."""
    selected = f"{counter}{{{where}}}"
    return f"sum (clamp_min({once(selected)} - {once(f'{selected} offset $__interval')}, 0))"


def increase(counter: str, where: str = ROOM, by: str = "") -> str:
    """The rise of a counter in the range shown."""
    return summed(f"increase({counter}{{{where}}}[$__range])", by)


def minutes(by: str = "", window: str = "$__range", level: str = "workspace_role", of: str = "", at: str = "") -> str:
    """Participant minutes used in a window, by labels that the rule of this `level` keeps; `of` narrows the series down further."""
    raw = summed(f"increase(hms_peer_seconds_total{{{WORKSPACE}, {RAW}{of}}}[{window}]{at})", by)
    recorded = summed(f"sum_over_time({level}:hms_peer_seconds:increase5m{{{RECORDED}{of}}}[{window}]{at})", by)
    return f"({raw} or {recorded}) / 60"


_POLLED_ON = f"floor(hms_exporter_last_success_timestamp_seconds{{{WORKSPACE}}} / 86400)"


def of_today(gauge: str, ago: str = "") -> str:
    """A gauge of this day or month, without what an exporter says that hangs since a day on which its twin does not hang.

    Yesterday's number is larger than today's, so the maximum of two exporters would be that of the one that hangs.
    """
    day = _POLLED_ON if not ago else _POLLED_ON.replace("}", f"}} offset {ago}", 1)
    behind = f"max by (job, workspace) ({day}) - on (job, workspace) group_right () {day} > 0"
    return f"{gauge} unless on (job, instance) ({behind})"


def calendar_minutes(period: str, by: str = "", ago: str = "") -> str:
    """Participant minutes of this `day` or `month` (UTC) so far, as the exporter knows them."""
    used = f'hms_usage_peer_seconds{{{WORKSPACE}, period="{period}"}}' + (f" offset {ago}" if ago else "")
    return f"{summed(of_today(used, ago), by)} / 60"


def quantile(share: float, histogram: str, by: str = "") -> str:
    """The value below which this share of the observations lies."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, {summed(f'rate({histogram}_bucket{{{WORKSPACE}}}[$__rate_interval])', labels)})"


def average(histogram: str, by: str) -> str:
    """The average observation."""
    total, number = (summed(f"rate({histogram}_{part}{{{WORKSPACE}}}[$__rate_interval])", by) for part in ("sum", "count"))
    return f"{total} / {number}"


# Before the first complete poll the age is counted from the exporter's start, as the alert does.  The instance is left out
# of the comparison: a relabelling may give workspace series another one than the process has.
_SUCCESS = f"hms_exporter_last_success_timestamp_seconds{{{WORKSPACE}}}"
_STARTED = f"max by (job) (process_start_time_seconds{{{JOB}}} {IS_EXPORTER})"
_FRESHEST = once(f"{_SUCCESS} > 0 or {_SUCCESS} * 0 + on (job) group_left () {_STARTED}")

DATA_AGE = f"time() - min by (workspace) ({_FRESHEST})"
"""Seconds since the last complete poll of each workspace, by the exporter that read it last."""


def _grouped(by: str) -> str:
    return f" by ({by})" if by else ""
