"""When each room's counting begins, and how far its past has been read.

Coverage belongs to rooms, not to the text of the configuration.  Every entry that was ever in force is remembered, with the
spans that have been read for it; a room is covered by all entries that name it or match its name.  Two rules follow.

- A room's counting begins once: with the first of its entries that came into force, at that entry's `since`.
- A session that has ended counts only if its start is unread for *all* of the room's entries.  A start that one of them has
  read has been counted, whatever the configuration says today.

A room that is renamed across patterns gets a record of its own, made from the spans that its entries had read by then.

The unread past is kept as spans of session starts, because the API's listings are filtered by start.  Pure; all times are the
API's, in integer microseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from exporter.counting import spans
from exporter.counting.followed import NOT_BEGUN, CatchUp, Followed, Subject, spans_to_read
from exporter.counting.scope import Names, Scope, is_wide, matches, may_share_a_room
from exporter.counting.spans import FOREVER, Span
from exporter.times import HOUR, SECOND

LONGEST_SESSION = 12 * HOUR
"""100ms ends a session after this long."""
MARGIN = 2 * 60 * SECOND
"""How far listings reach back into what has been read, for records that the API shows late."""
REACH_BACK = LONGEST_SESSION + HOUR
"""A session that ended after a moment started at most this long before it."""
LONGEST_DOUBT = HOUR
"""How long the listing of running sessions may be incomplete before the front moves on regardless."""

Opened = dict[tuple[Span, ...], list[Subject]]
"""The unread spans of entries and rooms that come into force, each with all the subjects that share them."""


class Coverage:
    """One workspace's coverage of sessions, or of other items that are listed by their start.

    An item that ended after a moment started at most `reach_back` before it.  `changed` and `changed_tasks` tell the store which
    entries, rooms and catch-ups to write.
    """

    def __init__(self, reach_back: int = REACH_BACK) -> None:
        self._reach_back = reach_back
        self.entries: dict[str, Followed] = {}
        self.rooms: dict[str, Followed] = {}
        """The rooms that were renamed across patterns."""
        self.tasks: dict[int, CatchUp] = {}
        self.read_until: int | None = None
        """The start of the last complete poll: every session started by then has been seen, unless its start is in `unread`."""
        self.changed: set[Subject] = set()
        """Of `entries` ("entry") and `rooms` ("room"), by key."""
        self.changed_tasks: set[int] = set()
        self._members: dict[int, list[Subject]] = {}
        self._wide_keys: list[str] = []
        self._earliest: int | None = None
        self._known = 0  # how many entries the two values above were worked out from

    def committed(self) -> None:
        """The changes have been stored."""
        self.changed, self.changed_tasks = set(), set()

    # -- what counts ----------------------------------------------------------------------------------------------

    @property
    def horizon(self) -> int | None:
        """The start to which listings of ended sessions reach back; `None` before the first complete poll."""
        return None if self.read_until is None else self.read_until - MARGIN

    def is_undecided(self, room_id: str, name: str | None) -> bool:
        """Whether the coverage of a room depends on its name, which is unknown."""
        return name is None and room_id not in self.rooms and any(key.startswith("~") for key in self.entries)

    def has_covered(self, room_id: str, name: str | None) -> bool:
        """Whether any entry that was ever in force covers this room."""
        return bool(self._covering(room_id, name))

    def begins(self, room_id: str, name: str | None) -> int | None:
        """A room's sessions that had ended by this time do not count; `None` while no entry has ever covered the room."""
        first = min((followed for _, followed in self._covering(room_id, name)), key=lambda followed: followed.entered, default=None)
        return None if first is None else first.since

    def counts(self, room_id: str, name: str | None, started: int, ended: int, read: Collection[str] | None = None) -> bool:
        """Whether an ended session that was never seen running counts.

        `read` is for a session that was seen before its room could be decided about: the entries that had read its start by then.
        """
        since = self.begins(room_id, name)
        if since is None or ended <= since:
            return False
        covering = self._covering(room_id, name)
        if read is not None:
            return all(key not in read for key, _ in covering)
        return all(self._is_unread(followed, started) for _, followed in covering)

    def read_already(self, room_id: str, started: int) -> frozenset[str]:
        """The entries that have read this start, to keep with a session whose room cannot be decided about yet."""
        keys = [*self._wide, *([room_id] if room_id in self.entries else [])]
        return frozenset(key for key in keys if not self._is_unread(self.entries[key], started))

    def may_show_again(self, room_id: str, name: str | None, started: int) -> bool:
        """Whether an answer may still show a settled session, so that its id must be kept."""
        if self.horizon is None or started >= self.horizon - self._reach_back or (room_id and self.is_undecided(room_id, name)):
            return True
        if not room_id:  # settled by a version that did not record the room
            return any(spans.contains(task.unread, started) for task in self.tasks.values())
        covering = self._covering(room_id, name)
        return bool(covering) and all(self._is_unread(followed, started) for _, followed in covering)

    def _covering(self, room_id: str, name: str | None) -> list[tuple[str, Followed]]:
        own = self.rooms.get(room_id)
        if own is not None:
            return [(room_id, own)]
        found = [(key, self.entries[key]) for key in self._wide if matches(key, room_id, name)]
        if room_id in self.entries:
            found.append((room_id, self.entries[room_id]))
        return found

    @property
    def earliest(self) -> int | None:
        """The earliest `since` of all entries; `None` if there are none."""
        self._look_over()
        return self._earliest

    @property
    def _wide(self) -> list[str]:
        self._look_over()
        return self._wide_keys

    def _look_over(self) -> None:
        """Updates the values derived from the entries, which every room and session needs; entries are only ever added."""
        if self._known != len(self.entries):
            self._known = len(self.entries)
            self._wide_keys = [key for key in self.entries if is_wide(key)]
            self._earliest = min((followed.since for followed in self.entries.values()), default=None)

    def _is_unread(self, followed: Followed, started: int) -> bool:
        if started < followed.floor or (followed.behind is not None and started >= followed.behind):
            return True
        if followed.left is None and self.horizon is not None and started >= self.horizon:
            return True
        return spans.contains(followed.parked, started) or any(
            spans.contains(self.tasks[number].unread, started) for number in followed.tasks if number in self.tasks
        )

    # -- the configuration ----------------------------------------------------------------------------------------

    def configure(self, scope: Scope, since: int, now: int, name_of: Names) -> None:
        """Applies the configuration's entries as of `now`; for new entries, sessions count that end after `since`.

        An entry that comes back continues from where it was removed.
        """
        wanted = dict.fromkeys(scope.keys)
        opened: Opened = {}
        for key, followed in self.entries.items():
            self._turn(("entry", key), followed, key in wanted, since, now, opened)
        for room_id, followed in self.rooms.items():
            self._turn(("room", room_id), followed, bool(scope.covers(room_id, name_of(room_id))), since, now, opened)
        gone = [key for key, followed in self.entries.items() if followed.left is not None]
        wide_gone = [key for key in gone if is_wide(key)]
        for key in wanted:
            if key in self.entries:
                continue
            # A room of this entry may have been in an entry that was removed: its sessions since then count.
            others = gone if is_wide(key) else wide_gone
            left = [self.entries[other].parked[0][0] for other in others if may_share_a_room(key, other, name_of)]
            floor = min([since - self._reach_back, *left])
            self.entries[key] = Followed(since, now, floor)
            opened.setdefault(((floor, FOREVER),), []).append(("entry", key))
        self._read_anew(opened)

    def renamed(self, room_id: str, before: str, after: str, since: int, now: int) -> None:
        """A room's name has changed at 100ms: from now on it is followed if the new name matches a pattern in force, otherwise not."""
        old = self._covering(room_id, before)
        if room_id not in self.rooms:
            if {key for key, _ in old} == {key for key, _ in self._covering(room_id, after)}:
                return
            first = min((followed for _, followed in old), key=lambda followed: followed.entered, default=None)
            # Its counting begins when it is followed, even if an entry that has been removed would have covered this name.
            own = Followed(NOT_BEGUN, now, NOT_BEGUN)
            if first is not None:
                own = Followed(first.since, first.entered, first.since - self._reach_back)
            unread = [(own.floor, FOREVER)]
            for _, followed in old:
                unread = spans.common(unread, self._unread(followed))
            own.left, own.parked = now, unread
            self.rooms[room_id] = own
            self.changed.add(("room", room_id))
        opened: Opened = {}
        wanted = any(followed.left is None and matches(key, room_id, after) for key, followed in self.entries.items())
        self._turn(("room", room_id), self.rooms[room_id], wanted, since, now, opened)
        self._read_anew(opened)

    def _turn(self, subject: Subject, followed: Followed, wanted: bool, since: int, now: int, opened: Opened) -> None:
        """An entry or room enters the configuration, or leaves it."""
        if wanted == (followed.left is None):
            return
        self.changed.add(subject)
        if wanted and followed.since == NOT_BEGUN:
            followed.since, followed.entered, followed.floor = since, now, since - self._reach_back
            followed.parked = [(followed.floor, FOREVER)]
        if wanted:
            opened.setdefault(tuple(followed.parked), []).append(subject)
            followed.left, followed.parked = None, []
        else:
            followed.parked = spans.without(self._unread(followed), -FOREVER, followed.floor - 1)
            followed.left, followed.behind, followed.tasks = now, None, []
            self._members.clear()

    def _unread(self, followed: Followed) -> list[Span]:
        """All unread spans of an entry or room."""
        found = [(-FOREVER, followed.floor - 1), *followed.parked]
        found += [span for number in followed.tasks if number in self.tasks for span in self.tasks[number].unread]
        ends = [followed.behind, self.horizon if followed.left is None else None]
        return spans.union([*found, *((begin, FOREVER) for begin in ends if begin is not None)])

    # -- reading --------------------------------------------------------------------------------------------------

    def begin(self, now: int, longest_gap: int) -> None:
        """Begins a poll.  After a pause longer than `longest_gap` µs, the time in between is read as a catch-up, beside the polls."""
        horizon = self.horizon
        if horizon is None:
            return
        if horizon > now:
            # The API's clock was ahead, so less was read than noted.  The rest is read again, as far back as known.
            self.read_until = min(now, horizon - self._reach_back) + MARGIN
        elif now - horizon > longest_gap:
            self._catch_up([(horizon, FOREVER)], self._in_force())
            self.read_until = None

    def complete(self, begun_at: int, *, whole: bool = True, failed: Collection[str] = (), unread: Span | None = None) -> None:
        """The poll that began at `begun_at` has read the ended sessions, except rooms that `failed` and the starts `unread`.

        `whole` says whether all running sessions were seen too.  If not, one may end later without having been seen; so the front
        waits for an hour, and then moves on and leaves that stretch of time unread.
        """
        horizon = self.horizon
        if not whole and not any(task.is_open for task in self.tasks.values()):
            if horizon is None or begun_at - horizon <= LONGEST_DOUBT:
                return
            self._catch_up([(horizon - self._reach_back, FOREVER)], self._in_force())
        for key in failed:
            followed = self.entries[key]
            if followed.behind is None:
                followed.behind = followed.floor if horizon is None else horizon
                self.changed.add(("entry", key))
        if unread is not None:
            self._catch_up([unread], self._in_force())
        self.read_until = begun_at if self.read_until is None else max(self.read_until, begun_at)
        for task in self.tasks.values() if whole else ():
            if task.is_open:
                task.unread = spans.until(task.unread, begun_at)
                self.changed_tasks.add(task.number)

    def caught_up(self, key: str) -> None:
        """A room's listing that had failed has been read."""
        followed = self.entries[key]
        if followed.behind is not None:
            followed.behind = None
            self.changed.add(("entry", key))

    def unread_spans(self, now: int) -> list[tuple[Span, list[CatchUp]]]:
        """The spans of the past that can be read now, oldest first, each with the catch-ups that need it."""
        return spans_to_read(self.tasks.values(), now - self._reach_back)

    def rooms_of(self, tasks: Iterable[CatchUp]) -> list[str] | None:
        """The rooms of the catch-ups; `None` if not all are known by id."""
        found: dict[str, None] = {}
        for task in tasks:
            for kind, key in self._members_of(task.number):
                if kind == "entry" and is_wide(key):
                    return None
                found[key] = None
        return list(found)

    def has_read(self, tasks: Iterable[CatchUp], first: int, last: int, now: int) -> None:
        """All ended sessions in the rooms of these catch-ups that started from `first` to `last` have been seen."""
        for task in tasks:
            task.unread = spans.without(task.unread, first, last)
            task.cursor = ""
            self.changed_tasks.add(task.number)
            if not task.unread:
                members = self._members_of(task.number)
                del self.tasks[task.number]
                for subject in members:
                    followed = self._of(subject)
                    followed.tasks = [number for number in followed.tasks if number != task.number]
                    if followed.whole is None and not followed.tasks:
                        followed.whole = now
                    self.changed.add(subject)
                self._members.clear()

    def progress(self, now: int) -> float | None:
        """How much of the past has been read, from 0 to 1; `None` if there is no catch-up."""
        if not self.tasks:
            return None
        whole = sum(max(now, task.begin + 1) - task.begin for task in self.tasks.values())
        left = sum(spans.length(spans.until(task.unread, now)) for task in self.tasks.values())
        return min(1.0, max(0.0, 1 - left / whole))

    # -- catch-ups ------------------------------------------------------------------------------------------------

    def _in_force(self) -> list[Subject]:
        found = [("entry", key) for key, followed in self.entries.items() if followed.left is None]
        return found + [("room", room_id) for room_id, followed in self.rooms.items() if followed.left is None]

    def _catch_up(self, unread: list[Span], members: Iterable[Subject]) -> None:
        members = list(members)
        if not unread or not members:
            return
        number = max(self.tasks, default=0) + 1
        self.tasks[number] = CatchUp(number, unread[0][0], unread)
        self.changed_tasks.add(number)
        for subject in members:
            self._of(subject).tasks = [*self._of(subject).tasks, number]
            self.changed.add(subject)
        self._members[number] = members

    def _read_anew(self, opened: Opened) -> None:
        """Begins the catch-ups of entries and rooms that came into force, and drops those that none needs any more."""
        for unread, members in opened.items():
            self._catch_up(list(unread), members)
        wanted = {number for followed in (*self.entries.values(), *self.rooms.values()) for number in followed.tasks}
        for number in self.tasks.keys() - wanted:
            del self.tasks[number]
            self.changed_tasks.add(number)

    def _of(self, subject: Subject) -> Followed:
        kind, key = subject
        return self.entries[key] if kind == "entry" else self.rooms[key]

    def _members_of(self, number: int) -> list[Subject]:
        if number not in self._members:
            self._members[number] = [subject for subject in self._in_force() if number in self._of(subject).tasks]
        return self._members[number]
