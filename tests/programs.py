"""Other people's programs that some tests need."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal

import pytest

TOOLS = Path(__file__).resolve().parent.parent / ".tools"
"""Where `make tools` puts them."""


def require(name: str, *, generation: Literal[2, 3] = 3) -> str:
    """The path of a program: from `bin` below HMS_TOOLS_DIR, which is where `make tools` puts it unless set, else from PATH.

    Prometheus's programs of the older `generation` are looked for below HMS_TOOLS_DIR_2, and nowhere else.  Without the program
    the test is skipped, or fails where HMS_REQUIRE_PROGRAMS=1 says that nothing may be left out.
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
