"""Logs as JSON lines on stderr, one event each, for journald and for the plant's log shipper."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor


def configure(*, edge: str, line: str, level: int = logging.INFO) -> None:
    """Set up this process's logging; what libraries say through `logging` takes the same form."""
    shared: list[Processor] = [
        _adding(edge=edge, line=line),
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Without the locals of each frame: they hold keys, commands and whole images.
    frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    last: list[Processor] = [
        structlog.processors.ExceptionRenderer(frames),
        structlog.processors.JSONRenderer(sort_keys=True),
    ]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("edge_agent").setLevel(level)


def _adding(**fields: str) -> Processor:
    """Threads do not inherit context variables, so what never changes is added to every event."""

    def add(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {**fields, **event}

    return add
