"""The real program, killed at random moments while calls come and go in real time.

Half of the kills come in the middle of a reload or right after it.  Rooms are taken out and put back, and the workspace is
renamed.  `since` is a fixed time, so in the end everything must have been counted under each name.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from exporter.simulator import Fault, SimulatedApi, World, real_clock
from exporter.times import SECOND, rfc3339
from soak.account import Account, Findings, nothing, true_distributions, true_rooms
from soak.process import Exporter, Scraper

_ROOMS = 5
_LIFE = (0.02, 3.0)
"""Seconds from start to kill: some kills come before it listens, some a few polls later."""
_RELOAD = (0.0, 0.4)
"""Seconds from the request for a reload to the kill. A reload takes less than a tenth of a second."""
_CATCH_UP = 60.0
_NAMES = ("w", "renamed")
"""The names of the workspace, in turn or both at once."""


class Kills(NamedTuple):
    """The result of a campaign."""

    kills: int
    reloads: int
    """The number of kills during a reload."""
    sessions: int
    scrapes: int
    falls: list[str]
    findings: Findings
    lasted: float


class Scrapes(Protocol):
    """A scraper."""

    latest: dict[str, float]
    """The samples of the last page."""


def campaign(folder: Path, kills: int, seed: int = 1, tell: Callable[[str], None] = lambda line: None) -> Kills:
    """Starts and kills the exporter this many times, then lets it run until everything has ended and compares it with the truth."""
    rng = random.Random(seed)  # noqa: S311 (a repeatable campaign)
    began = time.monotonic()
    reloads = 0
    world = World("soak-key", "soak-secret-of-thirty-two-bytes-and-more")
    start = real_clock()
    rooms = [world.room(name=f"room-{index}", created_at=start - SECOND).id for index in range(_ROOMS)]
    with SimulatedApi([world], seed=seed) as api:
        exporter = Exporter(folder, api.base_url, world.access_key, world.secret, poll=f"{{interval: 1s, since: '{rfc3339(start, 3)}'}}")
        with Scraper(exporter) as scraper:
            try:
                for number in range(1, kills + 1):
                    script(world, rooms, rng)
                    api.faults.clear()
                    if rng.random() < 0.3:
                        api.faults.add(
                            rng.choice((Fault(kind="stall", seconds=0.5, probability=0.5), Fault(kind="reset", probability=0.3)))
                        )
                    if rng.random() < 0.2:
                        edit(exporter, rooms, rng)
                    exporter.start()
                    if rng.random() < 0.5:
                        reload(exporter, rooms, rng)
                        reloads += 1
                    else:
                        time.sleep(rng.uniform(*_LIFE))
                    exporter.kill()
                    time.sleep(rng.choice((0.0, 0.0, rng.uniform(0.0, 2.0))))
                    if number % 50 == 0:
                        tell(f"{number} kills, {scraper.watcher.pages} scrapes, {len(scraper.watcher.falls)} falls")
                api.faults.clear()
                exporter.configure(_NAMES)
                exporter.start()
                findings = until_all_is_counted(world, rooms, scraper, _NAMES)
            finally:
                exporter.kill()
    watcher = scraper.watcher
    return Kills(kills, reloads, len(world.sessions), watcher.pages, watcher.falls, findings, time.monotonic() - began)


def edit(exporter: Exporter, rooms: Sequence[str], rng: random.Random) -> None:
    """Another configuration: some or all rooms, in different forms, under one name of the workspace or both."""
    entries = [f"'{room}'" for room in rooms if rng.random() < 0.5]
    entries += [f"{{match: '{pattern}'}}" for pattern in ("room-.*", "room-[0-2]", ".*-[13]") if rng.random() < 0.3]
    rng.shuffle(entries)
    names = rng.choice((_NAMES[:1], _NAMES[1:], _NAMES))
    exporter.configure(names, f"[{', '.join(entries)}]" if entries else None)


def reload(exporter: Exporter, rooms: Sequence[str], rng: random.Random) -> None:
    """Edits the configuration some polls after the start and asks for a reload, which may not have ended on return."""
    deadline = time.monotonic() + _CATCH_UP
    while exporter.scrape() is None:
        assert time.monotonic() < deadline, "it does not answer"
        time.sleep(0.05)
    time.sleep(rng.uniform(0.0, _LIFE[1] / 2))
    edit(exporter, rooms, rng)
    if rng.random() < 0.5:
        exporter.signal(signal.SIGHUP)
    else:
        exporter.ask_to_reload()
    time.sleep(rng.uniform(*_RELOAD))


def script(world: World, rooms: Sequence[str], rng: random.Random) -> None:
    """Scripts calls for the next seconds: some shorter than a poll's interval, some longer than several runs of the exporter."""
    now = real_clock()
    with world.lock:
        for _ in range(rng.randrange(4)):
            session = world.open(rng.choice(rooms), now + rng.randrange(2 * SECOND))
            end = session.created_at + rng.choice((SECOND // 3, SECOND, 3 * SECOND, 12 * SECOND)) + rng.randrange(SECOND)
            for index in range(rng.randrange(5)):
                joined = rng.randrange(session.created_at, end)
                peer = session.join(rng.choice(("host", "guest")), joined)
                if index == 0:
                    peer.change_role("speaker", rng.randrange(joined, end))
                elif index != 1:
                    peer.leave(rng.randrange(joined, end + 1))
            session.close(end)


def until_all_is_counted(world: World, rooms: Sequence[str], scraper: Scrapes, names: Sequence[str] = _NAMES[:1]) -> Findings:
    """The remaining differences, under these names of the workspace, after everything has ended and could be counted."""
    over = max((session.closed_at or 0 for session in world.sessions), default=0)
    deadline = time.monotonic() + _CATCH_UP
    while True:
        time.sleep(0.2)
        late = time.monotonic() > deadline
        if real_clock() > over or late:
            findings = _findings(world, rooms, scraper.latest, names)
            if late or findings == Findings():
                return findings


def _findings(world: World, rooms: Sequence[str], found: dict[str, float], names: Sequence[str]) -> Findings:
    now = real_clock()
    truth = true_rooms(world.sessions, now)
    account = Account()
    for name in names:
        of_name = {series: value for series, value in found.items() if f'workspace="{name}"' in series}
        account.hold(of_name, {room: truth.get(room, nothing()) for room in rooms})
        account.hold_rooms(of_name, rooms)
        account.hold_distributions(of_name, true_distributions(world.sessions, now))
    return account.findings
