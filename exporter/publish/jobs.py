"""The families of recordings and streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from exporter.counting.holdings import Holding
from exporter.counting.jobs import PROCESSING, START_DELAY, standing
from exporter.publish.collected_families import CollectedCounter, CollectedDistribution, CollectedGauge
from exporter.publish.family import Family
from exporter.publish.writing import seconds


def _active(holding: Holding[Any]) -> Iterator[tuple[str, str]]:
    for status, count in standing(holding.open).active.items():
        yield f',status="{status}"', str(count)


def _starting_since(holding: Holding[Any]) -> Iterator[tuple[str, str]]:
    since = standing(holding.open).starting_since
    if since is not None:
        yield "", seconds(since)


def job_families(one: str, many: str, words: str) -> tuple[Family, ...]:
    """The families of a kind of job; `one` and `many` are its singular and plural in metric names, `words` its name in HELP."""
    return (
        CollectedGauge(f"hms_{many}_active", "gauge", f"{words} in progress, by status.", expires=True, values=_active),
        CollectedGauge(
            f"hms_{one}_starting_since_timestamp_seconds",
            "gauge",
            f"{words}: when the oldest one that has not started was requested, as Unix time; absent if there is none.",
            expires=True,
            values=_starting_since,
        ),
        CollectedCounter(f"hms_{many}_requested_total", "counter", f"{words} requested.", index=0),
        CollectedCounter(f"hms_{many}_started_total", "counter", f"{words} that have started.", index=1),
        CollectedCounter(f"hms_{many}_completed_total", "counter", f"{words} that have completed.", index=2),
        CollectedCounter(f"hms_{many}_failed_total", "counter", f"{words} that have failed.", index=3),
        CollectedCounter(
            f"hms_{one}_seconds_total", "counter", f"{words}: their time, running ones included up to the last read.", index=4, time=True
        ),
        CollectedDistribution(
            f"hms_{one}_start_delay_seconds", "histogram", f"{words}: from the request to the start.", counted_as=START_DELAY
        ),
        CollectedDistribution(
            f"hms_{one}_processing_seconds", "histogram", f"{words}: from the stop to completion.", counted_as=PROCESSING
        ),
    )


RECORDING_FAMILIES = job_families("recording", "recordings", "Recordings")
LIVE_STREAM_FAMILIES = job_families("live_stream", "live_streams", "Live streams (HLS)")
EXTERNAL_STREAM_FAMILIES = job_families("external_stream", "external_streams", "External streams (RTMP)")
