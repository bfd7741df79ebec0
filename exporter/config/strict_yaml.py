"""YAML as written: PyYAML's own nodes, without YAML's guesses.

YAML 1.1 reads `no` as false, `22:22` as 1342 and lets the last of two equal keys win.  Here a scalar stays the text that was
written, and the reader of a key decides what the text means.  Tags and several documents are refused, and so are deep nesting
and aliases that multiply, which take long to read.  Messages never quote the text, which may be a secret.
"""

from __future__ import annotations

import re
from typing import Any, cast

import yaml

# A configuration is six deep; Python's own recursion ends at about a thousand.
_MAX_DEPTH = 32
# Aliases expanded: room for 20,000 rooms several times over, and read within a few seconds.
_MAX_NODES = 500_000

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
# What PyYAML's complaints begin with, where there are better words for them.
_COMPLAINTS = {
    r"found character '\t'": "not YAML: found a tab where only spaces may stand",
    "found character": "not YAML: found a character that cannot begin a value, quote the value",
    "found unknown escape": "not YAML: found an unknown escape, put a text with backslashes in single quotes",
    "but found another document": "expected one document, found a second",
}


class ConfigError(Exception):
    """The configuration cannot be used.

    The message is one line that names the file, the key's path and what was expected; never a secret.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else " " for c in message))


def is_null(node: yaml.Node) -> bool:
    """Whether nothing was given: no value at all, `~` or `null`."""
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in _NULLS


def read(text: str, source: str) -> yaml.Node:
    """The one document of `text`; `source` is what messages call it.  Raises `ConfigError`.

    A mapping keeps repeated keys. The reader of the mapping refuses them, because it knows the path.
    """
    text = text.removeprefix("\N{BYTE ORDER MARK}")
    try:
        root = _Loader(text).get_single_node()
    except yaml.reader.ReaderError as error:
        line, column = text.count("\n", 0, error.position) + 1, error.position - text.rfind("\n", 0, error.position)
        raise ConfigError(f"{source}: line {line}, column {column}: expected text, found a control character") from None
    except yaml.MarkedYAMLError as error:
        mark, problem = error.problem_mark, error.problem if isinstance(error, _Refused) else _problem(error.problem or "expected YAML")
        where = "" if mark is None else f" line {mark.line + 1}, column {mark.column + 1}:"
        raise ConfigError(f"{source}:{where} {problem}") from None
    except (ValueError, OverflowError):
        # PyYAML raises these for escapes and version numbers that are out of range.
        raise ConfigError(f"{source}: expected YAML, found a number or an escape out of range") from None
    if root is None:
        raise ConfigError(f"{source}: is empty")
    return root


def _problem(told: str) -> str:
    """PyYAML's complaint, without what it quotes from the file."""
    better = next((words for beginning, words in _COMPLAINTS.items() if told.startswith(beginning)), None)
    return better or "not YAML: " + re.sub(r"^(found [^'\"]*) ['\"].*", r"\1", told.partition(", but ")[0], flags=re.DOTALL)


class _Refused(yaml.MarkedYAMLError):
    """YAML that is not accepted here."""

    def __init__(self, place: yaml.Event | yaml.Node, problem: str) -> None:
        super().__init__(problem=problem, problem_mark=cast(Any, place.start_mark))


class _Loader(yaml.SafeLoader):
    """PyYAML's loader up to its nodes; it reads event by event, so that what is too deep is never read to its end."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0
        self._sizes: dict[str | None, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node; the count includes what its aliases expand to."""
        event, before = self._peek(), self._nodes
        if self._depth > _MAX_DEPTH:
            raise _Refused(event, f"nested more than {_MAX_DEPTH} deep")
        is_alias = isinstance(event, yaml.AliasEvent)
        if is_alias and event.anchor not in self._sizes:
            raise _Refused(event, "alias (*...) of an unknown anchor, quote text that begins with *")
        self._nodes += self._sizes[event.anchor] if is_alias else 1
        if self._nodes > _MAX_NODES:
            raise _Refused(event, f"more than {_MAX_NODES} values, aliases included")
        if is_alias:
            return super().compose_node(parent, index)
        if event.tag is not None:
            raise _Refused(event, "tags (!...) are not supported, quote text that begins with !")
        # An anchor may be given again; it is known only from here on, for a node cannot contain itself.
        self._sizes.pop(event.anchor, None)
        self.anchors.pop(event.anchor, None)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._sizes[event.anchor] = self._nodes - before
        return node

    def _peek(self) -> Any:
        return self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs lack it

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping with its merge keys (`<<`) applied: its own keys win, then those merged first."""
        node = super().compose_mapping_node(anchor)
        own, merged = [], []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or is_null(key):
                raise _Refused(key, "expected the name of a key")
            if key.style is None and key.value == "<<":
                for mapping in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if not isinstance(mapping, yaml.MappingNode):
                        raise _Refused(value, "expected a mapping to merge (<<)")
                    merged += mapping.value
            else:
                own.append((key, value))
        keys = {key.value for key, _ in own}
        first = {key.value: (key, value) for key, value in reversed(merged) if key.value not in keys}
        node.value = own + list(first.values())
        return node
