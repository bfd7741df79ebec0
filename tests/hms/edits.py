"""Records of one running session to which anything may happen from poll to poll."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from hypothesis import strategies as st

from exporter.times import DAY, rfc3339
from tests.harness import T0, at, peer

NOW = at(3600)


def record(peers: object, **fields: object) -> bytes:
    """A running session with these peers, and these fields in place of its own."""
    whole = {"id": "s1", "room_id": "r1", "active": True, "peers": peers, "created_at": rfc3339(T0), "updated_at": rfc3339(T0)}
    return json.dumps({**whole, **fields}).encode()


def person(key: str, **fields: object) -> dict[str, Any]:
    return {**peer(at(len(key))), "id": key, "user_id": f"user of {key}", **fields}


class Edit(NamedTuple):
    """Something that happens to a record between two polls, to the peer at this place or to all."""

    kind: str
    place: int
    value: int


FIELDS: dict[str, Callable[[int], dict[str, object]]] = {
    "leaves": lambda value: {"left_at": rfc3339(at(3000 + value))},
    "comes back": lambda _: {"left_at": None},
    "another role": lambda value: {"role": f"role{value % 3}"},
    "another name": lambda value: {"name": f'name {value}"}},"'},
    "another user": lambda value: {"user_id": (None, "", 0, 7, "u1", 2**61 - 1)[value % 6]},
    "another time": lambda value: {"joined_at": rfc3339(at(value))},
    "another's id": lambda _: {"id": "a"},
    "no id": lambda _: {"id": None},
    "nonsense": lambda _: {"joined_at": "never"},
    "far too late": lambda _: {"joined_at": rfc3339(NOW + 3 * DAY)},
}
OTHERS = ("joins", "vanishes", "reversed", "as list", "as object", "mended", "another start", "clock back", "restart", "ends", "runs")


class Script:
    """A record to which anything may happen."""

    def __init__(self, session_id: str = "s1") -> None:
        self.id = session_id
        self.peers: list[Any] = [person("a"), person("bb"), person("ccc", user_id="user of a")]
        self.as_list = False
        self.fields: dict[str, object] = {}
        self.now = NOW
        self._joined = 0

    def play(self, edit: Edit) -> None:
        """It happens."""
        place, value = edit.place % max(1, len(self.peers)), edit.value
        if edit.kind in FIELDS:
            for one in self.peers[place : place + 1]:
                one.update(FIELDS[edit.kind](value))
        elif edit.kind == "joins":
            self._joined += 1
            user = f"u{value % 3}" if value % 3 else None
            self.peers.insert(place, person(f"new{self._joined}", role=f"role{value % 3}", user_id=user))
        elif edit.kind == "vanishes":
            del self.peers[place : place + 1]
        elif edit.kind == "reversed":
            self.peers.reverse()
        elif edit.kind == "mended":
            self.peers = [person(f"mended{number}") for number, _ in enumerate(self.peers)]
        elif edit.kind == "clock back":
            self.now -= value * DAY // 10
        else:
            self._play_shape(edit)

    def _play_shape(self, edit: Edit) -> None:
        if edit.kind == "another start":
            self.fields["created_at"] = rfc3339(T0 - edit.value * DAY // 10)
        elif edit.kind in ("ends", "runs"):
            self.fields["active"] = edit.kind == "runs"
        elif edit.kind in ("as list", "as object"):
            self.as_list = edit.kind == "as list"

    @property
    def raw(self) -> bytes:
        """The record as it is now."""
        whole: object = self.peers if self.as_list else {f"key{one.get('id', number)}": one for number, one in enumerate(self.peers)}
        return record(whole, id=self.id, **self.fields)


edits = st.builds(Edit, st.sampled_from([*FIELDS, *OTHERS]), st.integers(0, 9), st.integers(0, 50))
