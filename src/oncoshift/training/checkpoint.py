"""Checkpoints of a training, written atomically after every epoch and within long ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from oncoshift.errors import TrainingError
from oncoshift.files import atomic, is_intact, seal

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn


@dataclass
class Position:
    """The progress of a training.

    Attributes:
        epoch: of the next step.
        step: the next step within the epoch, at which the loader resumes.
        sums: figures summed over the steps of the epoch so far.
        skipped: steps of the epoch that were skipped.
        skipped_in_a_row: steps skipped without a break up to the last step.
        waited: seconds of the epoch spent waiting for batches.
        spent: seconds of the epoch spent on steps, waiting included.
        history: one row for each finished epoch.
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
        """Add the epoch's figures to the history and move to the next epoch."""
        self.history.append(row)
        self.epoch, self.step = self.epoch + 1, 0
        self.sums, self.skipped, self.waited, self.spent = {}, 0, 0.0, 0.0


@dataclass(frozen=True)
class Checkpoint:
    """Everything needed to resume a training bit for bit.

    It holds no random state, because each step's randomness is a function of seed, epoch and step
    (`training.sampling`). The job's id stands for the settings.

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
    """Return a module's state dict without its frozen parts, which are as loaded and most of it.

    Args:
        module: a method or a network.
        frozen: name prefixes of the frozen parts' tensors.
    """
    return {name: tensor for name, tensor in module.state_dict().items() if not name.startswith(frozen)}


def restore(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Load into a module what `extract_trained_state` returned for one of its kind."""
    module.load_state_dict(module.state_dict() | state)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, with its digest, atomically."""
    with atomic(path) as temporary:
        torch.save(vars(checkpoint), temporary)
        seal(temporary)


def load_checkpoint(path: Path, job: str) -> Checkpoint | None:
    """Load the checkpoint at `path`, or return None if it is missing or damaged.

    Raises:
        TrainingError: it belongs to another job.
    """
    if not is_intact(path, "the training starts from its first step"):
        return None
    checkpoint = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    if checkpoint.job != job:
        raise TrainingError(f"{path}: checkpoint of job {checkpoint.job}, not {job}; remove its folder and train again")
    return checkpoint
