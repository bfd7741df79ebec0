"""One poll of a workspace, which counts the records that were read.

A poll of some rooms only (`early`) does not change the time and the coverage of the others.

Call `Poll(ledger, now, …)`, then `see` or `see_unchanged` for each record, `unknown` for each session that the API no longer
knows, `assign` for new rooms, then `finish`.  Seeing the same record again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from exporter.counting.accounts import AccountState, Gauges
from exporter.counting.contribution import UNKNOWN_POLLS, Account, Tracked
from exporter.counting.coverage import MARGIN
from exporter.counting.ledger import Ledger
from exporter.counting.peaks import Window
from exporter.counting.stays import Memory, Past, presences
from exporter.hms.records import Session
from exporter.hms.steps import Change, Known, Step
from exporter.times import DAY, HOUR, MINUTE, calendar

SETTLED_AT_ONCE = 15 * MINUTE
"""A session whose end is older than this when it is first read is not read again: its record no longer changes."""
LOOKED_FOR = DAY
"""An ended session that cannot be read again within this time is settled as it was last seen."""
MISSED_FOR = 2 * DAY
"""A vanished session is followed again if it comes back within this time."""
ASKED_AGAIN = HOUR
"""How often a vanished session is requested."""


class Poll:
    """The state of one poll, at the API's time `now`. Nothing is credited beyond that time."""

    def __init__(self, ledger: Ledger, now: int, longest_gap: int, *, early: bool = False) -> None:
        self.ledger = ledger
        self.now = now
        self._early = early
        self._read: set[str] = set()
        self._window_start = now if ledger.now is None else ledger.now
        ledger.before, ledger.polled = ledger.now, True
        if not early:
            ledger.now = now
            ledger.coverage.begin(now, longest_gap)

    # -- what has been read ---------------------------------------------------------------------------------------

    def see_unchanged(self, digest: int) -> bool:
        """Whether this is the digest of a running session's last record; if so, the session counts as seen now."""
        tracked = self.ledger.by_digest.get(digest)
        if tracked is None:
            return False
        self._observe(tracked, self.now)
        return True

    def known(self, session_id: str) -> Known | None:
        """What the next record of a session can be compared with."""
        tracked = self.ledger.tracked.get(session_id)
        return None if tracked is None else tracked.known()

    def see_step(self, step: Step, name: str | None, digest: int) -> None:
        """Counts the record of a running session that was read as a step from its last one."""
        tracked = self.ledger.tracked.get(step.session.id)
        if step.change == {} and tracked is not None and tracked.linear_from <= self._window_begins(tracked.account):
            self._observe(tracked, self.now)
            self._know_by(tracked, digest)
        else:
            self.see(step.session, name, digest, step.change)
            tracked = self.ledger.tracked.get(step.session.id)
        if tracked is not None and tracked.ended is None:
            tracked.marks = step.marks

    def see(self, session: Session, name: str | None, digest: int | None = None, change: Change | None = None) -> None:
        """Counts the record of a running or ended session; `name` is its room's name, `None` while it is unknown.

        `change` says how it differs from the session's last record, if that is known.
        """
        ledger = self.ledger
        if session.id in ledger.settled:
            return
        tracked = ledger.tracked.get(session.id)
        had_ended = tracked is not None and tracked.ended is not None
        still_from = None if tracked is None or tracked.roles_changed else tracked.linear_from
        past: Past = {}
        if tracked is None:
            read = None
            if session.ended is not None:
                if ledger.coverage.is_undecided(session.room_id, name):
                    read = ledger.coverage.read_already(session.room_id, session.started)
                elif not ledger.coverage.counts(session.room_id, name, session.started, session.ended):
                    return
            tracked = ledger.track(session, self.now)
            tracked.read = read
        elif tracked.ended is not None and session.ended is None and not tracked.vanished:
            return  # an answer from before its end
        else:
            past = ledger.renew(tracked, session, change)
        self._observe(tracked, self.now if session.ended is None else session.ended)
        tracked.users = session.users
        self._know_by(tracked, digest if session.ended is None else None)
        if tracked.account is not None and (session.ended is None or session.ended > self._window_start):
            window = self._window(tracked.account)
            if change is not None and not past and still_from is not None and still_from <= window.start:
                # Everyone else was there, or had left, when the window began.
                present = list(presences(Memory({key: session.stays[key] for key in change}, {}), None, ledger.bots))
                window.look_at(tracked.id, present, tracked.people(ledger.bots) - sum(left is None for _, left in present))
            else:
                window.look_at(tracked.id, presences(Memory(session.stays, past), session.ended, tracked.of_these(ledger.bots)))
        if had_ended or tracked.ended is not None:
            ledger.move(tracked)
        self._see_end(tracked)
        ledger.changes.tracked.add(tracked.id)

    def _see_end(self, tracked: Tracked) -> None:
        if tracked.ended is None:
            tracked.seen_ended = None
        elif tracked.seen_ended is None:
            tracked.seen_ended = self.now
            tracked.looked = self.now - tracked.ended > SETTLED_AT_ONCE
        elif self.now > tracked.seen_ended and self.now >= tracked.ended + MARGIN:
            tracked.looked = True

    def unknown(self, session_id: str) -> None:
        """The API no longer knows this session.  After the third poll in a row it counts as ended when it was last seen."""
        tracked = self.ledger.tracked[session_id]
        if session_id in self._read:
            return
        self._read.add(session_id)
        if tracked.ended is not None:
            tracked.tried = self.now
            tracked.looked = not tracked.vanished
            return
        self._fall_behind(tracked)
        tracked.unknown += 1
        self.ledger.changes.tracked.add(session_id)
        if tracked.unknown >= UNKNOWN_POLLS:
            tracked.update(tracked.recall(), max(tracked.observed, tracked.started))
            tracked.seen_ended = tracked.tried = self.now
            self._know_by(tracked, None)  # seeing the same record again means that it still runs
            self.ledger.move(tracked)

    def unread(self, session_id: str | None) -> None:
        """The session exists, but its record is invalid: it keeps its last contribution."""
        if session_id is not None and session_id in self.ledger.tracked:
            self._read.add(session_id)
            self._fall_behind(self.ledger.tracked[session_id])

    def missing(self) -> list[Tracked]:
        """Sessions that were running and have not been seen in this poll."""
        return [tracked for tracked in self.ledger.tracked.values() if tracked.ended is None and tracked.id not in self._read]

    def to_look_at(self) -> list[Tracked]:
        """Ended sessions due for a second look, because leaves are recorded late, and vanished ones from time to time."""
        return [tracked for tracked in self.ledger.ended.values() if tracked.id not in self._read and self._is_due(tracked)]

    def _is_due(self, tracked: Tracked) -> bool:
        assert tracked.ended is not None
        if tracked.vanished:
            return self.now - tracked.tried >= ASKED_AGAIN
        return not tracked.looked and self.now >= tracked.ended + MARGIN and tracked.seen_ended != self.now

    # -- accounts -------------------------------------------------------------------------------------------------

    def unassigned_rooms(self) -> dict[str, int]:
        """Rooms with sessions that have no account yet, each with its number of connected peers."""
        rooms: dict[str, int] = {}
        for tracked in self.ledger.unassigned.values():
            rooms[tracked.room_id] = rooms.get(tracked.room_id, 0) + tracked.connected
        return rooms

    def assign(self, room_id: str, name: str | None, account: Account | None) -> None:
        """Assigns the room's new sessions to this account; `None` means that the room is not followed, and forgets them.

        `name` is what 100ms has said; without it, sessions that may only count by the name wait for it.
        """
        ledger = self.ledger
        for tracked in [tracked for tracked in ledger.unassigned.values() if tracked.room_id == room_id]:
            if account is None or not self._counts(tracked, name):
                if not ledger.coverage.is_undecided(room_id, name):
                    ledger.untrack(tracked)  # else it may count once the room's name is known
                continue
            ledger.assign(tracked, account)
            self._window(account).look_at(tracked.id, presences(tracked.recall(), tracked.ended, tracked.of_these(ledger.bots)))

    def _counts(self, tracked: Tracked, name: str | None) -> bool:
        if tracked.ended is None:
            return True
        if tracked.read is None:  # it was seen running before its room could be decided about
            since = self.ledger.coverage.begins(tracked.room_id, name)
            return since is not None and tracked.ended > since
        return self.ledger.coverage.counts(tracked.room_id, name, tracked.started, tracked.ended, tracked.read)

    # -- the end --------------------------------------------------------------------------------------------------

    def finish(self, fresh: Iterable[Account] | None, at: float) -> None:
        """Ends the poll: settles sessions that are over, and works out the published values.

        `fresh` are the accounts whose running sessions are all known as of now (`None`: every account); their gauges are
        renewed, with `at`, the time on the caller's clock.
        """
        ledger = self.ledger
        self.settle()
        ledger.open_histograms()
        for tracked in self.missing():
            self._fall_behind(tracked)
        rolled = ledger.calendar is not None and ledger.calendar != calendar(self.now)
        for state in ledger.accounts.values():
            if state.touched or state.sessions or state.held or rolled:
                ledger.publish(state)
        for account in list(ledger.accounts) if fresh is None else fresh:
            found = ledger.accounts.get(account)
            if found is not None:
                self._gauge(found, at)

    def finish_early(self, accounts: Iterable[Account], at: float) -> None:
        """Ends a poll of some rooms only, with their accounts; all others stay as they were."""
        ledger = self.ledger
        self.settle()
        fresh = {account for account in accounts if account in ledger.accounts}
        for account, state in ledger.accounts.items():
            if state.touched or account in fresh:
                ledger.publish(state)
        for account in fresh:
            self._gauge(ledger.accounts[account], at)

    def settle(self) -> None:
        """Measures ended sessions, and settles those that need no further look."""
        for tracked in [tracked for tracked in self.ledger.ended.values() if tracked.account is not None]:
            if not tracked.measured:
                self.ledger.measure(tracked)
            since = self.now - (tracked.seen_ended if tracked.seen_ended is not None else self.now)
            if tracked.looked or since > (MISSED_FOR if tracked.vanished else LOOKED_FOR):
                self.ledger.settle(tracked)

    def _observe(self, tracked: Tracked, now: int) -> None:
        if tracked.account is not None and tracked.id not in self._read:
            tracked.before = tracked.observed
        self._read.add(tracked.id)
        tracked.observed = now
        # It was read at another time than the others, so it is stored with its own time.
        apart = self._early and tracked.ended is None
        if tracked.unknown or tracked.behind or apart:
            tracked.unknown = 0
            tracked.behind = apart
            self.ledger.changes.tracked.add(tracked.id)

    def _know_by(self, tracked: Tracked, digest: int | None) -> None:
        """Remembers the digest of the session's last record; `None` means that no record counts as unchanged."""
        if tracked.digest is not None:
            self.ledger.by_digest.pop(tracked.digest, None)
        tracked.digest = digest
        if digest is not None:
            self.ledger.by_digest[digest] = tracked

    def _fall_behind(self, tracked: Tracked) -> None:
        if not tracked.behind:
            tracked.behind = True
            self.ledger.changes.tracked.add(tracked.id)

    # -- gauges ---------------------------------------------------------------------------------------------------

    def _window(self, account: Account) -> Window:
        window = self.ledger.windows.get(account)
        if window is None:
            window = self.ledger.windows[account] = Window(self._window_begins(account))
        return window

    def _window_begins(self, account: Account | None) -> int:
        """When the next peak of an account begins; with `None`, when that of a new account would."""
        if account is None:
            return self._window_start
        if account in self.ledger.windows:
            return self.ledger.windows[account].start
        state = self.ledger.accounts.get(account)
        return state.read_at if state is not None and state.read_at is not None else self._window_start

    def _gauge(self, state: AccountState, at: float) -> None:
        before = state.gauges
        bots = self.ledger.bots
        connected = sum([tracked.people(bots) for tracked in state.sessions.values()])
        as_before = (
            before is not None
            and state.account not in self.ledger.windows  # it has no new records
            and (before.sessions, before.peak, len(before.peers)) == (len(state.sessions), connected, len(state.roles))
        )
        if not as_before:
            gauges = Gauges.of(state, self.ledger.bots, self._window(state.account))
            state.version += gauges != before
            state.gauges = gauges
        self.ledger.windows.pop(state.account, None)
        state.read_at = self.now
        state.fresh = at
