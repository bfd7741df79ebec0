"""What a key's text means: each function here reads one kind of value, or says what it expected instead.

A `Value` is a place in a configuration; a reader takes one and returns what it stands for or raises `ConfigError`.  Readers
with a range are made by a function that states it: `duration("1s", "1h")`.  Nothing here opens a file or reads the process
environment.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from exporter.config.value import Reader, Value, is_printable, listed, one_of, scalar

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
        raise ValueError("a unit is missing, as in 30s" if _NUMBER.fullmatch(text) else "write it as 500ms, 30s or 1h30m")
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

    def meaning(text: str) -> int | None:
        return int(text) if _INTEGER.fullmatch(text) and low <= int(text) <= high else None

    return scalar(f"a whole number from {low} to {high}", meaning, unquoted=True)


def number(at_most: float, *, zero: bool = True) -> Reader[float]:
    """Reads a number, with or without a fraction, from 0 on; `zero`: 0 itself is in the range."""

    def meaning(text: str) -> float | None:
        return float(text) if _NUMBER.fullmatch(text) and 0 <= float(text) <= at_most and (zero or float(text) > 0) else None

    return scalar(f"a number from 0 to {at_most:g}" if zero else f"a number above 0, at most {at_most:g}", meaning, unquoted=True)


boolean = scalar("true or false", lambda text: _BOOLEANS.get(text.lower()), unquoted=True)
"""Reads a switch, in YAML 1.1's spellings."""


def choice(options: Mapping[str, T]) -> Reader[T]:
    """Reads one of a few words as what it stands for."""
    return scalar(one_of(options), options.get)


def words(*options: T) -> Reader[T]:
    """Reads one of a few words, which stand for themselves."""
    return choice({str(option): option for option in options})


def duration(low: str, high: str) -> Reader[float]:
    """Reads a duration of a range, its ends included, as seconds."""
    shortest, longest = parse_duration(low), parse_duration(high)

    def meaning(text: str) -> float | None:
        seconds = parse_duration(text)
        return seconds if shortest <= seconds <= longest else None

    return scalar(f"a duration from {low} to {high}", meaning)


def _since(text: str) -> Literal["start"] | timedelta | datetime | None:
    if text == "start":
        return "start"
    if _RFC3339.fullmatch(text):
        moment = datetime.fromisoformat(text.upper()).astimezone(UTC)
        return moment if moment.year >= 1970 else None  # no session is older than the epoch
    seconds = parse_duration(text) if _DURATION.fullmatch(text) else 0
    return timedelta(seconds=seconds) if 1 <= seconds <= parse_duration(LONGEST) else None


since: Reader[Literal["start"] | timedelta | datetime] = scalar(
    f"start, a duration back from 1s to {LONGEST}, or an RFC 3339 time such as 2026-02-01T00:00:00Z", _since
)
"""Reads from when sessions count: `start`, how far back, or the moment in UTC."""


def name_but(*reserved: str) -> Reader[str]:
    """Reads a name that becomes a label: printable, of bounded length, and not reserved."""

    def meaning(text: str) -> str | None:
        if text in reserved:
            raise ValueError("this name is reserved")
        return text if is_printable(text) and len(text) <= MAX_NAME else None

    return scalar(f"a name of 1 to {MAX_NAME} printable characters", meaning)


name = name_but()
"""Reads any name."""


def names(value: Value) -> frozenset[str]:
    """Reads a list of names, which may be empty."""
    return frozenset(map(name, value.items("a list of names")))


def _file_path(text: str) -> Path | None:
    # SQLite would open `:memory:` without a file.
    is_file = is_printable(text) and text != ":memory:" and not text.endswith("/") and Path(text).name not in {"", ".."}
    return Path(text) if is_file else None


file_path = scalar("the path of a file", _file_path)
"""Reads the path of a file, relative to the folder the process runs in."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen: an empty host is every address, an IPv6 address stands without brackets, port 0 is a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


_ADDRESS = "host:port, :port or [IPv6]:port"


def _listen_address(text: str) -> ListenAddress | None:
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError("a port is a number from 0 to 65535")
    return ListenAddress(host.strip("[]"), int(port)) if host == "" or _is_host(host) else None


listen_address = scalar(_ADDRESS, _listen_address)
"""Reads where to listen."""


_listen_addresses = listed(f"{_ADDRESS}, or a list of these", listen_address, lambda address: [("an address", address)])


def listen_addresses(value: Value) -> tuple[ListenAddress, ...]:
    """Reads one address to listen on, or a list of them."""
    return (listen_address(value),) if value.is_scalar else _listen_addresses(value)


def _url_path(text: str) -> str | None:
    return text if re.fullmatch(r"/[A-Za-z0-9._~/-]*", text) and not text.startswith(("/-/", "//")) else None


url_path = scalar("a path such as /metrics, not below /-/", _url_path)
"""Reads the path of a page: it begins with a slash and is not one of the exporter's own paths."""


def _base_url(text: str) -> str | None:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # its words may repeat a password
        return None
    known_host = _is_host(f"[{host}]" if parts.netloc.startswith("[") else host)
    if parts.scheme not in {"http", "https"} or not known_host or port == 0 or not is_printable(text) or re.search(r"[\s\\]", text):
        return None
    if "@" in parts.netloc:
        raise ValueError("leave out user name and password")
    if "?" in text or "#" in text:
        raise ValueError("leave out query and fragment")
    return text.rstrip("/")


base_url = scalar("an http:// or https:// URL with a host", _base_url, hidden=True)
"""Reads an API's base URL: http or https, without user name, query or fragment. A slash at the end is dropped.

Messages do not show it: it may hold a password or a token by mistake.
"""


def is_loopback(host: str) -> bool:
    """Whether a URL's host can only be this machine."""
    address = _address(host)
    return host.lower() == "localhost" or (address is not None and address.is_loopback)


def _is_host(host: str) -> bool:
    """Whether this is a name, an IPv4 address, or an IPv6 address in brackets."""
    if host.startswith("[") and host.endswith("]"):
        return isinstance(_address(host[1:-1]), ipaddress.IPv6Address)
    # A host of digits and dots must be a valid IPv4 address.
    if re.fullmatch(r"[0-9.]+", host):
        return _address(host) is not None
    return len(host) <= 253 and all(_HOST_LABEL.fullmatch(label) for label in host.split("."))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
