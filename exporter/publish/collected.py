"""Renders the lines of collectors: a kind of data has a tuple of families, which this module renders.

An account's lines are cached, and rendered again only when it has changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from exporter.counting.collected import Collected
from exporter.counting.contribution import Account
from exporter.counting.holdings import Holding
from exporter.publish.collected_families import COLLECTOR_UP, CollectedCounter, CollectedDistribution, CollectedGauge
from exporter.publish.exposition import Section
from exporter.publish.family import Family
from exporter.publish.writing import created_line, escape, histogram_lines, seconds
from exporter.times import SECOND


class _Lines(NamedTuple):
    key: tuple[object, ...]
    plain: Sequence[str]
    openmetrics: Sequence[str]


class CollectedText:
    """One collector's sections of one workspace."""

    def __init__(self, workspace: str, families: Sequence[Family]) -> None:
        self._workspace = workspace
        self._families = families
        self._lines: dict[Account, _Lines] = {}

    def sections(
        self, collected: Collected[Any], labels: Mapping[Account, str], shown_until: float, *, created: bool
    ) -> dict[str, Sequence[Section]]:
        """The sections of the accounts that have a label; gauges are shown until `until` (monotonic seconds)."""
        holdings = [(holding, label) for a, holding in collected.holdings.items() if holding.tallies and (label := labels.get(a))]
        self._lines = {holding.account: self._of(holding, label, created=created) for holding, label in holdings}
        sections: dict[str, Sequence[Section]] = {}
        for number, family in enumerate(self._families):
            if isinstance(family, CollectedDistribution):
                sections[family.name] = [self._distribution(family, collected, created=created)]
                continue
            plain = "".join(lines.plain[number] for lines in self._lines.values()).encode()
            more = "".join(lines.openmetrics[number] for lines in self._lines.values()).encode() if created else None
            sections[family.name] = [Section(plain, shown_until if family.expires else float("inf"), openmetrics=more)]
        return sections

    def _of(self, holding: Holding[Any], label: str, *, created: bool) -> _Lines:
        key = (label, holding.version, created)
        found = self._lines.get(holding.account)
        if found is not None and found.key == key:
            return found
        room_id = f'room_id="{escape(holding.account.id)}",' if holding.account.kind == "room" else ""
        labels = f'workspace="{escape(self._workspace)}",{room_id}room="{escape(label)}"'
        parts = [_lines(family, holding, labels) for family in self._families]
        return _Lines(key, ["".join(plain) for plain, _ in parts], ["".join(more) for _, more in parts] if created else ())

    def _distribution(self, family: CollectedDistribution, collected: Collected[Any], *, created: bool) -> Section:
        histogram = collected.histograms.get(family.counted_as)
        if histogram is None:
            return Section(b"")
        labels = f'workspace="{escape(self._workspace)}"'
        text = histogram_lines(family.name, labels, histogram, SECOND, created=False).encode()
        more = histogram_lines(family.name, labels, histogram, SECOND, created=True).encode() if created else None
        return Section(text, openmetrics=more)


def up_sections(workspace: str, collector: str, until: float) -> Sequence[Section]:
    """A collector's lines of `COLLECTOR_UP`, which is 1 until `until` (monotonic seconds)."""
    labels = f'{{workspace="{escape(workspace)}",collector="{collector}"}}'
    up, down = (f"{COLLECTOR_UP.name}{labels} {value}\n".encode() for value in (1, 0))
    return [Section(up, until), Section(down, begins=until)]


def _lines(family: Family, holding: Holding[Any], labels: str) -> tuple[list[str], list[str]]:
    """A holding's lines of a family: for the text format, and for OpenMetrics with the creation times of counters."""
    plain: list[str] = []
    more: list[str] = []
    if isinstance(family, CollectedGauge):
        plain = more = [f"{family.name}{{{labels}{own}}} {value}\n" for own, value in family.values(holding)]
    elif isinstance(family, CollectedCounter):
        for own, tally in sorted(holding.tallies.items()):
            if len(own) != len(family.labels):
                continue  # it belongs to another family
            value = tally.published[family.index]
            names = "".join(f',{name}="{escape(text)}"' for name, text in zip(family.labels, own, strict=True))
            of = f"{{{labels}{names}}} "
            plain.append(f"{family.name}{of}{seconds(value) if family.time else value}\n")
            more += [plain[-1], created_line(family.name, of, tally.born)]
    return plain, more
