"""The HTTP face as strangers may find it, TLS and passwords in front, while a real Prometheus scrapes it: its scrapes come first."""

from __future__ import annotations

import base64
import json
import random
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import bcrypt
import pytest

from exporter.simulator import MINUTE, SimulatedApi, World
from scripts import stack
from tests.certificates import make_certificate
from tests.e2e.program import configure, present, running, workspace
from tests.programs import require

pytestmark = pytest.mark.slow

PASSWORD = "a-password-of-the-tests"
ATTACK_SECONDS = 20
MIB = 1 << 20


class Attackers:
    """Clients that mean ill, at one address; each kind goes on until the end."""

    def __init__(self, port: int, certificate: Path) -> None:
        self._address = ("127.0.0.1", port)
        self._tls = ssl.create_default_context(cafile=certificate)
        self._over = threading.Event()
        self.done = dict.fromkeys(("idle", "handshake", "slow", "huge", "guess", "ahead", "junk"), 0)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """All kinds at once, within the block."""
        kinds: list[Callable[[], None]] = [
            self._idle,
            self._handshake,
            self._slow,
            self._huge,
            self._guess,
            self._guess,
            self._ahead,
            self._junk,
        ]
        threads = [threading.Thread(target=self._repeat, args=(kind,), daemon=True) for kind in kinds]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _repeat(self, kind: Callable[[], None]) -> None:
        while not self._over.is_set():
            with suppress(OSError):  # they are shown the door: that is what doors are for
                kind()
            self._over.wait(0.02)

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=5)

    def _secure(self) -> ssl.SSLSocket:
        return self._tls.wrap_socket(self._connect(), server_hostname="127.0.0.1")

    def _idle(self) -> None:
        """A thousand who say nothing."""
        crowd: list[socket.socket] = []
        try:
            while len(crowd) < 1000 and not self._over.is_set():
                crowd.append(self._connect())
                self.done["idle"] += 1
            self._over.wait(1)
        finally:
            for connection in crowd:
                connection.close()

    def _handshake(self) -> None:
        """The beginning of a TLS handshake, and nothing more for as long as it is borne."""
        with self._connect() as client:
            client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            self.done["handshake"] += 1
            client.recv(1)

    def _slow(self) -> None:
        """A header, a byte at a time."""
        with self._secure() as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: it\r\nX: ")
            self.done["slow"] += 1
            while not self._over.wait(0.05):
                client.sendall(b"x")

    def _huge(self) -> None:
        """Headers without end."""
        with self._secure() as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n")
            self.done["huge"] += 1
            while not self._over.is_set():
                client.sendall(b"X-Long: " + b"x" * 8000 + b"\r\n")

    def _guess(self) -> None:
        """Passwords and users, never the same twice."""
        credentials = base64.b64encode(f"user-{random.random()}:{random.random()}".encode())
        with self._secure() as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: it\r\nAuthorization: Basic %b\r\n\r\n" % credentials)
            self.done["guess"] += 1
            assert client.recv(4096)[9:12] in (b"401", b"503", b"429", b"")

    def _ahead(self) -> None:
        """A hundred requests ahead, nothing read, then one half of the connection shut."""
        with self._secure() as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: it\r\n\r\n" * 100)
            self.done["ahead"] += 1
            client.shutdown(socket.SHUT_WR)
            self._over.wait(0.5)

    def _junk(self) -> None:
        """Methods, paths and bytes of no sense."""
        with self._secure() as client:
            client.sendall(
                random.randbytes(3) + b" /" + random.randbytes(30).hex().encode() + b" HTTP/9.9\r\n\r\n" + random.randbytes(2000)
            )
            self.done["junk"] += 1
            client.recv(4096)


@pytest.mark.timeout(120)
def test_a_real_prometheus_gets_every_scrape_in_time_while_the_port_is_attacked(tmp_path: Path, world: World, api: SimulatedApi) -> None:
    """No scrape fails or takes longer than its interval of two seconds, and the memory stays within bounds."""
    prometheus = require("prometheus")
    certificate = make_certificate(tmp_path, "server")
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10)).decode()
    (tmp_path / "web.yml").write_text(
        f"tls_server_config: {{cert_file: server.pem, key_file: server.key}}\nbasic_auth_users: {{prometheus: {hashed}}}\n"
    )
    session = world.open(world.room(name="daily").id, present() - MINUTE)
    session.join("host", present() - MINUTE)
    config = configure(tmp_path, api, workspace())
    with (
        running(tmp_path, f"--config.file={config}", f"--web.config.file={tmp_path}/web.yml") as program,
        stack.Processes(tmp_path) as processes,
    ):
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        settings = {
            "global": {"scrape_interval": "2s", "scrape_timeout": "2s"},
            "scrape_configs": [
                {
                    "job_name": "hms-exporter",
                    "scheme": "https",
                    "tls_config": {"ca_file": str(certificate)},
                    "basic_auth": {"username": "prometheus", "password": PASSWORD},
                    "static_configs": [{"targets": [program.address]}],
                }
            ],
        }

        def ask(query: str) -> float | None:
            url = f"http://{address}/api/v1/query?query={urllib.parse.quote(query)}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                found = json.load(answer)["data"]["result"]
            return float(found[0]["value"][1]) if found else None

        def scraped() -> float:
            return ask("sum_over_time(up[10m])") or 0

        processes.start("prometheus", stack.prometheus_command(prometheus, tmp_path, address, settings))
        processes.wait("prometheus", f"http://{address}/-/ready")
        deadline = time.monotonic() + 20
        while scraped() < 2:
            assert time.monotonic() < deadline, "not even in peace does it get a scrape"
            time.sleep(0.2)

        attackers = Attackers(int(program.address.rpartition(":")[2]), certificate)
        before = scraped()
        with attackers.at_work():
            time.sleep(ATTACK_SECONDS)
            during = f"[{ATTACK_SECONDS - 1}s]"
            assert ask(f"min_over_time(up{during})") == 1
            slowest = ask(f"max_over_time(scrape_duration_seconds{during})")
            memory = ask(f"max_over_time(process_resident_memory_bytes{during})")
        assert scraped() - before >= ATTACK_SECONDS / 2 - 2
        assert slowest is not None
        assert slowest < 2
        assert memory is not None
        assert memory < 128 * MIB
        assert min(attackers.done.values()) > 0
        assert attackers.done["idle"] >= 1000
        assert ask("min_over_time(hms_up[10m])") == 1
