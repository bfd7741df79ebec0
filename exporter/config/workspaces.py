"""The `workspaces` section: credentials and rooms."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass

from exporter.config import readers as values
from exporter.config import secrets
from exporter.config.secrets import Secret
from exporter.config.value import Value, distinct, is_printable, required, section, setting

# The label `room` of what is counted beyond `limits.max_rooms`; no room or group may take it.
OVERFLOW_ROOM = "_other"

_MAX_ID = 100
_MAX_PATTERN = 1000
_PAIR = "access_key and secret, or management_token"
# In a group `$${` is a literal `${`, as everywhere in the file.
_REFERENCE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)\})?")


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A workspace's app access key and secret, from which management tokens are minted."""

    access_key: Secret
    secret: Secret


@dataclass(frozen=True, slots=True)
class ManagementToken:
    """A ready-made management token, as 100ms's dashboard hands out."""

    token: Secret


@dataclass(frozen=True, slots=True)
class RoomById:
    """One room, by its id; `name` (else 100ms's name) becomes the label `room`."""

    id: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class RoomsByName:
    """Every room whose whole name matches; `group`, a template such as `class-${school}`, publishes them as one."""

    match: re.Pattern[str]
    group: str | None = None

    def group_for(self, name: str) -> str | None:
        """The group of a room with this name, `None` when it has none. Call it only for a name that matches as a whole.

        A template that comes out blank, or as the reserved `_other`, makes no group of this room.
        """
        found = self.match.fullmatch(name)
        if self.group is None or found is None:
            return None
        group = _REFERENCE.sub(lambda reference: found[reference[1]] or "" if reference[1] else "${", self.group).strip()
        return None if group in {"", OVERFLOW_ROOM} else group


@dataclass(frozen=True, slots=True)
class WorkspaceConfig:
    """One 100ms credential pair; `rooms` is `None` for every room of the workspace."""

    name: str
    credentials: KeyPair | ManagementToken
    rooms: tuple[RoomById | RoomsByName, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of a workspace."""

    name: str = required(values.name)
    access_key: Secret | None = setting(None, secrets.secret, file=secrets.secret_file)
    secret: Secret | None = setting(None, secrets.secret, file=secrets.secret_file)
    management_token: Secret | None = setting(None, secrets.secret, file=secrets.secret_file)
    rooms: tuple[RoomById | RoomsByName, ...] | None = setting(None, lambda value: _rooms(value))


_keys = section(_Keys)


def workspaces(value: Value) -> tuple[WorkspaceConfig, ...]:
    """Reads the list of workspaces."""
    expected = "a list of one or more workspaces"
    items = value.items(expected)
    if not items:
        raise value.error(f"expected {expected}, found an empty one")
    found = [(item, _keys(item)) for item in items]
    distinct(((item, "a name", keys.name) for item, keys in found), member="name")
    return tuple(WorkspaceConfig(keys.name, _credentials(item, keys), keys.rooms) for item, keys in found)


def _credentials(value: Value, keys: _Keys) -> KeyPair | ManagementToken:
    access_key, secret, token = keys.access_key, keys.secret, keys.management_token
    if token and (access_key or secret):
        raise value.error(f"expected {_PAIR}, found both")
    if token:
        return ManagementToken(token)
    if access_key and secret:
        return KeyPair(access_key, secret)
    if access_key or secret:
        there, missing = ("access_key", "secret") if access_key else ("secret", "access_key")
        raise value.member(missing).error(f"expected {missing} or {missing}_file beside {there}, found neither")
    raise value.error(f"expected {_PAIR}, found neither")


def _rooms(value: Value) -> tuple[RoomById | RoomsByName, ...]:
    expected = "a list of one or more rooms (leave the key out for every room of the workspace)"
    items = value.items(expected)
    if not items:
        raise value.error(f"expected {expected}, found an empty one")
    rooms = tuple(map(_room, items))
    distinct((item, kind, key) for item, room in zip(items, rooms, strict=True) for kind, key in _identity(room))
    return rooms


def _identity(room: RoomById | RoomsByName) -> list[tuple[str, str]]:
    if isinstance(room, RoomsByName):
        return [("a pattern", room.match.pattern)]
    return [("an id", room.id), *([("a name", room.name)] if room.name else [])]


def _room(value: Value) -> RoomById | RoomsByName:
    if value.is_scalar:
        return RoomById(_room_id(value))
    given = value.mapping(("id", "name", "match", "group"))
    if "id" in given and "match" in given:
        raise value.error("expected id or match, found both")
    if "match" in given:
        if "name" in given:
            raise given["name"].error("expected group beside match, found name")
        pattern = _pattern(given["match"].as_written())
        return RoomsByName(pattern, _group(given["group"].as_written(), pattern) if "group" in given else None)
    if "group" in given:
        raise given["group"].error("expected group beside match only")
    if "id" not in given:
        raise value.error("expected id or match, found neither")
    return RoomById(_room_id(given["id"]), _room_name(given["name"]) if "name" in given else None)


def _room_id(value: Value) -> str:
    expected = f"a room id of 1 to {_MAX_ID} characters without spaces and slashes"
    text = value.text(expected)
    # An id becomes part of a URL's path and must not lead elsewhere.
    if not is_printable(text) or re.search(r"[\s/\\?#%]", text) or text in {".", ".."} or len(text) > _MAX_ID:
        raise value.unexpected(expected)
    return text


def _room_name(value: Value) -> str:
    name = values.name(value)
    if name == OVERFLOW_ROOM:
        raise value.error(f"expected another name, {OVERFLOW_ROOM} is reserved")
    return name


def _pattern(value: Value) -> re.Pattern[str]:
    expected = f"a regular expression of 1 to {_MAX_PATTERN} printable characters"
    text = value.text(expected)
    if not is_printable(text) or len(text) > _MAX_PATTERN:
        raise value.unexpected(expected)
    try:
        with warnings.catch_warnings():
            # Python warns of future syntax changes here; on stderr that is noise.
            warnings.simplefilter("ignore")
            return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise value.unexpected("a regular expression", getattr(error, "msg", str(error))) from None


def _group(value: Value, pattern: re.Pattern[str]) -> str:
    expected = f"a template of 1 to {values.MAX_NAME} printable characters, such as class-${{school}}"
    text = value.text(expected)
    if not is_printable(text) or len(text) > values.MAX_NAME:
        raise value.unexpected(expected)
    for reference in _REFERENCE.finditer(text):
        if reference[1] is None and reference[0] != "$${":
            raise value.unexpected(expected, "a ${ must name a group of the pattern, $${ stands for itself")
        if reference[1] is not None and reference[1] not in pattern.groupindex:
            raise value.error(f"expected a named group of match, which has no (?P<{reference[1]}>...)")
    if text.strip() == OVERFLOW_ROOM:
        raise value.error(f"expected another name, {OVERFLOW_ROOM} is reserved")
    return text
