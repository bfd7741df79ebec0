"""How the workspaces are, as values: what the landing page shows and the health checks ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MOST_ROOMS = 10
"""Rooms of a workspace that the landing page shows."""


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
    """What is collected beside sessions, as its last turn left it; `read_at` is when it was last read whole."""

    name: str
    state: Literal["waiting", "ok", "failing", "silent"]
    read_at: float | None = None
    reason: str | None = None
    """Why it fails or is left alone, free of secrets."""


@dataclass(frozen=True, slots=True)
class WorkspaceStatus:
    """A workspace as its last poll left it; times are seconds since the epoch, figures are None while unknown or too old to show."""

    name: str
    state: Literal["ok", "failing", "waiting"] = "waiting"
    polled_at: float | None = None
    succeeded_at: float | None = None
    reason: str | None = None
    """Why it is failing, free of secrets."""
    rooms: int | None = None
    """Rooms with series."""
    sessions: int | None = None
    peers: int | None = None
    users: int | None = None
    calls_per_hour: float | None = None
    """To the API, at the present pace."""
    catching_up: float | None = None
    """How much of the past has been read, from 0 to 1; None when there is nothing to catch up."""
    busiest: tuple[RoomStatus, ...] = ()
    """Of the rooms with a running session those with most peers, at most `MOST_ROOMS`."""
    collectors: tuple[CollectorStatus, ...] = ()
    """What is collected beside sessions."""


@dataclass(frozen=True, slots=True)
class Status:
    """What the landing page shows; `started_at` in seconds since the epoch, `poll_interval` in seconds."""

    version: str
    revision: str
    started_at: float
    poll_interval: float
    workspaces: tuple[WorkspaceStatus, ...] = ()
