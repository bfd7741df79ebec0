"""Renders values, labels and histograms, for the text format and for OpenMetrics alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from exporter.counting.accounts import Histogram
from exporter.counting.contribution import Account
from exporter.times import SECOND


def escape(value: str) -> str:
    """A label's value, with the characters escaped that both formats require."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def account_labels(workspace: str, label: str, account: Account) -> str:
    """The labels of an account named `label`, without braces."""
    room_id = f'room_id="{escape(account.id)}",' if account.kind == "room" else ""
    return f'workspace="{escape(workspace)}",{room_id}room="{escape(label)}"'


def seconds(micros: int) -> str:
    """Microseconds as seconds, with all their digits."""
    return repr(micros / SECOND)


_encode = msgspec.json.Encoder().encode


def time_lines(starts: Sequence[bytes], micros: Sequence[int], ends: Sequence[bytes] = ()) -> bytes:
    """Lines that begin with `starts` and show these times in seconds, each followed by its entry in `ends` if there are any.

    One call encodes all numbers as JSON, which gives the shortest text of a float like `repr`, in a seventh of the time.  Only for
    times below 0.1 ms the notation differs (`7e-6`, `0.000047`).
    """
    if not starts:
        return b""
    parts = [b"\n"] * (3 * len(starts))
    parts[::3] = starts
    parts[1::3] = _encode([time / SECOND for time in micros])[1:-1].split(b",")
    if ends:
        parts[2::3] = ends
    return b"".join(parts)


def created_line(name: str, labels: str, born: int | None) -> str:
    """When a counter or histogram began; empty if unknown.  `labels` include braces and a space at the end."""
    return f"{name.removesuffix('_total')}_created{labels}{seconds(born)}\n" if born else ""


def histogram_lines(name: str, labels: str, histogram: Histogram, scale: int, *, created: bool) -> str:
    """A histogram's lines; `labels` have no braces.  `scale` is how many units of `total` make one published unit."""
    lines = "".join(_lines(name, labels, histogram, scale))
    return lines + created_line(name, f"{{{labels}}} ", histogram.born) if created else lines


def _lines(name: str, labels: str, histogram: Histogram, scale: int) -> Iterable[str]:
    count = 0
    for bound, observed in zip((*histogram.bounds, None), histogram.counts, strict=True):
        count += observed
        yield f'{name}_bucket{{{labels},le="{"+Inf" if bound is None else float(bound)}"}} {count}\n'
    yield f"{name}_count{{{labels}}} {count}\n"
    yield f"{name}_sum{{{labels}}} {seconds(histogram.total) if scale == SECOND else histogram.total}\n"
