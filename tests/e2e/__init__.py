"""The real program as a process, against the simulated API over HTTP."""

import pytest

pytest.register_assert_rewrite("tests.e2e.program")
