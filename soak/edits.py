"""Edits the configuration again and again: it asks for the same rooms in other words, which must not change the counts.

Sometimes the meeting rooms are taken out for a while, or the workspace gets another name and then its own again.  Sessions of
that time must be counted once the rooms or the name are back.  Counts under the other name are compared with the truth too.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from exporter.config.config import LimitsConfig, RoomById, RoomsByName
from exporter.times import MINUTE, SECOND
from lab.bench import NAME, Bench, Rooms, Since, since_moment
from soak.account import Account
from soak.life import Life

_GOOD_POLLS = 8
_QUIET = 10 * MINUTE
"""An ended session is read once more two minutes after its end."""
_ABOUT = 15 * SECOND

_STANDING = ("standing-.*", "standing-[0-9]+", ".*ing-[0-5]", "s.*")
_MEETINGS = ("meeting-.*", "m.*", ".*eeting-[0-9]+", "(meeting|standing)-.*")
_SECOND_CHANCE = 0.02
"""The probability, per poll, that the meeting rooms come back after they were taken out."""


class OtherName:
    """A temporary name of the workspace, and the series under it.

    Its counting begins with its first poll, by the `since` of that moment.  Sessions that ended within seconds of the beginning
    are left out: whether they count depends on which poll first got an answer.
    """

    def __init__(self, name: str, since: Since) -> None:
        self.name = name
        self._since = since
        self._first = self._last = 0
        """The times of its first poll and of its first successful poll."""
        self._polls = 0
        """Successful polls in a row, without a pause."""
        self._polled = 0

    def check(self, account: Account, life: Life, found: Mapping[str, float], now: int) -> int:
        """Compares the page after a poll with the truth about quiet rooms, once polls have succeeded for a while.

        Returns the number of rooms.
        """
        up, ratio = (found[f'{name}{{workspace="{self.name}"}}'] for name in ("hms_up", "hms_exporter_catch_up_ratio"))
        self._first = self._first or now
        paused = now - self._polled > _QUIET  # after a pause, new rooms wait for their names until the next poll
        self._polls, self._polled = self._polls + 1 if up == ratio == 1 and not paused else 0, now
        self._last = self._last or (now if up == 1 else 0)
        if self._polls >= _GOOD_POLLS:
            before = account.rooms
            earliest, latest = since_moment(self._since, self._first - _ABOUT), since_moment(self._since, self._last + _ABOUT)
            account.hold(found, life.truth_of_quiet(now, _QUIET, earliest, latest))
            account.hold_rooms(found, life.room_ids)
            return account.rooms - before
        return 0


class Edits:
    """Edits the configuration of a bench: by reload, by restart, and by a reload that a kill interrupts."""

    def __init__(self, rng: random.Random, life: Life) -> None:
        self.made = 0
        self.other_names = 0
        """The number of other names so far; each is used once."""
        self.other: OtherName | None = None
        """The other name that it has now, if any."""
        self.all_followed = True
        """Whether every room is followed now, under the workspace's first name."""
        self._rng = rng
        self._life = life

    def maybe(self, bench: Bench, probability: float) -> None:
        """Makes an edit, with some probability."""
        rng = self._rng
        if rng.random() >= (probability if self.all_followed else _SECOND_CHANCE):
            return
        self.made += 1
        if self.other is not None:
            bench.watcher.forget_workspace(self.other.name)
            self.other = None
        name, meetings = NAME, True
        if self.all_followed and rng.random() < 0.2:
            self.other_names += 1
            name = f"{NAME}{self.other_names}"
        elif self.all_followed:
            meetings = rng.random() < 0.7
        self.all_followed = meetings and name == NAME
        rooms = self._entries(meetings=meetings)
        since: Since = rng.choice(("start", timedelta(days=3), datetime.fromtimestamp(bench.clock() // SECOND - 7200, UTC)))
        bench.config = replace(bench.config, poll=replace(bench.config.poll, since=since))
        limits = LimitsConfig(max_rooms=rng.choice((1000, 5000, 20_000)), room_idle_expiry=bench.config.limits.room_idle_expiry)
        how = rng.choice(("reload", "restart", "killed"))
        if how == "restart":
            bench.write(rooms, limits, name)
        else:
            bench.configure(rooms, limits, name)
        if how != "reload":
            bench.restart()
        if name != NAME:
            self.other = OtherName(name, since)
        if rng.random() < 0.3:
            self._life.rename(rng, bench.clock())

    def _entries(self, *, meetings: bool) -> Rooms:
        rng = self._rng
        if meetings and rng.random() < 0.2:
            return None
        standing = [RoomById(room_id) for room_id in self._life.standing]
        entries: list[RoomById | RoomsByName] = list(standing) if rng.random() < 0.5 else []
        if not entries or rng.random() < 0.3:
            entries += [RoomsByName(re.compile(pattern)) for pattern in ("standing-.*", *rng.sample(_STANDING[1:], rng.randrange(3)))]
        if meetings:
            entries += [RoomsByName(re.compile(pattern)) for pattern in ("meeting-.*", *rng.sample(_MEETINGS[1:], rng.randrange(3)))]
        rng.shuffle(entries)
        return entries
