"""A value in a configuration, the table of keys of a section, and how a section is read by its table.

The dataclasses of the configuration are tables of keys: a field made by `setting` or `required` is a key, its default is
that of the key, and its reader says what the text means or what it expected instead.  `scalar` makes a reader of one text.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from exporter.config import strict_yaml
from exporter.config.strict_yaml import ConfigError

T = TypeVar("T")

_VARIABLE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")
# Where a list or mapping belongs a text may be `secret:abc`, a mapping that lacks the space after its colon.
_UNSHOWN = "a single value"
_LIKE_OURS = re.compile(r"[A-Za-z_-]{1,40}")


def read_file(path: Path, max_bytes: int, name: str | None = None) -> str:
    """The text of a file of bounded size; messages call it `name`, or else by its path.  Raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
        if len(content) <= max_bytes:
            return content.decode()
        problem = f"expected a file of at most {max_bytes // 1024} KiB"
    except OSError as error:
        problem = f"cannot be read: {error.strerror or type(error).__name__}"
    except UnicodeDecodeError as error:
        problem = f"expected UTF-8 text, found another byte at position {error.start}"
    except ValueError as error:  # a path that no file can have
        problem = str(error)
    raise ConfigError(f"{name or path}: {problem}")


def is_printable(text: str) -> bool:
    """Whether the text is visible and cannot garble a log line or a header."""
    return text.isprintable() and not text.isspace() and text != ""


def one_of(words: Iterable[str]) -> str:
    """Words as alternatives: `a, b or c`."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


@dataclass(frozen=True, slots=True)
class Value:
    """A value in a configuration, with its place for error messages.

    `source` is the file's name; `path` leads to the value, as in `workspaces[0].rooms[2].match`, and is empty for the whole
    file.  `environ` is what `${NAME}` refers to; `None` takes every text as written.
    """

    node: yaml.Node
    source: str
    path: str = ""
    environ: Mapping[str, str] | None = None

    def error(self, message: str) -> ConfigError:
        """The error that says `message` of this value."""
        return ConfigError(": ".join(part for part in (self.source, self.path, message) if part))

    def unexpected(self, expected: str, hint: str = "", *, instead: str = "") -> ConfigError:
        """The error that says what was expected and what was found; `instead` is said in place of a text that must not be shown."""
        return self.error(f"expected {expected}, found {self._found(instead)}{f' ({hint})' if hint else ''}")

    def _found(self, instead: str) -> str:
        if not self.is_scalar:
            return "a list" if isinstance(self.node, yaml.SequenceNode) else "a mapping"
        if self.is_null:
            return "nothing"
        if self.names_variables:
            return "something else in the environment"
        return instead or repr(self.node.value if len(self.node.value) <= 60 else self.node.value[:59] + "…")

    @property
    def names_variables(self) -> bool:
        """Whether something in a text comes from the environment."""
        return self.environ is not None and "${" in self.node.value

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
        return strict_yaml.is_null(self.node)

    @property
    def is_quoted(self) -> bool:
        """Whether a text stands in quotes or on lines of its own, and nothing in it comes from the environment."""
        return getattr(self.node, "style", None) is not None and not self.names_variables

    def items(self, expected: str = "a list", *, some: bool = False) -> list[Value]:
        """The members of a list, which must have `some` or may be empty.  Raises `ConfigError` for anything else."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.unexpected(expected, instead=_UNSHOWN)
        if some and not self.node.value:
            raise self.error(f"expected {expected}, found an empty one")
        return [replace(self, node=item, path=f"{self.path}[{index}]") for index, item in enumerate(self.node.value)]

    def entries(self, expected: str = "a mapping") -> dict[str, Value]:
        """The members of a mapping with any keys. Raises `ConfigError` for anything else and for a repeated key."""
        if not isinstance(self.node, yaml.MappingNode):
            raise self.unexpected(expected, instead=_UNSHOWN)
        lines: dict[str, int] = {}
        for key, _ in self.node.value:
            line = key.start_mark.line + 1
            if key.value in lines:
                raise self.member(key.value).error(f"expected each key once, found it on lines {lines[key.value]} and {line}")
            lines[key.value] = line
        return {key.value: self.member(key.value, node) for key, node in self.node.value}

    def mapping(self, known: Collection[str]) -> dict[str, Value]:
        """The members of a mapping. Raises `ConfigError` for a key that is not `known`."""
        for key, _ in self.node.value if isinstance(self.node, yaml.MappingNode) else ():
            if key.value not in known:
                close = difflib.get_close_matches(key.value, known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"expected {one_of(known)}"
                # If a space or indent is missing, the key contains a secret: the message shows it only if it looks like one of our keys.
                raise self.member(key.value if _LIKE_OURS.fullmatch(key.value) else "?").error(f"unknown key, {hint}")
        return self.entries()

    def member(self, key: str, node: yaml.Node = yaml.ScalarNode("", "")) -> Value:  # noqa: B008 (frozen: an absent value)
        """The value at `key` below this one. Without a node it stands for an absent value."""
        return replace(self, node=node, path=f"{self.path}.{key}" if self.path else key)

    def text(self, expected: str) -> str:
        """The text, with the environment's variables filled in. Raises `ConfigError` for anything but text."""
        if not self.is_scalar or self.is_null:
            raise self.unexpected(expected)
        return str(self.node.value) if self.environ is None else _VARIABLE.sub(self._variable, self.node.value)

    def _variable(self, match: re.Match[str]) -> str:
        """What stands for `${NAME}`, `${NAME:-default}` or `$${`."""
        name, default = match.groups()
        if match.group() == "$${":
            return "${"
        if name is None or "${" in (default or ""):
            raise self.error("expected ${NAME} or ${NAME:-default}, and $${ for a literal ${")
        found = None if self.environ is None else self.environ.get(name)
        if found is None and default is None:
            raise self.error(f"the environment variable {name} is not set")
        return found or default or ""


Reader = Callable[[Value], T]


def scalar(
    expected: str, meaning: Callable[[str], T | None], *, unquoted: bool = False, hidden: bool = False, verbatim: bool = False
) -> Reader[T]:
    """Reads a text as what it means; `meaning` returns `None`, or raises `ValueError` with a hint, when it is not what was expected.

    `unquoted`: a number or a switch, which may not stand in quotes unless it comes from the environment.  `hidden`: messages do not
    show the text.  `verbatim`: `${name}` has a meaning of its own in the text.
    """

    def read(value: Value) -> T:
        place, hint = replace(value, environ=None) if verbatim else value, ""
        text = place.text(expected)
        if unquoted and place.is_quoted:
            raise place.unexpected(expected, "write it without quotes")
        try:
            found = meaning(text)
        except (ValueError, OverflowError) as error:
            found, hint = None, str(error)
        if found is None:
            raise place.unexpected(expected, hint, instead="something else" if hidden else "")
        return found

    return read


def setting(default: T, read: Reader[T], *, file: Reader[T] | None = None, flag_only: bool = False) -> T:
    """A field that is a key of its section, with the value that holds when the key is left out.

    `file` reads the key of the same name with `_file` after it; `flag_only`: there is a flag on the command line, but no key.
    """
    return field(default=default, metadata={"flag" if flag_only else "read": read} | ({} if file is None else {"file": file}))


def required(read: Reader[T]) -> T:
    """A field that is a key of its section and must be given."""
    return field(metadata={"read": read})  # type: ignore[no-any-return]  # a field stands for its value, as in dataclasses


def section(kind: type[T]) -> Reader[T]:
    """Reads a mapping by the table of keys of a dataclass."""
    table: dict[str, tuple[str, Reader[Any]]] = {
        f"{key.name}{suffix}": (key.name, key.metadata[how])
        for key in fields(kind)  # type: ignore[arg-type]  # a dataclass
        for suffix, how in (("", "read"), ("_file", "file"))
        if how in key.metadata
    }
    needed = [key.name for key in fields(kind) if key.name in table and key.default is MISSING]  # type: ignore[arg-type]  # as above

    def read(value: Value) -> T:
        # All keys of the section may be commented out.
        if value.is_null and not needed:
            return kind()
        given, found = {name: value.member(name) for name in needed} | value.mapping(table), dict[str, Any]()
        for key, member in given.items():
            name, read_key = table[key]
            if name in found:
                raise member.error(f"expected {name} or {name}_file, found both")
            found[name] = read_key(member)
        return kind(**found)

    return read


def optional(read: Reader[T]) -> Reader[T | None]:
    """Reads a section that may be absent or empty: then it is `None`."""
    return lambda value: None if value.is_null else read(value)


def read_flag(flag: str, given: str | Sequence[str], read: Reader[T]) -> T:
    """What the text after a flag means; a flag that was repeated is read as a list.  Raises `ConfigError`."""
    texts = [yaml.ScalarNode("", text, style="'") for text in ([given] if isinstance(given, str) else given)]
    return read(Value(texts[0] if len(texts) == 1 else yaml.SequenceNode("", texts), "", flag))


def listed(
    expected: str, read: Reader[T], unique: Callable[[T], Iterable[tuple[str, object]]], *, some: bool = True
) -> Reader[tuple[T, ...]]:
    """Reads a list.  `unique` says in what each member must differ from the others: what that is called (`a name`), and what it is."""

    def read_list(value: Value) -> tuple[T, ...]:
        items = [] if value.is_null and not some else value.items(expected, some=some)
        found, first = tuple(map(read, items)), dict[tuple[str, object], str]()
        for item, member in zip(items, found, strict=True):
            for kind, identity in unique(member):
                same = first.setdefault((kind, identity), item.path)
                if same != item.path:
                    raise item.error(f"expected {kind} of its own, {same} has the same")
        return found

    return read_list


def only_one(place: Value, keys: Collection[str]) -> str:
    """The one of these keys that a mapping has.  Raises `ConfigError` when it has none or several of them."""
    found = [key for key in place.entries() if key in keys]
    if len(found) != 1:
        raise place.error(f"expected {one_of(keys)}, found {' and '.join(found) or ('neither' if len(keys) == 2 else 'none')}")
    return found[0]
