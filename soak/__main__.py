"""`python -m soak`: runs an endurance test and reports what was lost, doubled or leaked."""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from exporter import logs
from soak import failovers
from soak.account import Findings
from soak.days import Days, Footprint, live
from soak.failovers import Failovers
from soak.kills import Kills, campaign


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one test; returns 0 if all counters equalled the truth, none fell, and nothing grew."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--days", type=float, metavar="N", help="simulated days to live (default: as many as fit into --hours)")
    parser.add_argument("--hours", type=float, default=1.0, metavar="H", help="real hours at most (default: 1)")
    parser.add_argument("--kills", type=int, metavar="N", help="instead: kill the real program this many times")
    parser.add_argument("--failovers", type=int, metavar="N", help="instead: break a pair on a real PostgreSQL this many times")
    parser.add_argument("--seed", type=int, metavar="S", help="seed of the random numbers (default: a new one)")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else random.randrange(1_000_000)  # noqa: S311 (the number makes the run repeatable)
    logs.set_up("error", "logfmt")
    _say(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="hms-soak-") as folder:
        if options.kills is not None:
            return _report_kills(campaign(Path(folder), options.kills, seed, _say))
        if options.failovers is not None:
            return _report_failovers(failovers.campaign(Path(folder), options.failovers, seed, _say))
        days = options.days if options.days is not None else 36_500.0
        return _report_days(live(Path(folder), days, seed=seed, hours=options.hours, tell=_say))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _report_days(result: Days) -> int:
    _say(
        f"\n{result.days:.1f} simulated days in {result.lasted / 60:.1f} minutes: {result.polls} polls ({result.failed} failed),"
        f" {result.restarts} restarts, {result.edits} edits, {result.sessions} sessions in {result.rooms} rooms\n"
        f"{result.other_names} other names of the workspace, under which {result.held} rooms were compared with the truth\n"
    )
    _say(f"{'':26}{'at the start':>14}{'after a day':>14}{'at the end':>14}")
    for name, field in (("memory", "memory"), ("state file and log", "state"), ("descriptors", "descriptors"), ("threads", "threads")):
        _say(f"{name:26}" + "".join(f"{_figure(footprint, field):>14}" for footprint in (result.start, result.first, result.last)))
    grown = result.last.grown(result.first)
    if grown:
        _say(f"grown by more than chance: {', '.join(grown)}")
    return int(_verdict(result.findings, result.falls) or bool(grown))


def _report_kills(result: Kills) -> int:
    _say(
        f"\n{result.kills} kills in {result.lasted / 60:.1f} minutes, {result.reloads} of them during a reload:"
        f" {result.sessions} sessions, {result.scrapes} scrapes\n"
    )
    return _verdict(result.findings, result.falls)


def _report_failovers(result: Failovers) -> int:
    _say(
        f"\n{len(result.take_overs)} events in {result.lasted / 60:.1f} minutes: {result.sessions} sessions,"
        f" {result.scrapes} scrapes that showed workspaces\n"
    )
    _say(f"{'seconds until published':26}{'events':>8}{'median':>8}{'most':>8}")
    for kind in (*failovers.KINDS, "all"):
        took = [seconds for of, seconds in result.take_overs if kind in (of, "all")]
        if took:
            _say(f"{kind:26}{len(took):>8}{statistics.median(took):>8.2f}{max(took):>8.2f}")
    beside = {"times that both published": result.both_published, "times that both polled": result.both_polled}
    if result.resets is not None:
        beside["resets in Prometheus"] = round(result.resets)
    for name, value in beside.items():
        _say(f"{name:26}{value:>14g}")
    slow = any(seconds >= failovers.PROMISED for _, seconds in result.take_overs)
    return int(_verdict(result.findings, result.falls) or any(beside.values()) or slow)


def _verdict(findings: Findings, falls: list[str]) -> int:
    for name, value in (
        ("seconds lost", findings.lost),
        ("seconds counted twice", findings.doubled),
        ("rooms with wrong counts", findings.wrong_counts),
        ("rooms with wrong roles", findings.wrong_roles),
        ("wrong histogram series", findings.wrong_distributions),
        ("counters seen to fall", len(falls)),
    ):
        _say(f"{name:26}{value:>14g}")
    for fall in falls[:10]:
        _say(f"  {fall}")
    return int(findings != Findings() or bool(falls))


def _figure(footprint: Footprint, field: str) -> str:
    value: int = getattr(footprint, field)
    return f"{value / 2**20:.1f} MiB" if field in ("memory", "state") else str(value)


if __name__ == "__main__":
    sys.exit(main())
