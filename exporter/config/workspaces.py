"""Whom the exporter asks, and for which rooms: the `workspaces` of the configuration, their credentials and rooms."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from exporter.config import readers as values
from exporter.config.readers import Value
from exporter.config.strict_yaml import ConfigError

# The label `room` of what is counted beyond `limits.max_rooms`; no room or group may take it.
OVERFLOW_ROOM = "_other"

_MAX_SECRET_BYTES = 64 * 1024
_MAX_ID = 100
_MAX_PATTERN = 1000
_PAIR = "access_key and secret, or management_token"
# In a group `$${` is a literal `${`, as everywhere in the file.
_REFERENCE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)\})?")


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that must never be shown: given directly, or in a file that is read again whenever it is needed anew.

    `where` is how messages call it: the key's path, and the secret file unless the environment named it.
    """

    value: str | None = field(default=None, repr=False)
    path: Path | None = None
    where: str = field(default="secret", repr=False, compare=False)

    def reveal(self) -> str:
        """The secret itself.  Raises `ConfigError` when its file cannot be read or is empty."""
        if self.path is None:
            return self.value or ""
        try:
            text = values.read_file(self.path, _MAX_SECRET_BYTES).strip()
        except ValueError as error:
            raise ConfigError(f"{self.where}: {error}") from None
        if not _is_secret(text):
            raise ConfigError(f"{self.where}: expected a file with one line of printable ASCII characters")
        return text


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
        """The group of a room of this name, `None` when there is none; call only for a name that matches as a whole.

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


def workspaces(value: Value) -> tuple[WorkspaceConfig, ...]:
    """Reads the list of workspaces."""
    expected = "a list of one or more workspaces"
    items = value.items(expected)
    if not items:
        raise value.error(f"expected {expected}, found an empty one")
    first: dict[str, str] = {}
    found = []
    for item in items:
        workspace = _workspace(item)
        if workspace.name in first:
            raise item.member("name").error(f"expected a name of its own, {first[workspace.name]} has the same")
        first[workspace.name] = item.path
        found.append(workspace)
    return tuple(found)


def _workspace(value: Value) -> WorkspaceConfig:
    secrets = ("access_key", "secret", "management_token")
    given = value.mapping(("name", *secrets, *(f"{key}_file" for key in secrets), "rooms"))
    return WorkspaceConfig(
        name=values.name(given.get("name", value.member("name"))),
        credentials=_credentials(value, given),
        rooms=_rooms(given["rooms"]) if "rooms" in given else None,
    )


def _credentials(value: Value, given: dict[str, Value]) -> KeyPair | ManagementToken:
    access_key, secret, token = (_secret(key, given) for key in ("access_key", "secret", "management_token"))
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


def _secret(key: str, given: dict[str, Value]) -> Secret | None:
    direct, file = given.get(key), given.get(f"{key}_file")
    if direct and file:
        raise file.error(f"expected {key} or {key}_file, found both")
    if file:
        expected = "the path of a file"
        text = file.text(expected)
        if not values.is_printable(text):
            raise file.unexpected(expected)
        # As Prometheus does: seen from the folder of the file that names it.
        path = Path(file.source).parent / text
        shown = str(path) if text == file.as_written().text(expected) else "the file that the environment names"
        return Secret(path=path, where=f"{file.source}: {file.path}: {shown}")
    if direct:
        expected = "printable ASCII characters"
        text = direct.text(expected)
        if not _is_secret(text):
            raise direct.error(f"expected {expected}")
        return Secret(value=text, where=f"{direct.source}: {direct.path}")
    return None


def _is_secret(text: str) -> bool:
    # Tokens travel in an HTTP header, and 100ms's keys and secrets are ASCII as well.
    return text.isascii() and values.is_printable(text)


def _rooms(value: Value) -> tuple[RoomById | RoomsByName, ...]:
    expected = "a list of one or more rooms (leave the key out for every room of the workspace)"
    items = value.items(expected)
    if not items:
        raise value.error(f"expected {expected}, found an empty one")
    first: dict[tuple[str, str], str] = {}
    rooms = []
    for item in items:
        room = _room(item)
        for kind, key in _identity(room):
            if (kind, key) in first:
                raise item.error(f"expected {kind} of its own, {first[kind, key]} has the same")
            first[kind, key] = item.path
        rooms.append(room)
    return tuple(rooms)


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
    if not values.is_printable(text) or re.search(r"[\s/\\?#%]", text) or text in {".", ".."} or len(text) > _MAX_ID:
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
    if not values.is_printable(text) or len(text) > _MAX_PATTERN:
        raise value.unexpected(expected)
    try:
        with warnings.catch_warnings():
            # Python announces changes of its syntax there; on stderr they would be noise.
            warnings.simplefilter("ignore")
            return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise value.unexpected("a regular expression", getattr(error, "msg", str(error))) from None


def _group(value: Value, pattern: re.Pattern[str]) -> str:
    expected = f"a template of 1 to {values.MAX_NAME} printable characters, such as class-${{school}}"
    text = value.text(expected)
    if not values.is_printable(text) or len(text) > values.MAX_NAME:
        raise value.unexpected(expected)
    for reference in _REFERENCE.finditer(text):
        if reference[1] is None and reference[0] != "$${":
            raise value.unexpected(expected, "a ${ must name a group of the pattern, $${ stands for itself")
        if reference[1] is not None and reference[1] not in pattern.groupindex:
            raise value.error(f"expected a named group of match, which has no (?P<{reference[1]}>...)")
    if text.strip() == OVERFLOW_ROOM:
        raise value.error(f"expected another name, {OVERFLOW_ROOM} is reserved")
    return text
