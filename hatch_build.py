"""Metadata for the package index: the README without links that are dead there, and the project's addresses.

The README links to files of the project, which a package index does not have.  With HMS_REPOSITORY_URL in the environment
(`make dist REPOSITORY=https://...` sets it) those links lead to the repository.  Without it the links become plain text, and
the pictures are left out.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\((?![a-z]+:|#)([^)\s]+)\)")


def whole(readme: str, repository: str | None) -> str:
    """The README without relative links."""

    def elsewhere(link: re.Match[str]) -> str:
        picture, text, target = link.groups()
        if repository:
            return f"{picture}[{text}]({repository}/{'raw' if picture else 'blob'}/HEAD/{target})"
        return "" if picture else text

    return _LINK.sub(elsewhere, readme)


class ReadmeHook(MetadataHookInterface):
    """Called by hatchling when it makes the metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Adds the README, and the addresses if the repository is known."""
        repository = os.environ.get("HMS_REPOSITORY_URL", "").rstrip("/") or None
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": whole(readme, repository)}
        metadata["urls"] = {"100ms": "https://www.100ms.live"}
        if repository:
            metadata["urls"] |= {
                "Source": repository,
                "Documentation": f"{repository}/tree/HEAD/docs",
                "Changelog": f"{repository}/blob/HEAD/CHANGELOG.md",
                "Issues": f"{repository}/issues",
            }
