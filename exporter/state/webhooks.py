"""Stores and loads the counters of webhooks, and the ids of events for as long as they are remembered."""

from __future__ import annotations

from collections.abc import Iterable

from exporter.counting.contribution import Account
from exporter.counting.webhooks import Counter, Heard, Key
from exporter.state.store import Store
from exporter.state.tables import WEBHOOK, WEBHOOK_COUNT, WebhookCountRow, WebhookRow

_KEY = "workspace = ? AND kind = ? AND id = ? AND name = ? AND label = ?"


def restore(store: Store, workspace: str) -> Heard:
    """Loads a workspace's counters.  Raises `StoreError`."""
    heard = Heard()
    with store.reading() as db:
        for row in db.select(WEBHOOK_COUNT, "workspace = ?", (workspace,)):
            heard.restore(Key(Account(row.kind, row.id), row.name, row.label), Counter(row.born, row.value))
    return heard


def known(store: Store, workspace: str, events: Iterable[bytes]) -> set[bytes]:
    """The events among these that were counted before.  Raises `StoreError`."""
    with store.reading() as db:
        return {row.event for event in events for row in db.select(WEBHOOK, "workspace = ? AND event = ?", (workspace, event))}


def commit(store: Store, workspace: str, heard: Heard, now: int) -> None:
    """Stores the counters and events, completely or not at all; only then may they be published.  Raises `StoreError`."""
    gone = [key for key in heard.changed if key not in heard.counters]
    kept = [(key, heard.counters[key]) for key in heard.changed if key in heard.counters]
    with store.writing() as db:
        db.delete(WEBHOOK_COUNT, _KEY, ((workspace, *key.owner, key.name, key.label) for key in gone))
        db.put(WEBHOOK_COUNT, (WebhookCountRow(workspace, *key.owner, key.name, key.label, *counter) for key, counter in kept))
        db.put(WEBHOOK, (WebhookRow(workspace, event, until) for event, until in heard.remembered.items()))
        db.delete(WEBHOOK, "workspace = ? AND until < ?", [(workspace, now)])
    heard.committed()
