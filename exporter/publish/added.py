"""The families of the adders' counters."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.counting.client_errors import BY_SDK, ERRORS
from exporter.counting.deliveries import DELIVERIES
from exporter.publish.family import Family


@dataclass(frozen=True, kw_only=True)
class SumFamily(Family):
    """A family with one series for each counter in `Sums` with this name; `labels` are the names of its own labels."""

    counted_as: str
    labels: tuple[str, ...]


CLIENT_ERROR_FAMILIES = (
    SumFamily(
        "hms_client_errors_total",
        "counter",
        "Errors that clients reported in ended sessions, by type and 100ms's code.",
        counted_as=ERRORS,
        labels=("type", "error_code"),
    ),
    SumFamily(
        "hms_client_errors_by_sdk_total",
        "counter",
        "The same errors by type and the kind of client (web, ios and others).",
        counted_as=BY_SDK,
        labels=("type", "sdk"),
    ),
)
DELIVERY_FAMILIES = (
    SumFamily(
        "hms_webhook_deliveries_total",
        "counter",
        "Webhooks that 100ms has sent, by outcome, as 100ms reports it.",
        counted_as=DELIVERIES,
        labels=("status",),
    ),
)
