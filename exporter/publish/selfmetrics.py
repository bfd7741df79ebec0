"""The exporter's own metrics: its requests to 100ms, its polls, its process.  A scrape shows their current values."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from typing import Any, cast, get_args

import prometheus_client
import prometheus_client.openmetrics.exposition
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from exporter.hms.records import RejectionKind
from exporter.publish.cached import CachedFamily, M, family_text
from exporter.publish.exposition import Section
from exporter.publish.negotiation import TEXT, Format

_REQUEST_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_POLL_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
REJECTED_KINDS = get_args(RejectionKind)


class SelfMetrics:
    """All families about the exporter itself, in their own registry."""

    def __init__(self, version: str, revision: str) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library does not type this function
        self.registry = registry = CollectorRegistry()
        self.created = False
        """Whether OpenMetrics shows when each counter began: with the process, or when its labels were first seen."""
        self._families: list[CachedFamily] = []
        self._add_families_of_polls()
        self._add_families_of_requests()
        self.reload_successful = self._add(
            Gauge, "hms_exporter_config_last_reload_successful", "Whether the configuration read last is in force (1) or was refused (0)."
        )
        self.reload_success_time = self._add(
            Gauge, "hms_exporter_config_last_reload_success_timestamp_seconds", "When the configuration in force was read, as Unix time."
        )
        self.active = self._add(Gauge, "hms_exporter_active", "Whether this exporter polls (1) or stands by for another one (0).")
        self.active.set(1)
        build = self._add(Gauge, "hms_exporter_build_info", "The exporter's version; always 1.", ["version", "revision", "pythonversion"])
        build.labels(version, revision, platform.python_version()).set(1)
        self._of_process = (
            prometheus_client.ProcessCollector(registry=registry),
            prometheus_client.PlatformCollector(registry=registry),
            prometheus_client.GCCollector(registry=registry),
        )

    def _add_families_of_polls(self) -> None:
        by = ["workspace"]
        self.polls = self._add(Counter, "hms_exporter_polls", "Polls ended, complete or not.", by)
        self.failures = self._add(Counter, "hms_exporter_poll_failures", "Polls that did not read everything they wanted.", by)
        self.skipped = self._add(Counter, "hms_exporter_polls_skipped", "Polls skipped because the previous one was still running.", by)
        self.duration = self._add(Histogram, "hms_exporter_poll_duration_seconds", "How long polls take.", by, buckets=_POLL_SECONDS)
        self.last_success = self._add(
            Gauge,
            "hms_exporter_last_success_timestamp_seconds",
            "When the last complete poll ended, as Unix time; 0 before the first.",
            by,
        )
        self.catch_up = self._add(
            Gauge, "hms_exporter_catch_up_ratio", "How much of the past that counts has been read: 1 when there is nothing left.", by
        )
        self.interval = self._add(Gauge, "hms_exporter_poll_interval_seconds", "The time from poll to poll.", by)

    def _add_families_of_requests(self) -> None:
        by = ["workspace"]
        self.requests = self._add(
            Counter,
            "hms_exporter_api_requests",
            "Requests to 100ms by route and outcome: an HTTP status, or timeout, connection, malformed.",
            ["workspace", "endpoint", "code"],
        )
        self.request_duration = self._add(
            Histogram,
            "hms_exporter_api_request_duration_seconds",
            "How long 100ms takes to answer, the body included.",
            ["workspace", "endpoint"],
            buckets=_REQUEST_SECONDS,
        )
        self.retries = self._add(Counter, "hms_exporter_api_retries", "Requests tried again.", by)
        self.throttled = self._add(Counter, "hms_exporter_api_throttled_seconds", "Time waited because 100ms asked for it.", by)
        self.rejected = self._add(Counter, "hms_exporter_records_rejected", "Invalid records that were left out.", ["workspace", "kind"])
        self.token_expiry = self._add(
            Gauge, "hms_exporter_token_expiry_timestamp_seconds", "When the management token expires, as Unix time.", by
        )
        self.token_minted = self._add(
            Gauge,
            "hms_exporter_token_minted",
            "Whether the exporter mints its management token and renews it (1), or has a ready-made one that somebody must replace (0).",
            by,
        )
        self.clock_skew = self._add(
            Gauge, "hms_exporter_clock_skew_seconds", "The API's clock minus this machine's, from its Date header.", by
        )

    def _add(self, kind: type[M], name: str, documentation: str, labels: Iterable[str] = (), **more: Any) -> M:
        family = CachedFamily(kind, name, documentation, labels, registry=self.registry, **more)
        self._families.append(family)
        return cast(M, family.metric)

    def workspace(self, name: str, interval: float) -> WorkspaceMetrics:
        """The families of one workspace, at 0 until something happens."""
        return WorkspaceMetrics(self, name, interval)

    def forget(self, name: str) -> None:
        """Removes the series of a workspace that was removed from the configuration."""
        of_no_workspace = (self.active, self.reload_successful, self.reload_success_time)
        for family in vars(self).values():
            if isinstance(family, Counter | Gauge | Histogram) and family not in of_no_workspace:
                family.remove_by_labels({"workspace": name})

    def render(self, fmt: Format, names: frozenset[str]) -> Sequence[Section]:
        """All of these metrics, or only the samples of these names; they end the exposition, in OpenMetrics with its end mark.

        A family is rendered again only after it has changed.  The process's own families always change, but are few.
        """
        if names:
            generate = prometheus_client.generate_latest if fmt is TEXT else prometheus_client.openmetrics.exposition.generate_latest
            return [Section(generate(self.registry.restricted_registry(names)))]
        sections = [family.section(fmt, created=self.created) for family in self._families]
        of_process = "".join(family_text(family, fmt) for collector in self._of_process for family in collector.collect())
        return [*sections, Section(of_process.encode() + (b"" if fmt is TEXT else b"# EOF\n"))]


class WorkspaceMetrics:
    """One workspace's metrics about the exporter; a client reports its requests to it."""

    def __init__(self, metrics: SelfMetrics, name: str, interval: float) -> None:
        self._metrics = metrics
        self._name = name
        self.polls = metrics.polls.labels(name)
        self.failures = metrics.failures.labels(name)
        self.skipped = metrics.skipped.labels(name)
        self.duration = metrics.duration.labels(name)
        self.last_success = metrics.last_success.labels(name)
        self.catch_up = metrics.catch_up.labels(name)
        self.interval = metrics.interval.labels(name)
        self.interval.set(interval)
        self.rejected = {kind: metrics.rejected.labels(name, kind) for kind in REJECTED_KINDS}
        self._retries = metrics.retries.labels(name)
        self._throttled = metrics.throttled.labels(name)
        self.asked = 0
        """Requests made so far."""

    def request(self, endpoint: str, code: str, seconds: float) -> None:
        """A request ended."""
        self.asked += 1
        self._metrics.requests.labels(self._name, endpoint, code).inc()
        self._metrics.request_duration.labels(self._name, endpoint).observe(seconds)

    def retry(self) -> None:
        """A request is retried."""
        self._retries.inc()

    def throttled(self, seconds: float) -> None:
        """100ms asked for a pause."""
        self._throttled.inc(seconds)

    def clock_skew(self, seconds: float) -> None:
        """The API's clock minus this machine's."""
        self._metrics.clock_skew.labels(self._name).set(seconds)

    def token_expiry(self, timestamp: float, *, minted: bool) -> None:
        """When the current token expires, and whether the exporter mints it."""
        self._metrics.token_expiry.labels(self._name).set(timestamp)
        self._metrics.token_minted.labels(self._name).set(int(minted))
