"""Training state on disk, after every epoch and within long ones, whole or not at all."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from oncoshift.errors import TrainingError
from oncoshift.files import DamagedFileError, atomic, check_seal, seal

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

_log = logging.getLogger(__name__)


@dataclass
class Position:
    """How far a training is.

    Attributes:
        epoch: of the next step.
        step: the next one within the epoch; where the loader goes on.
        sums: figures of the epoch so far, summed over its steps.
        skipped: steps of the epoch that were skipped.
        skipped_in_a_row: up to the last step.
        waited: seconds of the epoch spent waiting for batches.
        spent: seconds of the epoch spent on steps, waiting included.
        history: one row an epoch that is done.
    """

    epoch: int = 0
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    skipped: int = 0
    skipped_in_a_row: int = 0
    waited: float = 0.0
    spent: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)

    def end_epoch(self, row: dict[str, float]) -> None:
        """Keep the epoch's figures and start the next one."""
        self.history.append(row)
        self.epoch, self.step = self.epoch + 1, 0
        self.sums, self.skipped, self.waited, self.spent = {}, 0, 0.0, 0.0


@dataclass(frozen=True)
class Checkpoint:
    """What is needed to go on as if nothing had happened.

    There is no random state in it: each step's randomness is a function of seed, epoch and step (`training.sampling`).
    The settings are in it as the job's id.

    Attributes:
        job: id of the training job that it belongs to.
        position: fields of a `Position`.
        method: state dict of the method and its network, without frozen parts.
        optimizer: state dict of the optimiser.
        average: state dict of the averaged network, without frozen parts, or None.
    """

    job: str
    position: dict[str, Any]
    method: dict[str, Any]
    optimizer: dict[str, Any]
    average: dict[str, Any] | None


def extract_trained_state(module: nn.Module, frozen: tuple[str, ...]) -> dict[str, Tensor]:
    """The state dict of a module without its frozen parts: they are as they were loaded, and most of the bytes.

    Args:
        module: a method or a network.
        frozen: how the names of the frozen parts' tensors begin.
    """
    return {name: tensor for name, tensor in module.state_dict().items() if not name.startswith(frozen)}


def restore(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Give a module what `extract_trained_state` gave of one like it."""
    module.load_state_dict(module.state_dict() | state)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, with its digest, atomically."""
    with atomic(path) as temporary:
        torch.save(vars(checkpoint), temporary)
        seal(temporary)


def load_checkpoint(path: Path, job: str) -> Checkpoint | None:
    """The checkpoint at `path`, or None where there is none, or a damaged one.

    Raises:
        TrainingError: it belongs to another job.
    """
    if not path.is_file():
        return None
    try:
        check_seal(path)
    except DamagedFileError as error:
        _log.warning("%s; the training starts from its first step", error)
        return None
    checkpoint = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    if checkpoint.job != job:
        raise TrainingError(f"{path}: checkpoint of job {checkpoint.job}, not {job}; remove its folder and train again")
    return checkpoint
