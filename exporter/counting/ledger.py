"""The lasting part of counting: accounts, sessions that are not settled, distributions.  No socket, no file, no clock.

The idea.  A record holds a session's whole history, so its contribution to every counter is a pure function of its record, of
the roles its peers were seen in, and of now.  A series' *truth* is the sum of what ended sessions have settled and of what the
others contribute; *published* is the highest truth so far.  There are no increments: a page read twice, a poll that failed
half-way, a restart or a kill cannot count anything twice or lose it.

`Changes` holds everything that cannot be derived again from the API; the store saves it before anything is published.

The terms.  A session belongs to an *account*, the owner of one set of series: a room, or a group of rooms.  It gets its account
when it is first seen and keeps it for good, so that rooms may be renamed, regrouped or overflow without moving their counts.
`Poll` holds the state of one poll; `Coverage` knows when each room's counting begins and what has been read.  All times are
the API's, in integer microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from exporter.counting.accounts import HISTOGRAM_BOUNDS, AccountState, Histogram, PeriodSums, added, move_usage
from exporter.counting.changes import Changes, Over, Settled
from exporter.counting.contribution import Account, SessionCounts, Tracked
from exporter.counting.coverage import Coverage
from exporter.counting.peaks import Window
from exporter.counting.scope import Names
from exporter.counting.stays import Memory, Past, PeerCounts, changed_part, count_people, presences, seconds_by_day
from exporter.hms.records import Session
from exporter.hms.steps import Change
from exporter.times import DAY, SECOND, Calendar, calendar, whole_seconds


class Ledger:
    """One workspace's counters.  A `Poll` changes it; the caller stores `changes`, calls `committed`, and only then publishes."""

    def __init__(self) -> None:
        self.accounts: dict[Account, AccountState] = {}
        self.tracked: dict[str, Tracked] = {}
        self.ended: dict[str, Tracked] = {}
        """The sessions of `tracked` that have ended."""
        self.unassigned: dict[str, Tracked] = {}
        """The sessions of `tracked` that have no account yet."""
        self.by_digest: dict[int, Tracked] = {}
        self.settled: dict[str, Settled] = {}
        self.windows: dict[Account, Window] = {}
        """The windows of the next peaks, for accounts with new records since their gauges were last renewed."""
        self.histograms: dict[tuple[str, str], Histogram] = {}
        self.coverage = Coverage()
        self.now: int | None = None
        """The API's time at the last poll of everything."""
        self.before: int | None = None
        """The API's time at the previous poll: everything new in the current poll is later."""
        self.polled = False
        self.lengths_from = 0
        """The lengths of sessions that had settled by then (µs) are not kept."""
        self.unloaded: dict[str, PeriodSums] = {}
        """By role, the settled time of this day and month of accounts that are not in memory.  Sums of usage include it."""
        self.changes = Changes()
        self.calendar: Calendar | None = None
        self.bots: frozenset[str] = frozenset()
        """The roles of peers that are not people."""
        self.notes_ends_after: int | None = None
        """From when on ended sessions are noted in `changes`; `None` means never."""

    def committed(self) -> None:
        """The changes have been stored."""
        self.changes = Changes()
        self.coverage.committed()

    def leave_out(self, bots: frozenset[str]) -> None:
        """From now on, peers in these roles are not people: the next gauges and peaks leave them out.

        Observed distributions and settled time by role stay as they are; usage leaves these roles out when it is summed.
        """
        if bots == self.bots:
            return
        self.bots = bots
        for account, state in self.accounts.items():
            if account not in self.windows and state.read_at is not None and state.sessions:
                self.windows[account] = Window(state.read_at)
            if account in self.windows:
                for tracked in (*state.sessions.values(), *state.ended.values()):
                    self.windows[account].look_at(tracked.id, presences(tracked.recall(), tracked.ended, tracked.of_these(bots)))

    # -- sessions -------------------------------------------------------------------------------------------------

    def track(self, session: Session, now: int) -> Tracked:
        """Begins to track a new session."""
        tracked = Tracked(session.id, session.room_id, session.started, session.ended, now, Memory(session.stays, {}))
        self.tracked[session.id] = tracked
        self.unassigned[session.id] = tracked
        return tracked

    def renew(self, tracked: Tracked, session: Session, change: Change | None = None) -> Past:
        """Takes over a newer record, and remembers the role each peer was credited in so far; returns the earlier roles."""
        before = tracked.recall() if change is None or tracked.roles_changed else changed_part(change)
        past, stays = before.past, session.stays
        for key, known in before.stays.items():
            stay = stays.get(key)
            # A peer that is missing from this record, because it was malformed there, may be back in the next one.
            if stay is None or stay.role != known.role:
                past.setdefault(key, []).append((known.role, max(tracked.observed, known.joined)))
        tracked.started = session.started
        tracked.update(Memory(session.stays, past), session.ended, None if past else change)
        return past

    def assign(self, tracked: Tracked, account: Account) -> None:
        """Assigns a session to this account for good."""
        del self.unassigned[tracked.id]
        tracked.account = account
        state = self.open(account)
        (state.sessions if tracked.ended is None else state.ended)[tracked.id] = tracked
        state.touched = True
        self.changes.tracked.add(tracked.id)

    def untrack(self, tracked: Tracked) -> None:
        """Stops tracking a session that is settled, or does not count."""
        del self.tracked[tracked.id]
        self.ended.pop(tracked.id, None)
        self.unassigned.pop(tracked.id, None)
        if tracked.digest is not None:
            self.by_digest.pop(tracked.digest, None)
        self.changes.tracked.discard(tracked.id)
        self.changes.untracked.add(tracked.id)

    def move(self, tracked: Tracked) -> None:
        """Notes that a session has ended, or that a vanished one runs again."""
        if tracked.ended is None:
            self.ended.pop(tracked.id, None)
        else:
            self.ended[tracked.id] = tracked
        state = self.accounts.get(tracked.account) if tracked.account is not None else None
        if state is not None:
            here, there = (state.ended, state.sessions) if tracked.ended is not None else (state.sessions, state.ended)
            there.pop(tracked.id, None)
            here[tracked.id] = tracked
            state.touched = True

    def measure(self, tracked: Tracked) -> None:
        """Observes the distributions of a session whose end has been read, once."""
        assert tracked.account is not None
        assert tracked.ended is not None
        state, ended = self.accounts[tracked.account], tracked.ended
        state.last_active = max(state.last_active, ended)
        memory = tracked.recall()
        stays = memory.stays
        self.open_histograms()
        self._histogram("session_duration").observe(ended - tracked.started, SECOND)
        self._histogram("session_peers").observe(count_people(memory, self.bots))
        for stay in stays.values():
            left = max(stay.joined, ended) if stay.left is None else stay.left
            self._histogram("peer_duration", stay.role).observe(left - stay.joined, SECOND)
        tracked.measured = True
        self.changes.tracked.add(tracked.id)
        self.changes.accounts.add(tracked.account)

    def settle(self, tracked: Tracked) -> None:
        """Adds an ended session to its account's settled sums; it is never read again."""
        account, ended = tracked.account, tracked.ended
        assert account is not None
        assert ended is not None
        state = self.accounts[account]
        memory = tracked.recall()
        self._begin_series(state, tracked.lines)
        for role, line in tracked.lines.items():
            state.role(role).settle(line.counts, line.seconds)
        state.totals.settle(tracked.counts, ended - tracked.started)
        state.touched = True
        for (day, role), seconds in seconds_by_day(memory, ended).items():
            self.changes.days[account, tracked.room_id, day, role] += seconds
            state.role(role).periods.add(day, seconds)
        self.changes.lengths[tracked.started // DAY, tracked.room_id].append(whole_seconds(ended - tracked.started))
        if memory.past and self._ran_in_the_beginning(tracked):
            self.changes.roles_seen[tracked.id] = memory.past
        if self.notes_ends_after is not None and ended > self.notes_ends_after:
            self.changes.over[tracked.id] = Over(tracked.room_id, account, tracked.started, ended)
        state.ended.pop(tracked.id, None)
        self.untrack(tracked)
        self.settled[tracked.id] = Settled(tracked.room_id, tracked.started)
        self.changes.settled.add(tracked.id)

    def forget(self, name_of: Names) -> None:
        """Forgets settled sessions that no answer can show any more."""
        may_show_again = self.coverage.may_show_again
        gone = [i for i, (room_id, started) in self.settled.items() if not may_show_again(room_id, name_of(room_id), started)]
        for session_id in gone:
            del self.settled[session_id]
            self.changes.settled.discard(session_id)
            self.changes.forgotten.add(session_id)

    def _ran_in_the_beginning(self, tracked: Tracked) -> bool:
        """Whether a series' first complete value includes a part of this session: a backfill up to it must know the roles."""
        present = [entry.whole for entry in self.coverage.entries.values() if entry.left is None]
        return any(whole is None or tracked.started <= whole for whole in present)

    def open_histograms(self) -> None:
        """Creates the distributions of sessions, so that they exist before the first session ends."""
        for name in ("session_duration", "session_peers"):
            if (name, "") not in self.histograms:
                self._histogram(name)

    def _histogram(self, name: str, role: str = "") -> Histogram:
        self.changes.histograms.add((name, role))
        histogram = self.histograms.get((name, role))
        if histogram is None:
            new = (t for t in self.ended.values() if not t.measured and (not role or role in t.lines))
            histogram = self.histograms[name, role] = Histogram(HISTOGRAM_BOUNDS[name], born=self._beginning(new))
        return histogram

    # -- when series begin ----------------------------------------------------------------------------------------

    def _begin_series(self, state: AccountState, roles: Iterable[str]) -> None:
        """Notes when the counters of an account and of these roles began, if not noted yet."""
        known = (*state.sessions.values(), *state.ended.values())
        if state.born is None:
            state.born = self._beginning(known)
        for role in roles:
            totals = state.role(role)
            if totals.born is None:
                totals.born = self._beginning(t for t in known if role in t.lines)

    def _beginning(self, sessions: Iterable[Tracked]) -> int:
        """A time before everything new in these sessions: the previous poll, `since`, or the start of the earliest session."""
        if not self.polled:
            return 0
        floor = self.before
        if floor is None:
            earliest = self.coverage.earliest
            floor = (self.now or 0) if earliest is None else earliest
        return min([floor, *(tracked.before for tracked in sessions)])

    # -- accounts -------------------------------------------------------------------------------------------------

    def open(self, account: Account) -> AccountState:
        """The state of an account, created if it is new; a stored account must be restored first."""
        state = self.accounts.get(account)
        if state is None:
            state = self.accounts[account] = AccountState(account)
            self.changes.accounts.add(account)
        return state

    def close(self, account: Account) -> None:
        """An account without running sessions leaves memory; its counters stay in the store."""
        state = self.accounts[account]
        assert not state.sessions
        assert not state.ended
        assert account not in self.changes.accounts
        del self.accounts[account]
        self.windows.pop(account, None)
        move_usage(self.unloaded, state, 1, calendar(self.now or 0))

    def restore(self, states: Iterable[AccountState]) -> None:
        """Loads accounts from the store; their `published_*` are the values held above the truth, or 0."""
        restored = {state.account: state for state in states}
        for state in restored.values():
            move_usage(self.unloaded, state, -1, calendar(self.now or 0))
        for tracked in self.tracked.values():
            if tracked.account in restored:
                state = restored[tracked.account]
                (state.sessions if tracked.ended is None else state.ended)[tracked.id] = tracked
        for state in restored.values():
            self.accounts[state.account] = state
            state.touched = False
            self.publish(state)

    def restore_tracked(self, tracked: Tracked, account: Account | None) -> None:
        """Loads a session from the store, before its account."""
        tracked.account = account
        if account is not None:
            tracked.before = tracked.observed
        tracked.behind = tracked.observed != self.now
        self.tracked[tracked.id] = tracked
        if account is None:
            self.unassigned[tracked.id] = tracked
        if tracked.ended is not None:
            self.ended[tracked.id] = tracked

    def publish(self, state: AccountState) -> None:
        """Published = the highest truth so far; an over-estimate is held until the truth reaches it.

        Usage is the truth itself: the settled time of this day and this month, and the time of the other sessions in it.
        """
        now = self.now or 0
        today = self.calendar = calendar(now)
        if state.go_on(now, today):
            return
        counts, seconds, roles = _truth(state, today)
        counted = counts != state.totals.published
        begun = state.born is None
        held = [("", above)] if (above := state.totals.publish(counts, seconds)) else []
        for role, true in roles.items():
            of = state.roles.get(role) or state.role(role)
            begun |= of.born is None
            counted |= true.counts != of.published
            if above := of.publish(true.counts, true.seconds):
                held.append((role, above))
            of.usage_day, of.usage_month = true.in_day, true.in_month
        if begun:
            self._begin_series(state, roles)
        now_held = tuple(held)
        if state.touched or begun or now_held != state.held:
            self.changes.accounts.add(state.account)
        state.version += counted or begun
        state.worked_out(now_held, now, today)


class _InRole(msgspec.Struct, gc=False):
    """What is true of an account's peers in one role: their counters, their time, and its part in this day and month (µs)."""

    counts: PeerCounts = PeerCounts()
    seconds: int = 0
    in_day: int = 0
    in_month: int = 0


def _truth(state: AccountState, today: Calendar) -> tuple[SessionCounts, int, dict[str, _InRole]]:
    """The counters of an account's sessions, their time (µs), and what is true by role."""
    counts, seconds = state.totals.counts, state.totals.seconds
    roles = {role: _InRole(of.counts, of.seconds, *of.periods.at(today)) for role, of in state.roles.items()}
    for tracked in (*state.sessions.values(), *state.ended.values()):
        counts = added(counts, tracked.counts)
        seconds += tracked.session_seconds(tracked.observed)
        spent = tracked.peer_seconds(tracked.observed)
        before_day, before_month = tracked.peer_seconds_before(today.day_start), tracked.peer_seconds_before(today.month_start)
        for role, line in tracked.lines.items():
            sums = roles.get(role)
            if sums is None:
                sums = roles[role] = _InRole()
            time = spent.get(role, 0)
            sums.counts = added(sums.counts, line.counts)
            sums.seconds += time
            sums.in_day += max(0, time - before_day.get(role, 0)) if before_day else time
            sums.in_month += max(0, time - before_month.get(role, 0)) if before_month else time
    return counts, seconds, roles
