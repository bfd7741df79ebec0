"""A plain exporter, as one would write it in an afternoon with the usual libraries. The benchmarks compare with it.

It makes a request for each room, sets gauges in place, and leaves the rest to `start_http_server`.  While it runs and the API
answers, its sums are those of the records.  A restart begins at 0.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import requests
import schedule
from prometheus_client import REGISTRY, CollectorRegistry, Gauge, start_http_server


class PlainExporter:
    """`poll` reads every room (id → name) and sets its gauges."""

    def __init__(self, base_url: str, token: str, rooms: dict[str, str], registry: CollectorRegistry = REGISTRY) -> None:
        self.base_url, self.rooms = base_url, rooms
        self.http = requests.Session()
        self.http.headers["Authorization"] = f"Bearer {token}"
        self.after = dict.fromkeys(rooms, datetime.now(UTC).isoformat(timespec="milliseconds"))
        room, role = ["room_id", "room"], ["room_id", "room", "role"]
        self.of_room = [
            Gauge(f"plain_{name}", name, room, registry=registry)
            for name in ("sessions_active", "users_active", "sessions_started", "sessions_ended", "session_seconds")
        ]
        self.of_role = [
            Gauge(f"plain_{name}", name, role, registry=registry) for name in ("peers_active", "peers_joined", "peers_left", "peer_seconds")
        ]

    def poll(self) -> None:
        """Reads every room."""
        for room_id in self.rooms:
            self.publish(room_id, self.sessions(room_id), time.time())

    def sessions(self, room_id: str) -> list[dict[str, Any]]:
        """A room's sessions: the running ones, and those that have ended since the start."""
        found: dict[str, dict[str, Any]] = {}
        for wanted in ({"active": "true"}, {"active": "false", "after": self.after[room_id]}):
            query = {"room_id": room_id, "limit": "100", **wanted}
            while True:
                answer = self.http.get(f"{self.base_url}/sessions", params=query, timeout=10)
                answer.raise_for_status()
                page = answer.json()
                found |= {session["id"]: session for session in page["data"] or ()}
                if len(page["data"] or ()) < 100 or not page.get("last"):
                    break
                query["start"] = page["last"]
            # Sessions that run now must be found again when they have ended.
            self.after[room_id] = min([self.after[room_id], *(session["created_at"] for session in found.values())])
        return list(found.values())

    def publish(self, room_id: str, sessions: list[dict[str, Any]], now: float) -> None:
        """Sets a room's gauges."""
        running, users, seconds = 0, 0, 0.0
        active, joined, left = Counter[str](), Counter[str](), Counter[str]()
        time_of = defaultdict[str, float](float)
        for session in sessions:
            end = now if session["active"] else _time(session["updated_at"])
            running += session["active"]
            seconds += end - _time(session["created_at"])
            peers = (session.get("peers") or {}).values()
            users += len({peer["user_id"] for peer in peers if session["active"] and not peer.get("left_at")})
            for peer in peers:
                gone = bool(peer.get("left_at")) or not session["active"]
                joined[peer["role"]] += 1
                left[peer["role"]] += gone
                active[peer["role"]] += not gone
                time_of[peer["role"]] += (_time(peer["left_at"]) if peer.get("left_at") else end) - _time(peer["joined_at"])
        labels = (room_id, self.rooms[room_id])
        for gauge, value in zip(self.of_room, (running, users, len(sessions), len(sessions) - running, seconds), strict=True):
            gauge.labels(*labels).set(value)
        by_role: tuple[Mapping[str, float], ...] = (active, joined, left, time_of)
        for gauge, values in zip(self.of_role, by_role, strict=True):
            for role in joined:
                gauge.labels(*labels, role).set(values[role])


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def run(base_url: str, token: str, rooms: dict[str, str], port: int) -> None:
    """Polls and serves until it is killed."""
    exporter = PlainExporter(base_url, token, rooms)
    start_http_server(port)
    schedule.every(30).seconds.do(exporter.poll)
    exporter.poll()
    while True:
        schedule.run_pending()
        time.sleep(1)  # as such plain exporters do
