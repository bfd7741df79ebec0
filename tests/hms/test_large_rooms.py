"""Sessions of 20,000 peers and more over real HTTP: page sizes, streamed pages, and memory."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]


def session(peers: int) -> bytes:
    """A session's record, of some 250 bytes for each peer."""
    stay = {"name": "Some person " * 4, "role": "guest", "user_id": "u" * 40, "joined_at": "2026-02-11T04:43:46.306Z"}
    stays = {f"860aa563-6f18-4a04-b7ad-{number:012d}": stay for number in range(peers)}
    times = {"created_at": "2026-02-11T04:43:46.294Z", "updated_at": "2026-02-11T04:51:02.75Z"}
    return json.dumps({"id": "s0001", "room_id": "r", "active": True, **times, "peers": stays}, separators=(",", ":")).encode()


@contextmanager
def serving(records: int, record: bytes) -> Iterator[tuple[str, list[str]]]:
    """A server of `count` such records.  Yields its address and the list of requested limits."""
    limits: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            if "limit" not in query:
                self._send([b'{"id":"one"}'])
                return
            limits.append(query["limit"][0])
            size, start = int(query["limit"][0]), int(query.get("start", ["0"])[0])
            shown = min(size, records - start)
            pieces = [b'{"limit":%d,"data":[' % size]
            for serial in range(start, start + shown):
                pieces += [b'{"id":"s%04d"' % serial, record[len(b'{"id":"s0001"') :], b","]
            last = b"%d" % (start + shown) if start + shown < records else b""
            self._send([*pieces[:-1], b'],"last":"%s"}' % last])

        def _send(self, pieces: list[bytes]) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(sum(map(len, pieces))))
            self.end_headers()
            try:
                for piece in pieces:
                    self.wfile.write(piece)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v2", limits
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("records", "peers", "pages", "parts"),
    [(31, 20_000, ["100", "10", "10", "10", "10"], 4), (10, 40_000, ["100", "10"], 5)],
    ids=["thirty of 20,000 peers", "a page of ten above 64 MiB"],
)
def test_large_sessions_are_read_within_memory(records: int, peers: int, pages: list[str], parts: int) -> None:
    record = session(peers)
    with serving(records, record) as (url, limits):
        done = subprocess.run(
            [sys.executable, "-m", "tests.hms.large_rooms", url], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == 0, done.stderr
    found, in_parts, stays, memory = map(int, done.stdout.split())
    assert (found, stays) == (records, records * peers)
    assert limits == pages
    assert in_parts >= parts
    assert memory < 300 * 1024
    assert done.stderr == ""
