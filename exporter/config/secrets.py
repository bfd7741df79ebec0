"""Secrets: given directly, from the environment, or in files that are read again whenever they are needed anew."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from exporter.config import strict_yaml
from exporter.config.strict_yaml import ConfigError
from exporter.config.value import Value, is_printable, read_file, setting

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

    # Tokens travel in an HTTP header, and 100ms's keys and secrets are ASCII as well.
    EXPECTED: ClassVar[str] = "one line of printable ASCII characters"
    PATTERN: ClassVar[str] = "[ -~]*[!-~][ -~]*"

    def reveal(self) -> str:
        """The secret itself.  Raises `ConfigError` when its file cannot be read, or it is not what was expected."""
        return self.value or "" if self.path is None else self.checked(read_file(self.path, _MAX_BYTES, self.where).strip())

    def checked(self, text: str) -> str:
        """The text, when it is what was expected of this secret.  Raises `ConfigError`."""
        if not re.fullmatch(self.PATTERN, text):
            raise ConfigError(f"{self.where}: expected {self.EXPECTED}")
        return text


class DatabaseUrl(Secret):
    """Where a PostgreSQL database is; it may hold a password."""

    EXPECTED = "a postgresql:// URL"
    PATTERN = "(postgresql|postgres)://[ -~]+"


def secret_setting(kind: type[Secret] = Secret) -> Secret | None:
    """A key that holds a secret, beside the key with `_file` after it that names a file with the secret."""
    return setting(None, partial(_direct, kind), file=partial(_in_file, kind))


def _direct(kind: type[Secret], value: Value) -> Secret:
    found = kind(value.text(kind.EXPECTED), where=f"{value.source}: {value.path}")
    found.checked(found.reveal())
    return found


def _in_file(kind: type[Secret], value: Value) -> Secret:
    """Reads the path of a file, relative to the configuration file's folder, as in Prometheus."""
    text = value.text("the path of a file")
    if not is_printable(text):
        raise value.unexpected("the path of a file")
    path = Path(value.source).parent / text
    shown = "the file that the environment names" if value.names_variables else str(path)
    return kind(path=path, where=f"{value.source}: {value.path}: {shown}")


@dataclass(frozen=True, slots=True)
class SecretHeaders:
    """HTTP headers whose values are secrets, by their names in lower case: each a secret of its own, or all in one file."""

    by_name: Mapping[str, Secret] = field(default_factory=lambda: MappingProxyType({}))
    file: Secret | None = None

    def reveal(self) -> dict[str, str]:
        """The headers and their values.  Raises `ConfigError` when a file cannot be read or holds none."""
        if self.file is None or self.file.path is None:
            return {name: secret.reveal() for name, secret in self.by_name.items()}
        source = self.file.where
        return headers(Value(strict_yaml.read(read_file(self.file.path, _MAX_BYTES, source), source), source)).reveal()


def headers(value: Value) -> SecretHeaders:
    """Reads headers and their values."""
    return _headers(value, _direct)


def headers_file(value: Value) -> SecretHeaders:
    """Reads the path of a file that holds headers, one `name: value` a line, or headers with a file for each value."""
    return SecretHeaders(file=_in_file(Secret, value)) if value.is_scalar else _headers(value, _in_file)


def _headers(value: Value, read: Callable[[type[Secret], Value], Secret]) -> SecretHeaders:
    expected = "a mapping of names of HTTP headers to their values"
    given = value.entries(expected)
    found = {name.lower(): member for name, member in given.items()}
    if not found or not all(map(_HEADER.fullmatch, found)) or len(found) < len(given):
        # The message does not show the name: if a space is missing, it contains the value.
        raise value.error(f"expected {expected}, each name once")
    return SecretHeaders(MappingProxyType({name: read(Secret, member) for name, member in found.items()}))
