"""Every counting decision.  Pure: no socket, no file, no clock."""
