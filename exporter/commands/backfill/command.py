"""The subcommand: what is asked for, what it will cost, and the three passes in their order."""

from __future__ import annotations

import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

import msgspec

from exporter.commands.backfill.arrange import Since, arrange
from exporter.commands.backfill.gather import Span, read_rooms, read_sessions, tasks
from exporter.commands.backfill.progress import Progress, spell
from exporter.commands.backfill.seen import roles_seen
from exporter.commands.backfill.series import Grid
from exporter.commands.backfill.work import Work
from exporter.commands.backfill.write import Forecast, Writer
from exporter.config import readers as values
from exporter.config.config import Config, ConfigError, WorkspaceConfig
from exporter.config.strict_yaml import YamlScalar
from exporter.counting.ledger import REACH_BACK, Entry
from exporter.counting.scope import Scope
from exporter.hms.client import Api, Client
from exporter.hms.errors import ApiError
from exporter.hms.observer import Unobserved
from exporter.hms.pace import Patience
from exporter.logs import event
from exporter.state.file import StoreError
from exporter.state.view import StateView, look
from exporter.times import HOUR, micros, rfc3339

_HEAD = 3 * HOUR
"""promtool's documentation: the last three hours may overlap with the head block, which Prometheus is still writing."""
_LONGEST_STEP = 300
"""Seconds: Prometheus takes a series for gone when it has had no sample for five minutes."""
_SAMPLES_A_SECOND = 1_500_000
_BLOCKS = (2, 6, 18, 54, 162, 486)
"""Hours that a block can span: Prometheus's own ranges."""
_MOST_BLOCKS = 16
"""promtool reads the whole file once for each block."""
_OWN_LABELS = frozenset({"workspace", "room_id", "room", "role", "le", "template", "template_id", "region", "enabled"})


class BackfillError(Exception):
    """The backfill could not be finished; the message says why, and that the same command goes on where it stopped."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line says, as text."""

    start: str
    end: str | None
    output: Path
    step: str | None
    workspace: str | None
    labels: Sequence[str]


class Plan(msgspec.Struct, frozen=True):
    """What is to be done, in µs; `step` in seconds.  Two runs of the same plan continue one another.

    The live counters count what ended after `since` (by entry of the configuration), or after `otherwise`.
    """

    workspace: str
    start: int
    end: int
    step: int
    since: dict[str, int]
    otherwise: int
    rooms: list[str]
    labels: dict[str, str]
    most_rooms: int
    expiry: float

    @property
    def grid(self) -> Grid:
        """The steps that are written."""
        return Grid(self.start, self.end, self.step)

    @property
    def span(self) -> Span:
        """The sessions that have a part in them: also those of which only the live counters know the end."""
        sinces = [*self.since.values(), self.otherwise, self.start]
        earliest = min(sinces)
        return Span(earliest - REACH_BACK, max(self.end, *sinces), earliest)


def backfill(config: Config, wanted: Wanted, out: TextIO = sys.stdout, err: TextIO = sys.stderr) -> None:
    """Writes the file that is asked for.  Raises `ConfigError` or `BackfillError`."""
    workspace = _workspace(config, wanted.workspace)
    plan = make_plan(config, workspace, wanted)
    if wanted.output.exists():
        raise ConfigError(f"--output: {wanted.output} exists already")
    progress = Progress(err)
    with _errors(wanted.output):
        work = Work(wanted.output.with_name(f"{wanted.output.name}.work"))
        with closing(work):
            _same_as_before(work, plan, wanted.output)
            scope = Scope(workspace)
            try:
                _read(config, workspace, plan, work, scope, progress)
                _arrange(config, plan, work, scope, progress)
                writer = Writer(work, plan.grid, scope, plan.workspace, plan.labels)
                _write(writer, wanted.output, progress)
            finally:
                progress.end()
            work.remove()
    out.write(_what_next(plan, wanted.output))


# -- what is asked for ------------------------------------------------------------------------------------------------


def _workspace(config: Config, name: str | None) -> WorkspaceConfig:
    names = [workspace.name for workspace in config.workspaces]
    if name is None and len(names) > 1:
        raise ConfigError(f"--workspace: expected one of {', '.join(names)}")
    found = next((workspace for workspace in config.workspaces if name in (None, workspace.name)), None)
    if found is None:
        raise ConfigError(f"--workspace: expected one of {', '.join(names)}")
    return found


def make_plan(config: Config, workspace: WorkspaceConfig, wanted: Wanted) -> Plan:
    """The plan of a backfill: it ends where the live series go on, and counts from where they count.  Raises `ConfigError`."""
    start = moment("--from", wanted.start)
    keys = Scope(workspace).keys
    try:
        known = look(config.storage.path, lambda view: _entries(view, workspace.name)) if config.storage.path.exists() else {}
    except StoreError as error:
        raise ConfigError(f"--storage.path: {error}") from error
    entries = {key: known[key] for key in keys if key in known}
    since = {key: entry.since for key, entry in entries.items()}
    from_now_on = config.poll.since == "start"
    # Counters that catch up with the past rise by it: the present's curve begins where they have.
    joins = since.values() if from_now_on else [entry.whole for entry in entries.values() if entry.whole is not None]
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
    # Where nothing has been counted yet: as the exporter would that is told to count from there.
    otherwise = micros(config.poll.since) if isinstance(config.poll.since, datetime) else start
    return Plan(
        workspace=workspace.name,
        start=start,
        end=end,
        step=step,
        since=since,
        otherwise=otherwise,
        rooms=keys,
        labels=_labels(wanted.labels),
        most_rooms=config.limits.max_rooms,
        expiry=config.limits.room_idle_expiry,
    )


def _entries(view: StateView, workspace: str) -> dict[str, Entry]:
    return {row[1]: Entry(*row[2:]) for row in view.rows("entry", "workspace = ?", (workspace,))}


def moment(option: str, text: str, *, end: bool = False) -> int:
    """A day in UTC, its end when it is an `end`, or an RFC 3339 time; in µs.  Raises `ConfigError`."""
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
    seconds = values.duration("1s", "5m")(values.Value(YamlScalar(text, plain=False), "", "--step"))
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
            raise ConfigError(f"--label: expected each label once, and none of the exporter's own, found {name}")
        labels[name] = value
    return labels


def _same_as_before(work: Work, plan: Plan, output: Path) -> None:
    before, now = work.noted("plan"), msgspec.json.encode(plan)
    if before and before != now:
        raise ConfigError(f"--output: {work.path} is left of another backfill; give the same options again, or remove it")
    if not before:
        _part(output).unlink(missing_ok=True)
        work.note(plan=now)


# -- the passes -------------------------------------------------------------------------------------------------------


def _read(config: Config, workspace: WorkspaceConfig, plan: Plan, work: Work, scope: Scope, progress: Progress) -> None:
    if work.noted("read"):
        return
    api = Api(config.api, workspace.credentials, Unobserved())
    client = api.client()
    span = plan.span
    calls = len(tasks(span, scope))
    event(
        "info",
        "reading sessions",
        **{"from": rfc3339(span.first, 0), "to": rfc3339(span.last, 0)},
        calls=f"{calls:,} or more",
        about=f"{spell(calls / config.api.max_requests_per_second)} or more",
    )
    try:
        _refuse_the_last_hours(client, api, plan)
        progress.begin("reading sessions")
        rejected = read_sessions(work, client, api, span, scope, roles_seen(config.storage.path, plan.workspace), progress.tell)
        progress.begin("reading names of rooms")
        read_rooms(work, client, span, scope, progress.tell)
    finally:
        client.close()
        api.stop()
    if rejected:
        event("warn", "records that made no sense were left out", records=rejected)
    work.note(read=b"1")


def _refuse_the_last_hours(client: Client, api: Api, plan: Plan) -> None:
    next(client.pages("/sessions", {"active": "true"}, Patience(float("inf"))), None)  # the first answer tells the API's time
    if plan.end > api.now() - _HEAD:
        raise ConfigError(
            f"--to: expected a time more than three hours ago, found {rfc3339(plan.end, 0)}: Prometheus still writes to the last hours;"
            f" try again after {rfc3339(plan.end + _HEAD, 0)}"
        )


def _arrange(config: Config, plan: Plan, work: Work, scope: Scope, progress: Progress) -> None:
    if work.noted("arranged"):
        return
    count = work.session_count()
    event("info", "sessions read", sessions=count)
    progress.begin("putting them in order")
    arrange(work, scope, config.limits, Since(plan.since, plan.otherwise), plan.grid, lambda done: progress.tell(done, count))
    work.note(arranged=b"1")


def _write(writer: Writer, output: Path, progress: Progress) -> None:
    forecast = writer.forecast()
    _foretell(forecast, output)
    part = _part(output)
    progress.begin("writing")
    writer.write(part, lambda size: progress.tell(size, forecast.size))
    part.rename(output)


def _foretell(forecast: Forecast, output: Path) -> None:
    event(
        "info",
        "writing",
        series=forecast.series,
        samples=forecast.samples,
        size=f"{forecast.size / 1e6:,.0f} MB",
        about=spell(forecast.samples / _SAMPLES_A_SECOND),
    )
    free = shutil.disk_usage(output.parent).free
    if forecast.size > free + (_part(output).stat().st_size if _part(output).exists() else 0):
        raise BackfillError(
            f"{output}: it would take some {forecast.size / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free;"
            " make room and run the same command again, or take a shorter range or a longer --step"
        )


def _part(output: Path) -> Path:
    return output.with_name(f"{output.name}.part")


@contextmanager
def _errors(output: Path) -> Iterator[None]:
    """What went wrong, in words, and what to do: nothing that has been read is lost."""
    again = "run the same command again to go on from here"
    try:
        yield
    except (ApiError, StoreError) as error:
        raise BackfillError(f"{error}; {again}") from error
    except KeyboardInterrupt:
        raise BackfillError(f"interrupted; {again}") from None
    except sqlite3.OperationalError as error:
        reason = "another backfill uses it" if "locked" in str(error) else str(error)
        raise BackfillError(f"{output}.work: {reason}") from error
    except sqlite3.DatabaseError as error:
        raise BackfillError(f"{output}.work: {error}; remove it to begin anew") from error
    except OSError as error:
        raise BackfillError(f"{output}: {error.strerror or error}; {again}") from error


# -- what next --------------------------------------------------------------------------------------------------------


def block_hours(micros: int) -> int:
    """The block duration to give to promtool for a range so long."""
    return next((hours for hours in _BLOCKS if micros <= _MOST_BLOCKS * hours * HOUR), _BLOCKS[-1])


def _what_next(plan: Plan, output: Path) -> str:
    hours = block_hours(plan.end - plan.start)
    return (
        f"{output}: {output.stat().st_size / 1e6:,.0f} MB, from {rfc3339(plan.start, 0)} to {rfc3339(plan.end, 0)}.\n"
        f"Give it to Prometheus, which may be running; its retention must reach back to the beginning:\n"
        f"  promtool tsdb create-blocks-from openmetrics --max-block-duration={hours}h {output} <Prometheus's data folder>\n"
    )
