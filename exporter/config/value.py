"""A value in a configuration, the table of keys of a section, and how a section is read by its table.

The dataclasses of the configuration are tables of keys: a field made by `setting` or `required` is a key, its default is
that of the key, and its reader says what the text means or what it expected instead.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from exporter.config.strict_yaml import ConfigError, is_null

T = TypeVar("T")

_VARIABLE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")
_LIKE_OURS = re.compile(r"[A-Za-z_-]{1,40}")


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
    """Whether the text is visible and cannot garble a log line or a header."""
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
    """A value in a configuration, with its place for error messages.

    `source` is the file's name; `path` leads to the value, as in `workspaces[0].rooms[2].match`, and is empty for the whole
    file.  `environ` is what `${NAME}` refers to; `None` takes every text as written.
    """

    node: yaml.Node
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
        # The text is not shown: it may be `secret:abc`, a mapping that lacks the space after its colon.
        if self.is_scalar and not self.is_null:
            return self.error(f"expected {expected}, found a single value")
        return self.unexpected(expected)

    def _found(self) -> str:
        if isinstance(self.node, yaml.SequenceNode):
            return "a list"
        if isinstance(self.node, yaml.MappingNode):
            return "a mapping"
        if self.is_null:
            return "nothing"
        if self._names_variables():
            return "something else in the environment"
        return repr(self.node.value if len(self.node.value) <= 60 else self.node.value[:59] + "…")

    def _names_variables(self) -> bool:
        return self.environ is not None and isinstance(self.node, yaml.ScalarNode) and "${" in self.node.value

    @property
    def is_scalar(self) -> bool:
        """Whether this is neither a list nor a mapping."""
        return isinstance(self.node, yaml.ScalarNode)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was given, or a mapping without keys."""
        return self.is_null or (isinstance(self.node, yaml.MappingNode) and not self.node.value)

    @property
    def is_null(self) -> bool:
        """Whether nothing was given: no value at all, `~` or `null`."""
        return is_null(self.node)

    def items(self, expected: str = "a list") -> list[Value]:
        """The members of a list. Raises `ConfigError` for anything else."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self._not_a_collection(expected)
        return [replace(self, node=item, path=f"{self.path}[{index}]") for index, item in enumerate(self.node.value)]

    def entries(self, expected: str = "a mapping") -> dict[str, Value]:
        """The members of a mapping with any keys. Raises `ConfigError` for anything else and for a repeated key."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self._not_a_collection(expected)
        lines: dict[str, int] = {}
        for key, _ in self.node.value:
            line = key.start_mark.line + 1
            if key.value in lines:
                raise self.member(key.value).error(f"expected each key once, found it on lines {lines[key.value]} and {line}")
            lines[key.value] = line
        return {key.value: self.member(key.value, node) for key, node in self.node.value}

    def mapping(self, known: Iterable[str]) -> dict[str, Value]:
        """The members of a mapping. Raises `ConfigError` for a key that is not `known`."""
        names = list(known)
        for key, _ in self.node.value if isinstance(self.node, yaml.MappingNode) else ():
            if key.value not in names:
                close = difflib.get_close_matches(key.value, names, n=1)
                hint = f"did you mean {close[0]}?" if close else f"expected {one_of(names)}"
                # If a space or indent is missing, the key contains a secret: the message shows it only if it looks like one of our keys.
                raise self.member(key.value if _LIKE_OURS.fullmatch(key.value) else "?").error(f"unknown key, {hint}")
        return self.entries()

    def member(self, key: str, node: yaml.Node = yaml.ScalarNode("", "")) -> Value:  # noqa: B008 (frozen: an absent value)
        """The value at `key` below this one. Without a node it stands for an absent value."""
        return replace(self, node=node, path=f"{self.path}.{key}" if self.path else key)

    def text(self, expected: str) -> str:
        """The text, with the environment's variables filled in. Raises `ConfigError` for anything but text."""
        if not isinstance(self.node, yaml.ScalarNode) or self.is_null:
            raise self.unexpected(expected)
        if self.environ is None:
            return str(self.node.value)
        try:
            return _expand(self.node.value, self.environ)
        except ValueError as error:
            raise self.error(str(error)) from None

    def as_written(self) -> Value:
        """The same place without an environment, for texts in which `${name}` has a meaning of its own."""
        return replace(self, environ=None)

    def literal(self, expected: str) -> str:
        """The text of a number or a switch: unquoted, or from the environment."""
        text = self.text(expected)
        assert isinstance(self.node, yaml.ScalarNode)  # `text` has seen to it
        if not (self.node.style is None or self._names_variables()):
            raise self.unexpected(expected, "write it without quotes")
        return text


Reader = Callable[[Value], T]


def setting(default: T, read: Reader[T], *, file: Reader[T] | None = None, flag_only: bool = False) -> T:
    """A field that is a key of its section, with the value that holds when the key is left out.

    `file` reads the key of the same name with `_file` after it; `flag_only`: there is a flag on the command line, but no key.
    """
    if flag_only:
        return field(default=default, metadata={"flag": read})
    return field(default=default, metadata={"read": read} if file is None else {"read": read, "file": file})


def required(read: Reader[T]) -> T:
    """A field that is a key of its section and must be given."""
    return field(metadata={"read": read})  # type: ignore[no-any-return]  # a field stands for its value, as in dataclasses


def section(kind: type[T]) -> Reader[T]:
    """Reads a mapping by the table of keys of a dataclass."""
    table: dict[str, Any] = {key.name: key for key in fields(kind) if "read" in key.metadata}  # type: ignore[arg-type]  # a dataclass
    names = [name for key in table for name in (key, f"{key}_file") if name == key or "file" in table[key].metadata]
    needs_keys = any(key.default is MISSING for key in table.values())

    def read(value: Value) -> T:
        # All keys of the section may be commented out.
        if value.is_null and not needs_keys:
            return kind()
        given, found = value.mapping(names), {}
        for name, key in table.items():
            direct, file = given.get(name), given.get(f"{name}_file") if "file" in key.metadata else None
            if direct and file:
                raise file.error(f"expected {name} or {name}_file, found both")
            if file:
                found[name] = key.metadata["file"](file)
            elif direct or key.default is MISSING:
                found[name] = key.metadata["read"](direct or value.member(name))
        return kind(**found)

    return read


def optional(read: Reader[T]) -> Reader[T | None]:
    """Reads a section that may be absent or empty: then it is `None`."""
    return lambda value: None if value.is_null else read(value)


def read_flag(flag: str, given: str | Sequence[str], read: Reader[T]) -> T:
    """What the text after a flag means; a flag that was repeated is read as a list.  Raises `ConfigError`."""
    texts = [yaml.ScalarNode("", text, style="'") for text in ([given] if isinstance(given, str) else given)]
    return read(Value(texts[0] if len(texts) == 1 else yaml.SequenceNode("", texts), "", flag))


def distinct(found: Iterable[tuple[Value, str, object]], member: str = "") -> None:
    """Refuses duplicates. Each entry is a value, what must be unique (`a name`) and what it is."""
    first: dict[tuple[str, object], str] = {}
    for place, kind, identity in found:
        if (kind, identity) in first:
            raise (place.member(member) if member else place).error(f"expected {kind} of its own, {first[kind, identity]} has the same")
        first[kind, identity] = place.path


def one_of(words: list[str]) -> str:
    """Words as alternatives: `a, b or c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
