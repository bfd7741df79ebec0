"""The log: one line for each event on stderr, with UTC times, as logfmt or JSON; an event's details are its fields."""

from __future__ import annotations

import json
import logging
import sys
from typing import Literal

from exporter.times import SECOND, rfc3339

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_WORDS = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warn", logging.ERROR: "error", logging.CRITICAL: "error"}

logger = logging.getLogger("exporter")


def set_up(level: Literal["debug", "info", "warn", "error"], form: Literal["logfmt", "json"]) -> None:
    """Sends the program's events to stderr.  May be called again with other settings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(form))
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(_LEVELS[level])


def event(level: Literal["debug", "info", "warn", "error"], message: str, **fields: object) -> None:
    """Logs one event.  Fields must be free of secrets, user ids and people's names."""
    logger.log(_LEVELS[level], message, extra={"fields": fields})


def failure(message: str, **fields: object) -> None:
    """Logs the current exception as a fault of this program.  It logs only type and place, because the message may hold anything."""
    error = sys.exc_info()[1]
    frame = error.__traceback__ if error is not None else None
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = f"{frame.tb_frame.f_globals.get('__name__', '?')}:{frame.tb_lineno}" if frame is not None else "?"
    event("error", message, error=type(error).__name__, at=place, **fields)


class _Formatter(logging.Formatter):
    def __init__(self, form: Literal["logfmt", "json"]) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        time = rfc3339(round(record.created * SECOND), 3)
        fields = {"time": time, "level": _WORDS.get(record.levelno, "info"), "msg": record.getMessage()}
        fields |= {name: _text(value) for name, value in getattr(record, "fields", {}).items() if value is not None}
        if self._form == "json":
            return json.dumps(fields, ensure_ascii=False)
        return " ".join(f"{name}={_quoted(text)}" for name, text in fields.items())


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _quoted(text: str) -> str:
    """A logfmt value, always on one line; quoted if it holds more than plain characters."""
    if text and all(character.isprintable() and character not in ' "=\\' for character in text):
        return text
    return json.dumps(text, ensure_ascii=False)
