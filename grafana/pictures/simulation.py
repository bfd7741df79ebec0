"""Polls the made-up company through its past, by the clock that past.py has put in place, and writes down what is published."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import msgspec

from exporter.config.config import load
from exporter.hms.client import Api
from exporter.hms.clock import ApiClock
from exporter.polling.hurried import HurriedPoller
from exporter.polling.hurry import Hurry
from exporter.polling.inbox import Inbox
from exporter.publish.budgets import BudgetBoard
from exporter.publish.exposition import Exposition
from exporter.publish.selfmetrics import SelfMetrics
from exporter.simulator import Company, SimulatedApi
from exporter.simulator.beside import EventQuery
from exporter.simulator.shape import fixed_id, fixed_uuid
from exporter.simulator.webhooks import webhook_events
from exporter.state.store import Store


def simulate(folder: Path, seed: int, now: int, labels: str, beats: Iterator[float]) -> None:
    """Polls the company of that seed up to the present; its samples go to past.om, the state to where config.yaml says."""
    company = Company(seed, now)
    config = load(folder / "config.yaml", {})
    workspace = config.workspaces[0]
    with SimulatedApi([company]) as simulated, (folder / "past.om").open("w", encoding="utf-8") as out:
        config = replace(config, api=replace(config.api, base_url=simulated.base_url))
        metrics = SelfMetrics("pictures", "unknown")
        exposition = Exposition(metrics.render)
        store = Store(config.storage.path)
        own = metrics.workspace(workspace.name, config.poll.interval)
        api = Api(config.api, workspace.credentials, own, ApiClock())
        board = BudgetBoard(exposition, config.budgets)
        poller = HurriedPoller(workspace, config, store, exposition, own, api, board, hurry=Hurry())
        inbox = Inbox(store, exposition)
        poller.listen(inbox.hearing(workspace.name, api.now, lambda _: None))
        poller.restore()
        inbox.start()
        told = time.time_ns() // 1000
        for moment in beats:
            until = time.time_ns() // 1000
            for body in _arrived(company, told, until):
                inbox.take(workspace.name, body)
            told = until
            poller.poll()
            _keep(b"".join(exposition.page("", "").chunks).decode(), labels, moment, out)
        out.write("# EOF\n")
        inbox.stop()
        api.stop()
        store.close()


def _keep(page: str, labels: str, moment: float, out: TextIO) -> None:
    """Writes a page's samples; those of the process are left out: the simulated API ran in the same one."""
    out.write(f"up{{{labels}}} 1 {moment:.3f}\n")
    for line in page.splitlines():
        if line.startswith("hms_"):
            sample, _, value = line.rpartition(" ")
            name, brace, more = sample.partition("{")
            out.write(f"{name}{{{labels}{',' + more if brace else '}'} {value} {moment:.3f}\n")


def _arrived(company: Company, after: int, until: int) -> Iterator[bytes]:
    """The bodies of what happened later than `after`, up to `until` (microseconds), and was delivered."""
    account = fixed_id(f"customer {company.access_key}")
    lost = {delivery.id for delivery in company.beside.deliveries(EventQuery(after + 1, until)) if delivery.error is not None}
    for event in webhook_events(company, after, until):
        if fixed_uuid(f"delivery {event.id}") not in lost:
            yield msgspec.json.encode(event.body(account))
