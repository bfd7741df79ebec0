"""100ms over TLS: its certificate is always verified, by the authorities that the environment names."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exporter.simulator import SimulatedApi, World
from tests.certificates import make_certificate
from tests.e2e.program import configure, environment, running, wait_until, workspace


@contextmanager
def over_tls(api: SimulatedApi, certificate: Path) -> Iterator[str]:
    """The simulated 100ms with that certificate.  Yields its base URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    assert api._server is not None
    plain = api._server.socket
    with context.wrap_socket(plain, server_side=True) as api._server.socket:
        yield api.base_url.replace("http://", "https://")


@pytest.mark.slow
def test_an_authority_of_ones_own_is_trusted_by_the_usual_variable(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    authority = make_certificate(tmp_path, "authority")
    certificate = make_certificate(tmp_path, "server", authority="authority")
    with over_tls(api, certificate) as base_url:
        config = configure(tmp_path, base_url, workspace())
        env = environment(REQUESTS_CA_BUNDLE=str(authority))
        with running(tmp_path, f"--config.file={config}", env=env) as program:
            wait_until(lambda: program.value("hms_up") == 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sans", "trusted"), [("IP:127.0.0.1", False), ("DNS:api.100ms.live", True)], ids=["unknown authority", "another's name"]
)
def test_a_certificate_that_does_not_hold_fails_the_poll_and_no_request_is_sent(
    tmp_path: Path, world: World, api: SimulatedApi, sans: str, *, trusted: bool
) -> None:
    authority = make_certificate(tmp_path, "authority")
    certificate = make_certificate(tmp_path, "server", authority="authority", sans=sans)
    with over_tls(api, certificate) as base_url:
        config = configure(tmp_path, base_url, workspace())
        env = environment(**({"REQUESTS_CA_BUNDLE": str(authority)} if trusted else {}))
        with running(tmp_path, f"--config.file={config}", env=env) as program:
            program.polled(2)
            assert program.value("hms_up") == 0
            assert program.value("hms_exporter_api_requests_total", endpoint="/sessions", code="connection")
    assert api.requests == []
