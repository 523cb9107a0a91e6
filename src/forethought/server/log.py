"""What the server says while it runs: one JSON object a line, for machines to read.

Only fields that are named here are written, so that no prompt, answer or key gets in; what is not ASCII, control
characters among it, is escaped.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import TYPE_CHECKING, TextIO

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

FIELDS = frozenset({
    "event", "level", "timestamp", "request_id", "trace_id", "caller", "method", "path", "status", "duration_ms",
    "model", "verdict", "rules", "cause", "finish_reason", "stream", "prompt_tokens", "thought_tokens",
    "answer_tokens", "host", "port", "policy", "error", "waiting", "running", "upstream",
})  # fmt: skip
_LONGEST = 300
_KEY = re.compile(r"\b(?:ft|sk)-[\w-]{8,}|(?i:bearer)\s+\S+")


def make_log(stream: TextIO | None = None, level: int = logging.INFO) -> FilteringBoundLogger:
    """A logger of the server's own; `stream` None is standard error. Nothing global is set up."""
    log: FilteringBoundLogger = structlog.wrap_logger(
        structlog.WriteLogger(stream or sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _named_fields_alone,
            structlog.processors.JSONRenderer(ensure_ascii=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    return log


class OurHandler(logging.Handler):
    """Takes what a library logs, and writes it as the server does."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        error = f"{record.exc_info[0].__name__}" if record.exc_info and record.exc_info[0] else ""
        self._log.log(record.levelno, record.getMessage(), **({"error": error} if error else {}))


def _named_fields_alone(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return {key: _plain(value) for key, value in event.items() if key in FIELDS}


def _plain(value: object) -> object:
    """Short, and without what looks like a key."""
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return _KEY.sub("[key]", str(value))[:_LONGEST]
