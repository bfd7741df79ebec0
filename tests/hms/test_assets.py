"""Records of `/recording-assets`: counted fields are read, invalid records are rejected alone, and the path is never read."""

from __future__ import annotations

import json

import msgspec
import pytest

from exporter.hms.assets import Asset, decode_asset
from exporter.hms.records import Rejection
from exporter.simulator import World
from exporter.simulator.seeds import MARK
from exporter.times import DAY, SECOND, rfc3339
from tests.harness import T0, at

NOW = at(3600)


def record(**fields: object) -> bytes:
    """A finished recording of ten minutes, with these fields replaced."""
    whole = {
        "id": "a1",
        "job_id": "j1",
        "room_id": "r1",
        "session_id": "s1",
        "type": "room-composite",
        "status": "completed",
        "path": "bucket/a1.mp4",
        "size": 1000,
        "duration": 600.5,
        "created_at": rfc3339(T0),
    }
    return json.dumps({**whole, **fields}).encode()


def read(**fields: object) -> Asset:
    found = decode_asset(record(**fields), NOW)
    assert isinstance(found, Asset)
    return found


def test_an_asset_has_a_length_and_a_size() -> None:
    assert read() == Asset("a1", "r1", T0, "room-composite", "completed", 600_500_000, 1000)


@pytest.mark.parametrize("nothing", [None, 0])
def test_an_asset_without_length_and_size_is_still_a_record(nothing: object) -> None:
    found = read(status="failed", size=nothing, duration=nothing)
    assert (found.status, found.length, found.size) == ("failed", 0, 0)


@pytest.mark.parametrize(
    "kind", ["room-composite", "room-composite-legacy", "room-vod", "chat", "transcript", "summary", "track", "stream"]
)
def test_documented_types_keep_their_names(kind: str) -> None:
    assert read(type=kind).type == kind


@pytest.mark.parametrize("name", ["hologram", "", "x" * 5000, None, 'a"b\n'])
def test_other_types_and_statuses_share_a_name(name: str | None) -> None:
    assert (read(type=name).type, read(status=name).status) == ("other", "other")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"duration": -1}, "its length or size is impossible"),
        ({"duration": 1e300}, "its length or size is impossible"),
        ({"size": -1}, "its length or size is impossible"),
        ({"size": 1 << 60}, "its length or size is impossible"),
        ({"created_at": "0001-01-01T00:00:00Z"}, "it has no creation time"),
        ({"created_at": rfc3339(NOW + 3 * DAY)}, "it holds an impossible time"),
        ({"created_at": None}, "not a record of a recording asset"),
        ({"room_id": ""}, "no id or no room id"),
        ({"duration": "long"}, "not a record of a recording asset"),
    ],
    ids=str,
)
def test_an_invalid_record_is_rejected_with_the_reason(fields: dict[str, object], reason: str) -> None:
    assert decode_asset(record(**fields), NOW) == Rejection("recording_asset", ("a1",), "a1", reason)


@pytest.mark.parametrize("raw", [b"0", b"[]", b"{}", b'{"id": 7}', b'{"id": "\xff"}'], ids=repr)
def test_values_that_are_no_records_are_rejected_too(raw: bytes) -> None:
    found = decode_asset(raw, NOW)
    assert isinstance(found, Rejection)
    assert (found.subject, found.reason) == ("unknown", "not a record of a recording asset")


def test_the_path_to_the_file_is_not_read() -> None:
    world = World("key", "secret" * 6)
    asset = world.asset(world.record(world.room(name="hall"), T0), "chat", T0 + SECOND, duration=3, size=9)
    raw = asset.encoded(NOW)
    assert MARK in raw.decode()
    found = decode_asset(raw, NOW)
    assert (found.type, found.length, found.size) == ("chat", 3 * SECOND, 9)  # type: ignore[union-attr]  # a rejection also fails the test
    assert MARK not in msgspec.json.encode(found).decode()
