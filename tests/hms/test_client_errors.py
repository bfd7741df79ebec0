"""Records of `/analytics/events`: errors are read, and no personal data."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from exporter.hms.client_errors import ClientError, decode_client_error
from exporter.hms.records import Rejection
from exporter.simulator import World
from exporter.simulator.happenings import ERROR_TYPES
from exporter.simulator.seeds import MARK
from exporter.times import rfc3339
from tests.harness import T0


def record(kind: str = "client.join.failed", **data: object) -> bytes:
    """An error with these fields replaced."""
    whole = {"session_id": "s1", "error_code": 4006, "agent": {"sdk": "web", "os": "macos"}, **data}
    return json.dumps({"version": "2.0", "id": "e1", "timestamp": rfc3339(T0), "type": kind, "data": whole}).encode()


def read(kind: str = "client.join.failed", **data: object) -> ClientError:
    found = decode_client_error(record(kind, **data))
    assert isinstance(found, ClientError)
    return found


def test_an_error_has_a_type_a_code_and_a_kind_of_client() -> None:
    assert read() == ClientError("e1", "s1", "join", "4006", "web")


def test_types_lose_their_common_parts() -> None:
    assert [read(kind).type for kind in ERROR_TYPES] == ["join", "connect", "publish", "subscribe", "disconnected"]
    assert read("client.screenshare.failed").type == "other"


@pytest.mark.parametrize("kind", ["track.add.success", "client.joined", "client", ""])
def test_events_that_are_no_errors_are_left_out(kind: str) -> None:
    assert not isinstance(decode_client_error(record(kind)), ClientError)


@pytest.mark.parametrize("missing", [None, ""])
def test_an_error_before_the_call_has_no_session(missing: str | None) -> None:
    assert read(session_id=missing).session_id == ""


@pytest.mark.parametrize(("code", "label"), [(4006, "4006"), ("4006", "4006"), (-1, "-1"), (None, "unknown"), (10**12, "unknown")])
def test_codes_are_numbers(code: object, label: str) -> None:
    assert read(error_code=code).code == label


@pytest.mark.parametrize("code", ["Somebody's name", 4.5, ""])
def test_codes_that_are_no_numbers_are_not_shown(code: object) -> None:
    assert read(error_code=code).code == "unknown"


@pytest.mark.parametrize(
    ("agent", "label"),
    [
        ({"sdk": "iOS"}, "ios"),
        ({"sdk": "react-native"}, "react-native"),
        ({"sdk": "Somebody's phone"}, "unknown"),
        ({"sdk": 7}, "unknown"),
        ({}, "unknown"),
        (None, "unknown"),
        ("web/2.13", "unknown"),
    ],
    ids=str,
)
def test_kinds_of_clients_are_single_words(agent: object, label: str) -> None:
    assert read(agent=agent).sdk == label


@pytest.mark.parametrize("raw", [b"0", b"{}", b'{"id": "e1", "type": 7}', b'{"id": "e1", "type": "t", "data": []}'], ids=repr)
def test_an_invalid_event_is_rejected(raw: bytes) -> None:
    found = decode_client_error(raw)
    assert isinstance(found, Rejection)
    assert (found.kind, found.reason) == ("client_error", "not a record of an event")


def test_nothing_of_a_person_or_a_device_is_read() -> None:
    world = World("key", "secret" * 6)
    room = world.room(name="hall")
    event: Any = world.client_event(world.open(room.id, T0), T0 + 1)
    raw = json.dumps(event.record()).encode()
    assert raw.decode().count(MARK) >= 5
    assert MARK not in msgspec.json.encode(decode_client_error(raw)).decode()
