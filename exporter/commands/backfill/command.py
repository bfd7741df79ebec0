"""The subcommand: its flags, the forecast of its cost, and the three passes in order."""

from __future__ import annotations

import argparse
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TextIO

import msgspec

from exporter.commands.backfill.arrange import Since, arrange
from exporter.commands.backfill.gather import read_rooms, read_sessions, tasks
from exporter.commands.backfill.jobs import Reader
from exporter.commands.backfill.plan import Plan, Wanted, make_plan, workspace_of
from exporter.commands.backfill.progress import Progress, spell
from exporter.commands.backfill.seen import roles_seen
from exporter.commands.backfill.work import JobRow, SessionRow, Work
from exporter.commands.backfill.write import Forecast, Writer
from exporter.commands.options import CommandFailed, add_config_file, add_flags, load
from exporter.config.config import Config, ConfigError, WorkspaceConfig
from exporter.counting.scope import Scope
from exporter.hms.client import Api, Client
from exporter.hms.errors import ApiError
from exporter.hms.observer import Unobserved
from exporter.hms.pace import Patience
from exporter.logs import event, set_up
from exporter.state.soundness import StoreError
from exporter.times import HOUR, rfc3339

_HEAD = 3 * HOUR
"""The last three hours may overlap with the head block, which Prometheus is still writing (promtool's documentation)."""
_SAMPLES_A_SECOND = 1_500_000
_BLOCKS = (2, 6, 18, 54, 162, 486)
"""The possible lengths of a block in hours, which are Prometheus's own ranges."""
_MOST_BLOCKS = 16
"""The limit on blocks: promtool reads the whole file once for each."""


class BackfillError(CommandFailed):
    """The backfill could not be finished; the message says why, and that the same command continues where it stopped."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the command."""
    add_config_file(parser)
    add_flags(parser, "--storage.path", "--log.level", "--log.format")
    parser.add_argument("--from", dest="first", required=True, metavar="TIME", help="a day (UTC) or an RFC 3339 time")
    parser.add_argument("--to", dest="last", metavar="TIME", help="a day, inclusive, or a time (default: where the live series begin)")
    parser.add_argument("--workspace", metavar="NAME", help="the workspace, where the configuration has several")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the file to write")
    parser.add_argument("--step", metavar="DURATION", help="the time between two samples, 5m at most (default: poll.interval)")
    parser.add_argument(
        "--label", action="append", default=[], metavar="NAME=VALUE", help="a label for every series, such as job=hms; may be repeated"
    )


def run(options: argparse.Namespace) -> int:
    """Writes the file."""
    config = load(options)
    set_up(config.log.level, config.log.format)
    # From here on there is work to keep, and errors say so.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    backfill(config, Wanted(options.first, options.last, options.output, options.step, options.workspace, options.label))
    return 0


def backfill(config: Config, wanted: Wanted, out: TextIO = sys.stdout, err: TextIO = sys.stderr) -> None:
    """Writes the requested file.  Raises `ConfigError` or `BackfillError`."""
    workspace = workspace_of(config, wanted.workspace)
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
                writer = Writer(work, plan, scope)
                _write(writer, wanted.output, progress)
            finally:
                progress.end()
            work.remove()
    out.write(_what_next(plan, wanted.output))


def _same_as_before(work: Work, plan: Plan, output: Path) -> None:
    before, now = work.noted("plan"), msgspec.json.encode(plan)
    if before and before != now:
        raise ConfigError(f"--output: {work.path} belongs to another backfill; give the same options again, or remove it")
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
        rejected = 0
        reader = Reader(work, client, api, scope, config.storage, plan.workspace)
        for name in plan.unread:
            event("warn", "left out, because the exporter has not read any of them yet", collector=name)
        for jobs in plan.jobs:
            progress.begin(f"reading {jobs.name.replace('_', ' ')}")
            rejected += reader.leave_out(jobs, plan.start, progress.tell)
        progress.begin("reading sessions")
        rejected += read_sessions(work, client, api, span, scope, roles_seen(config.storage, plan.workspace), progress.tell)
        progress.begin("reading names of rooms")
        read_rooms(work, client, span, scope, progress.tell)
    finally:
        client.close()
        api.stop()
    if rejected:
        event("warn", "invalid records were left out", records=rejected)
    work.note(read=b"1")


def _refuse_the_last_hours(client: Client, api: Api, plan: Plan) -> None:
    next(client.pages("/sessions", {"active": "true"}, Patience(float("inf"))), None)  # the first answer gives the API's time
    if plan.last > api.now() - _HEAD:
        raise ConfigError(
            f"--to: expected a time more than three hours ago, found {rfc3339(plan.last, 0)}: Prometheus still writes to the last hours;"
            f" try again after {rfc3339(plan.last + _HEAD, 0)}"
        )


def _arrange(config: Config, plan: Plan, work: Work, scope: Scope, progress: Progress) -> None:
    if work.noted("arranged"):
        return
    count = work.count()
    event("info", "sessions, recordings and streams read", records=count)
    progress.begin("putting them in order")
    since = Since(plan.since, plan.rooms_since, plan.otherwise)
    kinds = {of.name: of for of in plan.jobs}

    def counts(found: SessionRow | JobRow, name: str) -> bool:
        if isinstance(found, JobRow):
            return kinds[found.kind].counts(found, name)
        return found.ended is None or found.ended > since.of(found.room_id, name)

    arrange(work, scope, config.limits, counts, plan.grid._replace(end=plan.last), lambda done: progress.tell(done, count))
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
    """Turns errors into messages that say what to do.  Nothing that has been read is lost."""
    again = "run the same command again to continue from here"
    try:
        yield
    except (ApiError, StoreError) as error:
        raise BackfillError(f"{error}; {again}") from error
    except KeyboardInterrupt:
        sys.stderr.write(f"hms-exporter: interrupted; {again}\n")
        raise
    except sqlite3.OperationalError as error:
        reason = "another backfill uses it" if "locked" in str(error) else str(error)
        raise BackfillError(f"{output}.work: {reason}") from error
    except sqlite3.DatabaseError as error:
        raise BackfillError(f"{output}.work: {error}; remove it to start over") from error
    except OSError as error:
        raise BackfillError(f"{output}: {error.strerror or error}; {again}") from error


# -- what next --------------------------------------------------------------------------------------------------------


def block_hours(micros: int) -> int:
    """The block duration for promtool, for a range of this length."""
    return next((hours for hours in _BLOCKS if micros <= _MOST_BLOCKS * hours * HOUR), _BLOCKS[-1])


def _what_next(plan: Plan, output: Path) -> str:
    hours = block_hours(plan.last - plan.start)
    return (
        f"{output}: {output.stat().st_size / 1e6:,.0f} MB, from {rfc3339(plan.start, 0)} to {rfc3339(plan.last, 0)}.\n"
        f"Give it to Prometheus, which may be running; its retention must reach back to the beginning:\n"
        f"  promtool tsdb create-blocks-from openmetrics --max-block-duration={hours}h {output} <Prometheus's data folder>\n"
    )
