"""What a key's text means: each function here reads one kind of value, or says what it expected instead.

A `Value` is a place in a configuration; a reader takes one and returns what it stands for or raises `ConfigError`.  Readers
with a range are made by a function that states it: `duration("1s", "1h")`.  Nothing here opens a file or reads the process
environment.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from exporter.config.value import Reader, Value, distinct, is_printable, one_of

T = TypeVar("T")

# Long enough for any name a person reads on a dashboard.
MAX_NAME = 100
# No duration is longer than ten years, so sums of times stay within the calendar.
LONGEST = "3650d"

_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_DURATION = re.compile("(?=.)" + "".join(rf"(?:([0-9]{{1,12}}){unit}(?![a-z]))?" for unit in _UNITS))
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})")
_HOST_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


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


def integer(low: int, high: int) -> Reader[int]:
    """Reads a whole number of a range, its ends included."""
    expected = f"a whole number from {low} to {high}"

    def read(value: Value) -> int:
        text = value.literal(expected)
        if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
            raise value.unexpected(expected)
        return int(text)

    return read


def number(*, above: float | None = None, at_least: float = 0, at_most: float) -> Reader[float]:
    """Reads a number, with or without a fraction, in a range; `above` leaves its lower end out."""
    expected = f"a number from {at_least:g} to {at_most:g}" if above is None else f"a number above {above:g}, at most {at_most:g}"

    def read(value: Value) -> float:
        text = value.literal(expected)
        if not _NUMBER.fullmatch(text) or not (at_least if above is None else above) <= float(text) <= at_most or float(text) == above:
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
    expected = one_of(list(words))

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
            # No session is older than the epoch, and earlier years leave no room for time zones.
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


def names(value: Value) -> frozenset[str]:
    """Reads a list of names, which may be empty."""
    return frozenset(name(item) for item in value.items("a list of names"))


def file_path(value: Value) -> Path:
    """Reads the path of a file, relative to the folder the process runs in."""
    expected = "the path of a file"
    text = value.text(expected)
    # SQLite would open `:memory:` without a file.
    if not is_printable(text) or text == ":memory:" or text.endswith("/") or Path(text).name in {"", ".."}:
        raise value.unexpected(expected)
    return Path(text)


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen: an empty host is every address, an IPv6 address stands without brackets, port 0 is a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def listen_address(value: Value) -> ListenAddress:
    """Reads where to listen."""
    expected = "host:port, :port or [IPv6]:port"
    text = value.text(expected)
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise value.unexpected(expected, "a port is a number from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if _is_address(host, ipaddress.IPv6Address):
            return ListenAddress(host, int(port))
    elif host == "" or _is_host_name(host):
        return ListenAddress(host, int(port))
    raise value.unexpected(expected)


def listen_addresses(value: Value) -> tuple[ListenAddress, ...]:
    """Reads one address to listen on, or a list of them."""
    if value.is_scalar:
        return (listen_address(value),)
    items = value.items("host:port, :port or [IPv6]:port, or a list of these")
    found = tuple(map(listen_address, items))
    if not found:
        raise value.error("expected at least one address")
    distinct((item, "an address", address) for item, address in zip(items, found, strict=True))
    return found


def url_path(value: Value) -> str:
    """Reads the path of a page: it begins with a slash and is not one of the exporter's own paths."""
    text = value.text("a path")
    if not re.fullmatch(r"/[A-Za-z0-9._~/-]*", text) or text.startswith(("/-/", "//")):
        raise value.unexpected("a path such as /metrics, not below /-/")
    return text


def base_url(value: Value) -> str:
    """Reads an API's base URL: http or https, without user name, query or fragment. A slash at the end is dropped."""
    # The message does not show the URL: it may hold a password or a token by mistake.
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
    # A host of digits and dots must be a valid IPv4 address.
    if re.fullmatch(r"[0-9.]+", host):
        return _is_address(host, ipaddress.IPv4Address)
    return len(host) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in host.split("."))


def _is_address(host: str, kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> bool:
    try:
        kind(host)
    except ValueError:
        return False
    return True
