"""What an asset counts for, from its record alone: in number by its type and status, in length and size if it is complete.

One recording makes several assets of the same length: time is summed within a type, never over types.  Pure; times are the API's,
in integer microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from exporter.counting.collected import Kind, Labels
from exporter.hms.assets import COMPLETED, Asset, decode_asset


class Counted(NamedTuple):
    """What assets add to the counters of their account; `time` in microseconds, `size` in bytes."""

    number: int = 0
    time: int = 0
    size: int = 0


def counted(asset: Asset, _now: int) -> Mapping[Labels, tuple[int, ...]]:
    """What an asset adds: to the number of its type and status, and if it is complete to the length and size of its type."""
    number: Mapping[Labels, tuple[int, ...]] = {(asset.type, asset.status): Counted(number=1)}
    return {**number, (asset.type,): Counted(time=asset.length, size=asset.size)} if asset.status == COMPLETED else number


RECORDING_ASSETS = Kind("recording_assets", "/recording-assets", Asset, decode_asset, counted, by_id=False)
