"""The dashboards' numbers from a real Prometheus that scrapes once a minute: a pair of exporters, an idle workspace, alerts."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import pytest

from scripts import stack
from tests.dashboards import EVERYTHING, dashboards, filled, panels
from tests.programs import require

pytestmark = pytest.mark.slow

_EXPORTERS = [f'job="hms-exporter",instance="10.0.0.{number}:10100",pod="exporter-{number}"' for number in (1, 2)]
_HUNG = 'job="hms-exporter",instance="10.0.0.3:10100",pod="exporter-3"'
_CLASS = 'workspace="school",room_id="61652b404e556e35f2179759",room="class"'
# Grafana's window for rates is four times the shortest step of the queries, here a minute.
_VARIABLES = {
    **dict.fromkeys(("job", "instance", "workspace", "room", "unrecorded"), EVERYTHING),
    "__rate_interval": "4m",
    "__interval": "5m",
    "__range": "1h",
    "price": "0.004",
    "free": "10000",
}

Row = dict[str, str]
Value = float | Callable[[int], float]


def _rising(by: int) -> Callable[[int], float]:
    return lambda minute: by * minute


def _samples(now: int, *, alerts: bool) -> Iterator[tuple[str, str, Value]]:
    """Metric, labels, and the value during the last hour or at each of its minutes."""
    for exporter in _EXPORTERS:
        yield "hms_exporter_build_info", f'{exporter},version="1"', 1
        yield "process_resident_memory_bytes", exporter, 5e7
        yield "process_start_time_seconds", exporter, now - 9000
        for workspace in ("school", "idle"):
            yield "hms_up", f'{exporter},workspace="{workspace}"', 1
            yield "hms_exporter_last_success_timestamp_seconds", f'{exporter},workspace="{workspace}"', now - 30
        yield "hms_sessions_active", f"{exporter},{_CLASS}", 1
        yield "hms_session_start_timestamp_seconds", f"{exporter},{_CLASS}", now - 30600
        yield "hms_sessions_started_total", f"{exporter},{_CLASS}", lambda minute: 3 + minute // 20
        for role, peers in (("host", 1), ("guest", 6)):
            labels = f'{exporter},{_CLASS},role="{role}"'
            yield "hms_peers_active", labels, peers
            yield "hms_peer_seconds_total", labels, _rising(peers * 60)
            yield "hms_peers_joined_total", labels, lambda minute: minute
            yield "hms_usage_peer_seconds", f'{labels},period="month"', peers * 7200
            yield "hms_usage_peer_seconds", f'{labels},period="day"', peers * 600
    # A third exporter hangs since yesterday, when more had been used than today.
    yield "hms_exporter_last_success_timestamp_seconds", f'{_HUNG},workspace="school"', now - 90000
    yield "hms_usage_peer_seconds", f'{_HUNG},{_CLASS},role="host",period="day"', 90000
    yield "process_resident_memory_bytes", 'job="node",instance="node:9100"', 9e9
    yield "hms:threshold:stale_seconds", "", 600
    if alerts:
        yield "ALERTS", 'alertname="HmsExporterDown",alertstate="firing",severity="critical",job="hms-exporter"', 1
        yield "ALERTS_FOR_STATE", 'alertname="HmsExporterDown",severity="critical",job="hms-exporter"', now - 2400
        yield "ALERTS", 'alertname="HmsSessionNearLimit",alertstate="firing",severity="warning",workspace="school",room="class"', 1
        yield "ALERTS", 'alertname="SomebodyElses",alertstate="firing",severity="critical"', 1


class Grafana:
    """Sends the panels' queries to a Prometheus."""

    def __init__(self, address: str, now: int) -> None:
        self._address, self._now = address, now

    def rows(self, board: str, title: str, name: str | int = 0, **variables: str) -> list[Row]:
        """The answer to a panel's query: the labels, with the last value as `value`."""
        (panel,) = [panel for panel in panels(dashboards()[f"hms-{board}.json"]) if panel["title"] == title]
        targets = panel["targets"]
        target = targets[name] if isinstance(name, int) else next(one for one in targets if one["legendFormat"] == name)
        expr = filled(target["expr"], {**_VARIABLES, **variables})
        asked: dict[str, Any] = {"query": expr, "time": self._now}
        if not target["instant"]:
            asked = {"query": expr, "start": self._now - 3600, "end": self._now, "step": 300}
        kind = "query" if target["instant"] else "query_range"
        with urllib.request.urlopen(f"http://{self._address}/api/v1/{kind}?{urllib.parse.urlencode(asked)}", timeout=20) as answer:
            result = json.load(answer)["data"]["result"]
        self.curves = [[float(value) for _, value in one.get("values", [])] for one in result]
        return [{**one["metric"], "value": (one["value"] if "value" in one else one["values"][-1])[1]} for one in result]

    def number(self, board: str, title: str, name: str | int = 0, **variables: str) -> float:
        """The single number of a panel."""
        (row,) = self.rows(board, title, name, **variables)
        return float(row["value"])


@pytest.fixture(params=[(3, True), (3, False), (2, True)], ids=["prometheus-3", "prometheus-3-quiet", "prometheus-2.42"])
def asked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Grafana, bool]]:
    generation: Literal[2, 3]
    generation, alerts = request.param
    prometheus, promtool = (require(name, generation=generation) for name in ("prometheus", "promtool"))
    now = int(time.time()) // 60 * 60
    lines = [
        f"{name}{{{labels}}} {value(minute) if callable(value) else value} {now - 3600 + minute * 60}"
        for name, labels, value in sorted(_samples(now, alerts=alerts), key=itemgetter(0, 1))
        for minute in range(61)
    ]
    (tmp_path / "data.txt").write_text("\n".join([*lines, "# EOF", ""]), encoding="utf-8")
    command = [promtool, "tsdb", "create-blocks-from", "openmetrics", str(tmp_path / "data.txt"), str(tmp_path / "prometheus")]
    subprocess.run(command, check=True, capture_output=True)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with stack.Processes(tmp_path) as processes:
        processes.start("prometheus", stack.prometheus_command(prometheus, tmp_path, address, {}))
        processes.wait("prometheus", f"http://{address}/-/ready")
        yield Grafana(address, now), alerts


def test_the_dashboards_numbers(asked: tuple[Grafana, bool]) -> None:
    grafana, alerts = asked

    # The exporter's alerts with and without a workspace, and a line of its own when nothing fires.
    firing = {row["alertname"]: row for row in grafana.rows("overview", "Alerts that are firing")}
    if alerts:
        assert firing.keys() == {"HmsExporterDown", "HmsSessionNearLimit"}
        assert firing["HmsExporterDown"]["value"] == "2400"
        assert (firing["HmsSessionNearLimit"]["workspace"], firing["HmsSessionNearLimit"]["room"]) == ("school", "class")
        assert "room" not in firing["HmsExporterDown"], "there is no room to link to"
        assert grafana.rows("overview", "Alerts that are firing", workspace="idle")[0]["alertname"] == "HmsExporterDown"
    else:
        assert firing.keys() == {"No alert is firing"}

    # Alerts of other programs are left out.
    assert {row["instance"] for row in grafana.rows("exporter", "Memory")} == {"10.0.0.1:10100", "10.0.0.2:10100"}

    # Two exporters with the same data, each with its own pod.
    assert grafana.number("overview", "Peers", "now") == 7
    assert grafana.number("overview", "Most peers at once") == 7
    assert grafana.number("usage", "This month so far") == 7 * 120
    assert grafana.number("usage", "Today") == 7 * 10
    assert grafana.number("usage", "Total") == pytest.approx(7 * 60, rel=0.02)
    assert grafana.number("room", "Running for") == 30600
    assert len(grafana.rows("overview", "Rooms in use", 2)) == 1

    # An idle workspace shows 0, not missing data.
    assert grafana.number("overview", "Sessions", "now", workspace="idle") == 0
    assert grafana.number("usage", "This month so far", workspace="idle") == 0
    for average in ("Average session", "Average stay"):
        assert grafana.number("room", average, workspace="idle") == 0
    assert {row["workspace"]: row["value"] for row in grafana.rows("overview", "Peers by workspace")} == {"school": "7", "idle": "0"}
    assert grafana.rows("overview", "Sessions", "now", workspace="no-such") == []

    # With a scrape every minute rates have curves, and counts per step are whole numbers.
    assert grafana.number("overview", "Joins and leaves per minute", "joins") == pytest.approx(2, rel=0.01)
    grafana.rows("room", "Sessions started and ended", "started")
    assert sorted(set(grafana.curves[0])) == [0, 1]
    assert sum(grafana.curves[0]) == 3
