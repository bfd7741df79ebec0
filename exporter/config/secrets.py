"""Secrets: given directly, from the environment, or in files that are read again whenever they are needed anew."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from exporter.config import strict_yaml
from exporter.config.strict_yaml import ConfigError
from exporter.config.value import Reader, Value, is_printable, read_file

_MAX_BYTES = 64 * 1024
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that must never be shown: given directly, or in a file that is read again whenever it is needed anew.

    `where` names it in messages: the key's path, and the secret file unless the environment named it.
    """

    value: str | None = field(default=None, repr=False)
    path: Path | None = None
    where: str = field(default="secret", repr=False, compare=False)

    def reveal(self) -> str:
        """The secret itself.  Raises `ConfigError` when its file cannot be read or is empty."""
        if self.path is None:
            return self.value or ""
        try:
            text = read_file(self.path, _MAX_BYTES).strip()
        except ValueError as error:
            raise ConfigError(f"{self.where}: {error}") from None
        if not _is_one_line(text):
            raise ConfigError(f"{self.where}: expected a file with one line of printable ASCII characters")
        return text


@dataclass(frozen=True, slots=True)
class SecretHeaders:
    """HTTP headers whose values are secrets, by their names in lower case: each a secret of its own, or all in one file."""

    by_name: Mapping[str, Secret] = field(default_factory=lambda: MappingProxyType({}))
    file: Secret | None = None

    def reveal(self) -> dict[str, str]:
        """The headers and their values.  Raises `ConfigError` when a file cannot be read or holds none."""
        by_name = self.by_name
        if self.file is not None and self.file.path is not None:
            source = self.file.where
            try:
                text = read_file(self.file.path, _MAX_BYTES)
            except ValueError as error:
                raise ConfigError(f"{source}: {error}") from None
            by_name = headers(Value(strict_yaml.read(text, source), source, "")).by_name
        return {name: secret.reveal() for name, secret in by_name.items()}


def secret(value: Value) -> Secret:
    """Reads a secret."""
    expected = "printable ASCII characters"
    text = value.text(expected)
    if not _is_one_line(text):
        raise value.error(f"expected {expected}")
    return Secret(value=text, where=f"{value.source}: {value.path}")


def secret_file(value: Value) -> Secret:
    """Reads the path of a file that holds a secret, relative to the configuration file's folder, as in Prometheus."""
    expected = "the path of a file"
    text = value.text(expected)
    if not is_printable(text):
        raise value.unexpected(expected)
    path = Path(value.source).parent / text
    shown = str(path) if text == value.as_written().text(expected) else "the file that the environment names"
    return Secret(path=path, where=f"{value.source}: {value.path}: {shown}")


def headers(value: Value) -> SecretHeaders:
    """Reads headers and their values."""
    return _headers(value, secret)


def headers_file(value: Value) -> SecretHeaders:
    """Reads the path of a file that holds headers, one `name: value` a line, or headers with a file for each value."""
    return SecretHeaders(file=secret_file(value)) if value.is_scalar else _headers(value, secret_file)


def _headers(value: Value, read: Reader[Secret]) -> SecretHeaders:
    expected = "a mapping of names of HTTP headers to their values"
    found = {name.lower(): (name, member) for name, member in value.entries(expected).items()}
    if not found or not all(map(_HEADER.fullmatch, found)) or len(found) < len(value.entries()):
        # The message does not show the name: if a space is missing, it contains the value.
        raise value.error(f"expected {expected}, each name once")
    return SecretHeaders(MappingProxyType({lower: read(member) for lower, (_, member) in found.items()}))


def _is_one_line(text: str) -> bool:
    # Tokens travel in an HTTP header, and 100ms's keys and secrets are ASCII as well.
    return text.isascii() and is_printable(text)
