"""What an asset adds to the counters, from its record alone: to the numbers by type and status; if complete, to length and size.

One recording makes several assets of the same length, so time is summed within a type, never over types.  Pure; times are the
API's, in integer microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from exporter.counting.collected import Kind, Labels
from exporter.hms.assets import COMPLETED, Asset, decode_asset


class Counted(NamedTuple):
    """The counters that assets add to; `time` in microseconds, `size` in bytes."""

    number: int = 0
    time: int = 0
    size: int = 0


def counted(asset: Asset, _now: int) -> Mapping[Labels, tuple[int, ...]]:
    """An asset's addition to the number of its type and status and, if it is complete, to the length and size of its type."""
    number: Mapping[Labels, tuple[int, ...]] = {(asset.type, asset.status): Counted(number=1)}
    return {**number, (asset.type,): Counted(time=asset.length, size=asset.size)} if asset.status == COMPLETED else number


RECORDING_ASSETS = Kind("recording_assets", "/recording-assets", Asset, decode_asset, counted, by_id=False)
