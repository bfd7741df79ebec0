"""`hms-exporter backfill`: the past as the exporter would have published it, for `promtool tsdb create-blocks-from openmetrics`.

In three passes, so that memory stays small whatever the range: `gather` reads the sessions of the range into a work file
beside the output (and goes on there when it was interrupted), `arrange` decides whose series each session belongs to and
lays out what begins and ends in them in order of time, `write` sweeps over each series once for each of its families.
`series` is the arithmetic of it, pure; `seen` is what the live exporter's state file adds to the records.  `jobs` plans and
reads recordings and streams, `jobs_write` writes them.

Where zero is.  A session counts towards the live counters when it ended after the exporter's `since`, and then whole.  The
same is counted here: a series' value is what all sessions had contributed by then, less what those that ended by `since`
came to.  So the last value written here and the first one scraped there are of one curve; for each role as well, because
time is credited to the roles in which the live exporter saw the peers that were there when its series began.  Before
`since` that curve is negative, where sessions ended that the live exporter never counts; `increase()` and `rate()` go by
differences alone.
"""

from exporter.commands.backfill.command import add_arguments, run

__all__ = ["add_arguments", "run"]
