"""YAML as written: a tree of texts, lists and mappings, without YAML's guesses.

YAML 1.1 reads `no` as false, `22:22` as 1342 and lets the last of two equal keys win.  Here a scalar stays the text that was
written, so that whoever knows what a key should hold decides what the text means.  Directives, tags and several documents are refused,
and so is whatever would take long to read: deep nesting, aliases that multiply.  Messages never quote the text, which may
be a secret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

# A configuration is six deep; Python's own recursion ends at about a thousand.
_MAX_DEPTH = 32
# Aliases expanded: room for 20,000 rooms several times over, and read within a few seconds.
_MAX_NODES = 500_000

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


class ConfigError(Exception):
    """The configuration cannot be used.

    The message is one line that names the file, the key's path and what was expected; never a secret.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else " " for c in message))


@dataclass(frozen=True, slots=True)
class YamlScalar:
    """A single value: its text, and whether it stood there plain, that is, without quotes."""

    text: str
    plain: bool

    @property
    def is_null(self) -> bool:
        """Whether nothing was given: no value at all, `~` or `null`."""
        return self.plain and self.text in _NULLS


@dataclass(frozen=True, slots=True)
class YamlList:
    """A sequence."""

    items: tuple[YamlNode, ...]


@dataclass(frozen=True, slots=True)
class YamlEntry:
    """A key of a mapping, the line (from 1) it stands on, and its value."""

    key: str
    line: int
    value: YamlNode


@dataclass(frozen=True, slots=True)
class YamlMap:
    """A mapping as written: an entry for each key, repeated keys included."""

    entries: tuple[YamlEntry, ...]


YamlNode = YamlScalar | YamlList | YamlMap


def read(text: str, source: str) -> YamlNode:
    """The one document of `text`; `source` is what messages call it.  Raises `ConfigError`."""
    text = text.removeprefix("\N{BYTE ORDER MARK}")
    try:
        return _Tree(text, source).document()
    except yaml.reader.ReaderError as error:
        line, column = text.count("\n", 0, error.position) + 1, error.position - text.rfind("\n", 0, error.position)
        raise ConfigError(f"{source}: line {line}, column {column}: expected text, found a control character") from None
    except yaml.MarkedYAMLError as error:
        raise _fault(source, error.problem_mark, _problem(error)) from None
    except (ValueError, OverflowError):
        # PyYAML lets these out for escapes and version numbers beyond any range.
        raise ConfigError(f"{source}: expected YAML, found a number or an escape out of range") from None


class _Tree:
    """Builds the tree from PyYAML's events, which come one by one: what is too deep is never read to its end."""

    def __init__(self, text: str, source: str) -> None:
        self._source = source
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._anchors: dict[str, tuple[YamlNode, int]] = {}
        self._nodes = 0

    def document(self) -> YamlNode:
        next(self._events)  # the stream's start
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            raise ConfigError(f"{self._source}: is empty")
        if isinstance(event, yaml.DocumentStartEvent) and (event.version or event.tags):
            raise _fault(self._source, event.start_mark, "directives (%...) are not supported")
        root = self._node(next(self._events), 0)
        next(self._events)  # the document's end
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise _fault(self._source, event.start_mark, "expected one document, found a second")
        return root

    def _node(self, event: yaml.Event, depth: int) -> YamlNode:
        if depth > _MAX_DEPTH:
            raise _fault(self._source, event.start_mark, f"nested more than {_MAX_DEPTH} deep")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        before = self._nodes
        self._count(event, 1)
        # "!" is the tag that PyYAML gives to nothing; any tag at all was written on purpose.
        if getattr(event, "tag", None) is not None:
            raise _fault(self._source, event.start_mark, "tags (!...) are not supported, quote text that begins with !")
        node: YamlNode
        if isinstance(event, yaml.SequenceStartEvent):
            node = YamlList(tuple(self._node(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)))
        elif isinstance(event, yaml.MappingStartEvent):
            node = YamlMap(self._entries(depth))
        else:
            assert isinstance(event, yaml.ScalarEvent)
            node = YamlScalar(event.value, plain=event.style is None)
        anchor: str | None = event.anchor
        if anchor is not None:
            # Known only from here on: a node cannot hold itself.
            self._anchors[anchor] = (node, self._nodes - before)
        return node

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        while not isinstance(event := next(self._events), end):
            yield event

    def _alias(self, event: yaml.AliasEvent) -> YamlNode:
        if event.anchor not in self._anchors:
            raise _fault(self._source, event.start_mark, "alias (*...) of an unknown anchor, quote text that begins with *")
        node, size = self._anchors[event.anchor]
        self._count(event, size)
        return node

    def _count(self, event: yaml.Event, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > _MAX_NODES:
            raise _fault(self._source, event.start_mark, f"more than {_MAX_NODES} values, aliases included")

    def _entries(self, depth: int) -> tuple[YamlEntry, ...]:
        own: list[YamlEntry] = []
        merged: list[YamlEntry] = []
        for event in self._until(yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, YamlScalar) or key.is_null:
                raise _fault(self._source, event.start_mark, "expected the name of a key")
            value_event = next(self._events)
            value = self._node(value_event, depth + 1)
            if key.plain and key.text == "<<":
                for mapping in value.items if isinstance(value, YamlList) else (value,):
                    if not isinstance(mapping, YamlMap):
                        raise _fault(self._source, value_event.start_mark, "expected a mapping to merge (<<)")
                    merged.extend(mapping.entries)
            else:
                own.append(YamlEntry(key.text, event.start_mark.line + 1 if event.start_mark else 0, value))
        # What a mapping says itself wins over what it merges, and of that the first.
        keys = {entry.key for entry in own}
        for entry in merged:
            if entry.key not in keys:
                keys.add(entry.key)
                own.append(entry)
        return tuple(own)


class _Mark(Protocol):
    """A position as PyYAML counts it, from 0."""

    @property
    def line(self) -> int: ...

    @property
    def column(self) -> int: ...


def _fault(source: str, mark: _Mark | None, problem: str) -> ConfigError:
    where = "" if mark is None else f" line {mark.line + 1}, column {mark.column + 1}:"
    return ConfigError(f"{source}:{where} {problem}")


def _problem(error: yaml.MarkedYAMLError) -> str:
    """What PyYAML complains of, without what it quotes from the file."""
    problem = error.problem or "expected YAML"
    if problem.startswith("found character"):
        found = "a tab where only spaces may stand" if r"'\t'" in problem else "a character that cannot begin a value, quote the value"
        return f"not YAML: found {found}"
    if problem.startswith("found unknown escape"):
        return "not YAML: found an unknown escape, put a text with backslashes in single quotes"
    return "not YAML: " + re.sub(r"^(found [^'\"]*) ['\"].*", r"\1", problem.partition(", but ")[0], flags=re.DOTALL)
