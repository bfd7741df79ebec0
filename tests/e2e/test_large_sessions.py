"""The whole program counts thirty-one simultaneous sessions of 20,000 peers exactly, within 400 MiB."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from exporter.simulator import real_clock
from exporter.times import SECOND, rfc3339
from tests.e2e.program import Program, configure, running, total, wait_until

SESSIONS, PEERS = 31, 20_000
MOST = 400 * 1024
"""KiB."""


class Halls:
    """An API with these sessions only: all run until `end`, then all have ended."""

    def __init__(self) -> None:
        self.began = real_clock() - 600 * SECOND
        self.left = b""
        """The moment when the first half of the peers left. While it is empty, nobody has left."""
        self.ended_at: int | None = None

    def session(self, number: int) -> Iterator[bytes]:
        """A session's record, of some 250 bytes a peer, in pieces."""
        active = self.ended_at is None
        updated = rfc3339(self.ended_at if self.ended_at is not None else self.began, 3)
        head = {"id": f"{number:024x}", "room_id": f"{number:024d}", "active": active}
        yield json.dumps({**head, "created_at": rfc3339(self.began, 3), "updated_at": updated})[:-1].encode() + b', "peers": {'
        stay = f'"name": "{"Some person " * 4}", "role": "guest", "user_id": "{"u" * 40}", "joined_at": "{rfc3339(self.began, 3)}"'.encode()
        gone = b', "left_at": "%s"' % self.left if self.left else b""
        peers = []
        for peer in range(PEERS):
            peers.append(b'"%08x-6f18-4a04-b7ad-%012d": {%s%s}' % (number, peer, stay, gone if peer % 2 else b""))
            if len(peers) == 1000:
                yield (b", " if peer >= 1000 else b"") + b", ".join(peers)
                peers.clear()
        yield b"}}"

    def answer(self, path: str, query: dict[str, str]) -> Iterator[bytes]:
        """The body of an answer."""
        name = path.rpartition("/")[2]
        if re.fullmatch("[0-9a-f]{24}", name) and "/sessions/" in path:
            yield from self.session(int(name, 16))
            return
        listed = name == "sessions" and query.get("active") in (None, "true" if self.ended_at is None else "false")
        if not listed:
            yield b'{"data": []}'
            return
        size, start = int(query["limit"]), int(query.get("start") or 0)
        until = min(SESSIONS, start + size)
        yield b'{"limit": %d, "data": [' % size
        for number in range(start, until):
            yield b", " if number > start else b""
            yield from self.session(number)
        yield b'], "last": "%s"}' % (b"%d" % until if until < SESSIONS else b"")


@contextmanager
def serving(halls: Halls) -> Iterator[str]:
    """The address of that API."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"  # the body ends with the connection

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            self.send_response(200)
            self.end_headers()
            try:
                for piece in halls.answer(parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()}):
                    self.wfile.write(piece)
            except OSError:
                pass  # the exporter has cut off the answer, and will ask for a smaller page

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v2"
        server.shutdown()


def most_memory(program: Program) -> int:
    """The largest memory of the process so far (KiB)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{program.process.pid}/status").read_text())
    assert found is not None
    return int(found[1])


def sums_to(program: Program, name: str, value: float) -> bool:
    """Whether all series of this name add up to this."""
    return total(program.metrics(), name) == value


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_thirty_one_sessions_of_20000_peers_are_counted_within_400_mib(tmp_path: Path) -> None:
    halls = Halls()
    everybody = SESSIONS * PEERS
    with serving(halls) as url:
        workspace = {"name": "default", "management_token": "token"}
        slow: Any = {"api": {"timeout": "120s", "max_requests_per_second": 100}, "poll": {"interval": "5s"}}
        with running(tmp_path, f"--config.file={configure(tmp_path, url, workspace, **slow)}") as program:
            wait_until(lambda: sums_to(program, "hms_peers_active", everybody), 150)
            assert program.get("/metrics", **{"Accept-Encoding": "gzip"}).status_code == 200
            halls.left = rfc3339(real_clock(), 3).encode()
            wait_until(lambda: sums_to(program, "hms_peers_left_total", everybody // 2), 150)
            time.sleep(0.1)  # the sessions end a moment after the peers left
            halls.ended_at = real_clock()
            wait_until(lambda: sums_to(program, "hms_sessions_ended_total", SESSIONS), 150)
            assert sums_to(program, "hms_peers_joined_total", everybody)
            assert sums_to(program, "hms_peers_left_total", everybody)
            assert sums_to(program, "hms_session_peers_sum", everybody)
            wait_until(lambda: sums_to(program, "hms_up", 1), 60)
            assert most_memory(program) <= MOST, f"{most_memory(program) / 1024:.0f} MiB"
