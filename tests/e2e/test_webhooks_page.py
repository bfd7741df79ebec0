"""Follows docs/webhooks.md: its configuration, its proxy with a real nginx, its curl."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import requests
import yaml

from exporter.simulator import SimulatedApi
from tests.docs.pages import blocks, page, section
from tests.e2e.program import Program, configure, environment, running, total, wait_until
from tests.programs import require

PAGE = page("docs/webhooks.md")
TOKEN, SIGNATURE = "c4nary-webhook-token", "c4nary-signature-secret"
NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx-error.log; {user}
events {{}}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
{location}
    }}
}}
"""


@contextlib.contextmanager
def exporter(folder: Path, api: SimulatedApi, **more: str) -> Iterator[Program]:
    """An exporter with the page's own configuration, on a free port."""
    [text] = blocks(section(PAGE, "Switch it on"), "yaml")
    configure(folder, api, webhooks={**yaml.safe_load(text)["webhooks"], "listen_address": "127.0.0.1:0", **more})
    env = environment(HMS_WEBHOOK_TOKEN=TOKEN, HMS_SIGNATURE=SIGNATURE)
    with running(folder, "--config.file=config.yaml", env=env) as program:
        wait_until(lambda: program.get("/-/ready").status_code == 200)
        yield program


def webhooks_address(program: Program) -> str:
    found = wait_until(lambda: re.search(r'msg="listening for webhooks" address=(\S+)', program.log))
    return str(found[1])


@contextlib.contextmanager
def nginx(folder: Path, target: str) -> Iterator[str]:
    """A real nginx in front of the exporter, with the page's block.  Yields its address."""
    executable = require("nginx")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    [location] = blocks(section(PAGE, "Behind a proxy"), "nginx")
    assert "127.0.0.1:10101" in location, "the port of the configuration above"
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        NGINX.format(folder=folder, port=port, user=user, location=location.replace("127.0.0.1:10101", target))
    )
    process = subprocess.Popen([executable, "-p", folder, "-c", folder / "nginx.conf"], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)  # until it listens
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def test_a_signed_webhook_passes_the_pages_proxy_and_what_is_too_large_or_elsewhere_does_not(tmp_path: Path, api: SimulatedApi) -> None:
    def send(path: str, body: bytes) -> int:
        signature = hmac.new(SIGNATURE.encode(), body, hashlib.sha256).hexdigest()
        headers = {"x-hms-token": TOKEN, "x-100ms-signature": signature, "Content-Type": "application/json"}
        return requests.post(f"http://{proxy}{path}", data=body, headers=headers, timeout=10).status_code

    def announce(path: str, size: int) -> int:
        """The answer to a body of this size before it is sent. While a body is sent, the connection might already be closed."""
        connection = http.client.HTTPConnection(proxy, timeout=10)
        connection.putrequest("POST", path)
        connection.putheader("Content-Length", str(size))
        connection.endheaders()
        with contextlib.closing(connection):
            return connection.getresponse().status

    with exporter(tmp_path, api, signature_secret="${HMS_SIGNATURE}") as program, nginx(tmp_path, webhooks_address(program)) as proxy:
        body = json.dumps({"id": "e1", "type": "room.end.success", "data": {"room_name": "Zoë"}}, ensure_ascii=False).encode()
        assert send("/webhooks/default", body) == 200
        # The largest body that the exporter accepts passes the proxy, and the proxy stops a larger one.
        large = b'{"id": "e2", "type": "room.end.success", "data": {"x": "' + b"x" * (64 * 1024 - 60) + b'"}}'
        assert len(large) <= 64 * 1024
        assert send("/webhooks/default", large) == 200
        assert announce("/webhooks/default", len(large) + 1024) == 413
        assert send("/webhooks/other", body) == 404
        assert send("/metrics", body) == 404
        wait_until(lambda: total(program.metrics(), "hms_webhooks_received_total", type="room.end.success") == 2)
        rejected = {reason: total(program.metrics(), "hms_webhooks_rejected_total", reason=reason) for reason in ("secret", "signature")}
        assert rejected == {"secret": 0, "signature": 0}


def test_the_pages_curl_is_answered_200_and_counted_once(tmp_path: Path, api: SimulatedApi) -> None:
    require("curl")
    [command] = blocks(section(PAGE, "Test it with one curl"), "sh")
    assert "localhost:10101" in command
    with exporter(tmp_path, api) as program:
        command = command.replace("localhost:10101", webhooks_address(program))
        for _ in range(2):
            env = environment(HMS_WEBHOOK_TOKEN=TOKEN)
            ran = subprocess.run(["sh", "-euc", command], env=env, capture_output=True, text=True, timeout=20, check=True)
            assert ran.stdout.startswith("HTTP/1.1 200 OK\n")
        wait_until(lambda: total(program.metrics(), "hms_webhooks_received_total", type="room.end.success") == 1)
        time.sleep(1)  # time in which it could be counted twice
        assert total(program.metrics(), "hms_webhooks_received_total", type="room.end.success") == 1
