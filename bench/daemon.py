"""The unchanged exporter as a process, with shorter poll intervals than allowed: `python -m bench.daemon CONFIG INTERVAL`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from exporter import logs
from exporter.config.config import load
from exporter.daemon import Daemon


def main() -> None:
    """Runs until a signal stops it."""
    config = load(Path(sys.argv[1]), {})
    config = replace(config, poll=replace(config.poll, interval=float(sys.argv[2])))
    logs.set_up(config.log.level, config.log.format)
    Daemon(config, lambda: config).run()


if __name__ == "__main__":
    main()
