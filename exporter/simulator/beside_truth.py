"""The true numbers of assets, client errors and webhook deliveries, summed directly from the script.

Independent of the exporter's counting code, so that tests can compare the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from exporter.simulator.beside import Scripted
from exporter.times import SECOND


@dataclass(slots=True)
class BesideTruth:
    """Sums by now: counts, microseconds and bytes.

    Keys: for assets a room's id, a type and a status, or the first two; for errors a room's id, a type and a code, or a type and
    a kind of client; for deliveries `success` or `failed`.
    """

    assets: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    asset_us: Counter[tuple[str, str]] = field(default_factory=Counter)
    asset_bytes: Counter[tuple[str, str]] = field(default_factory=Counter)
    errors: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    errors_by_sdk: Counter[tuple[str, str]] = field(default_factory=Counter)
    deliveries: Counter[str] = field(default_factory=Counter)


def beside_truth_of(beside: Scripted, ends: Mapping[str, int], since: int, now: int) -> BesideTruth:
    """The truth from `since` (exclusive) to now.  Assets count when they are made, errors when their call ends (`ends`)."""
    truth = BesideTruth()
    for asset in beside.assets.by_id.values():
        if since < asset.created_at <= now:
            truth.assets[asset.room_id, asset.type, asset.status] += 1
            if asset.status == "completed":
                truth.asset_us[asset.room_id, asset.type] += round(asset.duration * SECOND)
                truth.asset_bytes[asset.room_id, asset.type] += asset.size
    for event in beside.reported.by_id.values():
        if event.failed and event.session_id is not None and since < ends.get(event.session_id, since) <= now:
            kind = event.type.split(".")[1]
            truth.errors[event.room_id, kind, str(event.error_code)] += 1
            truth.errors_by_sdk[kind, event.sdk] += 1
    for delivery in beside.sent.by_id.values():
        if since <= delivery.at < now:
            truth.deliveries["success" if delivery.error is None else "failed"] += 1
    return truth
