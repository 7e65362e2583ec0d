"""How a program of this project ends: exceptions become a message on stderr and an exit code."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
import traceback
from typing import TYPE_CHECKING, TextIO

from oncoshift.errors import CRASHED, INTERRUPTED, READER_GONE, OncoshiftError
from oncoshift.files import FULL
from oncoshift.logs import log_as_json
from oncoshift.secrets import remove_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_REMEDIES = {
    errno.EACCES: "give this user the right to it, or work in another folder",
    errno.EPERM: "give this user the right to it, or work in another folder",
    errno.EROFS: "work in a folder that can be written to",
    **dict.fromkeys(FULL, "make room, and start it again"),
}
"""Errors of the operating system that any read or write may raise → what the user can do."""


def run_program(body: Callable[[], int | None], streams: Sequence[str] = ("stderr", "stdout")) -> int:
    """Run a program to its end.

    Args:
        body: the program; returns an exit code unless it is 0.
        streams: those that become JSON where logs are to be JSON.

    Returns:
        The exit code; `oncoshift.errors` lists them. An unexpected exception prints its traceback
        and is a crash.
    """
    show_any_text()
    log_as_json(streams)
    try:
        code = body() or 0
        sys.stdout.flush()
    except OncoshiftError as error:
        print(f"{error.heading}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _has_lost_reader(sys.stdout):
            _drop_output()
            return READER_GONE
        if isinstance(error, OSError) and (words := _explain_refusal(error)):
            print(f"error: {words}", file=sys.stderr)
            try:
                sys.stdout.flush()
            except OSError:  # it is what cannot be written to
                _drop_output()
            return OncoshiftError.exit_code
        sys.stderr.write(remove_credentials(traceback.format_exc()))
        print("crashed: this is a fault of the program; please report it with the lines above", file=sys.stderr)
        return CRASHED
    return code


def _explain_refusal(error: OSError) -> str | None:
    """Describe what the system refused and what to do about it; None for other errors.

    The error of a full disk comes from a write and names no file, unlike that of an open.
    """
    if error.errno not in _REMEDIES or (error.filename is None and error.errno not in FULL):
        return None
    named = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    return f"{named}{error.strerror}; {_REMEDIES[error.errno]}"


def _drop_output() -> None:
    """Redirect stdout to the null device, as the flush at exit would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _has_lost_reader(stream: TextIO) -> bool:
    """Return whether the reader of this stream is gone (`| head`); another pipe may have broken."""
    poll = select.poll()
    poll.register(stream, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def show_any_text() -> None:
    """Let stdout and stderr print any text, with escapes for characters outside their encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
