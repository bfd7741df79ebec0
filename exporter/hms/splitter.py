"""Splits a list's answer into records while it arrives: one record at a time is in memory, not the page.

The text of the answer is scanned for brackets outside of strings.  It is not validated here: each record and the rest of the answer are
JSON texts, which their decoders check.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from exporter.hms.errors import MalformedAnswer, TooLarge

LARGEST_RECORD = 64 * 1024 * 1024
_LARGEST_REST = 1024 * 1024
_MOST_BLANKS = 1024 * 1024
_BLANK = b" \t\n\r"
_QUOTE, _COMMA, _OPEN_LIST = b'",['
_OPENING, _CLOSING = b"{[", b"}]"

_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_IN_STRING = re.compile(rb"[^\"\\]*+(?:\\.[^\"\\]*+)*+", re.DOTALL)
"""From within a string to its closing quote."""
_TO_BRACKET = re.compile(rb"[^\"{}\[\]]*+(?:\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\"[^\"{}\[\]]*+)*+", re.DOTALL)
"""From outside a string to the next bracket, or to a string whose end has not arrived."""
_TO_COMMA = re.compile(rb"[^\"{}\[\],]*+(?:\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\"[^\"{}\[\],]*+)*+", re.DOTALL)
"""The same, to a comma too."""

_ROUND = bytes.maketrans(b"{}[]", b"()()")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"{}[]")
_MOST_REDUCTIONS = 8

_TOP, _LIST = 1, 2
"""Depths: within the answer's object, and within its list of records."""


class Splitter:
    """Splits `{…, "<key>": [<record>, …], …}` into its records and the rest, in which the list is empty."""

    def __init__(self, key: str) -> None:
        # A quote inside a string has a backslash before it: what this finds is a whole key.
        self._key = re.compile(rb'[{,][ \t\n\r]*"' + re.escape(key.encode()) + rb'"[ \t\n\r]*:[ \t\n\r]*\Z')
        self._rest = bytearray()
        self._record = bytearray()
        self._backslash = b""
        self._depth = 0
        self._in_string = False
        self._in_list = False
        self._found_list = False
        self._records = 0
        self._blanks = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The records that end in this chunk.  Raises `MalformedAnswer`, or `TooLarge` for a record without end."""
        data = self._backslash + chunk
        self._backslash = b""
        if (len(data) - len(data.rstrip(b"\\"))) % 2:  # an escape in two pieces
            data, self._backslash = data[:-1], data[-1:]
        if not (self._in_list and self._depth > _LIST and self._pass_over(data)):
            yield from self._scan(data)
        if len(self._record) > LARGEST_RECORD:
            raise TooLarge(f"a record of the answer is larger than {LARGEST_RECORD >> 20} MiB", LARGEST_RECORD)
        if self._blanks > _MOST_BLANKS:
            raise TooLarge("the answer is larger than 64 MiB, and much of it blank")
        if len(self._rest) > _LARGEST_REST:
            raise MalformedAnswer("the answer is not a list of records")

    def close(self) -> bytes:
        """The rest of the answer, once all of it has been fed.  Raises `MalformedAnswer` when the list has not ended."""
        if self._in_list or self._in_string or self._backslash:
            raise MalformedAnswer("the answer ends in the middle of its records")
        return bytes(self._rest)

    def _pass_over(self, data: bytes) -> bool:
        """Whether this piece lies within one record as a whole: a much faster check than finding where a record ends."""
        shape = _shape(data, in_string=self._in_string)
        if shape is None or self._depth - shape[0] <= _LIST:
            return False
        self._depth += shape[1]
        self._in_string = shape[2]
        self._record += data
        return True

    def _scan(self, data: bytes) -> Iterator[bytes]:
        """Goes from bracket to bracket."""
        start = at = 0  # what lies between them belongs to the record or to the rest
        while at < len(data):
            if self._in_string:
                at = _IN_STRING.match(data, at).end() + 1  # type: ignore[union-attr]  # it matches the empty text too
                self._in_string = at > len(data)
                continue
            at_list = self._in_list and self._depth == _LIST
            at = (_TO_COMMA if at_list else _TO_BRACKET).match(data, at).end()  # type: ignore[union-attr]  # likewise
            if at == len(data):
                break
            byte = data[at]
            at += 1
            if byte == _QUOTE:
                self._in_string = True
            elif byte in _OPENING:
                self._depth += 1
                if byte == _OPEN_LIST and self._depth == _LIST and not self._in_list and self._begins(data[start:at]):
                    start = at
            elif at_list:
                yield from self._ended(data[start : at - 1], last=byte != _COMMA)
                start = at - (byte != _COMMA)
                self._depth -= byte != _COMMA
            else:
                self._depth -= 1
        left = data[start:]
        if self._in_list and not self._record:
            left = left.lstrip(_BLANK)
            self._blanks += len(data) - start - len(left)
        (self._record if self._in_list else self._rest).extend(left)

    def _begins(self, text: bytes) -> bool:
        """Whether the list of records begins after this text."""
        self._rest += text
        self._in_list = self._key.search(self._rest, max(0, len(self._rest) - 200), len(self._rest) - 1) is not None
        if self._in_list and self._found_list:
            raise MalformedAnswer("the answer holds two lists of records")
        if not self._in_list:
            del self._rest[len(self._rest) - len(text) :]
        self._found_list |= self._in_list
        return self._in_list

    def _ended(self, text: bytes, *, last: bool) -> Iterator[bytes]:
        """The record that ends with this text; none in an empty list."""
        self._record += text
        record = bytes(self._record.strip(_BLANK))
        self._record = bytearray()
        self._in_list = not last
        if record:
            self._records += 1
            yield record
        elif not last or self._records:
            raise MalformedAnswer("the answer's list of records lacks one between two commas")


def _shape(data: bytes, *, in_string: bool) -> tuple[int, int, bool] | None:
    """How many levels a piece of JSON falls below its first one, how many it rises in all, and whether it ends in a string.

    `None` for a piece that nests too deeply for the quick check.
    """
    if b"\\" in data:
        data = _ESCAPE.sub(b"..", data)
    pieces = data.split(b'"')
    brackets = b"".join(pieces[in_string::2]).translate(_ROUND, _NO_BRACKETS)
    for _ in range(_MOST_REDUCTIONS):
        reduced = brackets.replace(b"()", b"")
        if len(reduced) == len(brackets):
            falls = reduced.count(b")")
            return falls, len(reduced) - 2 * falls, in_string ^ (len(pieces) % 2 == 0)
        brackets = reduced
    return None
