"""Draws the pictures of the dashboards in docs/images: `make pictures`.

It runs the demo's made-up company for some minutes, with a week of its past in a Prometheus (see past.py), and draws each
dashboard by Grafana's own panel components in a browser.  It needs node, npm (which fetches what package-lock.json pins, 600 MB into
build/pictures), chromium, and Prometheus with promtool from `make tools`.  None of these is needed for anything else.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import yaml

from exporter.simulator import Company, SimulatedApi, WebhookSender
from exporter.times import HOUR, MINUTE
from grafana.build import rendered
from scripts import stack

HERE = Path(__file__).parent
BUILD = stack.REPOSITORY / "build" / "pictures"
IMAGES = stack.REPOSITORY / "docs" / "images"

_PAST_MINUTES = 11
"""About the minutes that it takes to make the past."""
_COMPANIES = 300
"""The number of companies among which the one for the pictures is chosen."""
_HEADER, _TOKEN = "x-hms-token", "of-no-use-elsewhere"


class Picture(NamedTuple):
    """A dashboard as the documentation shows it: over the range that it opens with or, `live`, while the demo ran."""

    dashboard: str
    theme: str = "dark"
    room: str = ".+"
    live: bool = False


PICTURES = (
    Picture("overview"),
    Picture("room", theme="light", room="open-house"),
    Picture("recordings"),
    Picture("usage"),
    Picture("exporter", theme="light", live=True),
)


def main() -> int:
    """Builds the page, makes the data, and draws."""
    parser = argparse.ArgumentParser(prog="python -m grafana.pictures", description="Draws the dashboards for the documentation.")
    parser.add_argument("--minutes", type=float, default=10, help="how long the demo runs before it is drawn (default: 10)")
    parser.add_argument("--days", type=float, default=8.1, help="how many days of its past there are (default: 8.1; less is faster)")
    given = parser.parse_args()
    minutes: float = given.minutes
    programs = {name: stack.program(name) for name in ("node", "npm", "chromium", "prometheus", "promtool")}
    if missing := [name for name, path in programs.items() if path is None]:
        sys.stderr.write(f"pictures: {', '.join(missing)}: not found; `make tools` fetches Prometheus, the others are Debian packages\n")
        return 1
    found = {name: str(path) for name, path in programs.items()}
    _build_page(found["npm"])
    with tempfile.TemporaryDirectory(prefix="hms-exporter-pictures-") as name, stack.Processes(Path(name)) as processes:
        prometheus = _start_company(Path(name), processes, found, minutes, given.days)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Silent, directory=str(BUILD)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for picture in PICTURES:
            _draw(picture, found["chromium"], prometheus, f"http://127.0.0.1:{server.server_port}", minutes)
        server.shutdown()
    return 0


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Logs nothing."""


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


def _start_company(folder: Path, processes: stack.Processes, programs: dict[str, str], minutes: float, days: float) -> str:
    """The demo's company with its past in a Prometheus; returns Prometheus's address."""
    now = time.time_ns() // 1000
    seed = _seed(now + round((_PAST_MINUTES + minutes) * MINUTE))
    company = Company(seed, now)
    api = SimulatedApi([company])
    api.start()
    exporter, webhooks, prometheus = _free_address(), _free_address(), _free_address()
    (folder / "config.yaml").write_text(
        yaml.safe_dump(_config(company, api.base_url, webhooks, folder, datetime.now(UTC) - timedelta(days=days))), encoding="utf-8"
    )
    sys.stdout.write("simulating the days before, some minutes\n")
    sys.stdout.flush()
    past = [
        sys.executable,
        "-m",
        "grafana.pictures.past",
        str(folder),
        str(seed),
        str(now),
        f'job="hms-exporter",instance="{exporter}"',
        str(days),
    ]
    subprocess.run(past, check=True, stdin=subprocess.DEVNULL)  # noqa: S603 (our own command)
    run = [sys.executable, "-m", "exporter", "run", f"--config.file={folder}/config.yaml", f"--web.listen-address={exporter}"]
    processes.start("exporter", run)
    processes.wait("exporter", f"http://{exporter}/-/healthy")
    sender = WebhookSender(company, f"http://{webhooks}/webhooks/demo", headers={_HEADER: _TOKEN})
    sender.start()
    blocks = [programs["promtool"], "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=54h"]
    subprocess.run([*blocks, f"{folder}/past.om", f"{folder}/prometheus"], check=True, stdout=subprocess.DEVNULL)  # noqa: S603 (our own command)
    settings = stack.prometheus_config(exporter, prometheus, "127.0.0.1:9")
    settings["global"] = {"scrape_interval": "5s", "evaluation_interval": "5s"}
    processes.start(
        "prometheus", [*stack.prometheus_command(programs["prometheus"], folder, prometheus, settings), "--storage.tsdb.retention.time=60d"]
    )
    processes.wait("prometheus", f"http://{prometheus}/-/ready")
    time.sleep(minutes * 60)  # the time that the pictures show live
    return prometheus


def _seed(moment: int) -> int:
    """The company in which, at that moment, a recording was asked for minutes ago and does not start; the first, if in none."""
    for seed in range(1, _COMPANIES):
        jobs = Company(seed, moment).beside.jobs_since(moment - HOUR, moment)
        waiting = (job for job in jobs if job.exists(moment) and job.standing(moment).status == "starting")
        if any(4 * MINUTE < moment - job.created_at < 25 * MINUTE for job in waiting):
            return seed
    return 1


def _config(company: Company, base_url: str, webhooks: str, folder: Path, since: datetime) -> dict[str, object]:
    return {
        "workspaces": [{"name": "demo", "access_key": company.access_key, "secret": company.secret}],
        "api": {"base_url": base_url, "max_requests_per_second": 200},
        "poll": {"interval": "5s", "since": since.strftime("%Y-%m-%dT%H:%M:%SZ")},
        "collect": {"recording_assets": True, "webhook_deliveries": True, "client_errors": True, "interval": "15s"},
        "storage": {"path": str(folder / "state.db")},
        "webhooks": {"listen_address": webhooks, "headers": {_HEADER: _TOKEN}},
        "budgets": [
            {"name": "everything", "period": "month", "peer_minutes": 2_500_000},
            {"name": "recordings", "period": "month", "recording_minutes": 50_000},
        ],
        "prices": {
            "currency": "USD",
            "per_peer_minute": {"default": 0.004, "viewer": 0.001},
            "free_peer_minutes": 10_000,
            "per_recording_minute": 0.0135,
            "per_live_stream_minute": 0.04,
            "per_external_stream_minute": 0.0135,
        },
    }


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


def _free_address() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


if __name__ == "__main__":
    sys.exit(main())
