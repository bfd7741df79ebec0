"""A real Prometheus gets its scrapes while strangers attack the port, with TLS and passwords and without."""

from __future__ import annotations

import base64
import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import bcrypt
import pytest

from exporter.publish.families import FAMILIES
from exporter.simulator import SimulatedApi, World
from exporter.times import MINUTE
from tests.certificates import make_certificate
from tests.e2e.program import configure, present, running, wait_until, workspace
from tests.e2e.prometheus import scraping

pytestmark = pytest.mark.slow

PASSWORD = "a-password-of-the-tests"
ATTACK_SECONDS = 24
MIB = 1 << 20


class Attackers:
    """Hostile clients of one address.  Each kind repeats until the end.  Without a certificate they speak plain HTTP."""

    def __init__(self, port: int, certificate: Path | None) -> None:
        self._address = ("127.0.0.1", port)
        self._tls = ssl.create_default_context(cafile=certificate) if certificate is not None else None
        self._over = threading.Event()
        self.done: Counter[str] = Counter()
        self.surprises: list[str] = []

    @contextmanager
    def at_work(self, kinds: Sequence[str]) -> Iterator[None]:
        """All these kinds at once, within the block."""
        threads = [threading.Thread(target=self._repeat, args=(kind,), daemon=True) for kind in kinds]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _repeat(self, kind: str) -> None:
        while not self._over.is_set():
            with suppress(OSError):  # the server is right to close their connections
                getattr(self, f"_{kind}")()
                self.done[kind] += 1
            self._over.wait(0.02)

    def _connect(self) -> socket.socket:
        # From another address than Prometheus: a client of the same address could use up its share.
        return socket.create_connection(self._address, timeout=5, source_address=("127.0.0.2", 0))

    def _speak(self) -> socket.socket:
        plain = self._connect()
        return plain if self._tls is None else self._tls.wrap_socket(plain, server_hostname="127.0.0.1")

    def _ask(self, client: socket.socket, path: str = "/metrics", headers: str = "") -> None:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: it\r\n{headers}\r\n".encode())

    def _status(self, client: socket.socket, *expected: bytes) -> None:
        found = client.recv(4096)[9:12]
        if found and found not in expected:
            self.surprises.append(found.decode())

    def _idle(self) -> None:
        """A thousand connections that send nothing."""
        with ExitStack() as crowd:
            for _ in range(1000):
                crowd.enter_context(self._connect())
            self._over.wait(1)

    def _handshake(self) -> None:
        """The beginning of a TLS handshake, then nothing until the server gives up."""
        with self._connect() as client:
            client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            client.recv(1)

    def _slow(self) -> None:
        """A header that arrives byte by byte."""
        with self._speak() as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: it\r\nX: ")
            for _ in range(40):
                self._over.wait(0.05)
                client.sendall(b"x")

    def _huge(self) -> None:
        """Endless headers."""
        with self._speak() as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n" + b"X-Long: x\r\n" * 3000)
            self._status(client, b"431")

    def _guess(self) -> None:
        """Wrong passwords and users, never the same twice."""
        credentials = base64.b64encode(f"user-{random.random()}:{random.random()}".encode()).decode()
        with self._speak() as client:
            self._ask(client, headers=f"Authorization: Basic {credentials}\r\n")
            self._status(client, b"401", b"503")

    def _ahead(self) -> None:
        """A hundred pipelined requests, nothing read, then half of the connection closed."""
        with self._speak() as client:
            for _ in range(100):
                self._ask(client)
            client.shutdown(socket.SHUT_WR)
            self._over.wait(0.5)

    def _junk(self) -> None:
        """Nonsensical methods, paths and bytes."""
        with self._speak() as client:
            client.sendall(
                random.randbytes(3) + b" /" + random.randbytes(30).hex().encode() + b" HTTP/9.9\r\n\r\n" + random.randbytes(2000)
            )
            client.recv(4096)

    def _unread(self) -> None:
        """Two hundred clients that ask for the page and do not read it."""
        with ExitStack() as crowd:
            for _ in range(200):
                self._ask(crowd.enter_context(self._speak()))
            self._over.wait(0.3)

    def _names(self) -> None:
        """Scrapes filtered by ever new names, and nothing is read."""
        wanted = "&".join(f"name[]={name}" for name in (*(family.name for family in FAMILIES), *map(str, range(300))))
        with ExitStack() as crowd:
            for _ in range(50):
                self._ask(crowd.enter_context(self._speak()), f"/metrics?{wanted}")
            self._over.wait(0.3)

    def _odd(self) -> None:
        """Formats and encodings that do not exist."""
        odd = random.choice(
            ["text/plain;version=abc", ";;;,q=,", "*/*;q=nan", "application/openmetrics-text;version=9;q=1e400", "x" * 5000]
        )
        with self._speak() as client:
            self._ask(client, headers=f"Accept: {odd}\r\nAccept-Encoding: {odd}\r\n")
            self._status(client, b"200", b"503")


AT_A_LOCKED_DOOR = ("idle", "handshake", "slow", "huge", "guess", "guess", "ahead", "junk")
AT_AN_OPEN_DOOR = ("idle", "slow", "huge", "ahead", "junk", "unread", "names", "odd")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("locked", [True, False], ids=["TLS and a password", "open"])
def test_a_real_prometheus_gets_every_scrape_in_time_while_the_port_is_attacked(
    tmp_path: Path, world: World, api: SimulatedApi, *, locked: bool
) -> None:
    """No scrape fails or takes longer than its interval of three seconds, and the memory stays within bounds."""
    for number in range(300):
        session = world.open(world.room(name=f"room-{number}").id, present() - MINUTE)
        for role in ("host", "guest", "viewer"):
            session.join(role, present() - MINUTE)
    config = configure(tmp_path, api, workspace())
    arguments, scheme, certificate = [f"--config.file={config}"], {}, None
    if locked:
        certificate = make_certificate(tmp_path, "server")
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
        (tmp_path / "web.yml").write_text(
            f"tls_server_config: {{cert_file: server.pem, key_file: server.key}}\nbasic_auth_users: {{prometheus: {hashed}}}\n"
        )
        arguments.append(f"--web.config.file={tmp_path}/web.yml")
        scheme = {
            "scheme": "https",
            "tls_config": {"ca_file": str(certificate)},
            "basic_auth": {"username": "prometheus", "password": PASSWORD},
        }
    with running(tmp_path, *arguments) as program, scraping(tmp_path, program.address, "3s", scheme) as prometheus:
        wait_until(lambda: prometheus.scrapes >= 2, 30, "scrapes fail even before the attack")
        attackers = Attackers(int(program.address.rpartition(":")[2]), certificate)
        kinds = AT_A_LOCKED_DOOR if locked else AT_AN_OPEN_DOOR
        before = prometheus.scrapes
        with attackers.at_work(kinds):
            time.sleep(ATTACK_SECONDS)
            during = f"[{ATTACK_SECONDS - 1}s]"
            assert prometheus.ask(f"min_over_time(up{during})") == 1
            slowest = prometheus.ask(f"max_over_time(scrape_duration_seconds{during})")
            memory = prometheus.ask(f"max_over_time(process_resident_memory_bytes{during})")
        assert prometheus.scrapes - before >= ATTACK_SECONDS / 3 - 2
        assert slowest < 3
        assert 0 < memory < 160 * MIB
        assert attackers.surprises == []
        assert set(attackers.done) == set(kinds), "a kind of attack has not run"
        assert prometheus.ask("min_over_time(hms_up[10m])") == 1
