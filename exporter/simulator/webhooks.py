"""The webhooks that 100ms posts for a workspace, derived from the scripts.  Nothing is sent here."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Final, Protocol

from exporter.simulator.beside import Beside
from exporter.simulator.happenings import JoinFailure, WebhookEvent
from exporter.simulator.jobs import Job
from exporter.simulator.seeds import MEETING_URL, USER_ID, USER_NAME
from exporter.simulator.shape import ZERO_TIME, Record, fixed_uuid
from exporter.simulator.timeline import Peer, Room, Session
from exporter.times import SECOND, rfc3339

_JOB_EVENTS: Final = {
    ("recording", "running"): "beam.started.success",
    ("recording", "post_processing"): "beam.stopped.success",
    ("recording", "completed"): "beam.recording.success",
    ("recording", "failed"): "beam.failure",
    ("live_stream", "running"): "hls.started.success",
    ("live_stream", "post_processing"): "hls.stopped.success",
    ("live_stream", "failed"): "hls.failure",
    ("external_stream", "running"): "beam.started.success",
    ("external_stream", "post_processing"): "beam.stopped.success",
    ("external_stream", "failed"): "beam.failure",
}
"""The event when a job gets this status; other statuses have none."""


class Sources(Protocol):
    """The parts of a workspace that its webhooks are derived from."""

    @property
    def beside(self) -> Beside:
        """Its jobs and failed joins."""

    def sessions_since(self, after: int, now: int) -> list[Session]:
        """Every session that began by `now` and was still running later than `after`; perhaps others too."""

    def find_room(self, room_id: str, now: int) -> Room | None:
        """The room with this id, if the API knows it."""


def webhook_events(workspace: Sources, after: int, until: int) -> list[WebhookEvent]:
    """The events later than `after`, up to `until`, oldest first.

    A leave is reported when it is recorded; a ghost's leave is never reported.
    """
    events: list[WebhookEvent] = []
    for session in workspace.sessions_since(after, until):
        events += (event for event in _of_session(session, _place(workspace, session.room_id, until), after, until))
    for job in workspace.beside.jobs_since(after, until):
        events += _of_job(job, _place(workspace, job.room_id, until), after, until)
    for failure in workspace.beside.join_failures(after, until):
        events.append(_of_failure(failure, _place(workspace, failure.room_id, until)))
    # The sort is stable: events of a call at the same moment keep their order.
    return sorted(events, key=attrgetter("at"))


def _place(workspace: Sources, room_id: str, now: int) -> Record:
    room = workspace.find_room(room_id, now)
    name, template_id = (room.name_at(now), room.template_id) if room is not None else ("", "")
    return {"room_id": room_id, "room_name": name, "template_id": template_id}


def _of_session(session: Session, place: Record, after: int, until: int) -> Iterator[WebhookEvent]:
    base = {**place, "session_id": session.id, "session_started_at": rfc3339(session.created_at)}

    def event(kind: str, at: int, subject: str = "", **data: object) -> WebhookEvent:
        return WebhookEvent(fixed_uuid(f"{session.id}/{kind}/{subject}/{at}"), at, kind, session.room_id, session.id, {**base, **data})

    if after < session.created_at <= until:
        yield event("session.open.success", session.created_at)
    for peer in session.peers:
        if after < peer.joined_at <= until:
            yield event("peer.join.success", peer.joined_at, peer.id, **_person(peer, peer.roles[0][1]), type="regular")
        for (_, previous), (at, role) in zip(peer.roles, peer.roles[1:], strict=False):
            if after < at <= until:
                changed = {"previous_role": previous, "role_changed_at": rfc3339(at)}
                yield event("role.change.success", at, peer.id, **_person(peer, role), **changed)
        told_at = peer.leave_recorded_at()
        if told_at is not None and peer.left_at is not None and after < told_at <= until:
            stay = {"left_at": rfc3339(peer.left_at), "duration": (peer.left_at - peer.joined_at) // SECOND, "reason": peer.reason}
            yield event("peer.leave.success", told_at, peer.id, **_person(peer, peer.role_at(peer.left_at)), **stay)
    closed_at = session.closed_at
    if closed_at is not None and after < closed_at <= until:
        length = (closed_at - session.created_at) // SECOND
        yield event("session.close.success", closed_at, session_stopped_at=rfc3339(closed_at), session_duration=length)


def _person(peer: Peer, role: str) -> Record:
    shown = {"peer_id": peer.id, "user_id": peer.user_id, "user_name": peer.name}
    return {**shown, "role": role, "joined_at": rfc3339(peer.joined_at)}


def _of_job(job: Job, place: Record, after: int, until: int) -> Iterator[WebhookEvent]:
    for index, (at, changed) in enumerate(job.moments):
        kind = _JOB_EVENTS.get((job.kind, str(changed.get("status"))))
        if kind is not None and after < at <= until:
            data = {**place, "session_id": job.session_id, "job_id": job.id, "beam_id": job.id, "meeting_url": MEETING_URL}
            if kind.endswith("failure"):
                data["error_type"] = "StartError"
            yield WebhookEvent(fixed_uuid(f"{job.id}/{kind}/{index}"), at, kind, job.room_id, job.session_id, data)


def _of_failure(failure: JoinFailure, place: Record) -> WebhookEvent:
    person = {"user_id": USER_ID, "user_name": USER_NAME, "role": failure.role, "joined_at": ZERO_TIME}
    data = {**place, **person, "error_message": failure.reason}
    return WebhookEvent(fixed_uuid(f"webhook {failure.id}"), failure.at, "peer.join.failure", failure.room_id, "", data)
