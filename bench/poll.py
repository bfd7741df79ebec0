"""The CPU of a poll of running sessions, from the bytes of the answers to finished pages, including the transaction."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, generate_latest

from bench.report import Row, cpu, medians
from bench.rig import Rig
from bench.scrape import fill, publish
from bench.servers import Aside
from bench.traffic import Traffic
from exporter.times import SECOND

_GOAL = 2_000


class _Peer(msgspec.Struct, gc=False):
    joined_at: datetime
    left_at: datetime | None = None
    role: str | None = None
    user_id: str | None = None


class _Session(msgspec.Struct, gc=False):
    id: str
    room_id: str
    created_at: datetime
    updated_at: datetime
    active: bool
    peers: dict[str, _Peer]


class _Page(msgspec.Struct):
    data: list[_Session]


_decode = msgspec.json.Decoder(_Page).decode


def run(*, quick: bool) -> list[Row]:
    """Polls in which every session changed, and in which a tenth did."""
    whole_against_decode, whole_against_plain, tenth = [], [], []
    for sessions in (10, 20, 50) if quick else (200, 600, _GOAL):
        found, series = _measure(sessions)
        size = f"{sessions:,} sessions, {sessions * 50:,} peers, {series:,} series"
        at_goal = sessions == _GOAL
        ours = found["everything"]
        row = Row("a poll, everything changed", size, "s", ours, "bare typed decode", found["bare"], sessions)
        whole_against_decode.append(row.judged("3 times the decode", met=ours <= 3 * found["bare"], at=at_goal))
        row = Row("the same poll", size, "s", ours, "plain exporter", found["plain"], sessions)
        whole_against_plain.append(row.judged("60 % of plain's", met=ours <= 0.6 * found["plain"], at=at_goal))
        row = Row("a poll, a tenth changed", size, "s", found["a tenth"], "plain exporter", found["plain"], sessions)
        tenth.append(row.judged("250 ms", met=found["a tenth"] <= 0.25, at=at_goal))
    reuse = [
        Row(f"what is reused, {sessions:,} sessions", f"{share} changed", "s", found[share], "everything changed", ours)
        for share in ("nothing", "a tenth", "half")
    ]
    return whole_against_decode + whole_against_plain + tenth + reuse


def _measure(sessions: int) -> tuple[dict[str, float], int]:
    """The CPU seconds of each compared way, and the number of published series."""
    traffic = Traffic(sessions)
    with tempfile.TemporaryDirectory() as folder, Aside(_plain, sessions) as plain, Aside(_bare, sessions) as bare:
        rig = Rig(Path(folder), traffic, time.time_ns() // 1000)
        rig.bodies = traffic.pages()
        rig.poll()

        def poll(share: float) -> float:
            traffic.change(share, rig.now + SECOND)
            rig.bodies = traffic.pages()
            return cpu(rig.poll_and_compress)()

        runs: dict[str, Callable[[], float]] = {
            "everything": lambda: poll(1),
            "bare": bare,
            "plain": plain,
            "a tenth": lambda: poll(0.1),
            "half": lambda: poll(0.5),
            "nothing": lambda: poll(0),
        }
        found = medians(runs, 5)
        series = rig.series()
        rig.close()
    return found, series


def _bare(sessions: int) -> Callable[[], float]:
    """Only decodes the same bytes into typed records."""
    bodies = Traffic(sessions).pages()
    return cpu(lambda: [_decode(body) for body in bodies])


def _plain(sessions: int) -> Callable[[], float]:
    """The plain exporter's poll of the same sessions, and one rendering of its page."""
    traffic, registry = Traffic(sessions), CollectorRegistry()
    plain = fill(registry, traffic)
    bodies = [traffic.of_room(number) for number in range(sessions)]

    def poll() -> None:
        publish(plain, bodies)
        generate_latest(registry)

    return cpu(poll)
