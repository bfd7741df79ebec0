"""A workspace's poller that also reads the collectors: after the sessions, in the time that a poll has left.

Each collector fails alone: it has its own interval, its own back-off and its own line in the log, and touches neither `hms_up`
nor a session.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from exporter.config.config import Config, WorkspaceConfig
from exporter.config.money import Meter
from exporter.counting.collected import Collected
from exporter.counting.contribution import Account, room_account
from exporter.counting.poll import Poll
from exporter.counting.rooms import KnownRoom
from exporter.counting.usage import MeterUse
from exporter.hms.client import Api
from exporter.hms.errors import ApiError
from exporter.logs import event
from exporter.polling.listed import Asking, RoomsOfInterest
from exporter.polling.poller import WorkspacePoller
from exporter.polling.site import AtWork, Site, TimeLeft, use_of_meters
from exporter.polling.turns import Turn
from exporter.publish.beside import LISTED
from exporter.publish.collected import up_sections
from exporter.publish.collected_families import COLLECTOR_UP
from exporter.publish.exposition import Section
from exporter.publish.status import CollectorStatus
from exporter.state import collected as state
from exporter.state.store import Store, StoreError
from exporter.times import HOUR, SECOND

_SHARE = 0.9
"""The part of a poll's interval in which collectors are read, so that the next poll does not wait for them."""
_GAP_INTERVALS = 3


class CollectingPoller(WorkspacePoller):
    """A `WorkspacePoller` that also reads the due collectors of `collect` after each poll."""

    def __init__(self, workspace: WorkspaceConfig, config: Config, store: Store, *arguments: Any, **more: Any) -> None:
        """The arguments are those of `WorkspacePoller`."""
        self._sites: dict[str, Site] = {}
        self._store = store
        self._unshown = False
        """Whether data has been read that is not published yet."""
        super().__init__(workspace, config, store, *arguments, **more)
        self._publisher.beside, self._publisher.metered = self._sections_beside, self._meters

    # -- its configuration ----------------------------------------------------------------------------------------

    def _use(self, config: Config, api: Api) -> None:
        super()._use(config, api)
        self._beside_client = api.client()
        sites = {}
        for listed in LISTED:
            name = listed.kind.name
            if not getattr(config.collect, name):
                continue
            turn = Turn(config.collect.interval, config.poll.interval)
            site = self._sites.get(name)
            if site is None:
                site = Site(self.name, listed, self._rooms_of_interest(name), turn)
            else:
                turn.carry_on(site.turn)
            site.turn, site.entered, site.read = turn, False, False
            sites[name] = site
        self._sites = sites

    def _rooms_of_interest(self, name: str) -> RoomsOfInterest:
        names = self.accounts.told_name_of
        return RoomsOfInterest(lambda room_id: self.rooms.covers(room_id), names, self.rejected, partial(self._odd, name))

    def restore(self) -> None:
        """Publishes the stored state at once.  Raises `StoreError`."""
        self._restore_beside()
        super().restore()
        self._enter_accounts()

    def configure(self, workspace: WorkspaceConfig, config: Config, api: Api) -> None:
        """Applies a configuration between two polls; counters keep their values."""
        self._beside_client.close()
        super().configure(workspace, config, api)
        try:
            self._restore_beside()
            self._enter_accounts()
        except StoreError as error:
            event("warn", "what is collected beside sessions could not be read from the state", workspace=self.name, reason=error)

    def _restore_beside(self) -> None:
        for site in self._sites.values():
            if not site.restored:
                state.restore(self._store, self.name, site.collected)
                site.restored = True

    def _enter_accounts(self) -> None:
        """Loads the accounts of items that are not settled, which are shown like others."""
        for site in self._sites.values():
            for kept in site.collected.kept.values():
                if kept.account is not None:
                    self.accounts.open(kept.account)
        self._open_holdings()
        self._mark_accounts()
        self.rooms.show(self.ledger.accounts.values(), self.ledger.now or 0)
        self._tell_beside()
        self._publish(up=self.status.state == "ok")

    # -- a poll ---------------------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Polls all sessions, and then the collectors.  Never raises."""
        started = self._monotonic()
        super().poll()
        self._guarded(lambda: self._collect(started))

    def _collect(self, started: float) -> None:
        if not self._entered or self._poll is None:
            return
        left = TimeLeft(self._asking(started), started, self._config.poll.interval)
        for work in sorted(self._at_work(), key=lambda work: work.turn.due):
            if not work.turn.is_due(started) or self.api.stopped.is_set():
                continue
            if left.suffices(work.turn):
                self._turn(work, left)
                self._unshown = True
            else:
                work.turn.waited(started)
                self._tell_of(work)
        self._read_rest(left)
        self._show_read()
        self._tell_beside()
        if not self.api.stopped.is_set():
            self._read_names_beside(left.asking.until)

    def _at_work(self) -> list[AtWork]:
        """The collectors, in the order in which they are read if they are due together."""
        return list(self._sites.values())

    def _asking(self, started: float) -> Asking:
        """The time that a poll leaves for collectors; a poll that took longer than its interval also uses the rest of the next one."""
        interval = self._config.poll.interval
        until = started + ((self._monotonic() - started) // interval + _SHARE) * interval
        self._beside_client.end_by(time.monotonic() + until - self._monotonic())
        return Asking(self._beside_client, until, self._pause, self._monotonic)

    def _show_read(self) -> None:
        """Publishes data that has been read and is not published yet."""
        if self._unshown and not self.api.stopped.is_set():
            self._publisher.publish_beside(self.ledger, self.rooms, durable=self._durable)
        self._unshown = False

    def _pause(self) -> None:
        if self._pressed():
            self._give_way()

    def _turn(self, work: AtWork, left: TimeLeft) -> None:
        """Reads one collector; an error concerns it alone."""
        assert isinstance(work, Site)
        self._enter(work)
        begun = self._monotonic()
        interval = max(self._config.collect.interval, self._config.poll.interval)
        gap = max(HOUR, round(_GAP_INTERVALS * interval * SECOND))
        try:
            error = work.reader.read(left.asking, gap)
        except ApiError as unread:
            error = unread
        else:
            work.read = True
        if self.api.stopped.is_set():
            return
        fault = self._settled(work)
        if fault is None and error is None:
            work.turn.succeeded(left.started, self._monotonic(), time.time(), quiet=work.quiet())
            if work.reader.behind:
                return  # it succeeds only when its past can be read too
        else:
            left.failed(work.turn, error if fault is None else fault, begun)
        self._tell_of(work)

    def _read_rest(self, left: TimeLeft) -> None:
        """Reads more of the past, as far as the time allows."""
        asking, stopped = left.asking, self.api.stopped
        for site in self._sites.values():
            read = False
            while site.read and site.reader.behind and not asking.is_over and site.turn.state == "ok" and not stopped.is_set():
                begun = self._monotonic()
                error = site.reader.read_past(asking)
                if stopped.is_set():
                    return
                fault = self._settled(site)
                if error is not None and asking.is_over and (read or left.was_little(begun)):
                    error = None
                if error is not None or fault is not None:
                    site.turn.failed(left.started, str(error or fault))
                self._tell_of(site)
                read = self._unshown = True

    def _enter(self, site: Site) -> None:
        """Tells the collector the configuration: from then on its rooms count, whether it can be read or not."""
        if site.entered:
            return
        assert self._poll is not None
        now = self._poll.now
        site.collected.coverage.configure(self.rooms.scope, self._since(now), now, self.accounts.told_name_of)
        site.entered = True

    # -- what it has read -----------------------------------------------------------------------------------------

    def _settled(self, site: Site) -> str | None:
        """Assigns accounts to new items, works out the totals and stores them; returns the error, in words."""
        site.durable = False
        fault = self._guarded(lambda: self._settle_beside(site))
        site.durable = fault is None
        return fault

    def _settle_beside(self, site: Site) -> None:
        collected = site.collected
        owners = self._owners_of(collected)
        for account in owners.values():
            if account is not None:
                self.accounts.open(account)
        self._open_holdings()
        for room_id, account in owners.items():
            collected.assign(room_id, self.accounts.told_name_of(room_id), account)
        if collected.now is not None:
            collected.finish(self.accounts.told_name_of)
        self._mark_accounts()
        if any(state.touched for state in self.ledger.accounts.values()):
            assert self._poll is not None
            self._durable = False
            self._poll.finish((), self._read_at)
            self._commit()
        state.commit(self._store, self.name, collected)

    def _owners_of(self, collected: Collected[Any]) -> dict[str, Account | None]:
        """The accounts of the new items' rooms, where that is decided; `None` for a room that is not followed."""
        name_of, coverage = self.accounts.name_of, collected.coverage
        rooms = [room_id for room_id in collected.unassigned_rooms() if not coverage.is_undecided(room_id, name_of(room_id))]
        if not rooms:
            return {}
        owners: dict[str, Account | None] = {t.room_id: t.account for t in self.ledger.tracked.values() if t.account is not None}
        for site in self._sites.values():
            owners |= {kept.item.room_id: kept.account for kept in site.collected.kept.values() if kept.open and kept.account is not None}
        new = dict.fromkeys((room_id for room_id in rooms if room_id not in owners), 0)
        owners |= self.rooms.place(new, self.ledger.accounts, self.ledger.now or 0)
        found = {room_id: owners.get(room_id) for room_id in rooms}
        for room_id, account in found.items():
            if account is None and coverage.has_covered(room_id, self.accounts.told_name_of(room_id)):
                found[room_id] = room_account(room_id)  # its entry was removed meanwhile: it counts, but is not shown
        return found

    def _open_holdings(self) -> None:
        for site in self._sites.values():
            state.open_accounts(self._store, self.name, site.collected, self.ledger.accounts)

    def _mark_accounts(self) -> None:
        """Marks rooms with a running item as in use, like rooms with a running session."""
        for of in self.ledger.accounts.values():
            of.kept_by, of.run_by = set(), set()
        for site in self._sites.values():
            for account, holding in site.collected.holdings.items():
                found = self.ledger.accounts.get(account)
                if found is None:
                    continue
                if holding.kept:
                    found.kept_by.add(site.name)
                if any(kept.open for kept in holding.kept.values()):
                    found.run_by.add(site.name)
                if holding.last_active > found.last_active:
                    found.last_active, found.touched = holding.last_active, True

    def _end(self, poll: Poll) -> None:
        super()._end(poll)
        for site in self._sites.values():
            for account in [account for account in site.collected.holdings if account not in self.ledger.accounts]:
                site.collected.close(account)

    # -- rooms ----------------------------------------------------------------------------------------------------

    def rooms_in_question(self) -> list[str]:
        """Rooms to ask 100ms about now, including those of items that wait for a name."""
        found = super().rooms_in_question()
        waiting = [i for site in self._sites.values() for i in site.collected.unassigned_rooms()]
        return list(dict.fromkeys([*found, *self.rooms.wanted(waiting, self.api.now())])) if waiting else found

    def learn(self, answers: Sequence[KnownRoom]) -> None:
        """Takes answers about rooms: counts the items that waited for them, and publishes them under the rooms' names."""
        before = {room.id: self.accounts.told_name_of(room.id) for room in answers}
        super().learn(answers)
        for site in self._sites.values():
            if self._poll is None or not site.entered:
                continue
            for room_id, old in before.items():
                new, now = self.accounts.told_name_of(room_id), self._poll.now
                if old is not None and new is not None and old != new:
                    site.collected.coverage.renamed(room_id, old, new, self._since(now), now)
            if set(site.collected.unassigned_rooms()) & before.keys():
                self._settled(site)
                self._publisher.publish_beside(self.ledger, self.rooms, durable=self._durable)

    def _read_names_beside(self, until: float) -> None:
        """Reads the names of rooms that collectors have just found, so that their series do not wait for the next poll."""
        wanted = [room_id for room_id in self.rooms_in_question() if room_id not in self.rooms.known]
        if wanted and self._monotonic() < until:
            answers = self._names.read(wanted, until, self._until_pressed)
            if answers:
                self.learn(answers)

    # -- telling --------------------------------------------------------------------------------------------------

    def _sections_beside(self, labels: Mapping[Account, str]) -> Mapping[str, Sequence[Section]]:
        """The published text of all collectors: only what has been stored."""
        created = self._config.web.created_timestamps
        sections: dict[str, Sequence[Section]] = {}
        up: list[Section] = []
        for site in self._sites.values():
            if site.durable:
                site.shown = site.text.sections(site.collected, labels, site.turn.good_until, created=created)
            sections |= site.shown
            up += up_sections(self.name, site.name, site.turn.good_until if site.turn.state == "ok" else float("-inf"))
        return {**sections, COLLECTOR_UP.name: up}

    def _meters(self, now: int) -> Mapping[Meter, MeterUse]:
        return use_of_meters(self._sites.values(), now)

    def _tell_of(self, site: AtWork) -> None:
        site.tell(self.name, self._monotonic())

    def _odd(self, name: str, text: str) -> None:
        site = self._sites.get(name)
        if site is not None and text not in site.odd:
            site.odd.add(text)
            event("warn", text, workspace=self.name, collector=name)

    def _tell_beside(self) -> None:
        found = tuple(CollectorStatus(s.name, s.turn.state, s.turn.read_at, s.turn.reason) for s in self._at_work())
        self.status = replace(self.status, collectors=found)
