"""Training state on disk after every epoch, whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from oncoshift.errors import TrainingError
from oncoshift.files import atomic

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Checkpoint:
    """What is needed to go on as if nothing had happened.

    There is no random state in it: each epoch's randomness is a function of seed and epoch (`training.sampling`).

    Attributes:
        job: id of the training job that it belongs to.
        epochs_done: how many epochs are behind it.
        method: state dict of the method and its network.
        optimizer: state dict of the optimiser.
        history: one row an epoch.
    """

    job: str
    epochs_done: int
    method: dict[str, Any]
    optimizer: dict[str, Any]
    history: list[dict[str, float]]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically."""
    with atomic(path) as temporary:
        torch.save(vars(checkpoint), temporary)


def load_checkpoint(path: Path, job: str) -> Checkpoint | None:
    """The checkpoint at `path`, or None where there is none.

    Raises:
        TrainingError: it belongs to another job.
    """
    if not path.is_file():
        return None
    checkpoint = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    if checkpoint.job != job:
        raise TrainingError(f"{path}: checkpoint of job {checkpoint.job}, not {job}; remove its folder and train again")
    return checkpoint
