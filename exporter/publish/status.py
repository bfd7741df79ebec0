"""The status of workspaces as plain values, for the landing page and the health checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MOST_ROOMS = 10
"""The maximum number of rooms that the landing page shows of a workspace."""


@dataclass(frozen=True, slots=True)
class RoomStatus:
    """A room in which a session is running; `started_at` is its start, in seconds since the epoch."""

    name: str
    peers: int
    users: int
    sessions: int
    started_at: float
    minutes_today: float
    """Participant minutes of this UTC day."""


@dataclass(frozen=True, slots=True)
class CollectorStatus:
    """A collector after its last turn; `read_at` is when it was last read completely."""

    name: str
    state: Literal["waiting", "ok", "failing", "silent"]
    read_at: float | None = None
    reason: str | None = None
    """Why it fails or is left alone, without secrets."""


@dataclass(frozen=True, slots=True)
class WorkspaceStatus:
    """A workspace after its last poll; times are seconds since the epoch, figures are `None` while unknown or too old to show."""

    name: str
    state: Literal["ok", "failing", "waiting"] = "waiting"
    polled_at: float | None = None
    succeeded_at: float | None = None
    reason: str | None = None
    """Why it is failing, without secrets."""
    rooms: int | None = None
    """Rooms with series."""
    sessions: int | None = None
    peers: int | None = None
    users: int | None = None
    calls_per_hour: float | None = None
    """Calls to the API, at the current pace."""
    catching_up: float | None = None
    """How much of the past has been read, from 0 to 1; `None` if there is no catch-up."""
    busiest: tuple[RoomStatus, ...] = ()
    """The rooms with a running session that have the most peers, at most `MOST_ROOMS`."""
    collectors: tuple[CollectorStatus, ...] = ()
    """The collectors."""


@dataclass(frozen=True, slots=True)
class Status:
    """The data of the landing page; `started_at` is in seconds since the epoch, `poll_interval` in seconds."""

    version: str
    revision: str
    started_at: float
    poll_interval: float
    workspaces: tuple[WorkspaceStatus, ...] = ()
