"""The exposition: finished bytes, swapped whole after a poll; a scrape only chooses among them.

Pages are put together from *sections*, one for each family and workspace, which hold their text and (from the first scrape
that wants it) its compressed form.  A gzip page is one stream made of the sections' own deflate blocks: nothing is
compressed twice, the two formats share everything but their headers, and the exporter's live metrics join at the end.
"""

from __future__ import annotations

import struct
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from exporter.publish.families import FAMILIES, Family, header, sample_names
from exporter.publish.negotiation import OPENMETRICS, Format, choose_format, wants_gzip

_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
_LEVEL = 1
"""A third of the time of the usual level, for a tenth more bytes: measured on our own pages."""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer to a scrape: `length` bytes in `chunks`."""

    content_type: str
    encoding: str | None
    chunks: Sequence[bytes]
    length: int


class Section:
    """Some lines of one family, shown from `begins` until `expires` (monotonic seconds)."""

    __slots__ = ("_deflated", "begins", "expires", "text")

    def __init__(self, text: bytes, expires: float = float("inf"), begins: float = float("-inf")) -> None:
        self.text = text
        self.begins = begins
        self.expires = expires
        self._deflated: bytes | None = None

    def deflated(self) -> bytes:
        """The text as deflate blocks that may stand anywhere in a stream."""
        if self._deflated is None:
            self._deflated = deflate(self.text)
        return self._deflated


def deflate(text: bytes, flush: int = zlib.Z_FULL_FLUSH) -> bytes:
    """Text as raw deflate blocks, independent of what came before; `Z_FINISH` closes the stream."""
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(text) + compressor.flush(flush)


Sections = Mapping[str, Sequence[Section]]
"""A workspace's sections by family."""

_HEADERS = {fmt: {family.name: Section(header(family, openmetrics=fmt is OPENMETRICS)) for family in FAMILIES} for fmt in Format}


class _State:
    """What is published at one moment: immutable but for what is worked out of it once and kept."""

    def __init__(self, workspaces: Mapping[str, Sections]) -> None:
        self.workspaces = workspaces
        sections = [section for of in workspaces.values() for group in of.values() for section in group]
        self.turns = sorted({moment for section in sections for moment in (section.begins, section.expires)})
        self.pages: dict[tuple[Format, float], _Static] = {}

    def shown(self, family: Family, now: float) -> list[Section]:
        return [
            section
            for sections in self.workspaces.values()
            for section in sections.get(family.name, ())
            if section.text and section.begins <= now < section.expires
        ]


class _Static:
    """The part of a page that does not change until the next poll, or until something in it expires: nothing but shared texts."""

    def __init__(self, sections: Sequence[Section]) -> None:
        self.sections = sections
        self.plain = [section.text for section in sections]
        self.length = sum(map(len, self.plain))
        self._zipped: tuple[list[bytes], int] | None = None

    def zipped(self) -> tuple[list[bytes], int]:
        """All of it compressed, and the checksum of what it holds."""
        checksum = 0
        for text in self.plain:
            checksum = zlib.crc32(text, checksum)
        return [section.deflated() for section in self.sections], checksum

    def zipped_for_all(self) -> tuple[list[bytes], int]:
        """The same in one piece, for each piece is a call of the system; made once."""
        if self._zipped is None:
            blocks, checksum = self.zipped()
            self._zipped = [b"".join(blocks)], checksum
        return self._zipped


class Exposition:
    """What is published; `live` renders the exporter's own metrics, at every scrape, in the format asked for."""

    def __init__(self, live: Callable[[Format, frozenset[str]], bytes], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._live = live
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._state = _State({})

    def publish(self, workspace: str, sections: Sections | None) -> None:
        """Puts a workspace's sections in the place of its earlier ones, at once and whole; `None` takes it away."""
        with self._lock:
            workspaces = {name: group for name, group in self._state.workspaces.items() if name != workspace}
            if sections is not None:
                workspaces[workspace] = sections
            self._state = _State(dict(sorted(workspaces.items())))

    def page(self, accept: str, accept_encoding: str, names: frozenset[str] = frozenset()) -> Page:
        """The answer to a scrape with these headers, of the samples of these names only, if there are any."""
        fmt = choose_format(accept)
        # The live part first: a scraper that sees a poll counted must see what that poll published.
        live = self._live(fmt, names)
        state, now = self._state, self._monotonic()
        static = _Static(_chosen(state, fmt, now, names)) if names else self._static(state, fmt, now)
        length = static.length + len(live)
        if not wants_gzip(accept_encoding):
            return Page(fmt.content_type, None, [*static.plain, live], length)
        # What one asks for alone is not put in one piece: held by many who read slowly, the copies would add up.
        blocks, checksum = static.zipped() if names else static.zipped_for_all()
        tail = deflate(live, zlib.Z_FINISH) + _gzip_trailer(zlib.crc32(live, checksum), length)
        chunks = [_GZIP_HEADER, *blocks, tail]
        return Page(fmt.content_type, "gzip", chunks, sum(map(len, chunks)))

    def _static(self, state: _State, fmt: Format, now: float) -> _Static:
        """Pages differ only by what has expired or begun: there is one between each two such moments."""
        moment = next((turn for turn in state.turns if turn > now), float("inf"))
        static = state.pages.get((fmt, moment))
        if static is None:
            static = state.pages[fmt, moment] = _Static(_all(state, fmt, now))
        return static


def _all(state: _State, fmt: Format, now: float) -> list[Section]:
    sections: list[Section] = []
    for family in FAMILIES:
        shown = state.shown(family, now)
        if shown:
            sections += [_HEADERS[fmt][family.name], *shown]
    return sections


def _chosen(state: _State, fmt: Format, now: float, names: frozenset[str]) -> list[Section]:
    """The sections with samples of these names; of a histogram's, which are small, only the lines of those."""
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
    """RFC 1952: the checksum and the length (modulo 2³²) of what was compressed."""
    return struct.pack("<II", checksum, length & 0xFFFFFFFF)
