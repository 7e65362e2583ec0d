"""Logs as JSON, one object a line, for programs that collect them.

    {"time": "2026-11-27T02:00:01.123Z", "level": "info", "step": "train-dann-s0", "message": "…"}

With `--log-format json`, or the variable `ONCOSHIFT_LOG_FORMAT`, all that a command or a flow would
print for people becomes such lines, whatever library prints it. Output that programs read already
(`--json`, the rows of `score`, `audit`) stays as it is.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from oncoshift.secrets import remove_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FORMAT_VARIABLE = "ONCOSHIFT_LOG_FORMAT"
FORMATS = ("text", "json")

step: ContextVar[str] = ContextVar("step", default="")
"""The step at work: a command, and within a retraining the step whose run is open."""

_LEVELS = {"error": "error", "crashed": "error", "interrupted": "error", "stopped": "warning", "warning": "warning"}
_START = '{"time": '


@contextmanager
def working_on(name: str) -> Iterator[None]:
    """Name the step that the block, or a function decorated with this, works on."""
    token = step.set(name)
    try:
        yield
    finally:
        step.reset(token)


def is_json() -> bool:
    """Tell whether logs are to be JSON."""
    return os.environ.get(FORMAT_VARIABLE) == "json"


def format_line(level: str, message: str, at: float | None = None, where: str = "") -> str:
    """Format a line.

    Args:
        level: debug, info, warning or error.
        message: may have several lines; credentials in URLs are removed.
        at: time in seconds since 1970; None for now.
        where: the step, if it is not the one at work.
    """
    time = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    stamp = time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    values = {"time": stamp, "level": level, "step": where or step.get(), "message": remove_credentials(message)}
    return json.dumps(values, ensure_ascii=False)


class JsonFormatter(logging.Formatter):
    """Formats records of `logging`; those of Prefect's tasks name their step."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record, with the traceback of an error in its message."""
        level = record.levelname.lower().replace("critical", "error")
        return format_line(level, super().format(record), record.created, getattr(record, "task_run_name", ""))


class JsonLines(io.TextIOBase):
    """A stream that turns what is printed to it into lines of JSON, each print into one.

    Args:
        stream: receives the lines.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._held = stream, ""

    def write(self, text: str) -> int:
        """Hold text until its line ends; lines that are JSON already pass."""
        self._held += text
        if self._held.endswith("\n"):
            self._emit(self._held.strip("\r\n"))
            self._held = ""
        return len(text)

    def _emit(self, message: str) -> None:
        lines = message.splitlines()
        if not message.strip():
            return
        if not all(line.startswith(_START) for line in lines):
            level = _LEVELS.get(message.partition(":")[0].strip(), "info")
            lines = [format_line(level, message)]
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()

    def fileno(self) -> int:
        """Return the stream's file descriptor."""
        return self._stream.fileno()

    def writable(self) -> bool:
        """Return True."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's encoding."""
        return self._stream.encoding


def log_as_json(names: Sequence[str] = ("stderr", "stdout")) -> None:
    """Turn what this process logs and prints into JSON, if that is asked for; once is enough.

    Args:
        names: of the streams; a command whose stdout is data passes `stderr` alone.
    """
    if not is_json():
        return
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    if not any(isinstance(handler.formatter, JsonFormatter) for handler in root.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
        root.handlers = [handler, *(each for each in root.handlers if not isinstance(each, logging.StreamHandler))]
    for name in names:
        stream = getattr(sys, name)
        if not isinstance(stream, JsonLines):
            setattr(sys, name, JsonLines(stream))
