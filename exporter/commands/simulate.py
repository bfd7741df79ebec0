"""`hms-exporter simulate`: only the simulated 100ms, on a port of its own."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time

from exporter.commands.options import CommandFailed
from exporter.config.config import ListenAddress, listen_address, read_flag
from exporter.simulator import Company, SimulatedApi

_FLAG = "--web.listen-address"
_DEFAULT = ListenAddress("127.0.0.1", 10180)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the command."""
    parser.add_argument(_FLAG, dest="address", metavar="HOST:PORT", help=f"where to answer (default: {_DEFAULT.host}:{_DEFAULT.port})")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="which made-up company (default: 1)")


def run(options: argparse.Namespace) -> int:
    """Answers as 100ms would, until SIGTERM or SIGINT."""
    address = _DEFAULT if options.address is None else read_flag(_FLAG, options.address, listen_address)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    company = Company(options.seed, time.time_ns() // 1000)
    try:
        api = SimulatedApi([company], address.host or "0.0.0.0", address.port)  # noqa: S104 (asked for by leaving the host out)
        api.start()
    except OSError as error:
        raise CommandFailed(f"{_FLAG}: cannot listen there: {error.strerror or error}") from error
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
