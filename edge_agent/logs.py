"""Logs as JSON lines on stderr, one event each, for journald and for the plant's log shipper."""

from __future__ import annotations

import logging
import sys

import structlog


def configure(*, edge: str, line: str, level: int = logging.INFO) -> None:
    """Set up structlog for this process; libraries that use `logging` report warnings through it."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format='{"event":"%(name)s: %(message)s"}')
    structlog.contextvars.bind_contextvars(edge=edge, line=line)
