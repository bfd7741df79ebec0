"""What a metric family is, whatever it is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """A metric family; `expires` says that its values are of one moment and must not be shown for long after it."""

    name: str
    kind: str
    help: str
    expires: bool = False
