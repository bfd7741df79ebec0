"""The systemd unit, the Kubernetes manifests and what the operations page promises of the state file."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]  # it ships without types
import pytest
import yaml

from exporter import cli
from exporter.config import config
from exporter.config.config import WebConfig
from exporter.config.strict_yaml import ConfigError
from exporter.counting.ledger import Ledger
from exporter.state.store import Store
from exporter.web import settings as webconfig
from scripts import prometheusrule
from tests.programs import require

ROOT = Path(__file__).resolve().parent.parent.parent
KUBERNETES = ROOT / "deploy/kubernetes"
UNIT = ROOT / "deploy/systemd/hms-exporter.service"
KUSTOMIZATION = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
# The oldest and the newest Kubernetes that the schemas at hand know of the recent ones.
KUBERNETES_VERSIONS = ("1.31", kubernetes_validate.latest_version())


def manifest(name: str) -> Any:
    return yaml.safe_load((KUBERNETES / name).read_text())


# -- Kubernetes ---------------------------------------------------------------------------------------------------------

DEPLOYMENT = manifest("deployment.yaml")
POD = DEPLOYMENT["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]

# As much of the Prometheus operator's definitions (monitoring.coreos.com/v1) as is used here, and nothing besides.
_LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
_METADATA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {"name": {"type": "string", "pattern": "^[a-z0-9-]+$"}, "labels": _LABELS},
}
_DURATION = {"type": "string", "pattern": "^(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?$", "minLength": 2}


def _definition(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"const": "monitoring.coreos.com/v1"},
            "kind": {"const": kind},
            "metadata": _METADATA,
            "spec": {"type": "object", "additionalProperties": False, **spec},
        },
    }


DEFINITIONS = {
    "servicemonitor.yaml": _definition(
        "ServiceMonitor",
        {
            "required": ["selector", "endpoints"],
            "properties": {
                "jobLabel": {"type": "string"},
                "selector": {"type": "object", "additionalProperties": False, "properties": {"matchLabels": _LABELS}},
                "endpoints": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {"port": {"type": "string"}, "interval": _DURATION, "scrapeTimeout": _DURATION},
                    },
                },
            },
        },
    ),
    "prometheusrule.yaml": _definition(
        "PrometheusRule",
        {
            "properties": {
                "groups": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["name", "rules"],
                        "properties": {
                            "name": {"type": "string", "minLength": 1},
                            "interval": _DURATION,
                            "rules": {
                                "type": "array",
                                "items": {
                                    "type": "object",
                                    "additionalProperties": False,
                                    "required": ["expr"],
                                    "oneOf": [{"required": ["alert"]}, {"required": ["record"]}],
                                    "properties": {
                                        "alert": {"type": "string"},
                                        "record": {"type": "string"},
                                        "expr": {"type": "string"},
                                        "for": _DURATION,
                                        "keep_firing_for": _DURATION,
                                        "labels": _LABELS,
                                        "annotations": _LABELS,
                                    },
                                },
                            },
                        },
                    },
                }
            }
        },
    ),
}


def test_the_kustomization_names_every_file_that_is_there() -> None:
    generated = KUSTOMIZATION["configMapGenerator"][0]["files"]
    assert sorted([*KUSTOMIZATION["resources"], *generated, "kustomization.yaml"]) == sorted(path.name for path in KUBERNETES.iterdir())


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("name", ["deployment.yaml", "service.yaml", "storage.yaml"])
def test_kubernetes_accepts_the_manifests(name: str, version: str) -> None:
    kubernetes_validate.validate(manifest(name), version, strict=True)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_prometheus_operator_accepts_the_manifests(name: str) -> None:
    jsonschema.validate(manifest(name), DEFINITIONS[name])


def test_the_kubernetes_rules_are_those_of_prometheus() -> None:
    assert prometheusrule.MANIFEST.read_text() == prometheusrule.manifest()
    assert sorted(prometheusrule.RULES) == sorted((ROOT / "prometheus/rules").glob("*.yml"))
    groups = [group for path in prometheusrule.RULES for group in yaml.safe_load(path.read_text())["groups"]]
    assert manifest("prometheusrule.yaml")["spec"]["groups"] == groups


def test_one_exporter_at_a_time_has_the_state_file() -> None:
    assert DEPLOYMENT["spec"]["replicas"] == 1
    assert DEPLOYMENT["spec"]["strategy"] == {"type": "Recreate"}
    assert manifest("storage.yaml")["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_the_pod_has_no_rights_that_it_does_not_need() -> None:
    assert POD["automountServiceAccountToken"] is False
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_pod_runs_as_the_user_of_the_image_and_may_read_its_credentials() -> None:
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    context = POD["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (int(user[1]), int(user[2]), int(user[2]))
    secret = next(volume["secret"] for volume in POD["volumes"] if "secret" in volume)
    assert secret["defaultMode"] == 0o440


def test_labels_ports_and_volumes_of_the_manifests_fit_together() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    service, monitor = manifest("service.yaml"), manifest("servicemonitor.yaml")
    port = {"name": "metrics", "containerPort": WebConfig().listen_address[0].port}
    assert CONTAINER["ports"] == [port]
    assert service["spec"]["selector"] == DEPLOYMENT["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["ports"][0]["targetPort"] == service["spec"]["ports"][0]["name"] == port["name"]
    assert service["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == port["name"]
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == {volume["name"] for volume in POD["volumes"]}
    assert CONTAINER["image"] == KUSTOMIZATION["images"][0]["name"]


def test_the_rules_find_the_job_under_the_name_that_the_cluster_gives_it() -> None:
    service, monitor = manifest("service.yaml"), manifest("servicemonitor.yaml")
    job = service["metadata"]["labels"][monitor["spec"]["jobLabel"]]
    (pattern,) = re.findall(r'up\{job=~"([^"]*)"', prometheusrule.manifest())
    assert re.fullmatch(pattern, job)


def test_the_configuration_of_the_cluster_is_one_and_its_paths_are_mounted(tmp_path: Path) -> None:
    loaded = config.parse((KUBERNETES / "config.yaml").read_text(), {}, "config.yaml")
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in CONTAINER["volumeMounts"]}
    credentials = loaded.workspaces[0].credentials
    assert isinstance(credentials, config.KeyPair)
    assert credentials.secret.path == mounts["credentials"] / "secret"
    assert credentials.access_key.path == mounts["credentials"] / "access_key"
    assert loaded.storage.path.parent == mounts["state"]
    assert f"--config.file={mounts['config']}/config.yaml" in CONTAINER["args"]


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_a_probe_asks_for_what_it_is_about(probe: str) -> None:
    path = "/-/ready" if probe == "readinessProbe" else "/-/healthy"
    assert CONTAINER[probe]["httpGet"] == {"path": path, "port": "metrics"}


def test_scrapes_go_on_while_the_exporter_is_not_ready() -> None:
    assert manifest("service.yaml")["spec"]["publishNotReadyAddresses"] is True


# -- systemd ------------------------------------------------------------------------------------------------------------


def systemd_analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([require("systemd-analyze"), *arguments], capture_output=True, text=True, check=False)


def settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/hms-exporter/bin/hms-exporter", sys.executable))
    verified = systemd_analyze("verify", "--man=no", unit)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_systemd_finds_little_that_the_unit_exposes() -> None:
    # In tenths of a point: 20 is "OK", and the network that it needs alone is 9.
    judged = systemd_analyze("security", "--offline=yes", "--threshold=15", "--no-pager", UNIT)
    assert judged.returncode == 0, judged.stdout


def test_the_unit_starts_the_exporter_with_arguments_that_it_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program, *arguments = settings("ExecStart")[0].split()
    assert program.endswith("/bin/hms-exporter")
    monkeypatch.delenv("HMS_ACCESS_KEY", raising=False)
    assert cli.main([argument.replace("/etc/hms-exporter", "/nowhere") for argument in arguments]) == 2
    assert capsys.readouterr().err == "hms-exporter: /nowhere/config.yaml: cannot be read: No such file or directory\n"
    assert f"--storage.path=%S/{settings('StateDirectory')[0]}/hms-exporter.db" in arguments


def test_the_unit_does_not_start_a_refused_configuration_again_and_again() -> None:
    assert settings("Restart") == ["on-failure"]
    assert settings("RestartPreventExitStatus") == [str(cli.BAD_CONFIGURATION)]


# -- operations ---------------------------------------------------------------------------------------------------------


def test_the_backup_command_makes_a_state_file_while_the_exporter_has_it(tmp_path: Path) -> None:
    commands = re.findall(r"^python3 -c '(.*)'", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    assert len(commands) == 1
    ledger = Ledger()
    ledger.begin(1_772_438_400_000_000)
    ledger.finish((), 0.0)
    store = Store(tmp_path / "hms-exporter.db")
    store.commit("default", ledger)
    subprocess.run([sys.executable, "-c", commands[0]], cwd=tmp_path, check=True)
    store.close()
    copy = Store(tmp_path / "backup.db")
    restored = Ledger()
    copy.restore("default", restored)
    copy.close()
    assert restored.now == ledger.now
    with sqlite3.connect(tmp_path / "backup.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_the_example_of_a_web_configuration_is_one() -> None:
    page = (ROOT / "docs/operations.md").read_text()
    example = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert example is not None
    text = example[1].replace("$2y$10$...", "$2y$10$" + 53 * "x").replace("  # client", "  client")
    parsed = webconfig.parse(text, Path("/etc"), "web.yaml")
    assert parsed.tls is not None
    assert parsed.tls.client_allowed_sans == {"prometheus.example.org"}
    assert parsed.users.keys() == {"prometheus"}
    with pytest.raises(ConfigError, match="bcrypt"):
        webconfig.parse(example[1], Path("/etc"), "web.yaml")
