"""The `workspaces` section: credentials and rooms."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass

from exporter.config import readers as values
from exporter.config.secrets import Secret, secret_setting
from exporter.config.value import Value, is_printable, listed, only_one, required, scalar, section, setting

# The label `room` of what is counted beyond `limits.max_rooms`; no room or group may take it.
OVERFLOW_ROOM = "_other"

_MAX_ID = 100
_MAX_PATTERN = 1000
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


def _room_id(text: str) -> str | None:
    # An id becomes part of a URL's path and must not lead elsewhere.
    leads_elsewhere = re.search(r"[\s/\\?#%]", text) or text in {".", ".."}
    return text if is_printable(text) and not leads_elsewhere and len(text) <= _MAX_ID else None


def _pattern(text: str) -> re.Pattern[str] | None:
    if not is_printable(text) or len(text) > _MAX_PATTERN:
        return None
    try:
        with warnings.catch_warnings():
            # Python warns of future syntax changes here; on stderr that is noise.
            warnings.simplefilter("ignore")
            return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(getattr(error, "msg", str(error))) from None


def _group(text: str) -> str | None:
    if text.strip() == OVERFLOW_ROOM:
        raise ValueError("this name is reserved")
    if any(reference[1] is None and reference[0] != "$${" for reference in _REFERENCE.finditer(text)):
        raise ValueError("a ${ must name a group of the pattern, $${ stands for itself")
    return text if is_printable(text) and len(text) <= values.MAX_NAME else None


_id = scalar(f"a room id of 1 to {_MAX_ID} characters without spaces and slashes", _room_id)
_regex = scalar(f"a regular expression of 1 to {_MAX_PATTERN} printable characters", _pattern, verbatim=True)
_template = scalar(f"a template of 1 to {values.MAX_NAME} printable characters, such as class-${{school}}", _group, verbatim=True)


@dataclass(frozen=True, slots=True)
class RoomById:
    """One room, by its id; `name` (else 100ms's name) becomes the label `room`."""

    id: str = required(_id)
    name: str | None = setting(None, values.name_but(OVERFLOW_ROOM))


@dataclass(frozen=True, slots=True)
class RoomsByName:
    """Every room whose whole name matches; `group`, a template such as `class-${school}`, publishes them as one."""

    match: re.Pattern[str] = required(_regex)
    group: str | None = setting(None, _template)

    def group_for(self, name: str) -> str | None:
        """The group of a room with this name, `None` when it has none. Call it only for a name that matches as a whole.

        A template that comes out blank, or as the reserved `_other`, makes no group of this room.
        """
        found = self.match.fullmatch(name)
        if self.group is None or found is None:
            return None
        group = _REFERENCE.sub(lambda reference: found[reference[1]] or "" if reference[1] else "${", self.group).strip()
        return None if group in {"", OVERFLOW_ROOM} else group


_by_id, _by_name = section(RoomById), section(RoomsByName)


def _room(value: Value) -> RoomById | RoomsByName:
    if value.is_scalar:
        return RoomById(_id(value))
    given = value.mapping(("id", "name", "match", "group"))
    kind = only_one(value, ("id", "match"))
    fitting, stray = ("name", "group") if kind == "id" else ("group", "name")
    if stray in given:
        raise given[stray].error(f"expected {fitting} beside {kind}, found {stray}")
    if kind == "id":
        return _by_id(value)
    room = _by_name(value)
    for reference in _REFERENCE.finditer(room.group or ""):
        if reference[1] and reference[1] not in room.match.groupindex:
            raise given["group"].error(f"expected a named group of match, which has no (?P<{reference[1]}>...)")
    return room


def _identity(room: RoomById | RoomsByName) -> list[tuple[str, str]]:
    if isinstance(room, RoomsByName):
        return [("a pattern", room.match.pattern)]
    return [("an id", room.id), *([("a name", room.name)] if room.name else [])]


_rooms = listed("a list of one or more rooms (leave the key out for every room of the workspace)", _room, _identity)


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
    access_key: Secret | None = secret_setting()
    secret: Secret | None = secret_setting()
    management_token: Secret | None = secret_setting()
    rooms: tuple[RoomById | RoomsByName, ...] | None = setting(None, _rooms)


_keys = section(_Keys)


def _workspace(value: Value) -> WorkspaceConfig:
    keys = _keys(value)
    match keys.access_key, keys.secret, keys.management_token:
        case Secret() as access_key, Secret() as secret, None:
            return WorkspaceConfig(keys.name, KeyPair(access_key, secret), keys.rooms)
        case None, None, Secret() as token:
            return WorkspaceConfig(keys.name, ManagementToken(token), keys.rooms)
    found = [key for key in ("access_key", "secret", "management_token") if getattr(keys, key)]
    raise value.error(f"expected access_key and secret, or management_token, found {' and '.join(found) or 'neither'}")


workspaces = listed("a list of one or more workspaces", _workspace, lambda workspace: [("a name", workspace.name)])
"""Reads the list of workspaces.  Raises `ConfigError`."""
