"""The process: `hms-exporter` and `python -m exporter` begin and end here.

Signals come first: SIGTERM and SIGINT end the process with exit code 0 from the first instant, before anything slow is
imported.  A command that has something to tidy up installs handlers of its own.
"""

import os
import signal
import sys

_STOP = (signal.SIGINT, signal.SIGTERM)


def main() -> int:
    """Runs the command line of this process; returns its exit code."""
    try:
        for number in _STOP:
            # Not `sys.exit`: an exception that is raised during an import or in a callback may be swallowed.
            signal.signal(number, lambda *_: os._exit(0))
    except KeyboardInterrupt:
        os._exit(0)
    try:
        from exporter import cli

        return cli.main()
    finally:
        # The work is done: a signal that arrives while Python shuts down no longer changes the exit code.
        for number in _STOP:
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
