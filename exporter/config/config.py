"""The configuration: what a user may say, and the exact message for what they may not.

The dataclasses are the table of keys: a field's name is the key, its type and default are what they say, the reader beside
the default states the range.  `parse` is pure (text and environment in, `Config` or `ConfigError` out); files and the
process environment are read by `load` and by a `Secret` alone.  All durations are seconds, as floats.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from exporter.config import readers as values
from exporter.config import strict_yaml
from exporter.config.money import Budget, Prices, budgets, prices
from exporter.config.readers import Reader, Value, format_duration, parse_duration
from exporter.config.strict_yaml import ConfigError
from exporter.config.workspaces import (
    OVERFLOW_ROOM,
    KeyPair,
    ManagementToken,
    RoomById,
    RoomsByName,
    Secret,
    WorkspaceConfig,
    workspaces,
)

__all__ = [
    "OVERFLOW_ROOM",
    "ApiConfig",
    "Budget",
    "Config",
    "ConfigError",
    "KeyPair",
    "LimitsConfig",
    "ListenAddress",
    "LogConfig",
    "ManagementToken",
    "PollConfig",
    "Prices",
    "RoomById",
    "RoomsByName",
    "Secret",
    "StorageConfig",
    "WebConfig",
    "WorkspaceConfig",
    "format_duration",
    "listen_address",
    "load",
    "parse",
    "parse_duration",
    "read_flag",
    "with_flags",
]

T = TypeVar("T")

_DEFAULT_FILE = Path("config.yaml")
# 20,000 rooms with names of their own take a third of it.
_MAX_FILE_BYTES = 4 * 1024 * 1024


def setting(default: T, read: Reader[T], *, flag_only: bool = False) -> T:
    """A field that is a key of its section: the value when the key is left out, and how the key is read when it is not."""
    return field(default=default, metadata={"flag" if flag_only else "read": read})


@dataclass(frozen=True, slots=True)
class ApiConfig:
    """How 100ms is asked; `timeout` is for a whole request, in seconds."""

    base_url: str = setting("https://api.100ms.live/v2", values.base_url)
    allow_plain_http: bool = setting(False, values.boolean)
    timeout: float = setting(10.0, values.duration("1ms", "10m"))
    page_size: int = setting(100, values.integer(10, 100))
    max_requests_per_second: float = setting(5.0, values.number(above=0, at_most=1000))
    max_retries: int = setting(3, values.integer(0, 20))


@dataclass(frozen=True, slots=True)
class PollConfig:
    """When 100ms is asked (`interval` in seconds), and from when sessions count: a `timedelta` back or a time in UTC."""

    interval: float = setting(30.0, values.duration("1s", "1h"))
    since: Literal["start"] | timedelta | datetime = setting("start", values.since)  # noqa: RUF009 (makes a field)


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """Where the state file lies, seen from the folder the process runs in."""

    path: Path = setting(Path("hms-exporter.db"), values.file_path)  # noqa: RUF009 (makes a field)


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where the HTTP face listens; an empty host is every address, port 0 a free one."""

    host: str
    port: int


def listen_address(value: Value) -> ListenAddress:
    """Reads one address to listen on."""
    return ListenAddress(*values.host_and_port(value))


def _listen_addresses(value: Value) -> tuple[ListenAddress, ...]:
    if value.is_scalar:
        return (listen_address(value),)
    items = value.items("host:port, :port or [IPv6]:port, or a list of these")
    found = [listen_address(item) for item in items]
    if not found:
        raise value.error("expected at least one address")
    for index, address in enumerate(found):
        if address in found[:index]:
            raise items[index].error("expected each address once")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class WebConfig:
    """The HTTP face; `config_file` is the exporter toolkit's web configuration (TLS, passwords), from the command line only."""

    listen_address: tuple[ListenAddress, ...] = setting((ListenAddress("", 10100),), _listen_addresses)
    enable_lifecycle: bool = setting(False, values.boolean)
    config_file: Path | None = setting(None, values.file_path, flag_only=True)  # noqa: RUF009 (makes a field)
    systemd_socket: bool = setting(False, values.boolean, flag_only=True)
    telemetry_path: str = setting("/metrics", values.url_path, flag_only=True)


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """What bounds the number of series: discovered rooms per workspace, and the seconds one stays without a session."""

    max_rooms: int = setting(5000, values.integer(0, 1_000_000))
    room_idle_expiry: float = setting(86400.0, values.duration("1s", values.LONGEST))


@dataclass(frozen=True, slots=True)
class LogConfig:
    """How the log is written."""

    level: Literal["debug", "info", "warn", "error"] = setting("info", values.choice("debug", "info", "warn", "error"))
    format: Literal["logfmt", "json"] = setting("logfmt", values.choice("logfmt", "json"))


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a user can set."""

    workspaces: tuple[WorkspaceConfig, ...]
    api: ApiConfig = ApiConfig()
    poll: PollConfig = PollConfig()
    storage: StorageConfig = StorageConfig()
    web: WebConfig = WebConfig()
    limits: LimitsConfig = LimitsConfig()
    log: LogConfig = LogConfig()
    budgets: tuple[Budget, ...] = ()
    prices: Prices | None = None


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The configuration of a file, its secret files tried; without a path `config.yaml` here, else the environment alone.

    Raises `ConfigError`.
    """
    # A link to nowhere is a file that was meant to be there.
    if path is None and not os.path.lexists(_DEFAULT_FILE):
        return _environment_alone(environ)
    path = path or _DEFAULT_FILE
    try:
        text = values.read_file(path, _MAX_FILE_BYTES)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    config = parse(text, environ, str(path))
    for workspace in config.workspaces:
        match workspace.credentials:
            case KeyPair(access_key, secret):
                access_key.reveal()
                secret.reveal()
            case ManagementToken(token):
                token.reveal()
    return config


def parse(text: str, environ: Mapping[str, str], source: str) -> Config:
    """The configuration that `text` describes; `source` is the file's name for messages, and its folder that of secret files.

    `${NAME}` and `${NAME:-default}` are filled in from `environ`.  No file is opened.  Raises `ConfigError` at the first fault.
    """
    root = Value(strict_yaml.read(text, source), source, "", environ)
    sections: dict[str, type[Any]] = {
        "api": ApiConfig,
        "poll": PollConfig,
        "storage": StorageConfig,
        "web": WebConfig,
        "limits": LimitsConfig,
        "log": LogConfig,
    }
    given = root.mapping(("workspaces", *sections, "budgets", "prices"))
    config = Config(
        workspaces=workspaces(given.get("workspaces", root.member("workspaces"))),
        budgets=budgets(given["budgets"]) if "budgets" in given else (),
        prices=prices(given["prices"]) if "prices" in given else None,
        **{key: _section(kind, given[key]) for key, kind in sections.items() if key in given},
    )
    names = {workspace.name for workspace in config.workspaces}
    for index, budget in enumerate(config.budgets):
        if budget.workspace is not None and budget.workspace not in names:
            raise ConfigError(f"{source}: budgets[{index}].workspace: expected the name of one of the workspaces")
    url = urlsplit(config.api.base_url)
    if url.scheme == "http" and not config.api.allow_plain_http and not values.is_loopback(url.hostname or ""):
        message = "expected https:// (http:// shows the token to the network; api.allow_plain_http: true permits it)"
        raise root.member("api").member("base_url").error(message)
    return config


def with_flags(config: Config, flags: Mapping[str, Any]) -> Config:
    """The configuration as flags change it: `--section.key` by its value on the command line.  Raises `ConfigError`."""
    for flag, given in flags.items():
        section, _, rest = flag.removeprefix("--").partition(".")
        key = rest.replace("-", "_").replace(".", "_")
        present = getattr(config, section)
        read = next(found for field in fields(present) if field.name == key for found in field.metadata.values())
        value = given if isinstance(given, bool) else read_flag(flag, given, read)
        config = replace(config, **{section: replace(present, **{key: value})})
    return config


def read_flag(flag: str, given: str | Sequence[str], read: Reader[T]) -> T:
    """What the text after a flag stands for; a flag that was repeated is read as a list.  Raises `ConfigError`."""

    def scalar(text: str) -> strict_yaml.YamlNode:
        return strict_yaml.YamlScalar(text, plain=False)

    node = (
        scalar(given)
        if isinstance(given, str)
        else scalar(given[0])
        if len(given) == 1
        else strict_yaml.YamlList(tuple(map(scalar, given)))
    )
    return read(Value(node, "", flag))


def _readers(section: type[Any]) -> dict[str, Reader[Any]]:
    return {key.name: key.metadata["read"] for key in fields(section) if "read" in key.metadata}


def _section(kind: type[T], value: Value) -> T:
    # A heading whose keys are all commented out says nothing.
    if value.is_null:
        return kind()
    readers = _readers(kind)
    return kind(**{key: readers[key](member) for key, member in value.mapping(readers).items()})


def _environment_alone(environ: Mapping[str, str]) -> Config:
    pair, token = {"HMS_ACCESS_KEY", "HMS_SECRET"}, {"HMS_MANAGEMENT_TOKEN"}
    given = {name for name in pair | token if environ.get(name)}
    expected = "HMS_ACCESS_KEY and HMS_SECRET, or HMS_MANAGEMENT_TOKEN"
    if not given:
        raise ConfigError(f"no configuration: expected a file {_DEFAULT_FILE} here, --config.file, or in the environment {expected}")
    if given not in (pair, token):
        raise ConfigError(f"environment: expected {expected}, found {' and '.join(sorted(given))}")
    credentials = ", ".join(f"{name.removeprefix('HMS_').lower()}: '${{{name}}}'" for name in sorted(given))
    return parse(f"workspaces: [{{name: default, {credentials}}}]", environ, "environment")
