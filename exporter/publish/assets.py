"""The families of recording assets."""

from __future__ import annotations

from exporter.publish.collected_families import CollectedCounter

ASSET_FAMILIES = (
    CollectedCounter(
        "hms_recording_assets_total",
        "counter",
        "Files that came of recordings, or failed to, by type and status.",
        index=0,
        labels=("type", "status"),
    ),
    CollectedCounter(
        "hms_recording_asset_seconds_total",
        "counter",
        "Length of the files that came of recordings. Those of one recording are equally long: sum within a type, not over types.",
        index=1,
        labels=("type",),
        time=True,
    ),
    CollectedCounter(
        "hms_recording_asset_bytes_total",
        "counter",
        "Size of the files that came of recordings.",
        index=2,
        labels=("type",),
    ),
)
