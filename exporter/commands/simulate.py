"""`hms-exporter simulate`: runs only the simulated 100ms, on its own port."""

from __future__ import annotations

import argparse
import re
import signal
import sys
import threading
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

from exporter import logs
from exporter.commands.options import CommandFailed
from exporter.config.config import ListenAddress, listen_address, read_flag
from exporter.simulator import Company, SimulatedApi, WebhookSender

_FLAG = "--web.listen-address"
_DEFAULT = ListenAddress("127.0.0.1", 10180)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the command."""
    parser.add_argument(_FLAG, dest="address", metavar="HOST:PORT", help=f"where to answer (default: {_DEFAULT})")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="which made-up company (default: 1)")
    parser.add_argument("--webhook-url", type=_url, metavar="URL", help="where to post webhooks of what happens")
    parser.add_argument(
        "--webhook-header", type=_header, action="append", default=[], metavar="NAME:VALUE", help="sent with each webhook; may be repeated"
    )
    parser.add_argument("--webhook-signature-secret", metavar="SECRET", help="signs each webhook")


def run(options: argparse.Namespace) -> int:
    """Answers as 100ms would, until SIGTERM or SIGINT."""
    address = _DEFAULT if options.address is None else read_flag(_FLAG, options.address, listen_address)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    company = Company(options.seed, time.time_ns() // 1000)
    try:
        api = SimulatedApi([company], address.host or "0.0.0.0", address.port)  # noqa: S104 (the user selects every address by leaving the host out)
        api.start()
    except OSError as error:
        raise CommandFailed(f"{_FLAG}: cannot listen there: {error.strerror or error}") from error
    sys.stdout.write(
        f"A simulated 100ms answers on {api.base_url}\n{_wider(api)}"
        f"Point the exporter at it with api.base_url and these credentials, which are no secret:\n"
        f"  HMS_ACCESS_KEY={company.access_key}\n"
        f"  HMS_SECRET={company.secret}\n"
    )
    if options.webhook_url is not None:
        sys.stdout.write(f"It posts webhooks to {options.webhook_url}\n")
        logs.set_up("warn", "logfmt")
    sys.stdout.flush()
    with ExitStack() as until_stopped:
        until_stopped.callback(api.stop)
        if options.webhook_url is not None:
            secret = options.webhook_signature_secret
            sender = WebhookSender(company, options.webhook_url, headers=dict(options.webhook_header), signature_secret=secret)
            until_stopped.enter_context(sender)
        stop.wait()
    return 0


def _wider(api: SimulatedApi) -> str:
    """A hint if it listens on every address, because the printed address is only this machine's own."""
    if api.host not in ("0.0.0.0", "::"):  # noqa: S104 (compared, not bound)
        return ""
    listens = ListenAddress(api.host, api.port)
    return f"It listens on {listens}: others reach it by any address of this machine, with api.allow_plain_http: true.\n"


def _url(text: str) -> str:
    try:
        url = urlsplit(text)
        valid = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise argparse.ArgumentTypeError("expected a URL such as http://127.0.0.1:10101/webhooks/default")
    return text


def _header(text: str) -> tuple[str, str]:
    name, _, value = text.partition(":")
    if not re.fullmatch(r"[A-Za-z0-9-]+", name) or not re.fullmatch(r"[\x20-\x7e]+", value):
        raise argparse.ArgumentTypeError("expected NAME:VALUE, such as x-hms-token:abc")
    return name, value.strip()
