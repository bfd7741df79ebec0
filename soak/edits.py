"""The configuration is edited again and again, and what counts must not care: the same rooms, asked for in ever other words.

Now and then the meetings are taken out for a while: what passes meanwhile must be counted once they are back.
"""

from __future__ import annotations

import random
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from exporter.config.config import LimitsConfig, RoomById, RoomsByName
from exporter.times import SECOND
from lab.bench import Bench, Rooms
from soak.life import Life

Since = Literal["start"] | timedelta | datetime

_STANDING = ("standing-.*", "standing-[0-9]+", ".*ing-[0-5]", "s.*")
_MEETINGS = ("meeting-.*", "m.*", ".*eeting-[0-9]+", "(meeting|standing)-.*")
_SECOND_CHANCE = 0.02
"""How likely it is, with each poll, that the meetings come back once they have been taken out."""


class Edits:
    """Somebody who edits the configuration of a bench: by reload, by restart, and by a reload into which a kill comes."""

    def __init__(self, rng: random.Random, life: Life) -> None:
        self.made = 0
        self.all_followed = True
        """Whether every room is asked for now."""
        self._rng = rng
        self._life = life

    def maybe(self, bench: Bench, probability: float) -> None:
        """An edit, perhaps."""
        rng = self._rng
        if rng.random() >= (probability if self.all_followed else _SECOND_CHANCE):
            return
        self.made += 1
        self.all_followed = not self.all_followed or rng.random() < 0.7
        rooms = self._entries()
        since: Since = rng.choice(("start", timedelta(days=3), datetime.fromtimestamp(bench.clock() // SECOND - 7200, UTC)))
        bench.config = replace(bench.config, poll=replace(bench.config.poll, since=since))
        limits = LimitsConfig(max_rooms=rng.choice((1000, 5000, 20_000)), room_idle_expiry=bench.config.limits.room_idle_expiry)
        how = rng.choice(("reload", "restart", "killed"))
        if how == "restart":
            bench.workspace = replace(bench.workspace, rooms=None if rooms is None else tuple(rooms))
            bench.config = replace(bench.config, workspaces=(bench.workspace,), limits=limits)
        else:
            bench.configure(rooms, limits)
        if how != "reload":
            bench.restart()
        if rng.random() < 0.3:
            self._life.rename(rng, bench.clock())

    def _entries(self) -> Rooms:
        rng = self._rng
        if self.all_followed and rng.random() < 0.2:
            return None
        standing = [RoomById(room_id) for room_id in self._life.standing]
        entries: list[RoomById | RoomsByName] = list(standing) if rng.random() < 0.5 else []
        if not entries or rng.random() < 0.3:
            entries += [RoomsByName(re.compile(pattern)) for pattern in ("standing-.*", *rng.sample(_STANDING[1:], rng.randrange(3)))]
        if self.all_followed:
            entries += [RoomsByName(re.compile(pattern)) for pattern in ("meeting-.*", *rng.sample(_MEETINGS[1:], rng.randrange(3)))]
        rng.shuffle(entries)
        return entries
