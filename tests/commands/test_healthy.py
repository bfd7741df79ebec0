"""`check --healthy` over real HTTP and TLS: which answers count as those of a running exporter."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from exporter import cli
from exporter.commands import healthy
from exporter.commands.healthy import Door
from exporter.config.config import ConfigError, WebConfig
from exporter.config.readers import ListenAddress
from exporter.web.guard import Guard
from exporter.web.http import Request, Response, text_response
from exporter.web.server import HttpServer
from tests.certificates import make_certificate

HASH = bcrypt.hashpw(b"a password", bcrypt.gensalt(4)).decode()


@contextmanager
def face(status: int = 200, text: str = "Healthy.", *, host: str = "127.0.0.1", config_file: Path | None = None) -> Iterator[int]:
    """The exporter's HTTP server with this answer to the health check.  Yields its port."""

    async def answer(request: Request) -> Response:
        return text_response(status if request.path == "/-/healthy" else 404, text)

    guard = None if config_file is None else Guard(config_file)
    handler = answer if guard is None else guard.protect(answer)
    server = HttpServer.at(host, 0, handler, tls=guard if guard is not None and guard.encrypts else None)
    server.start()
    try:
        yield int(server.addresses[0].rpartition(":")[2])
    finally:
        server.stop()


def verdict(*addresses: tuple[str, int], config_file: Path | None = None, **more: Any) -> healthy.Verdict:
    where = healthy.door(WebConfig(config_file=config_file))
    asked = tuple(ListenAddress(host, port) for host, port in addresses)
    return healthy.ask(Door(asked, where.tls, where.certificate_wanted), **more)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def test_an_exporter_that_works_is_healthy_and_one_whose_polls_are_stuck_is_not() -> None:
    with face() as port:
        assert str(verdict(("127.0.0.1", port))) == "Healthy: healthy"
    with face(503, "The schedule has stood still for 100 s.") as port:
        assert str(verdict(("127.0.0.1", port))) == f"Not healthy: 127.0.0.1:{port}: 503 The schedule has stood still for 100 s."


@pytest.mark.parametrize("host", ["", "0.0.0.0"])
def test_an_exporter_that_listens_everywhere_is_asked_on_the_loopback_address(host: str) -> None:
    with face(host=host) as port:
        assert verdict((host, port)).healthy


def test_where_nothing_listens_it_says_so() -> None:
    port = free_port()
    assert str(verdict(("127.0.0.1", port))) == f"Not healthy: 127.0.0.1:{port}: Connection refused"


def test_one_answer_of_several_addresses_is_enough() -> None:
    with face() as port:
        assert verdict(("127.0.0.1", free_port()), ("127.0.0.1", port)).healthy
        assert verdict(("127.0.0.1", port), ("127.0.0.1", free_port())).healthy
    assert not verdict(("127.0.0.1", free_port()), ("127.0.0.1", free_port())).healthy


@pytest.mark.parametrize("trickle", [b"", b"HTTP/1.1 200 OK\r\nX: "], ids=["silent", "stops within its answer"])
def test_an_exporter_that_hangs_is_not_waited_for_longer_than_five_seconds(trickle: bytes) -> None:
    assert healthy.PATIENCE_SECONDS == 5
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(5)
        port = silent.getsockname()[1]
        began = time.monotonic()
        if trickle:

            def answer() -> None:
                connection, _ = silent.accept()
                for _ in range(10):
                    connection.sendall(trickle)
                    time.sleep(0.2)  # a header that trickles and never ends

            threading.Thread(target=answer, daemon=True).start()
        found = verdict(("127.0.0.1", port), seconds=0.5)
        assert time.monotonic() - began < 1.5
    assert not found.healthy
    assert "no answer within 0.5 s" in found.reason


def test_a_password_asked_for_is_an_answer(tmp_path: Path) -> None:
    config_file = tmp_path / "web.yml"
    config_file.write_text(f"basic_auth_users: {{prometheus: {HASH}}}\n")
    with face(config_file=config_file) as port:
        assert str(verdict(("127.0.0.1", port), config_file=config_file)) == "Healthy: it answers, and asks for a password"


def test_a_limited_rate_is_an_answer(tmp_path: Path) -> None:
    config_file = tmp_path / "web.yml"
    config_file.write_text("rate_limit: {interval: 10m, burst: 1}\n")
    with face(config_file=config_file) as port:
        reasons = [verdict(("127.0.0.1", port), config_file=config_file).reason for _ in range(2)]
    assert reasons == ["healthy", "it answers, and limits the rate of requests"]


@pytest.mark.parametrize(
    "more", ["", "min_version: TLS13", "max_version: TLS12", "{max_version: TLS12, cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA]}"]
)
def test_tls_is_spoken_with_whatever_certificate_and_version_the_exporter_has(tmp_path: Path, more: str) -> None:
    make_certificate(tmp_path, "server", sans="DNS:exporter.example")
    settings = "cert_file: server.pem, key_file: server.key" + (", " + more.strip("{}") if more else "")
    config_file = tmp_path / "web.yml"
    config_file.write_text(f"tls_server_config: {{{settings}}}\n")
    with face(config_file=config_file) as port:
        assert str(verdict(("127.0.0.1", port), config_file=config_file)) == "Healthy: healthy"
        assert not verdict(("127.0.0.1", port)).healthy, "without the web configuration it asks in plain HTTP"


@pytest.mark.parametrize("version", ["TLS12", "TLS13"])
def test_a_handshake_refused_for_want_of_a_client_certificate_is_an_answer(tmp_path: Path, version: str) -> None:
    make_certificate(tmp_path, "server")
    make_certificate(tmp_path, "authority")
    certificates = "cert_file: server.pem, key_file: server.key, client_ca_file: authority.pem"
    versions = f"min_version: {version}, max_version: {version}"
    config_file = tmp_path / "web.yml"
    config_file.write_text(f"tls_server_config: {{{certificates}, client_auth_type: RequireAndVerifyClientCert, {versions}}}\n")
    with face(config_file=config_file) as port:
        found = verdict(("127.0.0.1", port), config_file=config_file)
    assert str(found) == "Healthy: it answers, and asks for a client certificate"
    assert not verdict(("127.0.0.1", free_port()), config_file=config_file).healthy


def test_a_handshake_refused_for_another_reason_is_none(tmp_path: Path) -> None:
    make_certificate(tmp_path, "server")
    config_file = tmp_path / "web.yml"
    config_file.write_text("tls_server_config: {cert_file: server.pem, key_file: server.key}\n")
    with face() as port:
        found = verdict(("127.0.0.1", port), config_file=config_file)
    assert not found.healthy


def test_the_configuration_of_the_daemon_tells_where_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pair = {"HMS_ACCESS_KEY": "key", "HMS_SECRET": "secret-of-enough-bytes-for-the-hash"}
    assert healthy.configuration(None, pair, {}) == WebConfig()
    assert healthy.configuration(None, {}, {}) == WebConfig(), "the demo runs without any configuration"
    Path("config.yaml").write_text("workspaces: [{name: a, management_token: b}]\nweb: {listen_address: '127.0.0.1:9000'}\n")
    assert healthy.door(healthy.configuration(None, {}, {})).addresses == (ListenAddress("127.0.0.1", 9000),)
    flags = {"--web.listen-address": [":9001", "[::1]:9001"]}
    assert healthy.door(healthy.configuration(None, {}, flags)).addresses == (ListenAddress("", 9001), ListenAddress("::1", 9001))


def test_the_command_tells_by_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HMS_ACCESS_KEY", "HMS_SECRET", "HMS_MANAGEMENT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with face() as port:
        assert cli.main(["check", "--healthy", f"--web.listen-address=127.0.0.1:{port}"]) == 0
    assert cli.main(["check", "--healthy", f"--web.listen-address=127.0.0.1:{port}"]) == 1
    told = capsys.readouterr()
    assert told.out == f"Healthy: healthy\nNot healthy: 127.0.0.1:{port}: Connection refused\n"
    assert cli.main(["check", "--healthy", "--config.file=missing.yaml"]) == 2
    assert capsys.readouterr().err == "hms-exporter: missing.yaml: cannot be read: No such file or directory\n"


@pytest.mark.parametrize("environ", [{}, {"HMS_ACCESS_KEY": "alone"}])
def test_a_bad_configuration_is_one_here_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError):
        healthy.configuration(None if environ else tmp_path / "missing.yaml", environ, {})
    with pytest.raises(ConfigError, match="port 0"):
        healthy.door(WebConfig(listen_address=(ListenAddress("", 10100), ListenAddress("", 0))))
    with pytest.raises(ConfigError, match="systemd"):
        healthy.door(WebConfig(systemd_socket=True))
    with pytest.raises(ConfigError, match=r"web\.yml"):
        healthy.door(WebConfig(config_file=tmp_path / "web.yml"))
