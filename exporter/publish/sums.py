"""The lines of the adders' counters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from exporter.counting.contribution import Account
from exporter.counting.sums import Series, Sums
from exporter.counting.webhooks import Counter
from exporter.publish.added import SumFamily
from exporter.publish.exposition import Section
from exporter.publish.writing import created_line, escape


class SumsText:
    """A workspace's lines of some families, rendered again only after a change."""

    def __init__(self, workspace: str, families: Sequence[SumFamily]) -> None:
        self._workspace = f'workspace="{escape(workspace)}"'
        self._families = families
        self._key: object = None
        self._sections: Mapping[str, Sequence[Section]] = {}

    def sections(self, sums: Sums, labels: Mapping[Account, str], *, created: bool) -> Mapping[str, Sequence[Section]]:
        """The counters of the workspace, and of the rooms and groups that have a label."""
        names = {owner: labels[owner] for owner in sums.of if owner in labels}
        key = (sums.version, names, created)
        if key != self._key:
            self._key = key
            lines = [(self._workspace, *counter) for counter in sums.of_workspace.items()]
            for owner, name in names.items():
                lines += [(self._labels(owner, name), *counter) for counter in sums.of[owner].items()]
            lines.sort(key=lambda line: line[:2])
            self._sections = {family.name: [_section(family, lines, created=created)] for family in self._families}
        return self._sections

    def _labels(self, owner: Account, name: str) -> str:
        room_id = f'room_id="{escape(owner.id)}",' if owner.kind == "room" else ""
        return f'{self._workspace},{room_id}room="{escape(name)}"'


def _section(family: SumFamily, lines: Iterable[tuple[str, Series, Counter]], *, created: bool) -> Section:
    plain, more = [], []
    for labels, series, counter in lines:
        if series.name == family.counted_as:
            own = ",".join(f'{name}="{escape(value)}"' for name, value in zip(family.labels, series.labels, strict=True))
            of = f"{{{labels},{own}}} "
            plain.append(f"{family.name}{of}{counter.value}\n")
            more += [plain[-1], created_line(family.name, of, counter.born)]
    return Section("".join(plain).encode(), openmetrics="".join(more).encode() if created else None)
