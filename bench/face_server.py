"""The HTTP server of one checkout, for `bench.beside`: `python FILE SESSIONS` in that checkout's folder.

It prints its port, then answers each line of its input with a line:

- `cpu`: the CPU seconds used so far
- `change SHARE`: makes the pages of the next poll, in which this share of the sessions has changed
- `poll`: begins that poll
- `busy`: whether the poll still runs
- `spend`: the CPU seconds of a whole poll and of compressing its page, which is part of the poll or of the first scrape after it
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Serves until its input ends."""
    # Import the checkout's own code, not the code beside this file: the checkout may be of another version.
    sys.path[0] = os.getcwd()  # noqa: PTH109 (sys.path holds texts)
    from bench import scrape
    from bench.rig import Rig
    from bench.traffic import Traffic

    class Face(scrape._OnlyMetrics):  # noqa: SLF001 (the benchmark's own)
        def unhealthy(self) -> str | None:
            return None

    traffic = Traffic(int(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), traffic, time.time_ns() // 1000)
        rig.bodies = traffic.pages()
        rig.poll()
        http_server: Any = vars(scrape)["http_server"]  # it takes other arguments in other checkouts
        server = http_server(Face(rig.exposition), *_where(), None)
        server.start()
        _tell(server.port)
        poll = threading.Thread()
        for line in sys.stdin:
            if line == "cpu\n":
                _tell(time.process_time())
            elif line.startswith("change "):
                traffic.change(float(line.split()[1]), rig.now + 1_000_000)
                rig.bodies = traffic.pages()
                _tell(1)
            elif line == "poll\n":
                poll = threading.Thread(target=rig.poll, daemon=True)
                poll.start()
                _tell(1)
            elif line == "spend\n":
                before = time.process_time()
                rig.poll_and_compress()
                _tell(time.process_time() - before)
            else:
                _tell(int(poll.is_alive()))
        os._exit(0)  # without waiting for a poll that still runs


def _where() -> tuple[Any, ...]:
    """The arguments for the address in this checkout's `http_server`."""
    try:
        from exporter.web.listeners import listen
    except ImportError:  # a checkout without `listeners`
        return "127.0.0.1", 0
    return ([listen("127.0.0.1", 0)],)


def _tell(figure: float) -> None:
    sys.stdout.write(f"{figure}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
