"""Client errors, counted call by call: each call's errors are read once, after it has ended.

Pure; times are the API's, in integer microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable

from exporter.counting.changes import Over
from exporter.counting.sums import Series, Sums
from exporter.counting.webhooks import WORKSPACE
from exporter.hms.client_errors import OTHER, ClientError
from exporter.times import DAY

ERRORS, BY_SDK, CODES = "errors", "errors_by_sdk", "codes"
"""`CODES` is not published: it remembers which codes have a label of their own."""
MOST_CODES = 100
"""The maximum number of codes in a workspace: errors with codes that come later share the label `other`."""
MOST_SDKS = 20
"""The same for the kinds of clients."""
TOLD_FOR = 30 * DAY
"""100ms forgets events after this time."""


def count(sums: Sums, session_id: str, call: Over, errors: Iterable[ClientError]) -> None:
    """Counts a call's errors, each once; errors of another call, or of none, are left out."""
    counted: set[str] = set()
    for error in errors:
        if error.session_id != session_id or error.id in counted:
            continue
        counted.add(error.id)
        sums.add(call.account, Series(ERRORS, (error.type, _code(sums, error.code, call.started))), 1, call.started)
        sums.add(WORKSPACE, Series(BY_SDK, (error.type, _sdk(sums, error.sdk))), 1, call.started)


def _code(sums: Sums, code: str, at: int) -> str:
    known = Series(CODES, (code,))
    if known in sums.of_workspace:
        return code
    if sum(series.name == CODES for series in sums.of_workspace) >= MOST_CODES:
        return OTHER
    sums.add(WORKSPACE, known, 1, at)
    return code


def _sdk(sums: Sums, sdk: str) -> str:
    known = {series.labels[1] for series in sums.of_workspace if series.name == BY_SDK}
    return sdk if sdk in known or len(known - {OTHER}) < MOST_SDKS else OTHER
