"""Logging of flows: one line for an error that the user can fix, a traceback only for a bug."""

from __future__ import annotations

import logging

from oncoshift.errors import OncoshiftError
from oncoshift.logs import log_as_json

_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


def log_errors_in_one_line() -> None:
    """Make Prefect log the message of an `OncoshiftError` once instead of a traceback per task.

    Where logs are to be JSON, what a flow prints becomes so, too.
    """
    log_as_json()
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if _drop_traceback not in logger.filters:
            logger.addFilter(_drop_traceback)


def _drop_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    if not isinstance(error, OncoshiftError):
        return True
    record.msg, record.args, record.exc_info, record.exc_text = f"{error.heading}: {error}", (), None, None
    return record.name == "prefect.flow_runs"
