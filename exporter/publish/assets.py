"""The families of recording assets."""

from __future__ import annotations

from exporter.publish.collected_families import CollectedCounter

ASSET_FAMILIES = (
    CollectedCounter(
        "hms_recording_assets_total",
        "counter",
        "Files of recordings, completed or failed, by type and status.",
        index=0,
        labels=("type", "status"),
    ),
    CollectedCounter(
        "hms_recording_asset_seconds_total",
        "counter",
        "Length of the files of recordings. Those of one recording have the same length: sum within a type, not over types.",
        index=1,
        labels=("type",),
        time=True,
    ),
    CollectedCounter(
        "hms_recording_asset_bytes_total",
        "counter",
        "Size of the files of recordings.",
        index=2,
        labels=("type",),
    ),
)
