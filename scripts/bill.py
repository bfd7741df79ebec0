"""Compares a bill of materials (CycloneDX, JSON) with requirements.lock: it must list every package of the image and no other.

Exit code 1 if they differ.  The last lines name the differences.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)


def differences(bill: dict[str, Any], lock: str) -> list[str]:
    """The packages, with versions, that only the bill or only the lock names."""
    listed = {(_normal(part["name"]), part["version"]) for part in bill["components"]}
    pinned = {(_normal(name), version) for name, version in _PINNED.findall(lock)}
    return [
        *(f"not in the bill: {name} {version}" for name, version in sorted(pinned - listed)),
        *(f"not in the lock: {name} {version}" for name, version in sorted(listed - pinned)),
        *([] if bill["metadata"]["component"]["name"] == "hms-exporter" else ["the bill is not that of hms-exporter"]),
    ]


def _normal(name: str) -> str:
    """A package's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def main(bill: str, lock: str = "requirements.lock") -> int:
    """Compares two files."""
    found = differences(json.loads(Path(bill).read_text(encoding="utf-8")), Path(lock).read_text(encoding="utf-8"))
    sys.stdout.write("\n".join(found or [f"{bill} lists what {lock} pins"]) + "\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
