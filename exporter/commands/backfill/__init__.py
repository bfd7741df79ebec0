"""`hms-exporter backfill`: writes the past as the exporter would have published it, for `promtool tsdb create-blocks-from openmetrics`.

It makes three passes, so that memory stays small for any range.  `gather` reads the sessions of the range into a work file beside
the output, and continues there after an interruption.  `arrange` decides which series each session belongs to, and sorts the
beginnings and ends in each series by time.  `write` goes over each series once for each of its families.  `series` is the pure
arithmetic; `seen` adds what only the live exporter's state knows.  `jobs` plans and reads recordings and streams, `jobs_write`
writes them.

Where zero is.  The live counters count every session that ended after the exporter's `since`, as a whole.  The backfill counts the
same way: a series' value is the contribution of all sessions so far, minus that of the sessions that ended by `since`.  So the
last value of the backfill and the first scraped one are on the same curve.  This is also true for each role, because time is
credited to the roles in which the live exporter saw the peers that were there when its series began.  Before `since` the curve
is negative if sessions ended that the live exporter never counts; `increase()` and `rate()` depend only on differences.
"""

from exporter.commands.backfill.command import add_arguments, run

__all__ = ["add_arguments", "run"]
