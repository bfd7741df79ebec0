"""The whole stack without containers: exporter, Prometheus, Alertmanager, and Grafana if it is installed.

`make stack` runs it.  The exporter follows a made-up company's rooms, or your own with HMS_ACCESS_KEY and HMS_SECRET in the
environment.  Prometheus and Alertmanager are found below HMS_TOOLS_DIR or in PATH.  They run with the configuration of
compose.yaml, in which only the addresses are replaced.  Their data are deleted at the end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
PROMETHEUS = REPOSITORY / "prometheus"
GRAFANA = REPOSITORY / "grafana"

Document = dict[str, Any]


def prometheus_config(exporter: str, prometheus: str, alertmanager: str, rules: str = f"{PROMETHEUS}/rules/*.yml") -> Document:
    """The shipped configuration of Prometheus with these rules, and these addresses (host:port) in place of those of compose."""
    config = _read(PROMETHEUS / "prometheus.yml")
    config["rule_files"] = [rules]
    addresses = {"hms-exporter:10100": exporter, "localhost:9090": prometheus, "alertmanager:9093": alertmanager}
    for section in (*config["scrape_configs"], *config["alerting"]["alertmanagers"]):
        for targets in section["static_configs"]:
            targets["targets"] = [addresses[target] for target in targets["targets"]]
    return config


def program(*names: str) -> str | None:
    """The first of these programs that is installed: where `make tools` puts it (below HMS_TOOLS_DIR, if set), else in PATH."""
    tools = os.environ.get("HMS_TOOLS_DIR") or REPOSITORY / ".tools" / "prometheus"
    for name in names:
        if found := shutil.which(name, path=f"{tools}/bin") or shutil.which(name):
            return found
    return None


def prometheus_command(executable: str, folder: Path, address: str, config: Document) -> list[str]:
    """The command that starts Prometheus, with its configuration and its data in this folder."""
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    flags = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/prometheus", f"--web.listen-address={address}"]
    return [executable, *flags, "--web.enable-lifecycle", "--log.level=warn"]


def alertmanager_command(executable: str, folder: Path, address: str) -> list[str]:
    """The command that starts Alertmanager, with its data in this folder."""
    flags = [f"--config.file={PROMETHEUS}/alertmanager.yml", f"--storage.path={folder}/alertmanager", f"--web.listen-address={address}"]
    return [executable, *flags, "--cluster.listen-address=", "--log.level=warn"]


def grafana_command(executable: str, home: str) -> list[str]:
    """The command that starts Grafana: `grafana server`, or `grafana-server` in older packages."""
    return [executable, *(["server"] if Path(executable).name == "grafana" else []), "--homepath", home]


def grafana_environment(folder: Path, address: str, prometheus: str) -> dict[str, str]:
    """Grafana's settings: dashboards and data source are provisioned, and viewing needs no password."""
    host, _, port = address.rpartition(":")
    return {
        "HMS_PROMETHEUS_URL": f"http://{prometheus}",
        "HMS_SCRAPE_INTERVAL": _read(PROMETHEUS / "prometheus.yml")["global"]["scrape_interval"],
        "HMS_DASHBOARDS": str(GRAFANA / "dashboards"),
        "GF_PATHS_PROVISIONING": str(GRAFANA / "provisioning"),
        "GF_PATHS_DATA": str(folder / "grafana"),
        "GF_PATHS_LOGS": str(folder / "grafana"),
        "GF_SERVER_HTTP_ADDR": host,
        "GF_SERVER_HTTP_PORT": port,
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(GRAFANA / "dashboards" / "hms-overview.json"),
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_LOG_LEVEL": "warn",
    }


class Processes:
    """Programs that run within a `with` block.  The output of each goes to a file named after it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.running.values()):
            process.terminate()
        for process in self.running.values():
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Starts a program."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(  # noqa: S603 - programs of our own choosing
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
            )

    def end(self, name: str) -> None:
        """Ends a program."""
        process = self.running.pop(name)
        process.terminate()
        process.wait(timeout=10)

    def wait(self, name: str, url: str, seconds: float = 60) -> None:
        """Returns once the program answers there.  Raises `RuntimeError` with its last words when it ends or takes too long."""
        process, end = self.running[name], time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < end:
            try:
                with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - http, on this machine
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)  # until it answers
        raise RuntimeError(f"{name} does not answer at {url}:\n{self.last_words(name)}")

    def last_words(self, name: str) -> str:
        """The last lines of a program's output."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-2000:]


def main() -> int:
    """Starts everything, prints the addresses, and waits for an interrupt."""
    prometheus, alertmanager = program("prometheus"), program("alertmanager", "prometheus-alertmanager")
    if prometheus is None or alertmanager is None:
        sys.stderr.write("stack: Prometheus and Alertmanager are not installed; `make tools` fetches them\n")
        return 1
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    here = {
        name: f"127.0.0.1:{port}" for name, port in (("exporter", 10100), ("prometheus", 9090), ("alertmanager", 9093), ("grafana", 3000))
    }
    with tempfile.TemporaryDirectory(prefix="hms-exporter-stack-") as name, Processes(Path(name)) as processes:
        folder = Path(name)
        mode = "run" if os.environ.get("HMS_ACCESS_KEY") else "demo"
        exporter = [
            sys.executable,
            "-m",
            "exporter",
            mode,
            f"--web.listen-address={here['exporter']}",
            f"--storage.path={folder}/exporter.db",
        ]
        config = prometheus_config(here["exporter"], here["prometheus"], here["alertmanager"])
        processes.start("exporter", exporter)
        processes.start("alertmanager", alertmanager_command(alertmanager, folder, here["alertmanager"]))
        processes.start("prometheus", prometheus_command(prometheus, folder, here["prometheus"], config))
        try:
            processes.wait("exporter", f"http://{here['exporter']}/-/healthy")
            processes.wait("alertmanager", f"http://{here['alertmanager']}/-/ready")
            processes.wait("prometheus", f"http://{here['prometheus']}/-/ready")
            grafana = _start_grafana(processes, folder, here)
        except RuntimeError as error:
            sys.stderr.write(f"stack: {error}\n")
            return 1
        sys.stdout.write(
            f"The exporter follows {'your rooms' if mode == 'run' else 'a made-up company'}; Ctrl-C ends it all, nothing is kept.\n"
            f"  exporter      http://{here['exporter']}/\n"
            f"  Prometheus    http://{here['prometheus']}/alerts\n"
            f"  Alertmanager  http://{here['alertmanager']}/\n"
            f"  Grafana       {grafana}\n"
        )
        sys.stdout.flush()
        while not stop.wait(1):
            for name, process in processes.running.items():
                if process.poll() is not None:
                    sys.stderr.write(f"stack: {name} has ended:\n{processes.last_words(name)}\n")
                    return 1
    return 0


def _start_grafana(processes: Processes, folder: Path, here: Mapping[str, str]) -> str:
    home = os.environ.get("GRAFANA_HOME", "/usr/share/grafana")
    grafana = program("grafana", "grafana-server")
    if grafana is None or not Path(home).is_dir():
        return f"not installed here; it would load {GRAFANA.relative_to(REPOSITORY)}/dashboards (GRAFANA_HOME names its folder)"
    processes.start("grafana", grafana_command(grafana, home), grafana_environment(folder, here["grafana"], here["prometheus"]))
    processes.wait("grafana", f"http://{here['grafana']}/api/health")
    return f"http://{here['grafana']}/"


def _read(path: Path) -> Document:
    found: Document = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    sys.exit(main())
