"""Every counting decision, and nothing else: no socket, no file, no clock.

The idea.  A record holds a session's whole history, so what a session contributes to every counter is a pure function of
its record, of the roles its peers were seen to hold, and of now.  A series' *truth* is the sum of what ended sessions have
settled and of what running ones contribute; what is *published* is the highest truth so far.  There are no increments:
a page read twice, a poll that failed half-way, a restart or a kill cannot count anything twice or lose it.

What cannot be derived again from the API is in `Changes`, for the store to make durable before anything is published.

The words: a session belongs to an *account*, the owner of one set of series: a room, or a group of rooms.  It is assigned
one when it is first seen and keeps it for life, so that rooms may be renamed, regrouped or overflow without moving what has
been counted.  All times are the API's, in integer microseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from exporter.counting.accounts import HISTOGRAM_BOUNDS, AccountState, Gauges, Histogram, PeriodSums
from exporter.counting.contribution import Account, Memory, Past, Tracked, seconds_by_day
from exporter.hms.records import Session, Stay
from exporter.times import HOUR, SECOND, Calendar, calendar

LONGEST_SESSION = 12 * HOUR
"""100ms ends a session after this long."""
MARGIN = 2 * 60 * SECOND
"""How far listings reach back behind what has been read: for records that the API shows late."""
REACH_BACK = LONGEST_SESSION + HOUR
"""A session that ended after some moment did not start longer than this before it."""
UNKNOWN_POLLS = 3
"""Polls in a row that must not know a session before it is settled as vanished."""


class CatchUp(msgspec.Struct):
    """A stretch of the past that is still to be read: sessions that started from `frontier` on, up to `until`.

    `keys` are the entries of the configuration it is read for, `None` for all; `begin` is where `frontier` began; `until` is
    known once a poll has been complete.
    """

    keys: list[str] | None
    begin: int
    frontier: int
    until: int | None = None


class Entry(msgspec.Struct):
    """An entry of the configuration's rooms, and from when it counts.

    Sessions that had ended by `since` do not count, nor those that started before `read_before`: they were read when the
    entry was there before.  `left` is how far it had been read when it was taken out, `None` while it is in the configuration.
    `whole` is the time of the poll that had read everything that counts for the first time: from then on its series rise by
    the present alone.
    """

    since: int
    read_before: int = 0
    left: int | None = None
    whole: int | None = None


class Changes:
    """What must be durable before the state of the ledger may be published; it gathers until `Ledger.committed`."""

    def __init__(self) -> None:
        self.accounts: set[Account] = set()
        self.tracked: set[str] = set()
        self.untracked: set[str] = set()
        self.settled: dict[str, int] = {}
        self.days: defaultdict[tuple[Account, str, int, str], int] = defaultdict(int)
        """Microseconds to add, by account, room id, UTC day and role."""
        self.roles_seen: dict[str, Past] = {}
        """Of sessions that settled, and ran when an entry's series began to be whole: the earlier roles of their peers."""
        self.histograms: set[tuple[str, str]] = set()
        self.reading = False
        """Whether `entries` or `catch_ups` have changed."""


class Ledger:
    """One workspace's counters.

    A poll is `begin(now)`, then `see` or `see_unchanged` for what was read, `unknown` for what the API no longer knows,
    then `finish`; the caller stores `changes` and calls `committed`, and only then publishes.
    """

    def __init__(self) -> None:
        self.accounts: dict[Account, AccountState] = {}
        self.tracked: dict[str, Tracked] = {}
        self.settled: dict[str, int] = {}
        """Ended sessions that a listing may still show, with their start."""
        self.histograms: dict[tuple[str, str], Histogram] = {}
        self.now: int | None = None
        """The API's time at the last poll."""
        self.read_until: int | None = None
        """Everything that had started by then has been seen: the start of the last complete poll."""
        self.entries: dict[str, Entry] = {}
        self.catch_ups: list[CatchUp] = []
        self.unloaded: dict[str, PeriodSums] = {}
        """By role, what accounts that have left the memory settled in this day and month: no sum of usage may miss it."""
        self.changes = Changes()
        self._calendar: Calendar | None = None
        self._digests: dict[int, Tracked] = {}
        self._unassigned: dict[str, Tracked] = {}
        self._ended: dict[str, Tracked] = {}
        self._read: set[str] = set()
        self._windows: dict[Account, _Window] = {}
        self._window_start = 0

    # -- a poll ---------------------------------------------------------------------------------------------------

    def begin(self, now: int) -> None:
        """A poll begins, at the API's time `now`; nothing is credited beyond it."""
        previous = self.now
        self.now = now
        self._read = set()
        self._window_start = now if previous is None else previous
        if self.read_until is not None and self.read_until - MARGIN > now:
            # The API's clock was ahead, and what had been read by its word had not: as far as is remembered, it is read again.
            self.read_until = min(now, self.forgotten_before() or now) + MARGIN

    @property
    def horizon(self) -> int | None:
        """Listings of ended sessions need not reach back beyond this start; what started before it is settled or ignored."""
        return None if self.read_until is None else self.read_until - MARGIN

    def see_unchanged(self, digest: int) -> bool:
        """Whether a running session's record with this digest is the one last seen; if so, it counts as seen now."""
        tracked = self._digests.get(digest)
        if tracked is None or self.now is None:
            return False
        self._observe(tracked, self.now)
        return True

    def see(self, session: Session, key: str, digest: int | None = None) -> None:
        """A session's record has been read, running or ended; `key` is the configuration entry that its room is in.

        Seeing the same record again changes nothing.
        """
        now = self.now
        assert now is not None
        if session.id in self.settled:
            return
        tracked = self.tracked.get(session.id)
        if tracked is None:
            if session.ended is not None and not self._counts(session, key):
                return
            tracked = self._track(session, now)
        elif tracked.ended is not None and session.ended is None:
            return  # an answer from before its end
        else:
            self._renew(tracked, session)
        self._observe(tracked, now if session.ended is None else session.ended)
        if session.ended is not None:
            self._ended[tracked.id] = tracked
        tracked.users = session.users
        if tracked.digest is not None:
            self._digests.pop(tracked.digest, None)
        tracked.digest = digest if session.ended is None else None
        if tracked.digest is not None:
            self._digests[tracked.digest] = tracked
        if tracked.account is not None:
            self._window(tracked.account).look_at(tracked.id, session.stays.values(), session.ended)
        self.changes.tracked.add(tracked.id)

    def unknown(self, session_id: str) -> None:
        """The API does not know this session any more.  The third poll in a row settles it, ended when it was last seen."""
        tracked = self.tracked[session_id]
        if session_id in self._read:
            return
        self._read.add(session_id)
        self._fall_behind(tracked)
        tracked.unknown += 1
        self.changes.tracked.add(session_id)
        if tracked.unknown >= UNKNOWN_POLLS:
            tracked.update(tracked.recall(), max(tracked.observed, tracked.started))
            self._ended[tracked.id] = tracked

    def unread(self, session_id: str | None) -> None:
        """The session is there, but its record made no sense: it keeps what it had contributed."""
        if session_id is not None and session_id in self.tracked:
            self._read.add(session_id)
            self._fall_behind(self.tracked[session_id])

    def missing(self) -> list[Tracked]:
        """Sessions that were running and have not been seen in this poll."""
        return [tracked for tracked in self.tracked.values() if tracked.ended is None and tracked.id not in self._read]

    def unassigned_rooms(self) -> dict[str, int]:
        """Rooms with sessions that have no account yet, with the peers connected there now."""
        rooms: dict[str, int] = {}
        for tracked in self._unassigned.values():
            rooms[tracked.room_id] = rooms.get(tracked.room_id, 0) + tracked.connected
        return rooms

    def assign(self, room_id: str, account: Account | None) -> None:
        """The room's new sessions belong to this account from now on; `None`: they are none of ours, and are forgotten."""
        for tracked in [tracked for tracked in self._unassigned.values() if tracked.room_id == room_id]:
            del self._unassigned[tracked.id]
            if account is None:
                self._untrack(tracked)
                continue
            tracked.account = account
            state = self.open(account)
            state.sessions[tracked.id] = tracked
            state.touched = True
            self.changes.tracked.add(tracked.id)
            self._window(account).look_at(tracked.id, tracked.recall().stays.values(), tracked.ended)

    def finish(self, fresh: Iterable[Account] | None, at: float) -> None:
        """The poll has read what it could: settles what ended, and works out what is to be published.

        `fresh` are the accounts whose running sessions are all known as of now (`None`: every one); their gauges are
        renewed, `at` being the moment on the caller's clock.
        """
        now = self.now
        assert now is not None
        self.settle()
        for tracked in self.missing():
            self._fall_behind(tracked)
        rolled = self._calendar is not None and self._calendar != calendar(now)
        for state in self.accounts.values():
            if state.touched or state.sessions or state.held or rolled:
                self._publish(state)
        for account in list(self.accounts) if fresh is None else fresh:
            found = self.accounts.get(account)
            if found is not None:
                self._gauge(found, now, at)

    def settle(self) -> None:
        """Adds up the sessions that have ended, as far as their accounts are known."""
        ended = [tracked for tracked in self._ended.values() if tracked.account is not None]
        for tracked in ended:
            del self._ended[tracked.id]
            self._settle(tracked)

    def complete(self, begun_at: int) -> None:
        """The poll that began at this API time saw everything: what is older need never be listed again."""
        self.read_until = begun_at if self.read_until is None else max(self.read_until, begun_at)
        for catch_up in self.catch_ups:
            if catch_up.until is None:
                catch_up.until = begun_at
                self.changes.reading = True
        self.forget()

    def forget(self) -> None:
        """Lets go of the ended sessions that no answer can bring up again."""
        horizon = self.forgotten_before()
        if horizon is not None:
            self.settled = {session_id: started for session_id, started in self.settled.items() if started >= horizon}

    def committed(self) -> None:
        """The changes are durable."""
        self.changes = Changes()

    # -- what counts ----------------------------------------------------------------------------------------------

    def configure(self, keys: Iterable[str], since: int, now: int) -> None:
        """The configuration's entries, as of `now`.

        For a new one sessions that end after `since` count, and running ones whole; what has ended since then is read as a
        catch-up.  One that comes back goes on from where it was taken out.
        """
        keys = dict.fromkeys(keys)
        for key, entry in self.entries.items():
            if entry.left is None and key not in keys:
                entry.left = self.read_until if self.read_until is not None else self.oldest_read() or entry.read_before
                self.changes.reading = True
        new = []
        for key in keys:
            before = self.entries.get(key)
            if before is None or before.left is not None:
                self.entries[key] = Entry(since, before.left or 0 if before is not None else 0)
                new.append(key)
        if new:
            begin = max(since - REACH_BACK, min(self.entries[key].read_before for key in new))
            everything = self.read_until is None and not self.catch_ups
            self.catch_ups.append(CatchUp(None if everything else new, begin, begin))
            self.changes.reading = True

    def catch_up_gap(self, now: int, longest: int) -> None:
        """After a pause longer than `longest` µs the time between is read as a catch-up, beside the polls."""
        horizon = self.horizon
        if horizon is not None and now - horizon > longest:
            self.catch_ups.append(CatchUp(None, horizon, horizon))
            self.read_until = None
            self.changes.reading = True

    def caught_up(self, catch_up: CatchUp, frontier: int) -> None:
        """Everything of this catch-up that started before `frontier` has been seen."""
        catch_up.frontier = frontier
        self.changes.reading = True
        if catch_up.until is not None and frontier > catch_up.until:
            self.catch_ups.remove(catch_up)
            for key, entry in self.entries.items():
                if entry.whole is None and not any(other.keys is None or key in other.keys for other in self.catch_ups):
                    entry.whole = self.now
        self.forget()

    def oldest_read(self) -> int | None:
        """No ended session that started before this will be looked at again; `None` while nothing has been read yet."""
        starts = [catch_up.frontier for catch_up in self.catch_ups]
        if self.horizon is not None:
            starts.append(self.horizon)
        return min(starts, default=None)

    def forgotten_before(self) -> int | None:
        """Ended sessions that started before this are forgotten; `None` while nothing has been read yet.

        That is the rule by which ended ones are ignored, and as long again as a session may last: an answer that is out of date
        may show it running once more.
        """
        oldest = self.oldest_read()
        return None if oldest is None else oldest - REACH_BACK

    def _counts(self, session: Session, key: str) -> bool:
        """Whether an ended session that was never seen running is to be counted."""
        assert session.ended is not None
        entry = self.entries[key]
        if session.ended <= entry.since or session.started < entry.read_before:
            return False
        horizon = self.horizon
        if horizon is not None and session.started >= horizon:
            return True
        return any(
            session.started >= catch_up.frontier
            and (catch_up.until is None or session.started <= catch_up.until)
            and (catch_up.keys is None or key in catch_up.keys)
            for catch_up in self.catch_ups
        )

    # -- accounts -------------------------------------------------------------------------------------------------

    def open(self, account: Account) -> AccountState:
        """The state of an account, made when it is new; one that is stored must be restored first."""
        state = self.accounts.get(account)
        if state is None:
            state = self.accounts[account] = AccountState(account)
            self.changes.accounts.add(account)
        return state

    def close(self, account: Account) -> None:
        """An account without running sessions leaves the memory; what it has counted stays stored."""
        state = self.accounts[account]
        assert not state.sessions
        assert account not in self.changes.accounts
        del self.accounts[account]
        self._windows.pop(account, None)
        self._move_usage(state, 1)

    def restore(self, states: Iterable[AccountState]) -> None:
        """Accounts come back from the store; their `published_*` are what is held above the truth, 0 where nothing is."""
        restored = {state.account: state for state in states}
        for state in restored.values():
            self._move_usage(state, -1)
        for tracked in self.tracked.values():
            if tracked.account in restored:
                restored[tracked.account].sessions[tracked.id] = tracked
        for state in restored.values():
            self.accounts[state.account] = state
            state.touched = False
            self._publish(state)

    def restore_tracked(self, tracked: Tracked, account: Account | None) -> None:
        """A running session comes back from the store, before its account does."""
        tracked.account = account
        tracked.behind = tracked.observed != self.now
        self.tracked[tracked.id] = tracked
        if account is None:
            self._unassigned[tracked.id] = tracked
        if tracked.ended is not None:
            self._ended[tracked.id] = tracked

    # -- inside ---------------------------------------------------------------------------------------------------

    def _window(self, account: Account) -> _Window:
        window = self._windows.get(account)
        if window is None:
            state = self.accounts.get(account)
            read_at = state.read_at if state is not None and state.read_at is not None else self._window_start
            window = self._windows[account] = _Window(read_at)
        return window

    def _track(self, session: Session, now: int) -> Tracked:
        memory = Memory(session.stays, {})
        tracked = Tracked(session.id, session.room_id, session.started, session.ended, now, memory)
        self.tracked[session.id] = tracked
        self._unassigned[session.id] = tracked
        return tracked

    def _renew(self, tracked: Tracked, session: Session) -> None:
        """Takes over a newer record, remembering what role each peer was credited in until the last one."""
        before = tracked.recall()
        past, stays = before.past, session.stays
        for key, known in before.stays.items():
            stay = stays.get(key)
            # A peer that this record lacks, being malformed in it, may be back in the next one.
            if stay is None or stay.role != known.role:
                past.setdefault(key, []).append((known.role, max(tracked.observed, known.joined)))
        tracked.started = session.started
        tracked.update(Memory(session.stays, past), session.ended)

    def _observe(self, tracked: Tracked, now: int) -> None:
        self._read.add(tracked.id)
        tracked.observed = now
        if tracked.unknown or tracked.behind:
            tracked.unknown = 0
            tracked.behind = False
            self.changes.tracked.add(tracked.id)

    def _fall_behind(self, tracked: Tracked) -> None:
        if not tracked.behind:
            tracked.behind = True
            self.changes.tracked.add(tracked.id)

    def _untrack(self, tracked: Tracked) -> None:
        del self.tracked[tracked.id]
        self._ended.pop(tracked.id, None)
        if tracked.digest is not None:
            self._digests.pop(tracked.digest, None)
        self.changes.tracked.discard(tracked.id)
        self.changes.untracked.add(tracked.id)

    def _settle(self, tracked: Tracked) -> None:
        """An ended session becomes part of its account's settled sums; it is never looked at again."""
        account, ended = tracked.account, tracked.ended
        assert account is not None
        assert ended is not None
        state = self.accounts[account]
        memory = tracked.recall()
        for role, line in tracked.lines.items():
            totals = state.role(role)
            totals.joined += line.joined
            totals.left += line.left
            totals.seconds += line.seconds
        state.totals.started += 1
        state.totals.ended += 1
        state.totals.seconds += ended - tracked.started
        state.last_active = max(state.last_active, ended)
        state.touched = True
        for (day, role), seconds in seconds_by_day(memory, ended).items():
            self.changes.days[account, tracked.room_id, day, role] += seconds
            state.role(role).periods.add(day, seconds)
        self._histogram("session_duration").observe(ended - tracked.started, SECOND)
        self._histogram("session_peers").observe(len(memory.stays))
        for stay in memory.stays.values():
            left = max(stay.joined, ended) if stay.left is None else stay.left
            self._histogram("peer_duration", stay.role).observe(left - stay.joined, SECOND)
        if memory.past and self._ran_in_the_beginning(tracked):
            self.changes.roles_seen[tracked.id] = memory.past
        state.sessions.pop(tracked.id, None)
        self._untrack(tracked)
        self.settled[tracked.id] = self.changes.settled[tracked.id] = tracked.started

    def _ran_in_the_beginning(self, tracked: Tracked) -> bool:
        """Whether a series' first whole value has a part of this session in it: what joins on to that must know the roles."""
        present = [entry.whole for entry in self.entries.values() if entry.left is None]
        return any(whole is None or tracked.started <= whole for whole in present)

    def _histogram(self, name: str, role: str = "") -> Histogram:
        self.changes.histograms.add((name, role))
        histogram = self.histograms.get((name, role))
        if histogram is None:
            histogram = self.histograms[name, role] = Histogram(HISTOGRAM_BOUNDS[name])
        return histogram

    def _publish(self, state: AccountState) -> None:
        """Published = the highest truth so far; an over-estimate is held until the truth has caught up with it.

        Usage is the truth itself: what has settled in this day and this month, and the running sessions' since they began.
        """
        today = self._calendar = calendar(self.now or 0)
        totals = state.totals
        started, ended, seconds = totals.started, totals.ended, totals.seconds
        roles = {role: [of.joined, of.left, of.seconds, *of.periods.at(today)] for role, of in state.roles.items()}
        for tracked in state.sessions.values():
            started += 1
            seconds += tracked.session_seconds(tracked.observed)
            spent = tracked.peer_seconds(tracked.observed)
            before_day, before_month = tracked.peer_seconds_before(today.day_start), tracked.peer_seconds_before(today.month_start)
            for role, line in tracked.lines.items():
                sums = roles.get(role)
                if sums is None:
                    sums = roles[role] = [0, 0, 0, 0, 0]
                time = spent.get(role, 0)
                sums[0] += line.joined
                sums[1] += line.left
                sums[2] += time
                sums[3] += max(0, time - before_day.get(role, 0)) if before_day else time
                sums[4] += max(0, time - before_month.get(role, 0)) if before_month else time
        counted = (started, ended) != (totals.published_started, totals.published_ended)
        held = []
        bits = _held(started < totals.published_started, ended < totals.published_ended, seconds < totals.published_seconds)
        if bits:
            held.append(("", bits))
        totals.published_started = max(totals.published_started, started)
        totals.published_ended = max(totals.published_ended, ended)
        totals.published_seconds = max(totals.published_seconds, seconds)
        for role, (joined, left, time, in_day, in_month) in roles.items():
            of = state.role(role)
            if joined == of.published_joined and left == of.published_left and time >= of.published_seconds:
                of.published_seconds = time  # nobody came or went: the usual case, and the quick one
            else:
                counted |= (joined, left) != (of.published_joined, of.published_left)
                bits = _held(joined < of.published_joined, left < of.published_left, time < of.published_seconds)
                if bits:
                    held.append((role, bits))
                of.published_joined = max(of.published_joined, joined)
                of.published_left = max(of.published_left, left)
                of.published_seconds = max(of.published_seconds, time)
            of.usage_day, of.usage_month = in_day, in_month
        now_held = tuple(held)
        if state.touched or now_held != state.held:
            self.changes.accounts.add(state.account)
        state.held = now_held
        state.touched = False
        state.version += counted
        state.moved += 1

    def _move_usage(self, state: AccountState, sign: int) -> None:
        now = calendar(self.now or 0)
        for role, totals in state.roles.items():
            sums = self.unloaded.setdefault(role, PeriodSums())
            today, this_month = sums.at(now)
            of_day, of_month = totals.periods.at(now)
            self.unloaded[role] = PeriodSums(now.day, today + sign * of_day, now.month, this_month + sign * of_month)

    def _gauge(self, state: AccountState, now: int, at: float) -> None:
        before = state.gauges
        connected = sum([tracked.connected for tracked in state.sessions.values()])
        as_before = (
            before is not None
            and state.account not in self._windows  # no record of it that is new
            and (before.sessions, before.peak, len(before.peers)) == (len(state.sessions), connected, len(state.roles))
        )
        if not as_before:
            gauges = self._gauges(state)
            state.version += gauges != before
            state.gauges = gauges
        self._windows.pop(state.account, None)
        state.read_at = now
        state.fresh = at

    def _gauges(self, state: AccountState) -> Gauges:
        peers = dict.fromkeys(state.roles, 0)
        users: frozenset[int] = frozenset()
        window = self._window(state.account)
        for tracked in state.sessions.values():
            window.stand(tracked.id, tracked.connected)
            users = users | tracked.users if users else tracked.users
            for role, line in tracked.lines.items():
                peers[role] += line.rate
        return Gauges(
            sessions=len(state.sessions),
            oldest_start=min((tracked.started for tracked in state.sessions.values()), default=None),
            peers=peers,
            users=len(users),
            peak=window.peak(),
        )


def _held(one: bool, two: bool, three: bool) -> int:
    return one | two << 1 | three << 2


class _Window:
    """The peers of one account since its last reading, from their times of joining and leaving: how many at once at most."""

    __slots__ = ("sessions", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.sessions: dict[str, tuple[int, list[tuple[int, int]]]] = {}

    def look_at(self, session_id: str, stays: Iterable[Stay], ended: int | None) -> None:
        """A session's stays as last read; reading it again replaces them."""
        start, constant, events = self.start, 0, []
        for stay in stays:
            left = stay.left if stay.left is not None else ended
            if left is not None:
                if left <= start:
                    continue
                events.append((left, -1))
            if stay.joined <= start:
                constant += 1
            else:
                events.append((stay.joined, 1))
        self.sessions[session_id] = constant, events

    def stand(self, session_id: str, connected: int) -> None:
        """A session of which nothing new is known: as many as were connected before."""
        self.sessions.setdefault(session_id, (connected, []))

    def peak(self) -> int:
        """Leaves come before joins of the same moment: those peers were not there together."""
        most = count = sum(constant for constant, _ in self.sessions.values())
        for _, change in sorted(event for _, events in self.sessions.values() for event in events):
            count += change
            most = max(most, count)
        return most
