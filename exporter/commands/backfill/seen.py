"""The roles that peers held before their last one: the live exporter saw them, the records do not contain them.

Live, a peer's time is credited to the role that it was seen to hold.  So that each role's series goes on live from where
the past leaves it, the same is credited here, from what the state file remembers of the sessions that ran when they began.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from exporter.config.config import StorageConfig
from exporter.counting.contribution import Memory, Past
from exporter.hms.records import Session
from exporter.state.tables import ROLES_SEEN, RUNNING, WORKSPACE
from exporter.state.view import StateView, look_into

_decode_past = msgspec.msgpack.Decoder(Past).decode
_decode_memory = msgspec.msgpack.Decoder(Memory).decode
_NONE: Past = {}


class Seen:
    """The earlier roles of peers, by session; encoded until they are asked for, for there may be many that never are.

    `settled` holds those of sessions that were settled; `running` the memories of the others, and up to when they are credited.
    """

    def __init__(self, settled: Mapping[str, bytes], running: Mapping[str, tuple[bytes, int]]) -> None:
        self._settled = settled
        self._running = running

    def past(self, session: Session) -> Past:
        """The earlier roles of those of this session's peers that changed theirs, and until when each was credited."""
        settled = self._settled.get(session.id)
        if settled is not None:
            return _decode_past(settled)
        running = self._running.get(session.id)
        if running is None:
            return _NONE
        memory, observed = _decode_memory(running[0]), running[1]
        past = memory.past
        for peer, known in memory.stays.items():
            stay = session.stays.get(peer)
            if stay is not None and stay.role != known.role:
                # Not noticed yet: the exporter has been down since, or polls this very moment.
                past.setdefault(peer, []).append((known.role, max(observed, known.joined)))
        return past


def roles_seen(storage: StorageConfig, workspace: str) -> Seen:
    """What the state holds; empty without a state. Raises `StoreError`."""

    def read(view: StateView) -> Seen:
        settled = {row.id: row.past for row in view.rows(ROLES_SEEN, "workspace = ?", (workspace,))}
        polled = next((row.now or 0 for row in view.rows(WORKSPACE, "name = ?", (workspace,))), 0)
        rows = view.rows(RUNNING, "workspace = ?", (workspace,))
        running = {row.id: (row.memory, polled if row.observed is None else row.observed) for row in rows}
        return Seen(settled, running)

    return look_into(storage, read) or Seen({}, {})
