"""The configuration: its keys, their defaults and their limits.

The dataclasses are the table of keys: a field's name is the key, its type and default are those of the key, and the reader
beside the default states the range.  `parse` is pure (text and environment in, `Config` or `ConfigError` out); only `load`
and secrets open files.  All durations are seconds, as floats.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import datetime, timedelta
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from exporter.config import readers as values
from exporter.config import strict_yaml
from exporter.config.money import METERS, Budget, Meter, Prices, budgets, prices
from exporter.config.readers import ListenAddress, format_duration, listen_address, parse_duration
from exporter.config.secrets import DatabaseUrl, Secret, SecretHeaders, headers, headers_file, secret_setting
from exporter.config.strict_yaml import ConfigError
from exporter.config.value import Value, optional, read_file, read_flag, required, section, setting
from exporter.config.workspaces import OVERFLOW_ROOM, KeyPair, ManagementToken, RoomById, RoomsByName, WorkspaceConfig, workspaces

__all__ = ["METERS", "OVERFLOW_ROOM", "Budget", "ConfigError", "KeyPair", "ListenAddress", "ManagementToken", "Meter", "Prices"]
__all__ += ["RoomById", "RoomsByName", "Secret", "SecretHeaders", "WorkspaceConfig"]
__all__ += ["format_duration", "listen_address", "parse_duration", "read_flag"]

_DEFAULT_FILE = Path("config.yaml")
# A list of 20,000 named rooms takes a third of it.
_MAX_FILE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiConfig:
    """The `api` section: requests to 100ms; `timeout` is for a whole request, in seconds."""

    base_url: str = setting("https://api.100ms.live/v2", values.base_url)
    allow_plain_http: bool = setting(False, values.boolean)
    timeout: float = setting(10.0, values.duration("1ms", "10m"))
    page_size: int = setting(100, values.integer(10, 100))
    max_requests_per_second: float = setting(5.0, values.number(1000, zero=False))
    max_retries: int = setting(3, values.integer(0, 20))


@dataclass(frozen=True, slots=True, kw_only=True)
class PollConfig:
    """The `poll` section: the interval in seconds, and the start of counting (a `timedelta` back, or a time in UTC)."""

    interval: float = setting(30.0, values.duration("1s", "1h"))
    since: Literal["start"] | timedelta | datetime = setting("start", values.since)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectConfig:
    """The `collect` section: which data are read besides sessions, and how often (`interval` in seconds)."""

    recordings: bool = setting(True, values.boolean)
    live_streams: bool = setting(True, values.boolean)
    external_streams: bool = setting(True, values.boolean)
    recording_assets: bool = setting(False, values.boolean)
    webhook_deliveries: bool = setting(False, values.boolean)
    client_errors: bool = setting(False, values.boolean)
    interval: float = setting(60.0, values.duration("1s", "1h"))


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """The `storage` section: the state file, relative to the working directory, or with a `url` a PostgreSQL database instead."""

    path: Path = setting(Path("hms-exporter.db"), values.file_path)
    url: Secret | None = secret_setting(DatabaseUrl)

    def database(self) -> str | None:
        """The database's URL, which is a secret; `None` for a state file.  Raises `ConfigError` when its file holds none."""
        return None if self.url is None else self.url.reveal()


def _storage(value: Value) -> StorageConfig:
    found = section(StorageConfig)(value)
    if found.url is not None and "path" in value.entries():
        raise value.member("path").error("expected path or url, found both")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """The exporter's HTTP pages; `config_file` is the exporter toolkit's web configuration (TLS, passwords)."""

    listen_address: tuple[ListenAddress, ...] = setting((ListenAddress("", 10100),), values.listen_addresses)
    enable_lifecycle: bool = setting(False, values.boolean)
    created_timestamps: bool = setting(False, values.boolean)
    config_file: Path | None = setting(None, values.file_path, flag_only=True)
    systemd_socket: bool = setting(False, values.boolean, flag_only=True)
    telemetry_path: str = setting("/metrics", values.url_path, flag_only=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhooksConfig:
    """The `webhooks` section: where webhooks are received, and how they are authenticated.  Both methods apply if both are given."""

    listen_address: ListenAddress = setting(ListenAddress("", 10101), listen_address)
    headers: SecretHeaders | None = setting(None, headers, file=headers_file)
    signature_secret: Secret | None = secret_setting()


def _webhooks(value: Value) -> WebhooksConfig:
    found = section(WebhooksConfig)(value)
    if found.headers is None and found.signature_secret is None:
        raise value.error("expected headers or signature_secret, found neither")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """The `limits` section: how many discovered rooms a workspace may have, and how long (in seconds) an idle one stays."""

    max_rooms: int = setting(5000, values.integer(0, 1_000_000))
    room_idle_expiry: float = setting(86400.0, values.duration("1s", values.LONGEST))


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """How the log is written."""

    level: Literal["debug", "info", "warn", "error"] = setting("info", values.words("debug", "info", "warn", "error"))
    format: Literal["logfmt", "json"] = setting("logfmt", values.words("logfmt", "json"))


@dataclass(frozen=True, slots=True)
class BotsConfig:
    """The `bots` section: roles of peers that are not people, such as recorders."""

    roles: frozenset[str] = setting(frozenset({"__internal_recorder"}), values.names)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a user can set."""

    workspaces: tuple[WorkspaceConfig, ...] = required(workspaces)
    api: ApiConfig = setting(ApiConfig(), section(ApiConfig))
    poll: PollConfig = setting(PollConfig(), section(PollConfig))
    collect: CollectConfig = setting(CollectConfig(), section(CollectConfig))
    storage: StorageConfig = setting(StorageConfig(), _storage)
    web: WebConfig = setting(WebConfig(), section(WebConfig))
    webhooks: WebhooksConfig | None = setting(None, optional(_webhooks))
    limits: LimitsConfig = setting(LimitsConfig(), section(LimitsConfig))
    log: LogConfig = setting(LogConfig(), section(LogConfig))
    bots: BotsConfig = setting(BotsConfig(), section(BotsConfig))
    budgets: tuple[Budget, ...] = setting((), budgets)
    prices: Prices | None = setting(None, optional(prices))


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Reads a configuration file and its secret files. Without a path it reads `config.yaml`, or if there is none, the environment.

    Raises `ConfigError`.
    """
    # A broken link counts as a file: reading it fails, with a message.
    if path is None and not os.path.lexists(_DEFAULT_FILE):
        return _environment_alone(environ)
    path = path or _DEFAULT_FILE
    config = parse(read_file(path, _MAX_FILE_BYTES), environ, str(path))
    for found in _secrets(config):
        found.reveal()
    if config.storage.url is not None and find_spec("psycopg") is None:
        raise ConfigError(f"{path}: storage.url: expected psycopg to be installed: pip install 'hms-exporter[postgres]'")
    return config


def _secrets(part: object) -> Iterator[Secret | SecretHeaders]:
    """The secrets anywhere in a part of the configuration."""
    if isinstance(part, Secret | SecretHeaders):
        yield part
    else:
        inner = [getattr(part, key.name) for key in fields(part)] if is_dataclass(part) else part if isinstance(part, tuple) else ()
        yield from chain.from_iterable(map(_secrets, inner))


def parse(text: str, environ: Mapping[str, str], source: str) -> Config:
    """The configuration that `text` describes; `source` is the file's name for messages, and its folder that of secret files.

    `${NAME}` and `${NAME:-default}` are filled in from `environ`.  No file is opened.  Raises `ConfigError` at the first fault.
    """
    root = Value(strict_yaml.read(text, source), source, environ=environ)
    if root.is_null:
        root.mapping(())  # says that a mapping was expected
    config = section(Config)(root)
    names = {workspace.name for workspace in config.workspaces}
    for index, budget in enumerate(config.budgets):
        if budget.workspace is not None and budget.workspace not in names:
            raise root.member(f"budgets[{index}].workspace").error("expected the name of one of the workspaces")
    url = urlsplit(config.api.base_url)
    if url.scheme == "http" and not config.api.allow_plain_http and not values.is_loopback(url.hostname or ""):
        message = "expected https:// (http:// shows the token to the network; api.allow_plain_http: true permits it)"
        raise root.member("api.base_url").error(message)
    return config


def with_flags(config: Config, flags: Mapping[str, Any]) -> Config:
    """The configuration with the flags applied: `--section.key` overrides that key.  Raises `ConfigError`."""
    for flag, given in flags.items():
        name, _, rest = flag.removeprefix("--").partition(".")
        key, present = rest.replace("-", "_").replace(".", "_"), getattr(config, name)
        if flag == "--storage.path" and config.storage.url is not None:
            raise ConfigError(f"{flag}: expected no state file, storage.url names a database")
        table = next(found.metadata for found in fields(present) if found.name == key)
        value = given if isinstance(given, bool) else read_flag(flag, given, table.get("read") or table["flag"])
        config = replace(config, **{name: replace(present, **{key: value})})
    return config


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
