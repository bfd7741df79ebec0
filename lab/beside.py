"""A bench whose exporter also runs the collectors, and whose monotonic clock leaps with the API's clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter.config.config import CollectConfig
from exporter.polling.adding import AddingPoller
from exporter.simulator import World
from exporter.simulator.beside_truth import BesideTruth
from exporter.times import SECOND
from lab.bench import Bench, Rooms


class BesideBench(Bench):
    """A `Bench` with a `collect` section."""

    def __init__(self, folder: Path, world: World, rooms: Rooms = None, *, collect: CollectConfig | None = None, **options: Any) -> None:
        self.collect = collect if collect is not None else CollectConfig(interval=30.0)
        super().__init__(folder, world, rooms, **options)

    def begin(self) -> None:
        """Starts a process, which publishes the content of the state file."""
        self.config = replace(self.config, collect=self.collect)
        super().begin()

    def make_poller(self) -> AddingPoller:
        """The process's poller."""
        return AddingPoller(self.workspace, self.config, self.store, self.exposition, self.metrics, self.api, monotonic=self.monotonic)

    def poll(self, seconds: float = 0.0) -> dict[str, float]:
        """Polls this many seconds later on both clocks; returns the published samples."""
        self.uptime += seconds
        return super().poll(seconds)


def beside_counted(samples: Iterable[tuple[str, Mapping[str, str], float]]) -> BesideTruth:
    """The counters of assets, client errors and deliveries, in the form of the truth.  `samples` are names, labels and values."""
    found = BesideTruth()
    for name, of, value in samples:
        room, kind = of.get("room_id", ""), of.get("type", "")
        match name:
            case "hms_recording_assets_total":
                found.assets[room, kind, of["status"]] = round(value)
            case "hms_recording_asset_seconds_total":
                found.asset_us[room, kind] = round(value * SECOND)
            case "hms_recording_asset_bytes_total":
                found.asset_bytes[room, kind] = round(value)
            case "hms_client_errors_total":
                found.errors[room, kind, of["error_code"]] = round(value)
            case "hms_client_errors_by_sdk_total":
                found.errors_by_sdk[kind, of["sdk"]] = round(value)
            case "hms_webhook_deliveries_total":
                found.deliveries[of["status"]] = round(value)
            case _:
                pass
    return found
