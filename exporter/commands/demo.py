"""`hms-exporter demo`: runs the exporter and a simulated 100ms with a made-up company in one process."""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from exporter import logs
from exporter.commands.options import CommandFailed, add_flags, given_flags
from exporter.config.config import (
    ApiConfig,
    Budget,
    CollectConfig,
    Config,
    KeyPair,
    ListenAddress,
    PollConfig,
    Prices,
    Secret,
    SecretHeaders,
    StorageConfig,
    WebConfig,
    WebhooksConfig,
    WorkspaceConfig,
    with_flags,
)
from exporter.daemon import CannotRun, Daemon
from exporter.simulator import Company, SessionQuery, SimulatedApi, WebhookSender, truth_of
from exporter.times import DAY, MINUTE, SECOND

_POLL_SECONDS = 2.0
_WORKSPACE = "demo"
_HEADER = "x-hms-token"
_COLLECT_SECONDS = 5.0
# A month has some two million participant minutes, and some forty thousand minutes of recordings.
_MONTH_MINUTES = 2_500_000
_RECORDING_MINUTES = 50_000
_PRICES = Prices(
    "USD",
    {"default": 0.004, "viewer": 0.001},
    10_000,
    per_recording_minute=0.0135,
    per_live_stream_minute=0.04,
    per_external_stream_minute=0.0135,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the command."""
    add_flags(parser, "--web.listen-address", "--storage.path", "--log.level", "--log.format")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="which made-up company (default: 1)")


def run(options: argparse.Namespace) -> int:
    """Runs the exporter against a simulated 100ms until SIGTERM or SIGINT."""
    folder = tempfile.mkdtemp(prefix="hms-exporter-demo-")

    def end(*_: object) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    # Until the daemon installs its own handlers.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    now = time.time_ns() // 1000
    company = Company(options.seed, now)
    token = secrets.token_urlsafe()
    try:
        with SimulatedApi([company]) as api, ExitStack() as until_stopped:

            def ready(addresses: list[str]) -> None:
                address, webhooks = addresses
                url = f"http://{webhooks}/webhooks/{_WORKSPACE}"
                until_stopped.enter_context(WebhookSender(company, url, headers={_HEADER: token}))
                _say(address, api.base_url)

            made_up = _config(api.base_url, company, now, Path(folder) / "demo.db", token)
            config = with_flags(made_up, {"--log.level": "warn", **given_flags(options)})
            logs.set_up(config.log.level, config.log.format)
            Daemon(config, lambda: config).run(ready)
    except CannotRun as error:
        raise CommandFailed(str(error)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _config(base_url: str, company: Company, now: int, state: Path, token: str) -> Config:
    credentials = KeyPair(Secret(company.access_key), Secret(company.secret))
    return Config(
        workspaces=(WorkspaceConfig(_WORKSPACE, credentials),),
        api=ApiConfig(base_url=base_url, max_requests_per_second=50),
        # Counting begins a full day before today, so that the page shows the company's daily events at any time of day.
        poll=PollConfig(interval=_POLL_SECONDS, since=datetime.fromtimestamp((now // DAY - 1) * DAY / SECOND, UTC)),
        collect=CollectConfig(recording_assets=True, webhook_deliveries=True, client_errors=True, interval=_COLLECT_SECONDS),
        storage=StorageConfig(path=state),
        web=WebConfig(enable_lifecycle=True),
        webhooks=WebhooksConfig(listen_address=ListenAddress("127.0.0.1", 0), headers=SecretHeaders({_HEADER: Secret(token)})),
        budgets=_budgets(company, now),
        prices=_PRICES,
    )


def _budgets(company: Company, now: int) -> tuple[Budget, ...]:
    """Monthly budgets that are large enough, and a daily one that is about 90 % used at any time of day."""
    recent = company.list_sessions(SessionQuery(limit=sys.maxsize, after=now - 2 * DAY), now)
    spent = sum(micros for (_, _, day), micros in truth_of(recent, now).peer_us_by_day.items() if day == now // DAY)
    return (
        Budget("everything-monthly", "month", _MONTH_MINUTES),
        Budget("recordings-monthly", "month", recording_minutes=_RECORDING_MINUTES),
        Budget("everything-today", "day", max(1000, round(spent / MINUTE / 0.9))),
    )


def _say(address: str, base_url: str) -> None:
    shown = address.replace("0.0.0.0:", "localhost:").replace("[::]:", "localhost:")
    sys.stdout.write(
        f"The exporter runs on a made-up company's rooms, polling a simulated 100ms every {_POLL_SECONDS:g} s\n"
        f"and whenever one of its webhooks comes.\n"
        f"  look at      http://{shown}/\n"
        f"  metrics      http://{shown}/metrics\n"
        f"  100ms is     {base_url} (simulated)\n"
        f"Ctrl-C ends it; nothing is left behind.\n"
    )
    sys.stdout.flush()
