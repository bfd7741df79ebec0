"""`demo` and `simulate`: the made-up company, with the exporter beside it or alone."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from exporter import logs
from exporter.config.config import (
    ApiConfig,
    Budget,
    Config,
    ConfigError,
    KeyPair,
    PollConfig,
    Prices,
    Secret,
    WebConfig,
    WorkspaceConfig,
    with_flags,
)
from exporter.daemon import Daemon
from exporter.simulator import Company, SessionQuery, SimulatedApi, truth_of
from exporter.times import DAY, MINUTE, SECOND

_POLL_SECONDS = 2.0
# A month has some two million participant minutes.
_MONTH_MINUTES = 2_500_000
_PRICES = Prices("USD", {"default": 0.004, "viewer": 0.001}, 10_000)
_SIMULATOR_PORT = 10180


def demo(listen_address: str | None, storage_path: str | None, log_level: str | None, log_format: str | None, seed: int) -> int:
    """The exporter against a simulated 100ms, until interrupted.  Raises `ConfigError` or `CannotRun`."""
    with tempfile.TemporaryDirectory(prefix="hms-exporter-demo-") as folder:
        now = time.time_ns() // 1000
        company = Company(seed, now)
        with SimulatedApi([company]) as api:
            config = _config(api.base_url, company, Path(folder) / "demo.db")
            # From midnight on, so that "today" is the whole of it.
            midnight = datetime.fromtimestamp(now // DAY * DAY / SECOND, UTC)
            config = replace(config, poll=replace(config.poll, since=midnight), budgets=_budgets(company, now), prices=_PRICES)
            config = with_flags(
                config, listen_address=listen_address, storage_path=storage_path, log_level=log_level or "warn", log_format=log_format
            )
            logs.set_up(config.log.level, config.log.format)
            Daemon(config, lambda: config).run(lambda address: _say(address, api.base_url))
    return 0


def simulate(listen_address: str | None, seed: int) -> int:
    """Only the simulated 100ms, until interrupted.  Raises `ConfigError` for an address that is none."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    company = Company(seed, time.time_ns() // 1000)
    wanted = with_flags(_config("http://127.0.0.1/v2", company, Path("unused")), listen_address=listen_address).web.listen_address
    host, port = (wanted.host, wanted.port) if listen_address is not None else ("127.0.0.1", _SIMULATOR_PORT)
    try:
        api = SimulatedApi([company], host or "0.0.0.0", port)  # noqa: S104 (asked for by leaving the host out)
        api.start()
    except OSError as error:
        raise ConfigError(f"--web.listen-address: cannot listen there: {error.strerror or error}") from error
    sys.stdout.write(
        f"A simulated 100ms answers on {api.base_url}\n"
        f"Point the exporter at it with api.base_url and these credentials, which are no secret:\n"
        f"  HMS_ACCESS_KEY={company.access_key}\n"
        f"  HMS_SECRET={company.secret}\n"
    )
    sys.stdout.flush()
    stop.wait()
    api.stop()
    return 0


def _config(base_url: str, company: Company, state: Path) -> Config:
    credentials = KeyPair(Secret(company.access_key), Secret(company.secret))
    config = Config((WorkspaceConfig("demo", credentials),))
    return replace(
        config,
        api=ApiConfig(base_url=base_url, max_requests_per_second=50),
        poll=PollConfig(interval=_POLL_SECONDS),
        storage=replace(config.storage, path=state),
        web=WebConfig(enable_lifecycle=True),
    )


def _budgets(company: Company, now: int) -> tuple[Budget, ...]:
    """One of the month that lasts, and one of the day that is nearly used, at whatever time of day the demo begins."""
    recent = company.list_sessions(SessionQuery(limit=sys.maxsize, after=now - 2 * DAY), now)
    spent = sum(micros for (_, _, day), micros in truth_of(recent, now).peer_us_by_day.items() if day == now // DAY)
    return (
        Budget("everything-monthly", "month", _MONTH_MINUTES),
        Budget("everything-today", "day", max(1000, round(spent / MINUTE / 0.9))),
    )


def _say(address: str, base_url: str) -> None:
    shown = address.replace("0.0.0.0:", "localhost:").replace("[::]:", "localhost:")
    sys.stdout.write(
        f"The exporter runs on a made-up company's rooms, polling a simulated 100ms every {_POLL_SECONDS:g} s.\n"
        f"  look at      http://{shown}/\n"
        f"  metrics      http://{shown}/metrics\n"
        f"  100ms is     {base_url} (simulated)\n"
        f"Ctrl-C ends it; nothing is left behind.\n"
    )
    sys.stdout.flush()
