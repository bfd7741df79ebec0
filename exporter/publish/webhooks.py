"""The lines of the counters of webhooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from exporter.counting.contribution import Account
from exporter.counting.webhooks import WORKSPACE, Counter, Key
from exporter.publish.exposition import Section
from exporter.publish.families import WEBHOOK_FAMILIES, WEBHOOK_ROOM_FAMILIES, WebhookFamily
from exporter.publish.writing import created_line, escape

Counters = Mapping[Key, Counter]


def workspace_sections(workspace: str, counters: Counters, *, created: bool) -> dict[str, Sequence[Section]]:
    """The numbers of webhooks that a workspace has received and refused."""
    labels = f'workspace="{escape(workspace)}"'
    found = [(key, counter, labels) for key, counter in counters.items() if key.owner == WORKSPACE]
    return _sections(WEBHOOK_FAMILIES, found, created=created)


def room_sections(
    workspace: str, counters: Counters, label: Callable[[Account], str | None], *, created: bool
) -> dict[str, Sequence[Section]]:
    """The counters of the rooms and groups that have a label."""
    found = []
    names: dict[Account, str | None] = {}
    for key, counter in counters.items():
        if key.owner.kind not in ("room", "group"):
            continue
        if key.owner not in names:
            names[key.owner] = label(key.owner)
        name = names[key.owner]
        if name is not None:
            room_id = f'room_id="{escape(key.owner.id)}",' if key.owner.kind == "room" else ""
            found.append((key, counter, f'workspace="{escape(workspace)}",{room_id}room="{escape(name)}"'))
    return _sections(WEBHOOK_ROOM_FAMILIES, found, created=created)


def _sections(
    families: Iterable[WebhookFamily], found: Iterable[tuple[Key, Counter, str]], *, created: bool
) -> dict[str, Sequence[Section]]:
    lines = sorted(found, key=lambda item: (item[2], item[0].label))
    sections: dict[str, Sequence[Section]] = {}
    for family in families:
        plain, whole = [], []
        for key, counter, labels in lines:
            if key.name == family.counted_as:
                of = f'{{{labels},{family.label}="{escape(key.label)}"}} '
                plain.append(f"{family.name}{of}{counter.value}\n")
                whole += [plain[-1], created_line(family.name, of, counter.born)]
        sections[family.name] = [Section("".join(plain).encode(), openmetrics="".join(whole).encode() if created else None)]
    return sections
