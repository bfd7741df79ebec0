"""Recordings, live streams and external streams as scripts, and the API's record of each job and asset at any moment."""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Final, Literal

import msgspec

from exporter.simulator.seeds import ASSET_PATH, MEETING_URL, PLAYBACK_URL, RTMP_URL
from exporter.simulator.shape import ZERO_TIME, Record, Shape, overridden
from exporter.times import rfc3339

Kind = Literal["recording", "live_stream", "external_stream"]
KINDS: Final[tuple[Kind, ...]] = ("recording", "live_stream", "external_stream")

STATUSES: Final = ("starting", "running", "stopping", "post_processing", "completed", "failed")

AssetStatus = Literal["completed", "failed"]

_OF_KIND: Final[Mapping[Kind, Record]] = {
    "recording": {"asset_types": ["room-composite"]},
    "live_stream": {
        "destination": "hls",
        "playback": {"url": PLAYBACK_URL},
        "recording": {"hls_vod": True, "single_file_per_layer": False},
    },
    "external_stream": {"destination": "rtmp", "rtmp_urls": [RTMP_URL], "recording": False, "resolution": {"width": 1280, "height": 720}},
}


@dataclass(frozen=True, slots=True)
class Standing:
    """A job's state at a moment; `None` for a time that its record lacks."""

    status: str
    updated_at: int
    started_at: int | None = None
    stopped_at: int | None = None
    stopped_by: str = ""


class Job:
    """One recording or stream, from the moment it is requested.  Made by `World.record`, `World.stream` and `World.push`.

    Each method scripts what the record shows from a moment on and returns the job, so that calls can be chained.  Contradictions
    are allowed, because 100ms's own records sometimes contradict themselves.
    """

    __slots__ = (
        "_cache",
        "_changes",
        "_lock",
        "_shape",
        "created_at",
        "id",
        "kind",
        "raw",
        "room_id",
        "session_id",
        "started_by",
        "vanished_at",
    )

    def __init__(
        self,
        kind: Kind,
        *,
        id: str,  # noqa: A002 -- the API's name
        room_id: str,
        session_id: str,
        created_at: int,
        lock: threading.RLock,
        started_by: str = "",
        shape: Shape = Shape(),  # noqa: B008 -- immutable
    ) -> None:
        self.kind = kind
        self.id = id
        self.room_id = room_id
        self.session_id = session_id
        self.created_at = created_at
        self.started_by = started_by
        self.vanished_at: int | None = None
        self.raw: Mapping[str, object] = {}
        """Fields, by the API's names, that override the true ones in the record; set them before the first query."""
        self._changes: list[tuple[int, Mapping[str, object]]] = [(created_at, {"status": "starting"})]
        self._cache: tuple[int, bytes] | None = None
        self._lock = lock
        self._shape = shape

    @property
    def order(self) -> tuple[int, str]:
        """The job's sort key in listings."""
        return self.created_at, self.id

    @property
    def moments(self) -> list[tuple[int, Mapping[str, object]]]:
        """The moments at which the record changes, in order, with the changes; the job's webhooks are derived from them."""
        return self._changes

    def start(self, at: int) -> Job:
        """The job runs from `at` on."""
        return self.change(at, status="running", started_at=at)

    def stop(self, at: int, *, by: str = "", recorded_at: int | None = None) -> Job:
        """The job stops at `at` and its files are being composed; the record shows this from `recorded_at` on."""
        return self.change(at if recorded_at is None else recorded_at, status="post_processing", stopped_at=at, stopped_by=by)

    def complete(self, at: int) -> Job:
        """The job and its files are complete."""
        return self.change(at, status="completed")

    def fail(self, at: int, *, stopped_at: int | None = None) -> Job:
        """The job fails, at any stage."""
        return self.change(at, status="failed") if stopped_at is None else self.change(at, status="failed", stopped_at=stopped_at)

    def change(self, at: int, **fields: object) -> Job:
        """Sets `status`, `started_at`, `stopped_at` (µs, or `None` to remove it) or `stopped_by` from `at` on."""
        unknown = fields.keys() - {"status", "started_at", "stopped_at", "stopped_by"}
        if unknown or at < self.created_at:
            raise ValueError(f"job {self.id} cannot change {sorted(unknown or fields)} at {at}")
        with self._lock:
            insort(self._changes, (at, fields), key=itemgetter(0))
            self._cache = None
        return self

    def vanish(self, at: int) -> Job:
        """From `at` on, the API no longer knows the job."""
        self.vanished_at = at
        return self

    def exists(self, now: int) -> bool:
        """Whether the API knows the job."""
        return self.created_at <= now and (self.vanished_at is None or now < self.vanished_at)

    def standing(self, now: int) -> Standing:
        """The job's state.  Raises `ValueError` before the job is requested."""
        past = self._changes[: self._step(now)]
        merged: Record = {}
        for _, fields in past:
            merged |= fields
        return Standing(updated_at=past[-1][0], **merged)

    def record(self, now: int) -> Record:
        """The job as the API shows it.  Raises `ValueError` before the job is requested."""
        standing = self.standing(now)
        record: Record = {
            "id": self.id,
            "room_id": self.room_id,
            "session_id": self.session_id,
            "status": standing.status,
            "meeting_url": MEETING_URL,
            **_OF_KIND[self.kind],
            "created_at": rfc3339(self.created_at, self._shape.digits),
        }
        for name, at in (("started_at", standing.started_at), ("stopped_at", standing.stopped_at)):
            if at is not None:
                record[name] = rfc3339(at, self._shape.digits)
            elif self._shape.connected != "absent":
                record[name] = None if self._shape.connected == "null" else ZERO_TIME
        record["updated_at"] = rfc3339(standing.updated_at, self._shape.digits)
        record["started_by"] = self.started_by
        record["stopped_by"] = standing.stopped_by
        return overridden(record, self.raw)

    def encoded(self, now: int) -> bytes:
        """The record as JSON, cached until it changes."""
        step = self._step(now)
        if self._cache is None or self._cache[0] != step:
            self._cache = step, msgspec.json.encode(self.record(now))
        return self._cache[1]

    def _step(self, now: int) -> int:
        """How many of the changes have happened by `now`."""
        step = bisect_right(self._changes, now, key=itemgetter(0))
        if step == 0:
            raise ValueError(f"job {self.id} was not requested by {now}")
        return step


@dataclass(eq=False)
class Asset:
    """A file of a recording, or a failure to make one.  Made by `World.asset`."""

    id: str
    job_id: str
    room_id: str
    session_id: str
    type: str
    created_at: int
    status: AssetStatus = "completed"
    duration: float = 0
    """In seconds."""
    size: int = 0
    """In bytes."""
    vanished_at: int | None = None
    raw: Mapping[str, object] | None = None

    @property
    def order(self) -> tuple[int, str]:
        """The asset's sort key in listings."""
        return self.created_at, self.id

    def exists(self, now: int) -> bool:
        """Whether the API knows the asset."""
        return self.created_at <= now and (self.vanished_at is None or now < self.vanished_at)

    def encoded(self, _now: int) -> bytes:
        """The record as JSON."""
        record: Record = {
            "id": self.id,
            "job_id": self.job_id,
            "room_id": self.room_id,
            "session_id": self.session_id,
            "type": self.type,
            "status": self.status,
            "path": f"{ASSET_PATH}/{self.id}",
            "size": self.size,
            "duration": self.duration,
            "created_at": rfc3339(self.created_at),
            "thumbnails": None,
            "metadata": {"resolution": {"width": 1280, "height": 720}},
        }
        return msgspec.json.encode(overridden(record, self.raw or {}))
