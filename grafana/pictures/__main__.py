"""Draws the pictures of the dashboards in docs/images: `make pictures`.

It runs the demo's made-up company for some minutes, with two weeks of its past in a Prometheus, and draws each dashboard by
Grafana's own panel components in a browser.  It needs node, npm (which fetches what package-lock.json pins, 600 MB into
build/pictures), chromium, and Prometheus with promtool from `make tools`.  None of these is needed for anything else.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import yaml

from exporter.simulator import Company, SimulatedApi
from grafana.build import rendered
from scripts import stack

HERE = Path(__file__).parent
BUILD = stack.REPOSITORY / "build" / "pictures"
IMAGES = stack.REPOSITORY / "docs" / "images"

_PAST = timedelta(days=15)
_WEEK = timedelta(days=7)


class Picture(NamedTuple):
    """A dashboard as the documentation shows it: over the range that it opens with or, `live`, while the demo ran."""

    dashboard: str
    theme: str = "dark"
    room: str = ".+"
    live: bool = False


PICTURES = (
    Picture("overview"),
    Picture("room", theme="light", room="open-house"),
    Picture("usage"),
    Picture("exporter", theme="light", live=True),
)


def main() -> int:
    """Builds the page, makes the data, and draws."""
    parser = argparse.ArgumentParser(prog="python -m grafana.pictures", description="Draws the dashboards for the documentation.")
    parser.add_argument("--minutes", type=float, default=10, help="how long the demo runs before it is drawn (default: 10)")
    minutes = parser.parse_args().minutes
    programs = {name: stack.program(name) for name in ("node", "npm", "chromium", "prometheus", "promtool")}
    if missing := [name for name, path in programs.items() if path is None]:
        sys.stderr.write(f"pictures: {', '.join(missing)}: not found; `make tools` fetches Prometheus, the others are Debian packages\n")
        return 1
    found = {name: str(path) for name, path in programs.items()}
    _build_page(found["npm"])
    with tempfile.TemporaryDirectory(prefix="hms-exporter-pictures-") as name, stack.Processes(Path(name)) as processes:
        prometheus = _start_company(Path(name), processes, found, minutes)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Silent, directory=str(BUILD)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for picture in PICTURES:
            _draw(picture, found["chromium"], prometheus, f"http://127.0.0.1:{server.server_port}", minutes)
        server.shutdown()
    return 0


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def _build_page(npm: str) -> None:
    """Grafana's components and the page in one script; fetched and built once."""
    BUILD.mkdir(parents=True, exist_ok=True)
    lock = HERE / "package-lock.json"
    if not (BUILD / "node_modules").is_dir() or (BUILD / lock.name).read_bytes() != lock.read_bytes():
        for file in (HERE / "package.json", lock):
            shutil.copy(file, BUILD)
        subprocess.run([npm, "ci", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund"], cwd=BUILD, check=True)  # noqa: S603 (our own command)
    shutil.copy(HERE / "page.tsx", BUILD)
    modules = {f"@grafana/{part}": f"./node_modules/@grafana/{part}/dist/cjs/index.cjs" for part in ("ui", "data")}
    command = [
        f"{BUILD}/node_modules/.bin/esbuild",
        *("page.tsx", "--bundle", "--outfile=page.js", "--platform=browser", "--format=iife", "--jsx=automatic", "--log-level=error"),
        *("--define:global=window", '--define:process.env.NODE_ENV="production"'),
        *(f"--loader:.{kind}=dataurl" for kind in ("svg", "woff2", "png", "ttf")),
        *(f"--alias:{name}={path}" for name, path in modules.items()),
    ]
    subprocess.run(command, cwd=BUILD, check=True)  # noqa: S603 - pinned by the lock file
    head = '<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="page.css">'
    (BUILD / "index.html").write_text(f'{head}<div id="root"></div><script src="page.js"></script>', encoding="utf-8")


def _start_company(folder: Path, processes: stack.Processes, programs: dict[str, str], minutes: float) -> str:
    """The demo's company with its past in a Prometheus; returns Prometheus's address."""
    now = datetime.now(UTC)
    company = Company(1, int(now.timestamp() * 1_000_000))
    api = SimulatedApi([company])
    api.start()
    exporter, prometheus = _free_address(), _free_address()
    config = {
        "workspaces": [{"name": "demo", "access_key": company.access_key, "secret": company.secret}],
        "api": {"base_url": api.base_url, "max_requests_per_second": 200},
        "poll": {"interval": "5s", "since": (now - _PAST).strftime("%Y-%m-%dT00:00:00Z")},
        "storage": {"path": str(folder / "state.db")},
        "budgets": [{"name": "everything", "period": "month", "peer_minutes": 2_500_000}],
        "prices": {"currency": "USD", "per_peer_minute": {"default": 0.004, "viewer": 0.001}, "free_peer_minutes": 10_000},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command, config_file = [sys.executable, "-m", "exporter"], f"--config.file={folder}/config.yaml"
    processes.start("exporter", [*command, "run", config_file, f"--web.listen-address={exporter}"])
    processes.wait("exporter", f"http://{exporter}/-/healthy")
    while 'hms_exporter_catch_up_ratio{workspace="demo"} 1.0\n' not in _page(f"http://{exporter}/metrics"):
        time.sleep(1)
    # Backfill stops three hours ago; the company's week before has no such end, so the past is drawn from there.
    labels = ["--label=job=hms-exporter", f"--label=instance={exporter}"]
    span = [f"--from={now - _PAST - _WEEK:%Y-%m-%d}", f"--to={now - _WEEK:%Y-%m-%dT%H:%M:%SZ}"]
    past = [*command, "backfill", config_file, *span, "--step=1m", *labels, f"--output={folder}/past.om"]
    subprocess.run(past, check=True, stdin=subprocess.DEVNULL)  # noqa: S603 (our own command)
    _a_week_later(folder / "past.om", folder / "shifted.om", _page(f"http://{exporter}/metrics"))
    blocks = [programs["promtool"], "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=162h"]
    subprocess.run([*blocks, f"{folder}/shifted.om", f"{folder}/prometheus"], check=True, stdout=subprocess.DEVNULL)  # noqa: S603 (our own command)
    settings = stack.prometheus_config(exporter, prometheus, "127.0.0.1:9")
    settings["global"] = {"scrape_interval": "5s", "evaluation_interval": "5s"}
    processes.start(
        "prometheus", [*stack.prometheus_command(programs["prometheus"], folder, prometheus, settings), "--storage.tsdb.retention.time=60d"]
    )
    processes.wait("prometheus", f"http://{prometheus}/-/ready")
    time.sleep(minutes * 60)
    return prometheus


def _a_week_later(source: Path, target: Path, live: str) -> None:
    """The same samples a week later, with counters that go on into those of the `live` page as if nothing had been left out."""
    last = {_series(sample): value for sample, value, _ in _samples(source)}
    counts_on = {}
    for line in live.splitlines():
        name, _, value = line.rpartition(" ")
        if not line.startswith("#") and re.match(r"\w+_(total|sum|count|bucket)\b", line) and (series := _series(name)) in last:
            counts_on[series] = float(value) - last[series]
    with source.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as out:
        for line in lines:
            if line.startswith("#"):
                out.write(line)
                continue
            sample, value, moment = line.rsplit(" ", 2)
            more = _WEEK.total_seconds() if sample.startswith("hms_session_start_timestamp") else counts_on.get(_series(sample), 0)
            out.write(f"{sample} {float(value) + more!r} {float(moment) + _WEEK.total_seconds():.3f}\n")


@functools.cache
def _series(sample: str) -> tuple[str, frozenset[str]]:
    """A series whatever the order of its labels, without those of the target."""
    name, _, labels = sample.partition("{")
    return name, frozenset(label for label in re.findall(r'(\w+="[^"]*")', labels) if not label.startswith(("job=", "instance=")))


def _samples(source: Path) -> Iterator[tuple[str, float, str]]:
    with source.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith("#"):
                sample, value, moment = line.rsplit(" ", 2)
                yield sample, float(value), moment


def _draw(picture: Picture, chromium: str, prometheus: str, pages: str, minutes: float) -> None:
    text = rendered()[f"hms-{picture.dashboard}.json"]
    (BUILD / "dashboard.json").write_text(text, encoding="utf-8")
    # As page.tsx places them: a row of the grid is 38 pixels high.  What is below the first screens is left out.
    height = min(1360, 38 * max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in json.loads(text)["panels"]) + 72)
    asked = {"prometheus": f"http://{prometheus}", "theme": picture.theme, "width": 1366, "room": picture.room}
    if picture.live:
        asked["seconds"] = round(minutes * 60)
    out = IMAGES / f"dashboard-{picture.dashboard}.png"
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=20000"]
    size = [f"--window-size=1366,{height}", f"--screenshot={out}"]
    address = f"{pages}/index.html?{urllib.parse.urlencode(asked)}"
    subprocess.run([chromium, *flags, *size, address], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603 (our own command)
    sys.stdout.write(f"{out.relative_to(stack.REPOSITORY)}: {out.stat().st_size // 1024} KB\n")


def _page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - http, on this machine
        return str(answer.read().decode())


def _free_address() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


if __name__ == "__main__":
    sys.exit(main())
