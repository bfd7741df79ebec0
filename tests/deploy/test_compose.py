"""compose.yaml, without running it: images are pinned, ports are local, and mounted files exist where the programs look for them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import stack

REPOSITORY = Path(__file__).resolve().parent.parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]

# The folders in which the images keep their data.
_DATA = {"hms-exporter": "/data", "prometheus": "/prometheus", "alertmanager": "/alertmanager", "grafana": "/var/lib/grafana"}


def _mounts(service: str) -> list[tuple[str, str, bool]]:
    """The mounts by target, each with its source and whether it is read-only."""
    mounts = [mount.split(":") for mount in SERVICES[service]["volumes"]]
    return [(mount[0], mount[1], mount[2:] == ["ro"]) for mount in mounts]


def _inside(service: str, path: str) -> Path | None:
    """The file of this project that is mounted at that path of the service."""
    for source, target, _ in _mounts(service):
        if source.startswith("./") and (path == target or path.startswith(f"{target}/")):
            return REPOSITORY / source / path.removeprefix(target).lstrip("/")
    return None


def test_the_picture_is_whole() -> None:
    assert set(SERVICES) == {"hms-exporter", "prometheus", "alertmanager", "grafana"}


@pytest.mark.parametrize("service", ["prometheus", "alertmanager", "grafana"])
def test_images_are_pinned_by_a_whole_version(service: str) -> None:
    assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", SERVICES[service]["image"])


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_open_to_this_machine_alone(service: str) -> None:
    (port,) = SERVICES[service]["ports"]
    assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)


@pytest.mark.parametrize("service", SERVICES)
def test_data_are_in_a_volume_and_files_are_read_only(service: str) -> None:
    for source, target, read_only in _mounts(service):
        if source.startswith("./"):
            assert (REPOSITORY / source).exists(), source
            assert read_only
        else:
            assert source in COMPOSE["volumes"]
            assert target == _DATA[service]
    assert _DATA[service] in {target for _, target, _ in _mounts(service)}


def test_every_service_has_a_health_check_and_waits_for_no_other() -> None:
    """They start at the same time, so `up --wait` takes as long as the slowest, not as long as all together."""
    for name, service in SERVICES.items():
        assert float(service["healthcheck"]["interval"].removesuffix("s")) <= 5, f"{name} would be found healthy late"
        assert "depends_on" not in service
    for name in ("prometheus", "alertmanager", "grafana"):
        (port,) = SERVICES[name]["ports"]
        assert f"http://localhost:{port.rpartition(':')[2]}/" in SERVICES[name]["healthcheck"]["test"][-1]


@pytest.mark.parametrize(
    ("service", "expected"),
    [("prometheus", REPOSITORY / "prometheus" / "prometheus.yml"), ("alertmanager", REPOSITORY / "prometheus" / "alertmanager.yml")],
)
def test_the_programs_read_the_files_that_are_tested_here(service: str, expected: Path) -> None:
    flags = dict(flag.removeprefix("--").partition("=")[::2] for flag in SERVICES[service]["command"])
    assert _inside(service, flags["config.file"]) == expected
    assert flags.get("storage.tsdb.path", flags.get("storage.path")) == _DATA[service]


def test_prometheus_finds_its_rules() -> None:
    (pattern,) = yaml.safe_load((REPOSITORY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))["rule_files"]
    folder = _inside("prometheus", f"/etc/prometheus/{Path(pattern).parent}")
    assert folder is not None
    assert {path.name for path in folder.glob(Path(pattern).name)} == {"hms-alerts.yml", "hms-recording.yml", "hms-thresholds.yml"}


def test_every_address_in_the_configuration_is_a_service_and_its_port() -> None:
    config = yaml.safe_load((REPOSITORY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    sections = (*config["scrape_configs"], *config["alerting"]["alertmanagers"])
    targets = {target for section in sections for part in section["static_configs"] for target in part["targets"]}
    reachable = {"localhost:9090", SERVICES["grafana"]["environment"]["HMS_PROMETHEUS_URL"].removeprefix("http://")}
    for target in targets | reachable:
        host, _, port = target.partition(":")
        service = "prometheus" if host == "localhost" else host
        assert SERVICES[service]["ports"] == [f"127.0.0.1:{port}:{port}"], target


def test_grafana_finds_provisioning_and_dashboards_here_and_in_containers() -> None:
    """Local programs and containers get the same settings."""
    inside = SERVICES["grafana"]["environment"]
    local = stack.grafana_environment(Path("/somewhere"), "127.0.0.1:3000", "127.0.0.1:9090")
    for name in ("HMS_DASHBOARDS", "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"):
        assert str(_inside("grafana", inside[name])) == local[name]
        assert Path(local[name]).exists()
    assert str(_inside("grafana", "/etc/grafana/provisioning")) == local["GF_PATHS_PROVISIONING"]
    assert inside.keys() <= local.keys()
    asked = {
        name
        for path in (REPOSITORY / "grafana" / "provisioning").rglob("*.yml")
        for name in re.findall(r"\$\{(\w+)\}", path.read_text(encoding="utf-8"))
    }
    assert asked <= inside.keys()


def test_the_exporter_is_confined_and_real_with_two_variables() -> None:
    exporter = SERVICES["hms-exporter"]
    assert exporter["read_only"] is True
    assert exporter["cap_drop"] == ["ALL"]
    assert set(exporter["environment"]) == {"HMS_ACCESS_KEY", "HMS_SECRET"}
    assert re.fullmatch(
        r"if \[ -n \"\$\$HMS_ACCESS_KEY\" \]; then exec hms-exporter run; else exec hms-exporter demo; fi", exporter["command"][0]
    )


def test_the_health_check_of_the_exporter_is_the_images_own() -> None:
    image = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    command = re.search(r"^HEALTHCHECK .*CMD (\[.*\])$", image, re.MULTILINE)
    assert command is not None
    assert SERVICES["hms-exporter"]["healthcheck"]["test"] == ["CMD", *json.loads(command[1])]
