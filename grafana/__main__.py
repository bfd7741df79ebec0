"""Writes every dashboard's JSON beside the code: `python -m grafana`."""

from __future__ import annotations

from pathlib import Path

from grafana.build import rendered

FOLDER = Path(__file__).parent / "dashboards"


def main() -> None:
    """Writes the files, and removes those of dashboards that are no more."""
    pages = rendered()
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.json"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
