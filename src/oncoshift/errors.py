"""Errors that a user can act on: each says what is wrong, where, and what to do about it."""

from __future__ import annotations

from oncoshift.secrets import without_credentials


class OncoshiftError(Exception):
    """Base of every error that this package raises on purpose; the CLI prints it without a traceback.

    Args:
        message: what is wrong, where, and what to do. Credentials of URLs in it, also of other libraries' messages that
            it repeats, are cut.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(without_credentials(message))

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


class TrainingInterrupted(OncoshiftError):  # noqa: N818 - nothing went wrong
    """Training was asked to stop, and has written a checkpoint: started again, it goes on from there."""

    heading = "stopped"
    exit_code = 75
    """EX_TEMPFAIL of sysexits.h: try again later."""


class RegistryError(OncoshiftError):
    """A model version or an alias is missing, or may not be moved as asked."""
