"""The checks before the routes: TLS, client certificates, passwords, the rate limit, headers."""

from __future__ import annotations

import asyncio
import base64
import logging
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path

import bcrypt
import pytest

from exporter.config.strict_yaml import ConfigError
from exporter.web.fairness import BusyError
from exporter.web.guard import Guard, Passwords, TokenBucket, check_password
from exporter.web.http import Limits, Request, Response, text_response
from exporter.web.server import HttpServer
from exporter.web.settings import RateLimit
from tests.certificates import make_certificate

PASSWORD = "correct horse"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
TLS = "tls_server_config: {cert_file: server.pem, key_file: server.key"


class Clock:
    """A clock that stands still until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def hello(_: Request) -> Response:
    return text_response(200, "hello", {"X-Frame-Options": "sameorigin"})


@contextmanager
def serving(folder: Path, text: str, *, clock: Callable[[], float] = time.monotonic, limits: Limits | None = None) -> Iterator[HttpServer]:
    (folder / "web.yml").write_text(text)
    guard = Guard(folder / "web.yml", clock=clock)
    server = HttpServer.at("127.0.0.1", 0, guard.protect(hello), tls=guard if guard.encrypts else None, limits=limits)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def get(server: HttpServer, headers: dict[str, str] | None = None) -> HTTPResponse:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/", headers=headers or {})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def get_tls(server: HttpServer, trusted: Path, client: Path | None = None, *, version: ssl.TLSVersion | None = None) -> int:
    """The status of an answer over TLS.  Raises the client's error when there is no answer."""
    context = ssl.create_default_context(cafile=trusted)
    if client is not None:
        context.load_cert_chain(client, client.with_suffix(".key"))
    if version is not None:
        context.maximum_version = version
    connection = HTTPSConnection("127.0.0.1", server.port, timeout=10, context=context)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


# --- TLS ---


def test_over_tls_a_scrape_is_answered_and_plain_http_is_not(tmp_path: Path) -> None:
    trusted = make_certificate(tmp_path, "server")
    with serving(tmp_path, TLS + "}") as server:
        assert get_tls(server, trusted) == 200
        with pytest.raises(OSError, match=r".*"):
            get(server)
        assert get_tls(server, trusted) == 200


def test_a_large_page_arrives_whole_over_tls(tmp_path: Path) -> None:
    trusted = make_certificate(tmp_path, "server")
    (tmp_path / "web.yml").write_text(TLS + "}")
    chunks = [b"x" * 1_000_000] * 5

    async def page(_: Request) -> Response:
        return Response(200, {}, chunks)

    server = HttpServer.at("127.0.0.1", 0, page, tls=Guard(tmp_path / "web.yml"))
    server.start()
    try:
        connection = HTTPSConnection("127.0.0.1", server.port, timeout=10, context=ssl.create_default_context(cafile=trusted))
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"".join(chunks)
        connection.close()
    finally:
        server.stop()


def test_handshakes_that_never_end_harm_nobody_and_are_given_up(tmp_path: Path) -> None:
    trusted = make_certificate(tmp_path, "server")
    with ExitStack() as clients, serving(tmp_path, TLS + "}", limits=Limits(handshake_seconds=0.5, connections=50)) as server:
        stuck = [clients.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10)) for _ in range(200)]
        for client in stuck[::2]:
            client.sendall(b"\x16\x03\x01")
        began = time.monotonic()
        assert get_tls(server, trusted) == 200
        assert time.monotonic() - began < 2
        assert all(client.recv(1) == b"" for client in stuck[1::2])


def test_the_lowest_version_is_kept(tmp_path: Path) -> None:
    trusted = make_certificate(tmp_path, "server")
    with serving(tmp_path, TLS + ", min_version: TLS13}") as server:
        assert get_tls(server, trusted) == 200
        with pytest.raises(ssl.SSLError):
            get_tls(server, trusted, version=ssl.TLSVersion.TLSv1_2)


def test_stopping_is_quick_with_clients_in_their_handshake(tmp_path: Path) -> None:
    make_certificate(tmp_path, "server")
    with ExitStack() as clients:
        with serving(tmp_path, TLS + "}") as server:
            for _ in range(5):
                clients.enter_context(socket.create_connection(("127.0.0.1", server.port))).sendall(b"\x16\x03")
            while len(server._connections) < 5:
                time.sleep(0.01)
            began = time.monotonic()
        assert time.monotonic() - began < 1.5


def test_a_renewed_certificate_is_served_and_a_broken_one_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = make_certificate(tmp_path, "server"), make_certificate(tmp_path, "renewed")
    shutil.copy(first, tmp_path / "first.pem")
    clock = Clock()
    with serving(tmp_path, TLS + "}", clock=clock) as server:
        assert get_tls(server, tmp_path / "first.pem") == 200
        (tmp_path / "server.pem").write_text("half a certif")
        with caplog.at_level(logging.INFO):
            for _ in range(3):
                clock.now += 10
                assert get_tls(server, tmp_path / "first.pem") == 200
        (line,) = (record.getMessage() for record in caplog.records)
        assert "stays in force" in line
        assert "server.pem" in line
        shutil.copy(second, tmp_path / "server.pem")
        shutil.copy(second.with_suffix(".key"), tmp_path / "server.key")
        clock.now += 10
        assert get_tls(server, second) == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            get_tls(server, tmp_path / "first.pem")


def test_tls_cannot_be_taken_away_from_a_running_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trusted = make_certificate(tmp_path, "server")
    clock = Clock()
    with serving(tmp_path, TLS + "}", clock=clock) as server:
        for text in ("{}", ""):
            (tmp_path / "web.yml").write_text(text)
            clock.now += 10
            assert get_tls(server, trusted) == 200
    assert "TLS can be switched on or off by a restart only" in caplog.text
    assert "is empty" in caplog.text


# --- client certificates ---


@pytest.fixture
def clients(tmp_path: Path) -> Path:
    """A folder with a server's certificate, an authority, and certificates of clients signed by it and by another authority."""
    make_certificate(tmp_path, "server")
    make_certificate(tmp_path, "authority")
    make_certificate(tmp_path, "dns", sans="DNS:other.example,DNS:prometheus.example", authority="authority")
    make_certificate(tmp_path, "address", sans="IP:2001:db8::1", authority="authority")
    make_certificate(tmp_path, "mail", sans="email:ops@example.org,URI:spiffe://example/prometheus", authority="authority")
    make_certificate(tmp_path, "nobody", sans="DNS:nobody.example", authority="authority")
    make_certificate(tmp_path, "foreign", sans="DNS:prometheus.example")
    return tmp_path


def admitted(server: HttpServer, folder: Path, client: str | None) -> bool:
    try:
        return get_tls(server, folder / "server.pem", folder / f"{client}.pem" if client else None) == 200
    except OSError:
        return False


def test_a_required_client_certificate_is_verified(clients: Path) -> None:
    with serving(clients, TLS + ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: authority.pem}") as server:
        assert [admitted(server, clients, name) for name in ("dns", "nobody", "foreign", None)] == [True, True, False, False]


def test_an_optional_client_certificate_is_verified_if_given(clients: Path) -> None:
    with serving(clients, TLS + ", client_auth_type: VerifyClientCertIfGiven, client_ca_file: authority.pem}") as server:
        assert [admitted(server, clients, name) for name in ("dns", "foreign", None)] == [True, False, True]


@pytest.mark.parametrize(
    ("allowed", "admits"),
    [
        ("prometheus.example", {"dns"}),
        ("'2001:db8::1'", {"address"}),
        ("ops@example.org", {"mail"}),
        ("'spiffe://example/prometheus'", {"mail"}),
        ("other.example, nobody.example", {"dns", "nobody"}),
        ("example", set()),
    ],
)
def test_only_certificates_with_an_allowed_name_are_admitted(clients: Path, allowed: str, admits: set[str]) -> None:
    text = TLS + f", client_auth_type: RequireAndVerifyClientCert, client_ca_file: authority.pem, client_allowed_sans: [{allowed}]}}"
    with serving(clients, text) as server:
        assert {name for name in ("dns", "address", "mail", "nobody", "foreign") if admitted(server, clients, name)} == admits


# --- passwords, over HTTP ---


def test_the_right_password_opens_and_anything_else_is_a_401(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(tmp_path, f"basic_auth_users: {{alice: {HASH}, 'bøb': {HASH}}}") as server:
        assert get(server, basic("alice", PASSWORD)).status == 200
        assert get(server, basic("bøb", PASSWORD)).status == 200
        wrong = [
            {},
            basic("alice", "wrong"),
            basic("alice", ""),
            basic("stranger", PASSWORD),
            basic("", PASSWORD),
            basic("alice", PASSWORD + "\0"),
            basic("alice", "x" * 73),
            basic("alice", "x" * 5000),
            {"Authorization": "Basic"},
            {"Authorization": "Basic !!!"},
            {"Authorization": "Basic " + base64.b64encode(b"alice").decode()},
            {"Authorization": "Basic " + base64.b64encode(b"\xff:\xff").decode()},
            {"Authorization": "Bearer " + base64.b64encode(f"alice:{PASSWORD}".encode()).decode()},
        ]
        for headers in wrong:
            response = get(server, headers)
            assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Basic"), headers
    assert "alice" not in caplog.text
    assert PASSWORD not in caplog.text


def test_users_change_with_the_file_and_a_broken_file_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with serving(tmp_path, f"basic_auth_users: {{alice: {HASH}}}", clock=clock) as server:
        assert get(server, basic("alice", PASSWORD)).status == 200
        (tmp_path / "web.yml").write_text("basic_auth_users: {alice: not-a-hash}")
        for _ in range(3):
            clock.now += 10
            assert get(server, basic("alice", PASSWORD)).status == 200
        (tmp_path / "web.yml").unlink()
        clock.now += 10
        assert get(server).status == 401
        (tmp_path / "web.yml").write_text(f"basic_auth_users: {{carol: {HASH}}}")
        clock.now += 10
        assert get(server, basic("alice", PASSWORD)).status == 401
        assert get(server, basic("carol", PASSWORD)).status == 200
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "alice" not in caplog.text
    assert "not-a-hash" not in caplog.text


def test_a_scrape_that_was_admitted_once_is_quick_under_a_flood_of_wrong_passwords(tmp_path: Path) -> None:
    costly = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(9)).decode()
    refused, stop = threading.Event(), threading.Event()

    def flood(server: HttpServer, number: int) -> None:
        tries = 0
        while not stop.is_set():
            tries += 1
            if get(server, basic("alice", f"{number} {tries}")).status == 401:
                refused.set()

    with serving(tmp_path, f"basic_auth_users: {{alice: {costly}}}") as server:
        assert get(server, basic("alice", PASSWORD)).status == 200
        attackers = [threading.Thread(target=flood, args=(server, number)) for number in range(8)]
        for attacker in attackers:
            attacker.start()
        try:
            assert refused.wait(30)
            began = time.monotonic()
            for _ in range(5):
                assert get(server, basic("alice", PASSWORD)).status == 200
            assert time.monotonic() - began < 1
        finally:
            stop.set()
            for attacker in attackers:
                attacker.join()


# --- passwords, by themselves ---


class Checks:
    """A password check that accepts "right" alone, and counts its calls."""

    def __init__(self) -> None:
        self.hashes: list[str] = []
        self.most_at_once = 0
        self._lock = threading.Lock()

    def __call__(self, password: bytes, hashed: str) -> bool:
        with self._lock:
            self.hashes.append(hashed)
            self.most_at_once = max(self.most_at_once, 1 + self._at_once)
            self._at_once += 1
        time.sleep(0.005)  # long enough that another check could run at the same time
        self._at_once -= 1
        return password == b"right"

    _at_once = 0


def admit(passwords: Passwords, name: str, password: str, client: str = "here") -> asyncio.Task[bool]:
    users = {"alice": "hash of alice", "bob": "hash of bob"}
    return asyncio.ensure_future(passwords.admit(users, basic(name, password)["Authorization"], client))


def test_a_password_is_checked_once_whether_right_or_wrong() -> None:
    async def scenario() -> None:
        checks = Checks()
        passwords = Passwords(checks)
        for _ in range(3):
            assert await admit(passwords, "alice", "right")
            assert not await admit(passwords, "alice", "wrong")
        assert len(checks.hashes) == 2

    asyncio.run(scenario())


def test_equal_attempts_at_once_share_one_check() -> None:
    async def scenario() -> None:
        checks = Checks()
        passwords = Passwords(checks)
        assert await asyncio.gather(*(admit(passwords, "alice", "right") for _ in range(50))) == [True] * 50
        assert len(checks.hashes) == 1

    asyncio.run(scenario())


def test_an_unknown_user_costs_a_check_against_a_users_hash_and_is_refused_even_if_it_matches() -> None:
    async def scenario() -> None:
        checks = Checks()
        passwords = Passwords(checks)
        assert not await admit(passwords, "stranger", "right")
        assert not await admit(passwords, "stranger", "wrong")
        assert len(checks.hashes) == 2
        assert len(set(checks.hashes)) == 1  # always the same, because a real user's hash does not change either
        assert set(checks.hashes) <= {"hash of alice", "hash of bob"}

    asyncio.run(scenario())


def test_a_stranger_who_becomes_a_user_is_admitted() -> None:
    async def scenario() -> None:
        passwords = Passwords(Checks())
        header = basic("carol", "right")["Authorization"]
        assert not await passwords.admit({"alice": "hash"}, header, "here")
        assert await passwords.admit({"alice": "hash", "carol": "hash"}, header, "here")

    asyncio.run(scenario())


def test_a_flood_of_failures_is_forgotten_in_part_and_successes_never() -> None:
    async def scenario() -> None:
        checks = Checks()
        passwords = Passwords(lambda password, hashed: password == b"right")
        assert await admit(passwords, "alice", "right")
        for number in range(1500):
            assert not await admit(passwords, "alice", f"wrong {number}")
        assert len(passwords._refused) == 1000
        passwords._matches = checks
        assert await admit(passwords, "alice", "right")
        assert checks.hashes == []

    asyncio.run(scenario())


def test_checks_run_one_at_a_time_and_each_client_waits_for_a_few_at_most() -> None:
    async def scenario() -> None:
        checks = Checks()
        passwords = Passwords(checks)
        flood = [admit(passwords, "alice", f"wrong {number}", "attacker") for number in range(30)]
        await asyncio.sleep(0)
        assert await admit(passwords, "alice", "right", "prometheus")
        outcomes = await asyncio.gather(*flood, return_exceptions=True)
        assert sum(isinstance(outcome, BusyError) for outcome in outcomes) == 26
        assert checks.most_at_once == 1
        assert not await admit(passwords, "alice", "wrong again", "attacker")

    asyncio.run(scenario())


def test_passwords_that_no_hash_can_stand_for_are_wrong() -> None:
    assert check_password(PASSWORD.encode(), HASH)
    assert not check_password(b"x" * 73, HASH)
    assert not check_password(b"", HASH)
    assert not check_password(PASSWORD.encode() + b"\0", HASH)


# --- rate limit and headers ---


def test_a_bucket_lets_a_burst_through_and_then_one_at_each_interval() -> None:
    limit = RateLimit(interval=10, burst=3)
    bucket = TokenBucket(limit, 0)
    assert [bucket.take(limit, 0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(limit, now) for now in (9, 10, 10, 25, 30, 30)] == [False, True, False, True, True, False]
    assert [bucket.take(limit, 1000) for _ in range(4)] == [True, True, True, False]


def test_a_changed_limit_starts_with_a_full_bucket_and_no_limit_takes_all() -> None:
    bucket = TokenBucket(None, 0)
    assert bucket.take(None, 0)
    assert [bucket.take(RateLimit(10, 1), 1) for _ in range(2)] == [True, False]
    assert [bucket.take(RateLimit(10, 2), 1) for _ in range(3)] == [True, True, False]


def test_over_the_rate_limit_requests_get_429_even_with_the_right_password(tmp_path: Path) -> None:
    clock = Clock()
    text = f"rate_limit: {{interval: 10s, burst: 2}}\nbasic_auth_users: {{alice: {HASH}}}"
    with serving(tmp_path, text, clock=clock) as server:
        assert [get(server, basic("alice", PASSWORD)).status for _ in range(3)] == [200, 200, 429]
        clock.now += 10
        assert [get(server, basic("alice", PASSWORD)).status for _ in range(2)] == [200, 429]


def test_configured_headers_are_on_every_answer_and_win_over_our_own(tmp_path: Path) -> None:
    headers = "{X-Frame-Options: deny, Strict-Transport-Security: max-age=1}"
    text = f"http_server_config: {{headers: {headers}}}\nbasic_auth_users: {{alice: {HASH}}}"
    with serving(tmp_path, text) as server:
        for response, status in ((get(server, basic("alice", PASSWORD)), 200), (get(server), 401)):
            assert response.status == status
            assert response.headers.get_all("X-Frame-Options") == ["deny"]
            assert response.headers["Strict-Transport-Security"] == "max-age=1"


@pytest.mark.parametrize(("fault", "status"), [(BusyError(), 503), (ZeroDivisionError(), 500)], ids=["busy", "fault"])
def test_configured_headers_are_on_answers_of_trouble_too(tmp_path: Path, fault: Exception, status: int) -> None:
    (tmp_path / "web.yml").write_text("http_server_config: {headers: {X-Frame-Options: deny}}")

    async def fails(_: Request) -> Response:
        raise fault

    async def scenario() -> Response:
        return await Guard(tmp_path / "web.yml").protect(fails)(Request("GET", "/"))

    response = asyncio.run(scenario())
    assert response.status == status
    assert response.headers["X-Frame-Options"] == "deny"


def test_a_configuration_that_cannot_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text(TLS + "}")
    with pytest.raises(ConfigError, match=r"server\.pem with .*server\.key"):
        Guard(tmp_path / "web.yml")
