"""`hms-exporter check --healthy`: asks the running exporter, at the address of its configuration, whether it is healthy.

It is made for health checks of containers, and knows the address, TLS and passwords.  The request contains no secret and only
the status of the answer is used, so the server's certificate, which may not name the loopback address, is not verified.
"""

from __future__ import annotations

import http.client
import os
import queue
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from exporter.config.config import Config, ConfigError, WebConfig, load, with_flags
from exporter.config.readers import ListenAddress
from exporter.web import settings

PATIENCE_SECONDS = 5.0

_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (addresses to connect to, not to listen on)
_ANSWERS: Mapping[int, str] = {
    HTTPStatus.OK: "healthy",
    HTTPStatus.UNAUTHORIZED: "it answers, and asks for a password",
    HTTPStatus.TOO_MANY_REQUESTS: "it answers, and limits the rate of requests",
}
"""Only a working process gives these answers."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the exporter is healthy, and what it or the network said."""

    healthy: bool
    reason: str

    def __str__(self) -> str:
        return f"{'Healthy' if self.healthy else 'Not healthy'}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Door:
    """How to reach the HTTP face: `tls` if it encrypts, `certificate_wanted` if it requires a client certificate."""

    addresses: tuple[ListenAddress, ...]
    tls: bool = False
    certificate_wanted: bool = False


def configuration(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any]) -> WebConfig:
    """The section `web` of the configuration that the daemon would read; without any configuration, as for `demo`, the defaults.

    Raises `ConfigError`.
    """
    credentials = ("HMS_ACCESS_KEY", "HMS_SECRET", "HMS_MANAGEMENT_TOKEN")
    nothing = path is None and not os.path.lexists("config.yaml") and not any(environ.get(name) for name in credentials)
    return with_flags(Config(()) if nothing else load(path, environ), flags).web


def door(web: WebConfig) -> Door:
    """Where and how to ask.  Raises `ConfigError` for an invalid web configuration, and for addresses that only the log shows."""
    if web.systemd_socket:
        raise ConfigError("--web.systemd-socket: only systemd knows these addresses; ask one of them with --web.listen-address")
    addresses = web.listen_address
    if any(address.port == 0 for address in addresses):
        raise ConfigError("web.listen_address: port 0 is a free one that only the log tells; a health check needs a fixed port")
    if web.config_file is None:
        return Door(addresses)
    tls = settings.load(web.config_file).tls
    return Door(addresses, tls is not None, tls is not None and tls.client_auth_type is ssl.CERT_REQUIRED)


def ask(where: Door, seconds: float = PATIENCE_SECONDS) -> Verdict:
    """Asks all addresses at once; the first healthy one decides.  Returns within this many seconds."""
    verdicts: queue.SimpleQueue[Verdict] = queue.SimpleQueue()
    deadline = time.monotonic() + seconds
    for address in where.addresses:
        # A thread that hangs is not waited for: it ends with the process.
        threading.Thread(target=lambda address=address: verdicts.put(_ask(address, where, seconds)), daemon=True).start()
    verdict = Verdict(False, f"no answer within {seconds:g} s")
    for _ in where.addresses:
        try:
            verdict = verdicts.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if verdict.healthy:
            break
    return verdict


def _ask(address: ListenAddress, where: Door, seconds: float) -> Verdict:
    host = _LOOPBACK.get(address.host, address.host)
    connection = (
        http.client.HTTPSConnection(host, address.port, timeout=seconds, context=_trusting())
        if where.tls
        else http.client.HTTPConnection(host, address.port, timeout=seconds)
    )
    try:
        connection.request("GET", "/-/healthy", headers={"Connection": "close"})
        answer = connection.getresponse()
        text = answer.read(1000).decode("utf-8", "replace").strip()
    except ssl.SSLError as error:
        if where.certificate_wanted and "ALERT" in (error.reason or ""):
            return Verdict(True, "it answers, and asks for a client certificate")
        return Verdict(False, f"{host}:{address.port}: {error.reason or 'TLS failed'}")
    except TimeoutError:
        return Verdict(False, f"{host}:{address.port}: no answer within {seconds:g} s")
    except (OSError, http.client.HTTPException) as error:
        if where.certificate_wanted and isinstance(error, ConnectionResetError):
            return Verdict(True, "it answers, and closes connections without a client certificate")
        return Verdict(False, f"{host}:{address.port}: {getattr(error, 'strerror', None) or type(error).__name__}")
    finally:
        connection.close()
    known = _ANSWERS.get(answer.status)
    return Verdict(True, known) if known else Verdict(False, f"{host}:{address.port}: {answer.status} {text}")


def _trusting() -> ssl.SSLContext:
    """A client context that accepts every setting that a web configuration allows for the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context
