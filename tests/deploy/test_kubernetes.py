"""The Kubernetes manifests, rendered by kustomize and checked against the schemas of Kubernetes and of the Prometheus operator."""

from __future__ import annotations

import functools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.config import config
from exporter.config.config import WebConfig
from scripts import prometheusrule
from tests.deploy.definitions import KUBERNETES_VERSIONS, validate
from tests.programs import require

ROOT = Path(__file__).resolve().parent.parent.parent
KUBERNETES = ROOT / "deploy/kubernetes"
BASE, OPERATOR = KUBERNETES / "base", KUBERNETES / "prometheus-operator"
DASHBOARDS = sorted((ROOT / "grafana/dashboards").glob("*.json"))
FOLDERS = [BASE, OPERATOR, ROOT / "grafana"]


def manifest(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


@functools.cache
def rendered(folder: Path) -> list[dict[str, Any]]:
    """The objects that `kubectl apply -k` would send."""
    ran = subprocess.run([require("kustomize"), "build", folder], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return list(yaml.safe_load_all(ran.stdout))


def of_kind(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [document for document in rendered(folder) if document["kind"] == kind]


def one(folder: Path, kind: str) -> dict[str, Any]:
    (found,) = of_kind(folder, kind)
    return found


DEPLOYMENT = manifest(BASE / "deployment.yaml")
POD = DEPLOYMENT["spec"]["template"]["spec"]
CONTAINER = POD["containers"][0]


# -- files --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [BASE, OPERATOR], ids=lambda folder: folder.name)
def test_the_kustomization_names_every_file_that_is_there(folder: Path) -> None:
    kustomization = manifest(folder / "kustomization.yaml")
    generated = [file for generator in kustomization.get("configMapGenerator", []) for file in generator["files"]]
    named = [resource for resource in kustomization["resources"] if not resource.startswith("../")]
    assert sorted([*named, *generated, "kustomization.yaml"]) == sorted(path.name for path in folder.iterdir())


def test_the_kubernetes_rules_are_those_of_prometheus() -> None:
    assert prometheusrule.MANIFEST.read_text() == prometheusrule.manifest()
    assert sorted(prometheusrule.RULES) == sorted((ROOT / "prometheus/rules").glob("*.yml"))
    groups = [group for path in prometheusrule.RULES for group in manifest(path)["groups"]]
    assert manifest(prometheusrule.MANIFEST)["spec"]["groups"] == groups


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


def test_the_configuration_of_the_cluster_is_valid_and_its_paths_are_mounted() -> None:
    loaded = config.parse((BASE / "config.yaml").read_text(), {}, "config.yaml")
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in CONTAINER["volumeMounts"]}
    credentials = loaded.workspaces[0].credentials
    assert isinstance(credentials, config.KeyPair)
    assert credentials.secret.path == mounts["credentials"] / "secret"
    assert credentials.access_key.path == mounts["credentials"] / "access_key"
    assert loaded.storage.path.parent == mounts["state"]
    assert f"--config.file={mounts['config']}/config.yaml" in CONTAINER["args"]


def test_one_exporter_at_a_time_has_the_state_file() -> None:
    assert DEPLOYMENT["spec"]["replicas"] == 1
    assert DEPLOYMENT["spec"]["strategy"] == {"type": "Recreate"}
    assert manifest(BASE / "storage.yaml")["spec"]["accessModes"] == ["ReadWriteOncePod"]


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_probes_ask_for_health_and_not_whether_100ms_answers(probe: str) -> None:
    assert CONTAINER[probe]["httpGet"] == {"path": "/-/healthy", "port": "metrics"}


# -- as rendered --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_kubernetes_and_the_operator_accept_what_kustomize_renders(folder: Path, version: str) -> None:
    for document in rendered(folder):
        validate(document, version)


def test_the_base_needs_no_operator() -> None:
    assert {document["apiVersion"] for document in rendered(BASE)} == {"v1", "apps/v1", "networking.k8s.io/v1"}


def test_the_exporter_is_scraped_once_with_the_operator_and_without() -> None:
    annotations = one(BASE, "Service")["metadata"]["annotations"]
    assert annotations == {"prometheus.io/scrape": "true", "prometheus.io/port": str(WebConfig().listen_address[0].port)}
    assert "annotations" not in one(OPERATOR, "Service")["metadata"]
    assert len(of_kind(OPERATOR, "ServiceMonitor")) == 1


def test_labels_ports_and_volumes_fit_together() -> None:
    deployment, service, monitor = one(OPERATOR, "Deployment"), one(OPERATOR, "Service"), one(OPERATOR, "ServiceMonitor")
    template = deployment["spec"]["template"]
    container = template["spec"]["containers"][0]
    port = {"name": "metrics", "containerPort": WebConfig().listen_address[0].port}
    assert container["ports"] == [port]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert service["spec"]["ports"][0]["targetPort"] == service["spec"]["ports"][0]["name"] == port["name"]
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == port["name"]
    policy = one(OPERATOR, "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert policy["ingress"][0]["ports"] == [{"port": port["name"], "protocol": "TCP"}]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in template["spec"]["volumes"]}


def test_everything_has_the_recommended_labels_and_those_of_kube_prometheus_stack() -> None:
    recommended = {f"app.kubernetes.io/{name}" for name in ("name", "instance", "version", "component", "part-of", "managed-by")}
    labelled = [document for document in rendered(BASE) if document["kind"] != "ConfigMap"]
    assert all(recommended <= document["metadata"]["labels"].keys() for document in labelled)
    assert {document["metadata"]["labels"]["release"] for document in rendered(OPERATOR)} == {"kube-prometheus-stack"}


def test_the_rules_find_the_job_under_the_name_that_the_cluster_gives_it() -> None:
    job = one(OPERATOR, "Service")["metadata"]["labels"][one(OPERATOR, "ServiceMonitor")["spec"]["jobLabel"]]
    (pattern,) = re.findall(r'up\{job=~"([^"]*)"', prometheusrule.manifest())
    assert re.fullmatch(pattern, job)


def test_the_counters_series_outlive_their_pod() -> None:
    relabelings = one(OPERATOR, "ServiceMonitor")["spec"]["endpoints"][0]["metricRelabelings"]
    changed = {rule["targetLabel"]: rule["replacement"] for rule in relabelings}
    assert changed == {"instance": "hms-exporter", "pod": ""}
    assert all(rule["sourceLabels"] == ["workspace"] and rule["regex"] == ".+" for rule in relabelings)


def test_a_second_apply_changes_nothing() -> None:
    """`kubectl apply` compares some lists as a whole, so the defaults that Kubernetes fills in there are written out."""
    policy = one(OPERATOR, "NetworkPolicy")["spec"]
    assert all("protocol" in port for rule in (*policy["ingress"], *policy["egress"]) for port in rule["ports"])
    (endpoint,) = one(OPERATOR, "ServiceMonitor")["spec"]["endpoints"]
    assert all("action" in rule for rule in endpoint["metricRelabelings"])


def test_grafanas_sidecar_finds_every_dashboard_as_it_is() -> None:
    maps = [document for document in of_kind(OPERATOR, "ConfigMap") if "grafana_dashboard" in document["metadata"]["labels"]]
    found = {name: text for document in maps for name, text in document["data"].items()}
    assert {name: json.loads(text) for name, text in found.items()} == {path.name: json.loads(path.read_text()) for path in DASHBOARDS}


def test_no_object_is_too_large_for_kubectl_apply() -> None:
    """`kubectl apply` keeps a copy of each object in an annotation, which may have at most 256 KiB."""
    assert max(len(json.dumps(document)) for document in rendered(OPERATOR)) < 256 * 1024


def test_the_state_of_an_earlier_layout_is_taken_over() -> None:
    """The selector of a Deployment cannot change, and the volume claim holds the counts."""
    assert one(BASE, "Deployment")["spec"]["selector"] == {"matchLabels": {"app.kubernetes.io/name": "hms-exporter"}}
    assert one(BASE, "PersistentVolumeClaim")["metadata"]["name"] == "hms-exporter"
