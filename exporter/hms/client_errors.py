"""Client errors: records of `/analytics/events`.

Only the counted fields are decoded: the type, the code, the kind of client and the session.  Names, user ids, devices and
descriptions are not.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from exporter.hms.pages import BROKEN
from exporter.hms.records import Rejection, plain, record_id

OTHER = "other"
"""Stands for every type that 100ms's documentation does not list."""
UNKNOWN = "unknown"
"""Stands for a code or kind of client that the record lacks."""

_TYPES = {
    "client.join.failed": "join",
    "client.connect.failed": "connect",
    "client.publish.failed": "publish",
    "client.subscribe.failed": "subscribe",
    "client.disconnected": "disconnected",
}
_ERROR = re.compile(r"client\.[a-z_.]{1,40}\.failed")
"""The pattern of an error's type: 100ms may add types."""
_CODE = re.compile(r"-?\d{1,9}")
_SDK = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


class ClientError(msgspec.Struct, frozen=True):
    """An error that a client reported; `session_id` is empty if the record has none."""

    id: str
    session_id: str
    type: str
    code: str
    sdk: str


_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]


class _Agent(msgspec.Struct):
    sdk: msgspec.Raw = msgspec.Raw(b"null")


class _Data(msgspec.Struct):
    session_id: str | None = None
    error_code: int | str | float | None = None
    agent: msgspec.Raw = msgspec.Raw(b"null")


class _Wire(msgspec.Struct):
    id: _Text
    type: _Text
    data: _Data | None = None


_decode = msgspec.json.Decoder(_Wire).decode
_decode_agent = msgspec.json.Decoder(_Agent | None).decode
_decode_text = msgspec.json.Decoder(str | None).decode


def decode_client_error(raw: bytes | msgspec.Raw) -> ClientError | Rejection | None:
    """Decodes one error; `None` for an event that is not an error."""
    try:
        wire = _decode(raw)
    except BROKEN:
        identifier = record_id(raw)
        identity = (identifier or str(hash(bytes(raw))),)
        return Rejection("client_error", identity, plain(identifier) if identifier else "unknown", "not a record of an event")
    kind = _TYPES.get(wire.type)
    if kind is None and not _ERROR.fullmatch(wire.type):
        return None
    data = wire.data or _Data()
    code = "" if data.error_code is None or isinstance(data.error_code, float) else str(data.error_code)
    return ClientError(
        id=wire.id,
        session_id=data.session_id or "",
        type=kind or OTHER,
        code=code if _CODE.fullmatch(code) else UNKNOWN,
        sdk=_sdk(data.agent),
    )


def _sdk(raw: msgspec.Raw) -> str:
    try:
        agent = _decode_agent(raw)
        found = (_decode_text(agent.sdk) if agent is not None else None) or ""
    except BROKEN:
        return UNKNOWN
    name = found.strip().lower()
    return name if _SDK.fullmatch(name) else UNKNOWN
