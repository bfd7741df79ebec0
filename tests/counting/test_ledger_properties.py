"""Property tests: the counters equal an independent truth, whatever happens and in whatever order.

Random timelines (leaves recorded late, changes of role, ghosts, sessions that vanish) are polled at random moments.  Pages
fail and come twice, answers come late, and the process dies before and after its commits.  `Witness` computes the expected
counters at each moment from the whole history of answers.  The simulator's own script gives the expected totals at the end.
"""

from __future__ import annotations

import copy
import random
import sqlite3
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.counting.accounts import Histogram
from exporter.counting.contribution import room_account
from exporter.counting.coverage import MARGIN
from exporter.counting.poll import LOOKED_FOR, MISSED_FOR, SETTLED_AT_ONCE
from exporter.hms.records import Session as Record
from exporter.hms.records import decode_session
from exporter.simulator import Session, World, truth_of
from exporter.times import DAY, HOUR, SECOND
from lab.counters import settled, sums_of, true_sums
from tests.harness import MEMORY, T0, Counting, Series, published

ROLES = ("host", "guest", "viewer")
START = T0 + 15 * HOUR + 1800 * SECOND
"""Half an hour before midnight: most scripts cross it."""


# -- the expected counters ----------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """A record that was read, and the moment up to which its time counts."""

    record: Record
    credited: int


class Witness:
    """The expected counters, computed each time from all answers so far."""

    def __init__(self, since: int) -> None:
        self.since = since
        self.seen: dict[str, list[Seen]] = {}
        self.vanished: dict[str, int] = {}
        self.ends: dict[str, int] = {}
        """The time of the poll that first read a session's end."""
        self.final: set[str] = set()
        """Sessions that are not read again."""
        self.looked: set[str] = set()
        """Sessions that were read once more.  They are final at the end of the poll."""
        self.measured: dict[str, int] = {}
        """The peers of ended sessions as the histogram observes them: once, when the end is first read."""
        self.unknown: Counter[str] = Counter()
        self.published: dict[Series, int] = {}

    def see(self, record: Record, now: int) -> None:
        """Takes in a record."""
        history = self.seen.get(record.id)
        if history is None and record.ended is not None and record.ended <= self.since:
            return
        if record.id in self.final:
            return
        if record.id in self.vanished:
            del self.vanished[record.id]  # the session is back
            self.ends.pop(record.id)
        elif history is not None and history[-1].record.ended is not None and record.ended is None:
            return  # an answer from before the session's end
        self.unknown.pop(record.id, None)
        self.seen.setdefault(record.id, []).append(Seen(record, now if record.ended is None else record.ended))
        if record.ended is None:
            return
        first = self.ends.setdefault(record.id, now)
        late = now - record.ended > SETTLED_AT_ONCE if first == now else now >= record.ended + MARGIN
        if late:
            self.looked.add(record.id)

    def not_found(self, session_id: str, now: int) -> None:
        """Takes in that the API does not know this session."""
        if session_id in self.vanished:
            return
        if session_id in self.ends:
            self.looked.add(session_id)  # it had ended, and can no longer be read again
            return
        self.unknown[session_id] += 1
        if self.unknown[session_id] == 3:
            self.vanished[session_id] = max(self.seen[session_id][-1].credited, self.seen[session_id][-1].record.started)
            self.ends[session_id] = now

    def end(self, now: int) -> None:
        """Ends the poll: published = max(published before, the truth as known now)."""
        for session_id in self.ends.keys() - self.measured:
            self.measured[session_id] = len(self.seen[session_id][-1].record.stays)
        waited = {i for i, first in self.ends.items() if now - first > (MISSED_FOR if i in self.vanished else LOOKED_FOR)}
        self.final |= self.looked | waited
        for series, value in self.truth().items():
            self.published[series] = max(self.published.get(series, 0), value)

    def truth(self) -> Counter[Series]:
        """The truth as known now."""
        sums: Counter[Series] = Counter()
        for session_id, history in self.seen.items():
            record, credited = history[-1]
            ended = self.vanished.get(session_id, record.ended)
            room = record.room_id
            sums[Series(room, "", "started")] += 1
            sums[Series(room, "", "ended")] += ended is not None
            sums[Series(room, "", "seconds")] += (credited if ended is None else ended) - record.started
            for key, stay in record.stays.items():
                roles = [(seen.record.stays[key].role, seen.credited) for seen in history if key in seen.record.stays]
                left = stay.left if stay.left is not None else ended
                end = credited if left is None else max(left, stay.joined)
                sums[Series(room, roles[0][0], "joined")] += 1
                sums[Series(room, roles[-1][0], "left")] += left is not None
                begin = stay.joined
                for (role, until), (after, _) in pairwise(roles):
                    if role != after:
                        stop = min(max(until, begin), end)
                        sums[Series(room, role, "seconds")] += stop - begin
                        begin = stop
                sums[Series(room, roles[-1][0], "seconds")] += end - begin
        return sums


# -- events -------------------------------------------------------------------------------------------------------


def script(world: World, room_id: str, chance: random.Random) -> Session:
    """Scripts a session with peers of every kind, within an hour and a half around `START`."""
    grid = chance.choice((SECOND, 10 * SECOND, 1, 7_777_777))

    def moment(low: int, high: int) -> int:
        return min(high, low + chance.randrange(0, max(1, (high - low) // grid + 1)) * grid)

    started = moment(START - 2700 * SECOND, START + 2700 * SECOND)
    ended = moment(started, started + chance.choice((1, 40, 400, 4000)) * SECOND)
    call = world.open(room_id, at=started)
    for _ in range(chance.randrange(0, 5)):
        joined = moment(started, ended)
        someone = call.join(chance.choice(ROLES), at=joined)
        left = moment(joined, ended)
        for changed in sorted(moment(joined, left) for _ in range(chance.choice((0, 0, 1, 2)))):
            someone.change_role(chance.choice(ROLES), at=changed)
        if chance.random() < 0.75:
            late = chance.choice((0, 0, 60, 600)) * SECOND
            someone.leave(at=left, recorded_at=min(ended, left + late))
    call.close(at=ended)
    return call


class Play:
    """A world, and an exporter that meets random faults."""

    def __init__(self, chance: random.Random, folder: Path, *, since: int) -> None:
        self.chance = chance
        self.world = World("k", "s" * 32)
        self.rooms = [self.world.room(id=name).id for name in ("north", "south", "lost")]
        for room_id in self.rooms:
            for _ in range(chance.randrange(0, 4)):
                call = script(self.world, room_id, chance)
                if room_id == "lost" and chance.random() < 0.5:
                    call.vanish(call.created_at + chance.randrange(0, 1800 * SECOND))
        self.counting = Counting(folder / "state.db", since=since)
        self.witness = Witness(since)
        self.now = START
        self.answers: list[bytes] = []
        """All answers of the API."""

    def poll(self, *, trouble: float) -> None:
        """One poll.  `trouble` is the probability of each fault."""
        chance, counting = self.chance, self.counting
        before, answered = copy.deepcopy(self.witness), len(self.answers)
        counting.begin(self.now)
        known = [call for call in sorted(self.world.sessions, key=lambda call: call.order, reverse=True) if call.exists(self.now)]
        horizon = counting.ledger.coverage.horizon
        oldest = self.now - MARGIN if horizon is None else horizon
        running = [call for call in known if call.active(self.now)]
        ended = [call for call in known if not call.active(self.now) and call.created_at >= oldest]
        complete = True
        for listing in (running, ended):
            read = listing
            if chance.random() < trouble:
                read = listing[: chance.randrange(len(listing) + 1)]
                complete = False
            if chance.random() < trouble:
                read = [*read, *read[chance.randrange(len(read) + 1) :]]
            for call in read:
                self.see(call, trouble)
        if complete:
            for tracked in counting.now.missing():
                found = self.world.find_session(tracked.id, self.now)
                if found is not None:
                    self.see(found, trouble)
                elif tracked in counting.now.missing():  # no answer under way has shown it meanwhile
                    counting.now.unknown(tracked.id)
                    self.witness.not_found(tracked.id, self.now)
            self.look_again(trouble)
            counting.ledger.coverage.complete(self.now)
            for _ in list(counting.ledger.coverage.tasks):
                self.catch_up(known, trouble)
        if chance.random() < trouble:
            # The kill comes when everything is counted and nothing is stored.
            counting.assign()
            counting.now.finish(None, 0.0)
            self.witness = before
            del self.answers[answered:]  # late answers to the dead process do not reach the next one
            self.restart()
            return
        self.witness.end(self.now)
        counting.end(complete=False)
        assert counting.committed == self.expected()

    def catch_up(self, known: list[Session], trouble: float) -> None:
        """Reads more of the past, perhaps all of it."""
        coverage = self.counting.ledger.coverage
        unread = coverage.unread_spans(self.now)
        if not unread:
            return
        (first, last), tasks = unread[0]
        end = last if self.chance.random() >= trouble else (first + last) // 2
        for call in known:
            if not call.active(self.now) and first <= call.created_at <= end:
                self.see(call, trouble)
        coverage.has_read(tasks, first, end, self.now)

    def look_again(self, trouble: float) -> None:
        """Reads ended sessions that are due by their ids, unless a fault prevents it."""
        for tracked in self.counting.now.to_look_at():
            if self.chance.random() < trouble:
                continue
            tracked.tried = self.now
            found = self.world.find_session(tracked.id, self.now)
            if found is not None:
                self.see(found, trouble)
            elif tracked in self.counting.now.to_look_at() or tracked.vanished:
                self.counting.now.unknown(tracked.id)
                self.witness.not_found(tracked.id, self.now)

    def see(self, call: Session, trouble: float) -> None:
        """Reads the session's record, and perhaps an older answer after it."""
        self.answers.append(call.encoded(self.now))
        self.take(self.answers[-1])
        if self.chance.random() < trouble / 2:
            self.take(self.chance.choice(self.answers))

    def take(self, raw: bytes) -> None:
        """Hands an answer to the exporter and to the witness."""
        record, rejections = decode_session(raw, self.now)
        assert record is not None
        assert rejections == []
        self.counting.see(raw)
        self.witness.see(record, self.now)

    def restart(self) -> None:
        """Kills the process.  The next one must publish at once what this one published last."""
        self.counting.restart()
        accounts = self.counting.ledger.accounts.values()
        assert {key: value for key, value in published(accounts).items() if value} == {
            key: value for key, value in self.counting.committed.items() if value
        }

    def expected(self) -> dict[Series, int]:
        """The witness's value for every series."""
        return {series: self.witness.published.get(series, 0) for series in self.counting.committed}


def run(chance: random.Random, *, trouble: float, since: int, polls: int) -> None:
    """Plays, then lets everything end and compares with the script."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        play = Play(chance, Path(folder), since=since)
        last: dict[Series, int] = {}
        for number in range(polls + 5):
            quiet = number >= polls
            play.poll(trouble=0.0 if quiet else trouble)
            now_published = play.counting.committed
            assert all(now_published.get(series, 0) >= value for series, value in last.items())
            true_now = play.world.truth(play.now)
            for room_id in play.rooms if trouble == 0 else ():
                # No counter is ahead of the API's now. Only a late answer can make a session look longer than it was.
                assert now_published.get(Series(room_id, "", "seconds"), 0) <= true_now.session_us[room_id]
            last = now_published
            if chance.random() < trouble:
                play.restart()
            play.now += chance.choice((1, 5 * SECOND, 30 * SECOND, 300 * SECOND, 1_234_567))
            if number == polls - 1:
                play.now = START + 3 * HOUR
            if number == polls + 2:
                play.now += MISSED_FOR  # vanished sessions are not waited for any longer
        check_against_the_script(play)
        play.counting.close()


def check_against_the_script(play: Play) -> None:
    """The settled sums equal the script to the microsecond, after everything has ended and been read."""
    ledger = play.counting.ledger
    assert ledger.tracked == {}
    assert ledger.histograms.get(("session_peers", ""), Histogram(())).total == sum(play.witness.measured.values())
    truth = truth_of([call for call in play.world.sessions if call.closed_at and call.closed_at > play.witness.since], play.now)
    expected, sums = true_sums(truth), play.witness.truth()
    database = sqlite3.connect(play.counting.path)
    days = {(room, role, day): us for room, role, day, us in database.execute("SELECT room_id, role, day, us FROM day")}
    database.close()
    for room_id in play.rooms:
        account = ledger.accounts.get(room_account(room_id))
        roles = account.roles if account is not None else {}
        for role, totals in roles.items():
            of_days = sum(us for (room, of, _), us in days.items() if (room, of) == (room_id, role))
            assert of_days == totals.seconds == sums[Series(room_id, role, "seconds")]
            assert totals.published_seconds >= totals.seconds
        if room_id == "lost":
            continue
        if account is not None:
            assert settled(account) == expected.get(room_id, sums_of())
            assert account.totals.published == account.totals.counts
        else:
            assert room_id not in expected
        for day in range(START // DAY - 1, START // DAY + 3):
            of_script = sum(us for (room, _, on), us in truth.peer_us_by_day.items() if (room, on) == (room_id, day))
            assert sum(us for (room, _, on), us in days.items() if (room, on) == (room_id, day)) == of_script


seeds = st.integers(0, 2**32 - 1).map(random.Random)


@given(chance=seeds)
def test_undisturbed_counting_equals_the_script(chance: random.Random) -> None:
    run(chance, trouble=0.0, since=START, polls=15)


@settings(max_examples=settings().max_examples // 3)
@given(chance=seeds)
def test_failed_and_repeated_pages_late_answers_kills_and_restarts_change_nothing(chance: random.Random) -> None:
    run(chance, trouble=0.25, since=START - 900 * SECOND, polls=20)


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=4 * settings().max_examples)
@given(chance=seeds, trouble=st.sampled_from((0.05, 0.3, 0.6)), since=st.integers(START - 3600 * SECOND, START))
def test_many_more_misfortunes_change_nothing_either(chance: random.Random, trouble: float, since: int) -> None:
    run(chance, trouble=trouble, since=since, polls=30)


# -- gauges -------------------------------------------------------------------------------------------------------


def most_at_once(records: list[Record], since: int) -> int:
    """The most peers connected at once from then on, found by a check at each join."""
    stays = [(stay.joined, stay.left if stay.left is not None else record.ended) for record in records for stay in record.stays.values()]
    moments = [since, *(joined for joined, _ in stays if joined > since)]
    return max(sum(1 for joined, left in stays if joined <= moment and (left is None or moment < left)) for moment in moments)


@given(chance=seeds)
def test_gauges_equal_what_is_found_by_looking_at_every_record(chance: random.Random) -> None:
    """Sessions, peers by role, users, and the peak, found by brute force over the moments since the previous poll."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        play = Play(chance, Path(folder), since=START)
        before = play.now
        for _ in range(12):
            counting = play.counting
            counting.begin(play.now)
            known = [call for call in play.world.sessions if call.exists(play.now) and call.closed_at and call.closed_at > START]
            for call in known:
                counting.see(call.encoded(play.now))
            for tracked in counting.now.missing():
                counting.now.unread(tracked.id)
            counting.end()
            for room_id in play.rooms[:2]:
                records = [decode_session(call.encoded(play.now), play.now)[0] for call in known if call.room_id == room_id]
                running = [record for record in records if record is not None and record.ended is None]
                if room_account(room_id) not in counting.ledger.accounts:
                    assert records == []
                    continue
                gauges = counting.gauges(room_id)
                assert gauges.sessions == len(running)
                assert gauges.oldest_start == min((record.started for record in running), default=None)
                connected = Counter(stay.role for record in running for stay in record.stays.values() if stay.left is None)
                assert {role: count for role, count in gauges.peers.items() if count} == connected
                assert gauges.users == len(frozenset().union(*(users for record in running for users in record.users.values())))
                assert gauges.peak == most_at_once([record for record in records if record is not None], before)
            before = play.now
            if chance.random() < 0.2:
                play.restart()
            play.now += chance.choice((SECOND, 30 * SECOND, 300 * SECOND, 1_234_567))
        play.counting.close()
