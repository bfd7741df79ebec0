"""Certificates for tests, made by openssl on demand."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.programs import require


def make_certificate(
    folder: Path, name: str, *, sans: str = "IP:127.0.0.1", authority: str | None = None, password: str | None = None
) -> Path:
    """Makes `name`.pem with its key `name`.key, valid for two days and signed by `authority` of the same folder, or by itself."""
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2", "-subj", f"/CN={name}"]
    lock = ["-noenc"] if password is None else ["-passout", f"pass:{password}"]
    signer = [] if authority is None else ["-CA", f"{authority}.pem", "-CAkey", f"{authority}.key"]
    basic = [] if authority is None else ["-addext", "basicConstraints=critical,CA:FALSE"]
    files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
    command = [require("openssl"), "req", "-x509", *kind, *lock, *signer, "-addext", f"subjectAltName={sans}", *basic, *files]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / f"{name}.pem"
