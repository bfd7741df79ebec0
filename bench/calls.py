"""Calls to 100ms per poll: the three most important cases, and the growth with rooms, running sessions and churn."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry

from bench.plain import PlainExporter
from bench.report import Row
from bench.traffic import SECRET
from exporter.config.config import LimitsConfig, RoomById
from exporter.simulator import Session, SimulatedApi, World, management_token, real_clock
from exporter.times import HOUR, MINUTE, SECOND
from lab.bench import Bench

_INTERVAL = 30 * SECOND
_POLLS = 8
"""Enough polls that the last ones include the second read, two minutes later, of sessions that ended in the first ones."""
_PAST = 10_000
"""Sessions of other rooms that ended within twelve hours, so that listings of ended sessions hold more than the followed rooms."""


def run(*, quick: bool) -> list[Row]:
    """Steady states with and without churn, beside one request (or two) for each room."""
    rows = [
        _row("calls a poll, three cases", 1000, 40, 0, goal=2, plain=True),
        _row("calls a poll, three cases", 1000, 40, 4, goal=6, plain=True),
        _row("calls a poll, three cases", 3, 4000, 0, goal=6, plain=True),
    ]
    if quick:
        return rows
    rows += [_row("calls by rooms", rooms, 10, 0, per=rooms, plain=True) for rooms in (10, 100, 1000)]
    rows += [_row("calls by running sessions", 5000, running, 0, per=running) for running in (40, 400, 4000)]
    return rows + [_row("calls by churn", 1000, 40, churn, goal=10 if churn == 32 else None, per=churn) for churn in (4, 8, 16, 32)]


def _row(work: str, rooms: int, running: int, churn: int, *, goal: int | None = None, per: int | None = None, plain: bool = False) -> Row:
    ours, theirs = _measure(rooms, running, churn, plain=plain)
    size = f"{rooms:,} rooms, {running:,} running" + (f", {churn} end and {churn} start" if churn else "")
    row = Row(work, size, "calls", ours, "plain exporter" if plain else "", theirs, per)
    return row if goal is None else row.judged(f"at most {goal}", met=ours <= goal)


def _measure(rooms: int, running: int, churn: int, *, plain: bool) -> tuple[int, int | None]:
    """The calls of a poll in the steady state: the exporter's (the most of several polls) and the plain exporter's."""
    now = real_clock()
    world = World("key", SECRET)
    for number in range(_PAST):
        at = now - 12 * HOUR * (number + 1) // _PAST
        _open(world, world.room().id, at).close(at + MINUTE)
    ids = [world.room(name=f"room-{number}").id for number in range(max(rooms, running + _POLLS * churn))]
    sessions = [_open(world, room, now - (10 + number % 60) * MINUTE) for number, room in enumerate(ids[:running])]
    configured = [RoomById(room) for room in ids[:rooms]]
    # The exporter's monotonic clock follows the scripted one. Otherwise the two would contradict each other, which costs a call.
    with tempfile.TemporaryDirectory() as folder, Bench(Path(folder), world, configured, now=now, limits=LimitsConfig()) as bench:
        bench.poll()
        # A poll reads names of rooms and the past only as far as its time allows. On a busy machine, thousands take several polls.
        while bench.poller.rooms_in_question() or bench.poller.status.catching_up is not None:
            bench.poll()
        dearest = 0
        for number in range(_POLLS if churn else 3):
            now += _INTERVAL
            bench.now = now
            for place in range(churn):
                # Not the newest sessions, which take fewer calls to find than most.
                sessions.pop(5).close(now - 20 * SECOND)
                sessions.append(_open(world, ids[running + number * churn + place], now - 10 * SECOND))
            dearest = max(dearest, _calls(bench.server, bench.poller.poll))
            assert bench.poller.status.reason is None, bench.poller.status.reason
        if not plain:
            return dearest, None
        other = PlainExporter(bench.server.base_url, management_token(world, now), dict.fromkeys(ids[:rooms], ""), CollectorRegistry())
        return dearest, _calls(bench.server, other.poll)


def _calls(api: SimulatedApi, poll: Callable[[], None]) -> int:
    api.clear()
    poll()
    return sum(api.calls.values())


def _open(world: World, room: str, at: int) -> Session:
    session = world.open(room, at)
    session.join("guest", at)
    return session
