"""Other people's programs that some tests need."""

from __future__ import annotations

import os
import shutil

import pytest


def require(name: str) -> str:
    """The path of a program: from `bin` below HMS_TOOLS_DIR if it is there, else from PATH.

    Without it the test is skipped, or fails where HMS_REQUIRE_PROGRAMS=1 says that nothing may be left out.
    """
    tools = os.environ.get("HMS_TOOLS_DIR")
    found = (shutil.which(name, path=os.path.join(tools, "bin")) if tools else None) or shutil.which(name)  # noqa: PTH118 - a search path
    if found is not None:
        return found
    if os.environ.get("HMS_REQUIRE_PROGRAMS") == "1":
        pytest.fail(f"{name} is not installed, and HMS_REQUIRE_PROGRAMS=1 asks for every program")
    pytest.skip(f"{name} is not installed")
