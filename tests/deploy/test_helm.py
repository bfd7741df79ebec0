"""The Helm chart, linted and rendered by Helm, and checked against the schemas of Kubernetes and of the Prometheus operator."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.config import config
from exporter.config.config import KeyPair, WebConfig
from tests.deploy.definitions import KUBERNETES_VERSIONS, validate
from tests.programs import require

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
CHART = ROOT / "deploy/helm/hms-exporter"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
RULES = sorted((ROOT / "prometheus/rules").glob("*.yml"))
DASHBOARDS = sorted((ROOT / "grafana/dashboards").glob("*.json"))

CREDENTIALS: dict[str, Any] = {"existingSecret": "hms"}
POSTGRESQL: dict[str, Any] = {**CREDENTIALS, "postgresql": {"existingSecret": "database"}, "replicaCount": 2}
EVERYTHING: dict[str, Any] = {
    **POSTGRESQL,
    "image": {"digest": "sha256:" + 64 * "0"},
    "webhooks": {"enabled": True, "existingSecret": "hooks", "ingress": {"enabled": True, "host": "hms.example.org"}},
    "serviceMonitor": {"enabled": True, "labels": {"release": "kube-prometheus-stack"}},
    "prometheusRule": {"enabled": True},
    "dashboards": {"enabled": True},
    "networkPolicy": {"enabled": True, "metricsFrom": [{"podSelector": {}}]},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "extraArgs": ["--log.level=debug"],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca"}],
    "tolerations": [{"key": "monitoring", "operator": "Exists"}],
    "nodeSelector": {"disk": "ssd"},
}
GUARDED: dict[str, Any] = {
    **CREDENTIALS,
    "webConfig": {"existingSecret": "web"},
    "serviceMonitor": {"enabled": True, "scheme": "https", "tlsConfig": {"insecureSkipVerify": True}},
}
WITHOUT_A_STATE: dict[str, Any] = {**CREDENTIALS, "persistence": {"enabled": False}}
CASES = {"least": CREDENTIALS, "postgresql": POSTGRESQL, "everything": EVERYTHING, "guarded": GUARDED, "stateless": WITHOUT_A_STATE}


def helm(folder: Path, values: dict[str, Any], *command: str, chart: Path = CHART) -> subprocess.CompletedProcess[str]:
    (folder / "values.yaml").write_text(yaml.safe_dump(values))
    return subprocess.run(
        [require("helm"), *command, str(chart), f"--values={folder}/values.yaml"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def template(folder: Path, values: dict[str, Any], version: str = "1.31") -> list[dict[str, Any]]:
    """The objects that `helm install` would send."""
    ran = helm(folder, values, "template", "hms-exporter", "--namespace=monitoring", f"--kube-version={version}")
    assert ran.returncode == 0, ran.stderr
    return [document for document in yaml.safe_load_all(ran.stdout) if document is not None]


def one(documents: list[dict[str, Any]], kind: str, name: str = "hms-exporter") -> dict[str, Any]:
    (found,) = [document for document in documents if (document["kind"], document["metadata"]["name"]) == (kind, name)]
    return found


def refusal(folder: Path, values: dict[str, Any]) -> str:
    ran = helm(folder, values, "template", "hms-exporter")
    assert ran.returncode != 0
    return ran.stderr


# -- the chart as a whole ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_helm_finds_nothing_to_lint(tmp_path: Path, case: str) -> None:
    linted = helm(tmp_path, CASES[case], "lint", "--strict")
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("case", CASES)
def test_kubernetes_and_the_operator_accept_what_helm_renders(tmp_path: Path, case: str, version: str) -> None:
    documents = template(tmp_path, CASES[case], version)
    for document in documents:
        validate(document, version)
        assert document["metadata"]["namespace"] == "monitoring"
    assert len({(document["kind"], document["metadata"]["name"]) for document in documents}) == len(documents)


def test_the_package_holds_what_the_chart_links_to(tmp_path: Path) -> None:
    subprocess.run([require("helm"), "package", CHART, f"--destination={tmp_path}"], check=True, capture_output=True)
    (package,) = tmp_path.glob("*.tgz")
    with tarfile.open(package) as archive:
        names = set(archive.getnames())
    assert {f"hms-exporter/dashboards/{path.name}" for path in DASHBOARDS} <= names
    assert {f"hms-exporter/rules/{path.name}" for path in RULES} <= names


def test_the_chart_has_the_exporters_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^__version__ = "(.*)"$', (ROOT / "exporter/__init__.py").read_text(), re.MULTILINE)
    assert version is not None
    assert (chart["version"], chart["appVersion"]) == (version[1], version[1])


def test_every_value_has_its_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) - {"global"} == set(VALUES)
    for name, part in schema["properties"].items():
        if part.get("additionalProperties") is False:
            assert set(part["properties"]) == set(VALUES[name]), name


# -- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({**CREDENTIALS, "replicaCount": 2}, "replicaCount: more than one exporter needs PostgreSQL; set postgresql.existingSecret"),
        ({}, "existingSecret: config.workspaces names files in /etc/hms-exporter/credentials"),
        ({**CREDENTIALS, "config": {"storage": {"path": "/x"}}}, "config.storage: the chart writes this section"),
        ({**CREDENTIALS, "config": {"webhooks": {}}}, "config.webhooks: the chart writes this section"),
        ({**CREDENTIALS, "config": {"web": {"listen_address": ":1"}}}, "config.web.listen_address: the chart's Service"),
        ({**CREDENTIALS, "webhooks": {"enabled": True, "headers": None}}, "webhooks: set headers or signatureSecret"),
        ({**CREDENTIALS, "webhooks": {"enabled": True, "ingress": {"enabled": True}}}, "webhooks.ingress.host: the ingress needs the name"),
        ({**CREDENTIALS, "prometheusRule": {"enabled": True, "thresholds": {"nix": 1}}}, "prometheusRule.thresholds.nix: there is no such"),
        ({**CREDENTIALS, "replicas": 2}, "additional properties 'replicas' not allowed"),
        ({**CREDENTIALS, "webhooks": {"enable": True}}, "additional properties 'enable' not allowed"),
        ({**CREDENTIALS, "persistence": {"accessModes": ["ReadWriteMany"]}}, "at '/persistence/accessModes/0'"),
    ],
)
def test_invalid_values_are_refused_and_named(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    assert said in refusal(tmp_path, values)


# -- the state ----------------------------------------------------------------------------------------------------------


def _config(documents: list[dict[str, Any]]) -> Any:
    return yaml.safe_load(one(documents, "ConfigMap")["data"]["config.yaml"])


def _pod(documents: list[dict[str, Any]]) -> Any:
    return one(documents, "Deployment")["spec"]["template"]["spec"]


def test_one_exporter_has_a_state_file_that_outlives_it(tmp_path: Path) -> None:
    documents = template(tmp_path, CREDENTIALS)
    loaded = config.parse(one(documents, "ConfigMap")["data"]["config.yaml"], {}, "config.yaml")
    spec, pod = one(documents, "Deployment")["spec"], _pod(documents)
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in pod["containers"][0]["volumeMounts"]}
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert loaded.storage.path.parent == mounts["state"]
    assert {"name": "state", "persistentVolumeClaim": {"claimName": "hms-exporter"}} in pod["volumes"]
    claim = one(documents, "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    credentials = loaded.workspaces[0].credentials
    assert isinstance(credentials, KeyPair)
    assert credentials.secret.path == mounts["credentials"] / "secret"
    assert credentials.access_key.path == mounts["credentials"] / "access_key"


def test_with_postgresql_two_exporters_share_the_database_and_nothing_is_claimed(tmp_path: Path) -> None:
    documents = template(tmp_path, POSTGRESQL)
    spec, pod = one(documents, "Deployment")["spec"], _pod(documents)
    assert _config(documents)["storage"] == {"url_file": "/etc/hms-exporter/postgresql/url"}
    assert {"name": "postgresql", "mountPath": "/etc/hms-exporter/postgresql", "readOnly": True} in pod["containers"][0]["volumeMounts"]
    assert {"name": "postgresql", "secret": {"secretName": "database", "defaultMode": 0o440}} in pod["volumes"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (2, "RollingUpdate")
    assert "PersistentVolumeClaim" not in {document["kind"] for document in documents}
    assert {"name": "state", "emptyDir": {}} in pod["volumes"]
    assert "podAntiAffinity" in pod["affinity"]


def test_the_exporter_understands_webhooks_and_a_database_as_the_chart_writes_them(tmp_path: Path) -> None:
    """The exporter's loader reads it, with the secrets as in the pod: from the environment and from mounted files."""
    values = {**EVERYTHING, "webhooks": {**EVERYTHING["webhooks"], "port": 9999, "signatureSecret": "${HMS_SIGNATURE}"}}
    documents = template(tmp_path, values)
    mounts = {mount["name"]: mount["mountPath"] for mount in _pod(documents)["containers"][0]["volumeMounts"]}
    (tmp_path / "url").write_text("postgresql://exporter:c4nary@db/hms?sslmode=verify-full\n")
    text = one(documents, "ConfigMap")["data"]["config.yaml"].replace(mounts["postgresql"], str(tmp_path))
    loaded = config.parse(text, {"HMS_WEBHOOK_TOKEN": "a-token", "HMS_SIGNATURE": "a-signature"}, "config.yaml")
    assert loaded.storage.database() == "postgresql://exporter:c4nary@db/hms?sslmode=verify-full"
    receiver = loaded.webhooks
    assert receiver is not None
    assert receiver.listen_address.port == 9999
    assert receiver.headers is not None
    assert receiver.headers.reveal() == {"x-hms-token": "a-token"}
    assert receiver.signature_secret is not None
    assert receiver.signature_secret.reveal() == "a-signature"
    assert config.parse(one(template(tmp_path, CREDENTIALS), "ConfigMap")["data"]["config.yaml"], {}, "config.yaml").webhooks is None


def test_an_existing_claim_is_used_and_none_is_made(tmp_path: Path) -> None:
    documents = template(tmp_path, {**CREDENTIALS, "persistence": {"existingClaim": "mine"}})
    assert {"name": "state", "persistentVolumeClaim": {"claimName": "mine"}} in _pod(documents)["volumes"]
    assert "PersistentVolumeClaim" not in {document["kind"] for document in documents}


def test_a_changed_configuration_rolls_out(tmp_path: Path) -> None:
    def checksum(values: dict[str, Any]) -> str:
        annotations = one(template(tmp_path, values), "Deployment")["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["checksum/config"])

    assert checksum(CREDENTIALS) == checksum({**CREDENTIALS, "podLabels": {"a": "b"}})
    assert checksum(CREDENTIALS) != checksum({**CREDENTIALS, "config": {"poll": {"interval": "60s"}}})


# -- the pod ------------------------------------------------------------------------------------------------------------


def test_the_pod_has_no_rights_that_it_does_not_need(tmp_path: Path) -> None:
    pod = _pod(template(tmp_path, CREDENTIALS))
    assert pod["automountServiceAccountToken"] is False
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_image_is_named_by_version_tag_or_digest(tmp_path: Path) -> None:
    def image(values: dict[str, Any]) -> str:
        return str(_pod(template(tmp_path, {**CREDENTIALS, "image": values}))["containers"][0]["image"])

    assert image({"repository": "registry.example.org/hms-exporter"}) == "registry.example.org/hms-exporter:0.1.0"
    assert image({"tag": "1"}) == "hms-exporter:1"
    assert image({"tag": "1", "digest": "sha256:" + 64 * "a"}) == "hms-exporter@sha256:" + 64 * "a"


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe", "readinessProbe"])
def test_probes_ask_for_health_and_through_tls_and_passwords_by_the_exporters_own_command(tmp_path: Path, probe: str) -> None:
    assert _pod(template(tmp_path, CREDENTIALS))["containers"][0][probe]["httpGet"] == {"path": "/-/healthy", "port": "metrics"}
    container = _pod(template(tmp_path, GUARDED))["containers"][0]
    assert container[probe]["exec"]["command"][:3] == ["hms-exporter", "check", "--healthy"]
    assert container[probe]["exec"]["command"][3:] == container["args"][1:]
    assert container[probe]["timeoutSeconds"] > 5, "the command itself waits for 5 s"


# -- objects around the pod ----------------------------------------------------------------------------------------------------------


def test_the_exporter_is_scraped_once_by_annotation_or_by_the_operator(tmp_path: Path) -> None:
    by_annotation = one(template(tmp_path, CREDENTIALS), "Service")
    assert by_annotation["metadata"]["annotations"] == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(WebConfig().listen_address[0].port),
    }
    assert by_annotation["spec"]["publishNotReadyAddresses"] is True
    documents = template(tmp_path, EVERYTHING)
    assert "annotations" not in one(documents, "Service")["metadata"]
    monitor = one(documents, "ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    selected = [
        document["metadata"]["name"]
        for document in documents
        if document["kind"] == "Service" and monitor["spec"]["selector"]["matchLabels"].items() <= document["metadata"]["labels"].items()
    ]
    assert selected == ["hms-exporter"], "the webhooks' Service has no metrics"


def test_a_take_over_keeps_one_series(tmp_path: Path) -> None:
    endpoint = one(template(tmp_path, EVERYTHING), "ServiceMonitor")["spec"]["endpoints"][0]
    assert endpoint["relabelings"] == [{"action": "replace", "targetLabel": "job", "replacement": "hms-exporter"}]
    of_workspaces = {"action": "replace", "sourceLabels": ["workspace"], "regex": ".+"}
    assert endpoint["metricRelabelings"] == [
        {**of_workspaces, "targetLabel": "instance", "replacement": "hms-exporter"},
        {**of_workspaces, "targetLabel": "pod", "replacement": ""},
    ]


def test_links_to_runbooks_lead_where_the_values_say(tmp_path: Path) -> None:
    page = "https://wiki.example.org/alerts"
    groups = one(template(tmp_path, {**CREDENTIALS, "prometheusRule": {"enabled": True, "runbooks": page}}), "PrometheusRule")
    alerts = [rule for group in groups["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
    assert {rule["alert"]: rule["annotations"]["runbook_url"] for rule in alerts} == {
        rule["alert"]: f"{page}#{rule['alert'].lower()}" for rule in alerts
    }
    shown = template(tmp_path, {**CREDENTIALS, "dashboards": {"enabled": True}, "prometheusRule": {"runbooks": page}})
    overview = one(shown, "ConfigMap", "hms-exporter-dashboard-overview")["data"]["hms-overview.json"]
    assert f'"url": "{page}#${{__value.text}}"' in overview
    assert json.loads(overview)["uid"] == "hms-overview"


def test_the_rules_are_prometheus_own_with_thresholds_from_the_values(tmp_path: Path) -> None:
    groups = one(template(tmp_path, EVERYTHING), "PrometheusRule")["spec"]["groups"]
    shipped = {group["name"]: group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]}
    assert {group["name"]: group for group in groups} == shipped
    thresholds = {"peer_minutes_per_day": 5_000_000, "budget_used_ratio": 0.5}
    groups = one(template(tmp_path, {**CREDENTIALS, "prometheusRule": {"enabled": True, "thresholds": thresholds}}), "PrometheusRule")
    expressions = {rule.get("record"): rule["expr"] for group in groups["spec"]["groups"] for rule in group["rules"]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": groups["spec"]["groups"]}))
    subprocess.run([require("promtool"), "check", "rules", tmp_path / "rules.yml"], check=True, capture_output=True)
    assert float(expressions["hms:threshold:peer_minutes_per_day"].removeprefix("vector(").removesuffix(")")) == 5_000_000
    assert expressions["hms:threshold:budget_used_ratio"] == "vector(0.5)"
    assert expressions["hms:threshold:peer_minutes_per_month"] == "vector(2000000)"


def test_grafanas_sidecar_finds_every_dashboard_as_it_is(tmp_path: Path) -> None:
    documents = template(tmp_path, {**EVERYTHING, "dashboards": {"enabled": True, "namespace": "monitoring"}})
    maps = [document for document in documents if document["metadata"]["labels"].get("grafana_dashboard") == "1"]
    found = {name: json.loads(text) for document in maps for name, text in document["data"].items()}
    assert found == {path.name: json.loads(path.read_text()) for path in DASHBOARDS}


def test_webhooks_have_a_port_and_a_service_of_their_own(tmp_path: Path) -> None:
    documents = template(tmp_path, EVERYTHING)
    assert _config(documents)["webhooks"] == {"listen_address": ":10101", "headers": {"x-hms-token": "${HMS_WEBHOOK_TOKEN}"}}
    container = _pod(documents)["containers"][0]
    assert {"name": "webhooks", "containerPort": 10101} in container["ports"]
    assert {"secretRef": {"name": "hooks"}} in container["envFrom"]
    service = one(documents, "Service", "hms-exporter-webhooks")
    assert service["spec"]["ports"] == [{"name": "webhooks", "port": 10101, "targetPort": "webhooks"}]
    (rule,) = one(documents, "Ingress", "hms-exporter-webhooks")["spec"]["rules"]
    assert rule["host"] == "hms.example.org"
    assert [path["path"] for path in rule["http"]["paths"]] == ["/webhooks/"], "nothing else is shown to the internet"
    assert all(port["name"] == "metrics" for port in one(documents, "Service")["spec"]["ports"])


def test_the_network_policy_allows_scrapes_and_webhooks_in_and_requests_out(tmp_path: Path) -> None:
    policy = one(template(tmp_path, EVERYTHING), "NetworkPolicy")["spec"]
    assert policy["ingress"] == [
        {"ports": [{"port": "metrics", "protocol": "TCP"}], "from": [{"podSelector": {}}]},
        {"ports": [{"port": "webhooks", "protocol": "TCP"}]},
    ]
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 443, 5432}


def test_the_notes_say_how_to_look_at_it_and_warn_of_a_state_that_is_lost(tmp_path: Path) -> None:
    """Only an installation shows the notes, so a copy of the chart renders them as an object."""
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    shown = 'apiVersion: v1\nkind: Notes\nmetadata: {name: notes}\ntext: {{ include (print .Template.BasePath "/NOTES.txt") . | quote }}\n'
    (chart / "templates/shown.yaml").write_text(shown)

    def notes(values: dict[str, Any]) -> str:
        ran = helm(tmp_path, values, "template", "hms-exporter", "--namespace=monitoring", chart=chart)
        assert ran.returncode == 0, ran.stderr
        return str(one([document for document in yaml.safe_load_all(ran.stdout) if document], "Notes", "notes")["text"])

    assert "kubectl -n monitoring port-forward service/hms-exporter 10100" in notes(CREDENTIALS)
    assert "WARNING" not in notes(CREDENTIALS)
    assert "WARNING: persistence is off. The totals begin anew with every pod." in notes(WITHOUT_A_STATE)
    assert "One of 2 exporters polls, the others stand by." in notes(EVERYTHING)


def test_helm_test_asks_the_service(tmp_path: Path) -> None:
    pod = one(template(tmp_path, CREDENTIALS), "Pod", "hms-exporter-test")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    code = pod["spec"]["containers"][0]["command"][-1]
    compile(code, "test", "exec")
    assert "http://hms-exporter:10100/metrics" in code
