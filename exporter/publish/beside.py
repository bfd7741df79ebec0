"""The kinds of data that collectors read from lists, with their families.  A new kind is one more line."""

from __future__ import annotations

from typing import Any, NamedTuple

from exporter.counting.assets import RECORDING_ASSETS
from exporter.counting.holdings import Kind
from exporter.counting.jobs import EXTERNAL_STREAMS, LIVE_STREAMS, RECORDINGS
from exporter.publish.assets import ASSET_FAMILIES
from exporter.publish.family import Family
from exporter.publish.jobs import EXTERNAL_STREAM_FAMILIES, LIVE_STREAM_FAMILIES, RECORDING_FAMILIES


class Listed(NamedTuple):
    """A kind of data that is read from a list, and its families."""

    kind: Kind[Any]
    families: tuple[Family, ...]


LISTED = (
    Listed(RECORDINGS, RECORDING_FAMILIES),
    Listed(LIVE_STREAMS, LIVE_STREAM_FAMILIES),
    Listed(EXTERNAL_STREAMS, EXTERNAL_STREAM_FAMILIES),
    Listed(RECORDING_ASSETS, ASSET_FAMILIES),
)
