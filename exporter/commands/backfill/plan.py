"""The plan of a backfill from its flags: range, steps, labels, and when the live counting begins."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from exporter.commands.backfill.gather import Span
from exporter.commands.backfill.jobs import JobsPlan, LiveKind, live_kind, plan_kind, wanted_kinds
from exporter.commands.backfill.series import Grid
from exporter.config.config import Config, ConfigError, WorkspaceConfig, read_flag
from exporter.config.readers import duration
from exporter.counting.coverage import REACH_BACK
from exporter.counting.followed import NOT_BEGUN
from exporter.counting.scope import Scope, is_wide, may_share_a_room
from exporter.state.soundness import StoreError
from exporter.state.tables import FOLLOWED, FollowedRow
from exporter.state.view import StateView, look_into
from exporter.times import micros, rfc3339

_LONGEST_STEP = 300
"""Prometheus's staleness limit in seconds: a series without a sample for five minutes is gone."""
_OWN_LABELS = frozenset({"workspace", "room_id", "room", "role", "le", "template", "template_id", "region", "enabled"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """The command line's values, as text."""

    start: str
    end: str | None
    output: Path
    step: str | None
    workspace: str | None
    labels: Sequence[str]


class Plan(msgspec.Struct, frozen=True):
    """The plan, in µs; `step` is in seconds.  A second run with the same plan continues the first.

    The live counters count sessions that ended after the `since` of a room's first entry, in the order in which entries came into
    force, whatever the configuration is now; `rooms_since` is for rooms renamed since then, `otherwise` for all others.  `jobs` are
    the kinds of recordings and streams; `unread` are those that the exporter has never read, for which the junction is unknown.
    """

    workspace: str
    start: int
    end: int
    step: int
    since: list[tuple[str, int]]
    rooms_since: dict[str, int]
    otherwise: int
    rooms: list[str]
    labels: dict[str, str]
    most_rooms: int
    expiry: float
    bots: list[str]
    jobs: list[JobsPlan]
    unread: list[str]

    @property
    def last(self) -> int:
        """Where the last series ends: the counting of recordings and streams may have begun later than that of sessions."""
        return max([self.end, *(of.end for of in self.jobs)])

    @property
    def grid(self) -> Grid:
        """The steps of the sessions' series."""
        return Grid(self.start, self.end, self.step)

    @property
    def span(self) -> Span:
        """The sessions that affect those steps, including those whose end only the live counters know."""
        sinces = [*(since for _, since in self.since), *self.rooms_since.values(), self.otherwise, self.start]
        earliest = min(sinces)
        return Span(earliest - REACH_BACK, max(self.end, *sinces), earliest)


def workspace_of(config: Config, name: str | None) -> WorkspaceConfig:
    """The workspace to read: the one named, or the only one.  Raises `ConfigError`."""
    names = [workspace.name for workspace in config.workspaces]
    if name is None and len(names) > 1:
        raise ConfigError(f"--workspace: expected one of {', '.join(names)}")
    found = next((workspace for workspace in config.workspaces if name in (None, workspace.name)), None)
    if found is None:
        raise ConfigError(f"--workspace: expected one of {', '.join(names)}")
    return found


def make_plan(config: Config, workspace: WorkspaceConfig, wanted: Wanted) -> Plan:
    """The plan of a backfill, which ends where the live series begin and has the same zero.  Raises `ConfigError`."""
    start = moment("--from", wanted.start)
    keys = Scope(workspace).keys
    names = wanted_kinds(config.collect)

    def shares(other: str) -> bool:
        return any(_may_share_a_room(other, key) for key in keys)

    def live_state(view: StateView) -> tuple[list[FollowedRow], dict[str, LiveKind]]:
        return _followed(view, workspace.name), {name: live_kind(view, workspace.name, name, shares) for name in names}

    try:
        followed, kinds = look_into(config.storage, live_state) or ([], {name: LiveKind([], {}, None) for name in names})
    except StoreError as error:
        raise ConfigError(f"storage: {error}") from error
    entries = [row for row in followed if row.kind == "entry" and shares(row.key)]
    rooms_since = {row.key: row.since for row in followed if row.kind == "room" and row.since != NOT_BEGUN}
    from_now_on = config.poll.since == "start"
    # While live counters catch up with the past, they rise by it; their curve begins when they have finished.
    joins = [row.since for row in entries] if from_now_on else [row.whole for row in entries if row.whole is not None]
    if entries and not joins:
        raise ConfigError("--to: the exporter still reads the past; try again once hms_exporter_catch_up_ratio is 1")
    live = min(joins, default=None)
    end = moment("--to", wanted.end, end=True) if wanted.end is not None else live
    if end is None:
        raise ConfigError("--to: expected a time: where the live series begin, or any time before it")
    if live is not None and end > live:
        what = "begin" if from_now_on else "are whole"
        raise ConfigError(f"--to: expected at most {rfc3339(live, 0)}, where the live series {what} (the state file says so)")
    if end <= start:
        raise ConfigError(f"--from: expected a time before {rfc3339(end, 0)}, where it ends")
    step = _step(wanted.step) if wanted.step is not None else min(_LONGEST_STEP, max(1, round(config.poll.interval)))
    # Nothing has been counted yet: the plan is that of an exporter that starts counting there.
    otherwise = micros(config.poll.since) if isinstance(config.poll.since, datetime) else start
    unread = [name for name, of in kinds.items() if entries and of.now is None]
    jobs = []
    for name in names:
        if name not in unread:
            of = plan_kind(name, kinds[name], end, otherwise, from_now_on=from_now_on, fixed=wanted.end is not None)
            if of is None:
                raise ConfigError(f"collect.{name}: the exporter still reads the past; try again later, or set it to false")
            jobs.append(of)
    return Plan(
        workspace=workspace.name,
        start=start,
        end=end,
        step=step,
        since=[(row.key, row.since) for row in entries],
        rooms_since=rooms_since,
        otherwise=otherwise,
        rooms=keys,
        labels=_labels(wanted.labels),
        most_rooms=config.limits.max_rooms,
        expiry=config.limits.room_idle_expiry,
        bots=sorted(config.bots.roles),
        jobs=jobs,
        unread=unread,
    )


def _followed(view: StateView, workspace: str) -> list[FollowedRow]:
    """All entries and rooms that were ever followed, the earliest first."""
    return sorted(view.rows(FOLLOWED, "workspace = ?", (workspace,)), key=lambda row: row.entered)


def _may_share_a_room(one: str, other: str) -> bool:
    return one == other or ((is_wide(one) or is_wide(other)) and may_share_a_room(one, other, lambda _: None))


def moment(option: str, text: str, *, end: bool = False) -> int:
    """The beginning of a day in UTC, or its end if `end` is true, or an RFC 3339 time; in µs.  Raises `ConfigError`."""
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            day = datetime.fromisoformat(text).replace(tzinfo=UTC)
            return micros(day + timedelta(days=1) if end else day)
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None:
            return micros(found.astimezone(UTC))
    except (ValueError, OverflowError):
        pass
    raise ConfigError(f"{option}: expected a day such as 2026-11-15, or a time such as 2026-11-15T08:00:00Z")


def _step(text: str) -> int:
    seconds = read_flag("--step", text, duration("1s", "5m"))
    if seconds != int(seconds):
        raise ConfigError("--step: expected whole seconds")
    return int(seconds)


def _labels(given: Sequence[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name.startswith("__") or not value:
            raise ConfigError("--label: expected name=value, such as job=hms")
        if name in labels or name in _OWN_LABELS:
            raise ConfigError(f"--label: expected each label once, and not one of the exporter's own, found {name}")
        labels[name] = value
    return labels
