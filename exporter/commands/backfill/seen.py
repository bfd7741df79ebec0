"""The earlier roles of peers, which the live exporter saw but the records do not contain.

In live counting, a peer's time is credited to the role in which it was seen.  The backfill credits it the same way, so that the
live series of each role continues from it: the state remembers the roles in sessions that ran when the series began.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from exporter.config.config import StorageConfig
from exporter.counting.stays import Memory, Past
from exporter.hms.records import Session
from exporter.state.tables import ROLES_SEEN, RUNNING, WORKSPACE
from exporter.state.view import StateView, look_into

_decode_past = msgspec.msgpack.Decoder(Past).decode
_decode_memory = msgspec.msgpack.Decoder(Memory).decode
_NONE: Past = {}


class Seen:
    """The earlier roles of peers, by session; decoded only when needed, because many never are.

    `settled` holds the roles of settled sessions; `running` the memories of the others, and up to when they are credited.
    """

    def __init__(self, settled: Mapping[str, bytes], running: Mapping[str, tuple[bytes, int]]) -> None:
        self._settled = settled
        self._running = running

    def past(self, session: Session) -> Past:
        """The earlier roles of this session's peers, and until when each was credited."""
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
                # Not noticed yet: the exporter has been down since, or is polling right now.
                past.setdefault(peer, []).append((known.role, max(observed, known.joined)))
        return past


def roles_seen(storage: StorageConfig, workspace: str) -> Seen:
    """The roles in the state; empty without a state.  Raises `StoreError`."""

    def read(view: StateView) -> Seen:
        settled = {row.id: row.past for row in view.rows(ROLES_SEEN, "workspace = ?", (workspace,))}
        polled = next((row.now or 0 for row in view.rows(WORKSPACE, "name = ?", (workspace,))), 0)
        rows = view.rows(RUNNING, "workspace = ?", (workspace,))
        running = {row.id: (row.memory, polled if row.observed is None else row.observed) for row in rows}
        return Seen(settled, running)

    return look_into(storage, read) or Seen({}, {})
