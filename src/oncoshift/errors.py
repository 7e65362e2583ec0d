"""Errors that a user can fix: each says what is wrong, where, and what to do about it.

A program that ends with one prints its message without a traceback. The exit code tells a scheduler
what to do:

- 0: done
- 1: `oncoshift score --strict` met images that it could not score; `oncoshift doctor` warns
- 2: a mistake to fix (settings, data, the command line); a retry would end the same way
- 3: `oncoshift leaks` found copies on two sides of a split
- 69: a server or a database does not answer; try again later
- 70: a crash, that is, a bug, with a traceback
- 75: stopped by SIGTERM, or a child process was killed; a restart resumes
- 128 + N: ended by signal N: 130 by Ctrl-C, 137 by SIGKILL, 141 when the reader of its output is
  gone (`| head`)

69, 70 and 75 are EX_UNAVAILABLE, EX_SOFTWARE and EX_TEMPFAIL of sysexits.h.
"""

from __future__ import annotations

from oncoshift.secrets import remove_credentials

CRASHED = 70
INTERRUPTED = 130
READER_GONE = 141


class OncoshiftError(Exception):
    """Base of every error raised on purpose; the CLI prints it without a traceback.

    Args:
        message: what is wrong, where, and what to do. Credentials in URLs are removed from it,
            including those in quoted messages of other libraries.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(remove_credentials(message))

    heading = "error"
    """Printed before the message when it ends a program."""
    exit_code = 2
    """Exit code of a program that it ends."""


class SettingsError(OncoshiftError):
    """A key or value in params.yaml, a preset or `--set` is not allowed."""


class DataError(OncoshiftError):
    """Tiles, labels or groups cannot be used as they are."""


class WeightsError(OncoshiftError):
    """Pretrained weights are missing or do not fit the backbone."""


class TrainingError(OncoshiftError):
    """Training cannot continue (a non-finite loss, a checkpoint of another job)."""


class UntrainableError(TrainingError):
    """The method cannot be trained on these data with these settings, however often it is tried."""


class ProcessLostError(TrainingError):
    """One of several processes that train together was killed or failed; a restart resumes."""

    exit_code = 75


class ChildError(OncoshiftError):
    """Work in a process of its own has failed.

    Args:
        message: see `OncoshiftError`.
        exit_code: exit code of the program, mostly that of the other process.
    """

    def __init__(self, message: str, exit_code: int = OncoshiftError.exit_code) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UnavailableError(OncoshiftError):
    """A server or a database does not answer; a later try may succeed."""

    exit_code = 69


class TrainingInterrupted(OncoshiftError):  # noqa: N818 - not an error
    """Training was asked to stop and wrote a checkpoint, from which a restart resumes."""

    heading = "stopped"
    exit_code = 75


class RegistryError(OncoshiftError):
    """A model version or an alias is missing, or the requested move is not allowed."""
