"""Turns beginnings and ends into the samples of a series, step by step.  Pure.

Moments are microseconds, steps are whole seconds.  Values are for *runs*: ranges of steps at which nothing changed.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from exporter.counting.accounts import Histogram
from exporter.times import SECOND

_PIECE = 5000
"""The maximum number of steps in a range, so that a run's samples fit into memory."""


class Event(NamedTuple):
    """A beginning (`change` 1) or an end (-1): it takes effect at `at`, and time counts from or to `moment`.

    The two differ for records that reach beyond their session.  `user` distinguishes users.  `number` is 0 for a role change, which
    is neither a join nor a leave.
    """

    at: int
    change: int
    moment: int
    user: int | None = None
    number: int = 1


class Base(NamedTuple):
    """The part that the live counters leave out: numbers of beginnings and ends, and time in µs."""

    number: int
    micros: int


class Tally(NamedTuple):
    """A series' sums: time is `micros + active * now`."""

    began: int
    ended: int
    micros: int
    active: int

    def at(self, step: int) -> int:
        """The sum of time by a step, in µs."""
        return self.micros + self.active * step * SECOND


class Grid(NamedTuple):
    """The steps of a backfill, in seconds: multiples of `step` from `start` (inclusive) to `end` (exclusive), both in µs."""

    start: int
    end: int
    step: int

    def steps(self, spans: Iterable[tuple[int, int]]) -> list[range]:
        """The steps at which a series is shown that exists from each first to each last moment (µs, in order), in pieces.

        The step before its beginning is included, because `increase()` counts a series' first rise only if there is an earlier value.
        """
        low, high = self._up(-(-self.start // SECOND)), -(-self.end // SECOND)
        pieces = []
        for first, last in spans:
            # A step that ends one span and precedes the next must not come twice.
            begin = max(low, (first - 1) // (self.step * SECOND) * self.step)
            end = min(high, last // SECOND + 1)
            pieces += [range(at, min(end, at + _PIECE * self.step), self.step) for at in range(begin, end, _PIECE * self.step)]
            low = max(low, self._up(end))
        return pieces

    def _up(self, seconds: int) -> int:
        return -(-seconds // self.step) * self.step


def tallies(events: Iterable[Event], base: Base, steps: Iterable[range]) -> Iterator[tuple[range, Tally]]:
    """The sums of these events, which must be in order of time."""
    began, ended, micros, active = -base.number, -base.number, -base.micros, 0
    upcoming = iter(events)
    event = next(upcoming, None)
    for stretch in steps:
        step = stretch.start
        while step < stretch.stop:
            now = step * SECOND
            while event is not None and event[0] <= now:
                if event[1] > 0:
                    began += event[4]
                    active += 1
                    micros -= event[2]
                else:
                    ended += event[4]
                    active -= 1
                    micros += event[2]
                event = next(upcoming, None)
            until = stretch.stop if event is None else min(stretch.stop, step + steps_to(event[0] - now, stretch.step))
            yield range(step, until, stretch.step), Tally(began, ended, micros, active)
            step = until


def peaks(events: Iterable[Event], steps: Iterable[range]) -> Iterator[tuple[range, int]]:
    """The highest number at one moment since the previous step; at the same moment, ends come first."""
    upcoming = iter(events)
    event = next(upcoming, None)
    count = 0
    for stretch in steps:
        step = stretch.start
        while step < stretch.stop:
            now = step * SECOND
            while event is not None and event[0] <= now - stretch.step * SECOND:
                count += event[1]
                event = next(upcoming, None)
            most = count
            while event is not None and event[0] <= now:
                count += event[1]
                most = max(most, count)
                event = next(upcoming, None)
            yield range(step, step + stretch.step, stretch.step), most
            step += stretch.step
            until = stretch.stop if event is None else min(stretch.stop, step + steps_to(event[0] - step * SECOND, stretch.step))
            if until > step:
                yield range(step, until, stretch.step), count
                step = until


def users(events: Iterable[Event], steps: Iterable[range]) -> Iterator[tuple[range, int]]:
    """The number of distinct users."""
    upcoming = iter(events)
    event = next(upcoming, None)
    there: Counter[int] = Counter()
    for stretch in steps:
        step = stretch.start
        while step < stretch.stop:
            now = step * SECOND
            while event is not None and event[0] <= now:
                if event.user is not None:
                    there[event.user] += event.change
                    if not there[event.user]:
                        del there[event.user]
                event = next(upcoming, None)
            until = stretch.stop if event is None else min(stretch.stop, step + steps_to(event[0] - now, stretch.step))
            yield range(step, until, stretch.step), len(there)
            step = until


def oldest_starts(sessions: Iterable[tuple[int, int | None]], steps: Iterable[range]) -> Iterator[tuple[int, int]]:
    """At each step with a running session, the start of the longest-running one; the sessions must be in order of their starts."""
    upcoming = iter(sessions)
    session = next(upcoming, None)
    running: deque[tuple[int, int | None]] = deque()
    for stretch in steps:
        for step in stretch:
            now = step * SECOND
            while session is not None and session[0] <= now:
                running.append(session)
                session = next(upcoming, None)
            while running and running[0][1] is not None and running[0][1] <= now:
                running.popleft()
            if running:
                yield step, running[0][0]


def histograms(
    observations: Iterable[tuple[int, int]], start: Histogram, scale: int, steps: Iterable[range]
) -> Iterator[tuple[range, Sequence[int], int]]:
    """Cumulative buckets and their sum, of (moment, value) in order of time, beginning with the values of `start`."""
    upcoming = iter(observations)
    observation = next(upcoming, None)
    for stretch in steps:
        step = stretch.start
        while step < stretch.stop:
            now = step * SECOND
            while observation is not None and observation[0] <= now:
                start.observe(observation[1], scale)
                observation = next(upcoming, None)
            cumulative, count = [], 0
            for observed in start.counts:
                count += observed
                cumulative.append(count)
            until = stretch.stop if observation is None else min(stretch.stop, step + steps_to(observation[0] - now, stretch.step))
            yield range(step, until, stretch.step), cumulative, start.total
            step = until


def steps_to(micros: int, step: int) -> int:
    """The seconds to the first step that is at least `micros` away."""
    return max(0, -(-micros // (step * SECOND)) * step)
