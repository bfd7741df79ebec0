"""What a key's text means: each function here reads one kind of value, or says what it expected instead.

A `Value` is a place in a configuration; a reader takes one and returns what it stands for or raises `ConfigError`.  Readers
with a range are made by a function that states it: `duration("1s", "1h")`.  Apart from `read_file` nothing here
opens a file, and nothing reads the process environment.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from exporter.config.strict_yaml import ConfigError, YamlList, YamlMap, YamlNode, YamlScalar

T = TypeVar("T")

# Long enough for any name a person reads on a dashboard.
MAX_NAME = 100
# No duration of ours is longer than ten years, so sums of times stay far within the calendar.
LONGEST = "3650d"

_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_DURATION = re.compile("(?=.)" + "".join(rf"(?:([0-9]{{1,12}}){unit}(?![a-z]))?" for unit in _UNITS))
_VARIABLE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})")
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_LIKE_OURS = re.compile(r"[A-Za-z_-]{1,40}")


def parse_duration(text: str) -> float:
    """Seconds of `500ms`, `30s`, `12h`, `1h30m`: each unit at most once, the longest first.  Raises `ValueError`."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("expected a duration such as 30s or 1h30m")
    return sum(int(count) * size for count, size in zip(match.groups(default="0"), _UNITS.values(), strict=True)) / 1000


def format_duration(seconds: float) -> str:
    """A duration as `parse_duration` reads it, to the millisecond: 90 seconds are `1m30s`."""
    rest = round(seconds * 1000)
    parts = []
    for unit, size in _UNITS.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def read_file(path: Path, max_bytes: int) -> str:
    """The text of a file of bounded size.  Raises `ValueError` that says why there is none, without the file's name."""
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise ValueError(f"expected a file of at most {max_bytes // 1024} KiB")
        return content.decode()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or type(error).__name__}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"expected UTF-8 text, found another byte at position {error.start}") from None


def is_printable(text: str) -> bool:
    """Whether there is something to see, and nothing that would garble a log line or a header."""
    return text.isprintable() and not text.isspace() and text != ""


def _expand(text: str, environ: Mapping[str, str]) -> str:
    """`text` with its `${NAME}`, `${NAME:-default}` and `$${` replaced, once.  Raises `ValueError`."""

    def variable(match: re.Match[str]) -> str:
        name, default = match.groups()
        if match.group() == "$${":
            return "${"
        if name is None or "${" in (default or ""):
            raise ValueError("expected ${NAME} or ${NAME:-default}, and $${ for a literal ${")
        found = environ.get(name)
        if default is not None:
            return found or default
        if found is None:
            raise ValueError(f"the environment variable {name} is not set")
        return found

    return _VARIABLE.sub(variable, text)


@dataclass(frozen=True, slots=True)
class Value:
    """A place in a configuration, and all that a message about it needs.

    `source` is the file's name; `path` leads to the value, as in `workspaces[0].rooms[2].match`, and is empty for the whole
    file.  `environ` is what `${NAME}` refers to; `None` takes every text as written.
    """

    node: YamlNode
    source: str
    path: str
    environ: Mapping[str, str] | None = None

    def error(self, message: str) -> ConfigError:
        """The error that says `message` of this value."""
        return ConfigError(": ".join(part for part in (self.source, self.path, message) if part))

    def unexpected(self, expected: str, hint: str = "") -> ConfigError:
        """The error that says what was expected, and what was found unless the environment gave it."""
        return self.error(f"expected {expected}, found {self._found()}{f' ({hint})' if hint else ''}")

    def _not_a_collection(self, expected: str) -> ConfigError:
        # Such a text is not shown: it may be `secret:abc`, a mapping but for the space after its colon.
        if self.is_scalar and not self.is_null:
            return self.error(f"expected {expected}, found a single value")
        return self.unexpected(expected)

    def _found(self) -> str:
        if isinstance(self.node, YamlList):
            return "a list"
        if isinstance(self.node, YamlMap):
            return "a mapping"
        if self.node.is_null:
            return "nothing"
        if self._names_variables():
            return "something else in the environment"
        return repr(self.node.text if len(self.node.text) <= 60 else self.node.text[:59] + "…")

    def _names_variables(self) -> bool:
        return self.environ is not None and isinstance(self.node, YamlScalar) and "${" in self.node.text

    @property
    def is_scalar(self) -> bool:
        """Whether this is neither a list nor a mapping."""
        return isinstance(self.node, YamlScalar)

    @property
    def is_null(self) -> bool:
        """Whether nothing was given: no value at all, `~` or `null`."""
        return isinstance(self.node, YamlScalar) and self.node.is_null

    def items(self, expected: str = "a list") -> list[Value]:
        """The members of a list; a value that is none raises `ConfigError`."""
        if not isinstance(self.node, YamlList):
            raise self._not_a_collection(expected)
        return [replace(self, node=item, path=f"{self.path}[{index}]") for index, item in enumerate(self.node.items)]

    def entries(self, expected: str = "a mapping") -> dict[str, Value]:
        """The members of a mapping, whatever their keys; a value that is none and a repeated key raise `ConfigError`."""
        if not isinstance(self.node, YamlMap):
            raise self._not_a_collection(expected)
        lines: dict[str, int] = {}
        for entry in self.node.entries:
            if entry.key in lines:
                raise self.member(entry.key).error(f"expected each key once, found it on lines {lines[entry.key]} and {entry.line}")
            lines[entry.key] = entry.line
        return {entry.key: self.member(entry.key, entry.value) for entry in self.node.entries}

    def mapping(self, known: Iterable[str]) -> dict[str, Value]:
        """The members of a mapping whose keys are all `known`; any other key raises `ConfigError`."""
        names = list(known)
        for entry in self.node.entries if isinstance(self.node, YamlMap) else ():
            if entry.key not in names:
                close = difflib.get_close_matches(entry.key, names, n=1)
                hint = f"did you mean {close[0]}?" if close else f"expected {_one_of(names)}"
                # A forgotten space glues a secret to its key, a forgotten indent makes it one: only what looks like ours is shown.
                raise self.member(entry.key if _LIKE_OURS.fullmatch(entry.key) else "?").error(f"unknown key, {hint}")
        return self.entries()

    def member(self, key: str, node: YamlNode = YamlScalar("", plain=True)) -> Value:  # noqa: B008 (frozen: an absent value)
        """The value at `key` below this one; without a node the value that is not there."""
        return replace(self, node=node, path=f"{self.path}.{key}" if self.path else key)

    def text(self, expected: str) -> str:
        """The text, with the environment's variables filled in; no text at all raises `ConfigError`."""
        if not isinstance(self.node, YamlScalar) or self.node.is_null:
            raise self.unexpected(expected)
        if self.environ is None:
            return self.node.text
        try:
            return _expand(self.node.text, self.environ)
        except ValueError as error:
            raise self.error(str(error)) from None

    def as_written(self) -> Value:
        """The same place without an environment, for texts in which `${name}` has a meaning of its own."""
        return replace(self, environ=None)

    def literal(self, expected: str) -> str:
        """The text of a number or a switch: unquoted, or from the environment."""
        text = self.text(expected)
        assert isinstance(self.node, YamlScalar)
        if not (self.node.plain or self._names_variables()):
            raise self.unexpected(expected, "write it without quotes")
        return text


Reader = Callable[[Value], T]


def integer(low: int, high: int) -> Reader[int]:
    """Reads a whole number of a range, its ends included."""
    expected = f"a whole number from {low} to {high}"

    def read(value: Value) -> int:
        text = value.literal(expected)
        if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
            raise value.unexpected(expected)
        return int(text)

    return read


def number(*, above: float, at_most: float) -> Reader[float]:
    """Reads a number, with or without a fraction, greater than `above`."""
    expected = f"a number above {above:g}, at most {at_most:g}"

    def read(value: Value) -> float:
        text = value.literal(expected)
        if not _NUMBER.fullmatch(text) or not above < float(text) <= at_most:
            raise value.unexpected(expected)
        return float(text)

    return read


def boolean(value: Value) -> bool:
    """Reads a switch, in YAML 1.1's spellings."""
    expected = "true or false"
    text = value.literal(expected).lower()
    if text not in _BOOLEANS:
        raise value.unexpected(expected)
    return _BOOLEANS[text]


def choice(*options: T) -> Reader[T]:
    """Reads one of a few words."""
    words = {str(option): option for option in options}
    expected = _one_of(list(words))

    def read(value: Value) -> T:
        text = value.text(expected)
        if text not in words:
            raise value.unexpected(expected)
        return words[text]

    return read


def duration(low: str, high: str) -> Reader[float]:
    """Reads a duration of a range, its ends included, as seconds."""
    shortest, longest = parse_duration(low), parse_duration(high)
    expected = f"a duration from {low} to {high}"

    def read(value: Value) -> float:
        text = value.text(expected)
        try:
            seconds = parse_duration(text)
        except ValueError:
            raise value.unexpected(expected, _duration_hint(text)) from None
        if not shortest <= seconds <= longest:
            raise value.unexpected(expected)
        return seconds

    return read


def _duration_hint(text: str) -> str:
    return "a unit is missing, as in 30s" if _NUMBER.fullmatch(text) else "write it as 500ms, 30s or 1h30m"


def since(value: Value) -> Literal["start"] | timedelta | datetime:
    """Reads from when sessions count: `start`, how far back, or the moment in UTC."""
    expected = f"start, a duration back from 1s to {LONGEST}, or an RFC 3339 time such as 2026-02-01T00:00:00Z"
    text = value.text(expected)
    if text == "start":
        return "start"
    try:
        if _RFC3339.fullmatch(text):
            # Before the epoch lies no session, and room to reckon with time zones.
            moment = datetime.fromisoformat(text.upper()).astimezone(UTC)
            if moment.year >= 1970:
                return moment
        elif 1 <= (seconds := parse_duration(text)) <= parse_duration(LONGEST):
            return timedelta(seconds=seconds)
    except (ValueError, OverflowError):
        pass
    raise value.unexpected(expected)


def name(value: Value) -> str:
    """Reads a name that becomes a label: printable, of bounded length."""
    expected = f"a name of 1 to {MAX_NAME} printable characters"
    text = value.text(expected)
    if not is_printable(text) or len(text) > MAX_NAME:
        raise value.unexpected(expected)
    return text


def file_path(value: Value) -> Path:
    """Reads the path of a file, relative to the folder the process runs in."""
    expected = "the path of a file"
    text = value.text(expected)
    # SQLite takes `:memory:` for no file at all.
    if not is_printable(text) or text == ":memory:" or text.endswith("/") or Path(text).name in {"", ".."}:
        raise value.unexpected(expected)
    return Path(text)


def host_and_port(value: Value) -> tuple[str, int]:
    """Reads where to listen; the host is empty for every address, and an IPv6 address stands without its brackets."""
    expected = "host:port, :port or [IPv6]:port"
    text = value.text(expected)
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise value.unexpected(expected, "a port is a number from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if _is_address(host, ipaddress.IPv6Address):
            return host, int(port)
    elif host == "" or _is_host_name(host):
        return host, int(port)
    raise value.unexpected(expected)


def url_path(value: Value) -> str:
    """Reads the path of a page: it begins with a slash and is none of the exporter's own pages."""
    text = value.text("a path")
    if not re.fullmatch(r"/[A-Za-z0-9._~/-]*", text) or text.startswith(("/-/", "//")):
        raise value.unexpected("a path such as /metrics, not below /-/")
    return text


def base_url(value: Value) -> str:
    """Reads the address of an API: http or https, without anything that does not belong before a path; no slash at its end."""
    # What was found is not shown: a URL may hold a password or a token where none belongs.
    expected = "an http:// or https:// URL with a host"
    text = value.text(expected)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise value.error(f"expected {expected}") from None
    known_host = _is_address(host, ipaddress.IPv6Address) if parts.netloc.startswith("[") else _is_host_name(host)
    if parts.scheme not in {"http", "https"} or not known_host or port == 0 or not is_printable(text) or re.search(r"[\s\\]", text):
        raise value.error(f"expected {expected}")
    if "@" in parts.netloc:
        raise value.error(f"expected {expected}, without a user name or password")
    if "?" in text or "#" in text:
        raise value.error(f"expected {expected}, without a query or fragment")
    return text.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether a URL's host can only be this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_host_name(host: str) -> bool:
    # Digits and dots alone are an IPv4 address or nothing.
    if re.fullmatch(r"[0-9.]+", host):
        return _is_address(host, ipaddress.IPv4Address)
    return len(host) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in host.split("."))


def _is_address(host: str, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> bool:
    try:
        kind(host)
    except ValueError:
        return False
    return True


def _one_of(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
