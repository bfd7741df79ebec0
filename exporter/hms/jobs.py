"""Recordings, live streams and external streams, as the API shows them."""

from __future__ import annotations

from typing import Final

import msgspec

from exporter.hms.items import Item, Text, Time, Unreadable, decoded, moment
from exporter.hms.records import Rejection

ACTIVE: Final = ("starting", "running", "stopping", "post_processing")
OVER: Final = ("completed", "failed")
_UNKNOWN: Final = ""
"""Stands for an unknown status: its text may be anything, and is not kept."""


class Job(Item):
    """A recording or stream; `created` is when it was requested; times are microseconds, `None` if missing."""

    status: str
    started: int | None = None
    stopped: int | None = None
    updated: int | None = None

    @property
    def ended(self) -> int | None:
        """When it ended; `None` while it is open."""
        if self.status not in OVER:
            return None
        return next(at for at in (self.stopped, self.updated, self.started, self.created) if at is not None)

    @property
    def changed(self) -> int:
        """When the record last changed."""
        return max(at for at in (self.created, self.started, self.stopped, self.updated) if at is not None)

    @property
    def stage(self) -> str:
        """Its status; an unknown one is inferred from its times."""
        if self.status != _UNKNOWN:
            return self.status
        if self.stopped is not None:
            return "post_processing"
        return "starting" if self.started is None else "running"

    @property
    def oddity(self) -> str | None:
        """A message about an unknown status."""
        return "a job has a status that this exporter does not know; it counts by its times" if self.status == _UNKNOWN else None


class _WireJob(msgspec.Struct, gc=False):
    id: Text
    room_id: Text
    created_at: Time
    status: msgspec.Raw = msgspec.Raw(b"null")
    started_at: Time | None = None
    stopped_at: Time | None = None
    updated_at: Time | None = None


_decoder = msgspec.json.Decoder(_WireJob)
_STATUSES: Final = {f'"{status}"'.encode(): status for status in (*ACTIVE, *OVER)}


def decode_job(raw: bytes | msgspec.Raw, now: int) -> Job | Rejection:
    """Decodes one recording or stream, checked against `now` (the API's time)."""

    def make(raw: bytes | msgspec.Raw) -> Job:
        wire = _decoder.decode(raw)
        created = moment(wire.created_at, now)
        if created is None:
            raise Unreadable("it has no creation time")
        times = [moment(time, now) for time in (wire.started_at, wire.stopped_at, wire.updated_at)]
        return Job(wire.id, wire.room_id, created, _STATUSES.get(bytes(wire.status), _UNKNOWN), *times)

    return decoded("job", raw, make)
