"""External programs that some tests need."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

import pytest

TOOLS = Path(__file__).resolve().parent.parent / ".tools"
"""The folder into which `make tools` puts them."""


def require(name: str, *, generation: Literal[2, 3] = 3) -> str:
    """The path of a program: from `bin` below HMS_TOOLS_DIR (by default the folder of `make tools`), or else from PATH.

    Prometheus's programs of the older `generation` are looked for only below HMS_TOOLS_DIR_2.  Without the program the test is
    skipped, or fails if HMS_REQUIRE_PROGRAMS=1.
    """
    variable, folder = ("HMS_TOOLS_DIR", "prometheus") if generation == 3 else ("HMS_TOOLS_DIR_2", "prometheus-2")
    found = shutil.which(name, path=Path(os.environ.get(variable) or TOOLS / folder) / "bin")
    if generation == 3:
        found = found or shutil.which(name)
    if found is not None:
        return found
    which = name if generation == 3 else f"{name} of generation {generation}"
    if os.environ.get("HMS_REQUIRE_PROGRAMS") == "1":
        pytest.fail(f"{which} is not installed, and HMS_REQUIRE_PROGRAMS=1 asks for every program")
    pytest.skip(f"{which} is not installed; `make tools` fetches it")
