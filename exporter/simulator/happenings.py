"""Events beside calls and jobs: webhook deliveries, client errors, failed joins."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from exporter.simulator.seeds import DEVICE, ERROR_DESCRIPTION, ERROR_MESSAGE, USER_DATA, USER_ID, USER_NAME, WEBHOOK_URL
from exporter.simulator.shape import Record, fixed_id
from exporter.times import rfc3339

ERROR_TYPES: Final = (
    "client.join.failed",
    "client.connect.failed",
    "client.publish.failed",
    "client.subscribe.failed",
    "client.disconnected",
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """The result of one webhook, as `/analytics/webhooks` reports it; `error` is `None` if it arrived."""

    id: str
    at: int
    room_id: str
    event: str
    error: str | None = None
    session_id: str = ""

    @property
    def order(self) -> tuple[int, str]:
        """The delivery's sort key in listings."""
        return self.at, self.id

    def record(self) -> Record:
        """The delivery as the API shows it."""
        payload: Record = {
            "event_data": {"session_id": self.session_id, "user_id": USER_ID},
            "webhook_url": WEBHOOK_URL,
            "original_event_name": self.event,
        }
        if self.error is not None:
            payload["error_reason"] = self.error
        return {
            "event_id": self.id,
            "event_name": f"reporter.webhook.delivery.{'success' if self.error is None else 'failed'}",
            "room_id": self.room_id,
            "event_timestamp": rfc3339(self.at),
            "payload": payload,
        }


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """An event that a client reported, such as `client.join.failed`; without `session_id` its call is unknown."""

    id: str
    at: int
    room_id: str
    type: str
    session_id: str | None = None
    peer_id: str = ""
    user_id: str = USER_ID
    error_code: int = 4006
    error_name: str = "WebRTCError"
    role: str = "guest"
    sdk: str = "web"
    data: Record = field(default_factory=dict)
    """Fields that are added to those of `record`, or replace them."""

    @property
    def order(self) -> tuple[int, str]:
        """The event's sort key in listings."""
        return self.at, self.id

    @property
    def failed(self) -> bool:
        """Whether it is an error."""
        return self.type in ERROR_TYPES

    def record(self) -> Record:
        """The event as the API shows it."""
        data: dict[str, Any] = {
            "room_id": self.room_id,
            "peer_id": self.peer_id,
            "user_id": self.user_id,
            "user_name": USER_NAME,
            "role": self.role,
            "template_id": fixed_id("template"),
            "agent": {"sdk": self.sdk, "sdk_version": "2.13.1", "os": "macos"},
            "devices": [DEVICE],
        }
        if self.session_id is not None:
            data["session_id"] = self.session_id
        if self.failed:
            data |= {
                "error_code": self.error_code,
                "error_name": self.error_name,
                "error_message": ERROR_MESSAGE,
                "error_description": ERROR_DESCRIPTION,
                "is_terminal": True,
                "action": "JOIN",
            }
        record = {"version": "2.0", "id": self.id, "timestamp": rfc3339(self.at), "type": self.type}
        return {**record, "data": {**data, **self.data}}


@dataclass(frozen=True, slots=True)
class JoinFailure:
    """A failed attempt to join a room, which only webhooks report."""

    id: str
    at: int
    room_id: str
    reason: str
    role: str = "guest"

    @property
    def order(self) -> tuple[int, str]:
        """The failure's sort key."""
        return self.at, self.id


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """One webhook, posted when something happens.  The same event always gets the same id."""

    id: str
    at: int
    type: str
    room_id: str
    session_id: str
    data: Record

    def body(self, account: str, *, is_replay: bool = False) -> Record:
        """The JSON document that is posted."""
        record: Record = {"version": "2.0", "id": self.id, "account_id": account, "timestamp": rfc3339(self.at), "type": self.type}
        if is_replay:
            record["is_replay"] = True
        return {**record, "data": {**self.data, "user_data": USER_DATA}}
