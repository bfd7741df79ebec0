"""Rewrites an image's archive (in the form of `docker save`) without the parts that differ from build to build.

These are the names of the build's containers, and times after the epoch, which become the epoch.  A layer without such times
stays as it is.  The script needs only the standard library.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import sys
import tarfile
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any


def plain(config: dict[str, Any], epoch: int) -> dict[str, Any]:
    """An image's configuration without traces of its build."""
    moment = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def dated(part: dict[str, Any]) -> dict[str, Any]:
        later = part.get("created", "")[:19] > moment[:19]
        return {**part, "created": moment} if later else part

    kept = {key: value for key, value in config.items() if key not in {"container", "container_config"}}
    kept["config"] = {key: value for key, value in config["config"].items() if key not in {"Hostname", "Image"}}
    if "history" in kept:
        kept["history"] = [dated(step) for step in kept["history"]]
    return dated(kept)


def _unpacked(layer: IO[bytes]) -> io.BufferedRandom:
    """The tar of a layer in a temporary file, decompressed: Docker's newer image store compresses layers."""
    packed = layer.read(2) == b"\x1f\x8b"
    layer.seek(0)
    target = tempfile.TemporaryFile()  # noqa: SIM115 (whoever takes it closes it)
    shutil.copyfileobj(gzip.GzipFile(fileobj=layer) if packed else layer, target)
    target.seek(0)
    return target


def _dated(layer: io.BufferedRandom, epoch: int) -> io.BufferedRandom:
    """The layer, with times after the epoch replaced by the epoch."""
    with tarfile.open(fileobj=layer, mode="r:") as old:
        late = any(entry.mtime > epoch for entry in old)
        if late:
            target = tempfile.TemporaryFile()  # noqa: SIM115 (whoever takes it closes it)
            with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as new:
                for entry in old:
                    entry.mtime = min(int(entry.mtime), epoch)
                    entry.pax_headers = {key: value for key, value in entry.pax_headers.items() if key not in {"mtime", "atime", "ctime"}}
                    new.addfile(entry, old.extractfile(entry) if entry.isreg() else None)
    if not late:
        target = layer
    target.seek(0)
    return target


def rewrite(path: Path, epoch: int) -> None:
    """Rewrites the archive in place."""
    scratch = path.with_name(path.name + ".new")
    with tarfile.open(path) as old, tarfile.open(scratch, "w", format=tarfile.USTAR_FORMAT) as new:

        def member(name: str) -> IO[bytes]:
            found = old.extractfile(name)
            assert found is not None, name
            return found

        def add(name: str, content: IO[bytes]) -> None:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = content.seek(0, io.SEEK_END), 0o644
            content.seek(0)
            new.addfile(entry, content)

        (image,) = json.load(member("manifest.json"))
        config = plain(json.load(member(image["Config"])), epoch)
        sums = []
        for name in image["Layers"]:
            with ExitStack() as files:
                layer = files.enter_context(_unpacked(member(name)))
                layer = files.enter_context(_dated(layer, epoch))
                sums.append(hashlib.file_digest(layer, "sha256").hexdigest())
                add(f"{sums[-1]}.tar", layer)
        config["rootfs"] = {**config["rootfs"], "diff_ids": [f"sha256:{digest}" for digest in sums]}
        text = json.dumps(config, separators=(",", ":"), sort_keys=True).encode()
        name = f"{hashlib.sha256(text).hexdigest()}.json"
        add(name, io.BytesIO(text))
        # Podman and Buildah add a name of their own beside the requested one.
        tags = [tag for tag in image["RepoTags"] if not tag.startswith("localhost/")] or image["RepoTags"]
        manifest = [{"Config": name, "RepoTags": tags, "Layers": [f"{digest}.tar" for digest in sums]}]
        add("manifest.json", io.BytesIO(json.dumps(manifest).encode()))
    scratch.replace(path)


if __name__ == "__main__":
    rewrite(Path(sys.argv[1]), int(sys.argv[2]))
