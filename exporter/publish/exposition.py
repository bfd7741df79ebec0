"""The exposition: finished bytes, replaced in one step after a poll; a scrape only chooses among them.

A page consists of *sections*, one for each family and workspace, which hold their text and, once a scraper has requested gzip,
its compressed form.  A gzip page is one stream of the sections' own deflate blocks: nothing is compressed twice, both formats
share everything except their headers, and the exporter's live metrics follow at the end.
"""

from __future__ import annotations

import bisect
import re
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from exporter.publish import checksums
from exporter.publish.families import FAMILIES, header, sample_names
from exporter.publish.family import Family
from exporter.publish.negotiation import OPENMETRICS, Format, choose_format, wants_gzip

_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
_LEVEL = 1
"""Takes a third of the default level's time for a tenth more bytes, measured on pages of the benchmark."""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer to a scrape: `length` bytes in `chunks`."""

    content_type: str
    encoding: str | None
    chunks: Sequence[bytes]
    length: int


class Section:
    """Some lines of one family, shown from `begins` until `expires` (monotonic seconds).

    `openmetrics` is their text in OpenMetrics, if it differs.
    """

    __slots__ = ("_openmetrics", "_packed", "begins", "expires", "text")

    def __init__(self, text: bytes, expires: float = float("inf"), begins: float = float("-inf"), openmetrics: bytes | None = None) -> None:
        self._openmetrics = None if openmetrics is None else Section(openmetrics)
        self.text = text
        self.begins = begins
        self.expires = expires
        self._packed: Packed | None = None

    def within(self, fmt: Format) -> Section:
        """The section in this format."""
        return self._openmetrics if self._openmetrics is not None and fmt is OPENMETRICS else self

    def take_over(self, before: Section) -> None:
        """Reuses the results of an earlier section with the same text."""
        if self.text == before.text:
            self.text, self._packed = before.text, before._packed
        if self._openmetrics is not None and before._openmetrics is not None:
            self._openmetrics.take_over(before._openmetrics)

    def packed(self) -> Packed:
        """The compressed text, made once."""
        if self._packed is None:
            self._packed = Packed(deflate(self.text), zlib.crc32(self.text), checksums.shift(len(self.text)))
        return self._packed


class Packed(NamedTuple):
    """A text as deflate blocks that fit anywhere in a stream, its checksum, and the factor for a preceding text's checksum."""

    blocks: bytes
    checksum: int
    shift: int


def deflate(text: bytes, flush: int = zlib.Z_FULL_FLUSH) -> bytes:
    """Text as raw deflate blocks, independent of what came before; `Z_FINISH` closes the stream."""
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(text) + compressor.flush(flush)


_END = deflate(b"", zlib.Z_FINISH)

Sections = Mapping[str, Sequence[Section]]
"""A workspace's sections by family."""

Live = Callable[[Format, frozenset[str]], Sequence[Section]]
"""Returns the exporter's own metrics in a format, only these names (none: all), as the sections that end the page."""

_NAMES = frozenset(family.name for family in FAMILIES)
_HEADERS = {fmt: {family.name: Section(header(family, openmetrics=fmt is OPENMETRICS)) for family in FAMILIES} for fmt in Format}


class _State:
    """Everything that is published at one moment: immutable, except for pages that are made once and cached."""

    def __init__(self, workspaces: Mapping[str, Sections]) -> None:
        self.workspaces = workspaces
        sections = [section for of in workspaces.values() for group in of.values() for section in group]
        self.turns = sorted({moment for section in sections for moment in (section.begins, section.expires)})
        self.pages: dict[tuple[Format, float], _Static] = {}

    def moment(self, now: float) -> float:
        """Until when the page of `now` is valid: pages differ only in which sections have begun or expired."""
        index = bisect.bisect_right(self.turns, now)
        return self.turns[index] if index < len(self.turns) else float("inf")

    def static(self, fmt: Format, now: float) -> _Static:
        """The page of `now` in this format, without the live part."""
        moment = self.moment(now)
        static = self.pages.get((fmt, moment))
        if static is None:
            static = self.pages[fmt, moment] = _Static(_all(self, fmt, now))
        return static

    def shown(self, family: Family, now: float) -> list[Section]:
        """The family's sections that are valid now."""
        return [
            section
            for sections in self.workspaces.values()
            for section in sections.get(family.name, ())
            if section.text and section.begins <= now < section.expires
        ]


class _Zipped(NamedTuple):
    """Compressed sections: their blocks, the size of the blocks in bytes, and the checksum of the text."""

    blocks: Sequence[bytes]
    size: int
    checksum: int


class _Static:
    """The part of a page that does not change until the next poll, or until something in it expires; it only shares texts."""

    def __init__(self, sections: Sequence[Section]) -> None:
        self.sections = sections
        self.plain = [section.text for section in sections]
        self.length = sum(map(len, self.plain))
        self.whole: _Zipped | None = None
        """The compressed page in one piece, once requested, because one piece is sent faster than many."""

    def zipped(self) -> _Zipped:
        """The compressed page, in pieces that all pages share."""
        return _zip(self.sections)

    def zipped_whole(self) -> _Zipped:
        """The compressed page in one piece, made once."""
        if self.whole is None:
            blocks, size, checksum = self.zipped()
            self.whole = _Zipped((b"".join(blocks),), size, checksum)
        return self.whole


def _zip(sections: Iterable[Section], checksum: int = 0) -> _Zipped:
    """Compresses sections that follow a text with this checksum."""
    blocks: list[bytes] = []
    size = 0
    for section in sections:
        packed = section.packed()
        blocks.append(packed.blocks)
        size += len(packed.blocks)
        checksum = checksums.joined(checksum, packed.checksum, packed.shift)
    return _Zipped(blocks, size, checksum)


class Exposition:
    """The published pages.  `live` returns the exporter's own metrics in the requested format at each scrape.

    `may_show` says at each scrape whether workspaces may be shown: of two exporters, only the active one shows any.
    """

    def __init__(self, live: Live, monotonic: Callable[[], float] = time.monotonic, may_show: Callable[[], bool] = lambda: True) -> None:
        self._live = live
        self._monotonic = monotonic
        self._may_show = may_show
        self._lock = threading.Lock()
        self._state = _State({})
        self._asked: frozenset[tuple[Format, bool]] = frozenset()

    def publish(self, workspace: str, sections: Sections | None) -> None:
        """Replaces all of a workspace's sections in one step; `None` removes them.  They must belong to families of `FAMILIES`.

        The kinds of pages that scrapers have requested are finished here, in the poll's thread, so that a scrape finds them ready.
        zlib releases the interpreter lock while it compresses a section.
        """
        for name in sections or ():
            if name not in _NAMES:
                raise ValueError(f"{name} is published, but is not among FAMILIES, which give a page its headers and order")
        shown = self._state.workspaces.get(workspace, {})
        for name, group in (sections or {}).items():
            for section, before in zip(group, shown.get(name, ()), strict=False):
                section.take_over(before)
        asked = self._asked
        for fmt in {fmt for fmt, gzip in asked if gzip}:
            for section in (section for group in (sections or {}).values() for section in group):
                section.within(fmt).packed()
        with self._lock:
            workspaces = {name: group for name, group in self._state.workspaces.items() if name != workspace}
            if sections is not None:
                workspaces[workspace] = sections
            state, now = _State(dict(sorted(workspaces.items()))), self._monotonic()
            for fmt, gzip in asked:
                static = state.static(fmt, now)
                if gzip:
                    static.zipped_whole()
            self._state = state

    def clear(self) -> None:
        """Removes everything that is published."""
        with self._lock:
            self._state = _State({})

    def page(self, accept: str, accept_encoding: str, names: frozenset[str] = frozenset()) -> Page:
        """The answer to a scrape with these headers; if names are given, only with their samples."""
        fmt, gzip = choose_format(accept), wants_gzip(accept_encoding)
        # The live part comes first: a scraper that sees a poll counted must also see the data of that poll.
        live = self._live(fmt, names)
        state, now = self._state, self._monotonic()
        if not self._may_show():
            static = _Static(())
            return _page(fmt, static, _without_workspaces(live), static.zipped() if gzip else None)
        if names:
            static = _Static(_chosen(state, fmt, now, names))
            # A filtered page is not joined, because the copies held by many slow readers would add up.
            return _page(fmt, static, live, static.zipped() if gzip else None)
        self._asked |= {(fmt, gzip)}
        static = state.static(fmt, now)
        return _page(fmt, static, live, static.zipped_whole() if gzip else None)

    def finished(self, accept: str, accept_encoding: str) -> Page | None:
        """The same answer if everything except the live part is ready, so that it costs little; otherwise `None`."""
        fmt, gzip = choose_format(accept), wants_gzip(accept_encoding)
        if not self._is_ready(fmt, gzip) or not self._may_show():
            return None
        live = self._live(fmt, frozenset())
        state, now = self._state, self._monotonic()
        static = state.pages.get((fmt, state.moment(now)))
        if static is None or (gzip and static.whole is None):  # there was a poll or an expiry in between
            return None
        return _page(fmt, static, live, static.whole if gzip else None)

    def _is_ready(self, fmt: Format, gzip: bool) -> bool:
        state = self._state
        static = state.pages.get((fmt, state.moment(self._monotonic())))
        return static is not None and (not gzip or static.whole is not None)


def _without_workspaces(sections: Iterable[Section]) -> list[Section]:
    """The sections without the lines that have the label `workspace`."""
    return [
        Section(b"".join(line for line in section.text.splitlines(keepends=True) if not _OF_A_WORKSPACE.match(line)))
        for section in sections
    ]


_OF_A_WORKSPACE = re.compile(rb'[^#{]+\{([^"]*"(\\.|[^"\\])*",)*workspace="')


def _page(fmt: Format, static: _Static, live: Sequence[Section], zipped: _Zipped | None) -> Page:
    """A page of both parts; `zipped` is the compressed static part, or `None` for a plain page."""
    length = static.length + sum(len(section.text) for section in live)
    if zipped is None:
        return Page(fmt.content_type, None, [*static.plain, *(section.text for section in live)], length)
    tail = _zip(live, zipped.checksum)
    end = _END + _gzip_trailer(tail.checksum, length)
    size = len(_GZIP_HEADER) + zipped.size + tail.size + len(end)
    return Page(fmt.content_type, "gzip", [_GZIP_HEADER, *zipped.blocks, *tail.blocks, end], size)


def _all(state: _State, fmt: Format, now: float) -> list[Section]:
    sections: list[Section] = []
    for family in FAMILIES:
        shown = state.shown(family, now)
        if shown:
            sections += [_HEADERS[fmt][family.name], *(section.within(fmt) for section in shown)]
    return sections


def _chosen(state: _State, fmt: Format, now: float, names: frozenset[str]) -> list[Section]:
    """The sections with samples of these names; histograms, which are small, are filtered line by line."""
    sections: list[Section] = []
    for family in FAMILIES:
        wanted = names.intersection(sample_names(family))
        shown = state.shown(family, now) if wanted else []
        if family.kind == "histogram":
            starts = tuple(f"{name}{{".encode() for name in wanted)
            lines = [line for section in shown for line in section.text.splitlines(keepends=True) if line.startswith(starts)]
            shown = [Section(b"".join(lines))] if lines else []
        if shown:
            sections += [_HEADERS[fmt][family.name], *shown]
    return sections


def _gzip_trailer(checksum: int, length: int) -> bytes:
    """RFC 1952: the checksum and the length (modulo 2³²) of the uncompressed text."""
    return struct.pack("<II", checksum, length & 0xFFFFFFFF)
