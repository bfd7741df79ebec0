"""Rewrites an image's archive (`docker save`'s form) without what differs from build to build: the names of the build's containers.

Layers stay as they are.  It runs with the standard library alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
from pathlib import Path
from typing import IO, Any


def plain(config: dict[str, Any]) -> dict[str, Any]:
    """An image's configuration without its build's traces."""
    kept = {key: value for key, value in config.items() if key not in {"container", "container_config"}}
    kept["config"] = {key: value for key, value in config["config"].items() if key not in {"Hostname", "Image"}}
    return kept


def rewrite(path: Path) -> None:
    """Rewrites the archive in its place."""
    scratch = path.with_name(path.name + ".new")
    with tarfile.open(path) as old, tarfile.open(scratch, "w", format=tarfile.USTAR_FORMAT) as new:

        def member(name: str) -> IO[bytes]:
            found = old.extractfile(name)
            assert found is not None, name
            return found

        def add(name: str, size: int, content: Any) -> None:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = size, 0o644
            new.addfile(entry, content)

        (image,) = json.load(member("manifest.json"))
        config = json.dumps(plain(json.load(member(image["Config"]))), separators=(",", ":"), sort_keys=True).encode()
        image["Config"] = f"{hashlib.sha256(config).hexdigest()}.json"
        for layer in image["Layers"]:
            source = old.getmember(layer)
            add(layer, source.size, member(layer))
        add(image["Config"], len(config), io.BytesIO(config))
        manifest = json.dumps([image]).encode()
        add("manifest.json", len(manifest), io.BytesIO(manifest))
    scratch.replace(path)


if __name__ == "__main__":
    rewrite(Path(sys.argv[1]))
