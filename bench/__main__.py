"""`python -m bench`: runs every measurement in a process of its own, and prints one table at the end."""

from __future__ import annotations

import argparse
import sys
import time

from bench.report import Row, header, table
from bench.suite import NAMES, measure


def main() -> int:
    """Measures and prints; returns 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=NAMES, metavar="NAME", help=f"one of {', '.join(NAMES)}; may be repeated")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that everything runs, reaches no size with a goal")
    options = parser.parse_args()
    names = options.only or NAMES
    sys.stdout.write(header() + "\n\n")
    rows: list[Row] = []
    for name in names:
        started = time.monotonic()
        rows += measure(name, quick=options.quick)
        sys.stderr.write(f"{name}: {time.monotonic() - started:.0f} s\n")
    sys.stdout.write(table(rows) + "\n")
    missed = [row for row in rows if row.met is False]
    sys.stdout.write(f"\n{sum(row.met is True for row in rows)} goals met, {len(missed)} missed.\n")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
