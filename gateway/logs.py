"""Logs: structlog to stderr, JSON for machines or coloured lines on a terminal. Libraries' own lines go the same way.

Each line names its process, since one terminal or file often holds those of several.
"""

import logging
import os
import sys

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

_UTC = structlog.processors.TimeStamper(fmt="iso", utc=True)


def configure_logs(level: str, form: str, process: str = "") -> None:
    """Set up logging once per process. `form` is json, console or auto (console on a terminal)."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    is_console = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer = structlog.dev.ConsoleRenderer() if is_console else structlog.processors.JSONRenderer()
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False) if is_console else _UTC,
        _named(process),
    ]
    structlog.configure(
        processors=[*processors, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*processors, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[lines], force=True)
    logging.captureWarnings(True)


def _named(process: str) -> Processor:
    """Add which process speaks; a command that ends by itself needs no name."""
    name = {"process": process, "pid": os.getpid()} if process else {}

    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {**event, **name}

    return add
