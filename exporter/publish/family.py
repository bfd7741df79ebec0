"""The base class of all metric families."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """A metric family.

    `expires` says that its values belong to one moment and must not be shown long after it, `live_only` that `backfill` does not
    write it.
    """

    name: str
    kind: str
    help: str
    expires: bool = False
    live_only: bool = False
