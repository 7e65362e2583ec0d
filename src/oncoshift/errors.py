"""Errors that a user can act on: each says what is wrong, where, and what to do about it.

A program that one of them ends says its text without a traceback. By its exit code a scheduler knows what to do:

- 0: done
- 1: `oncoshift score --strict` met images that it could not score
- 2: something to mend (settings, data, the command line); as it is, it would end the same way again
- 3: `oncoshift leaks` found copies on two sides of a split
- 69: a server or a database does not answer; try again later
- 70: a crash: a fault of the program, with a traceback
- 75: stopped by SIGTERM, or a process that it started was killed; started again, it goes on
- 128 + N: ended by signal N: 130 by Ctrl-C, 137 by SIGKILL, 141 where nobody reads its output any more (`| head`)

69, 70 and 75 are EX_UNAVAILABLE, EX_SOFTWARE and EX_TEMPFAIL of sysexits.h.
"""

from __future__ import annotations

from oncoshift.secrets import remove_credentials

CRASHED = 70
INTERRUPTED = 130
READER_GONE = 141


class OncoshiftError(Exception):
    """Base of every error that this package raises on purpose; the CLI prints it without a traceback.

    Args:
        message: what is wrong, where, and what to do. Credentials of URLs in it, also of other libraries' messages that
            it repeats, are cut.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(remove_credentials(message))

    heading = "error"
    """Before its text, where it ends a program."""
    exit_code = 2
    """Of a program that it ends: something to mend."""


class SettingsError(OncoshiftError):
    """A key or value in params.yaml, a preset or `--set` is not allowed."""


class DataError(OncoshiftError):
    """Tiles, labels or groups cannot be used as they are."""


class WeightsError(OncoshiftError):
    """Pretrained weights are missing or do not fit the backbone."""


class TrainingError(OncoshiftError):
    """Training cannot go on (a non-finite loss, a checkpoint of another job)."""


class ProcessLostError(TrainingError):
    """One of several processes that train together was killed or broke down; started again, the training goes on."""

    exit_code = 75


class UnavailableError(OncoshiftError):
    """A server or a database does not answer; it may later."""

    exit_code = 69


class TrainingInterrupted(OncoshiftError):  # noqa: N818 - nothing went wrong
    """Training was asked to stop, and has written a checkpoint: started again, it goes on from there."""

    heading = "stopped"
    exit_code = 75


class RegistryError(OncoshiftError):
    """A model version or an alias is missing, or may not be moved as asked."""
