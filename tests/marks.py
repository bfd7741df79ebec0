"""Marks for the cases of a test that `make quick` leaves out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def first_quick(cases: Iterable[Any], quick: int = 1) -> list[Any]:
    """Parameters of a test: `make quick` runs the first ones, `make test` runs all."""
    return [case if place < quick else pytest.param(case, marks=pytest.mark.slow) for place, case in enumerate(cases)]
