"""The one loop that trains every method, on Lightning Fabric."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from lightning_fabric import Fabric

from oncoshift.errors import TrainingError
from oncoshift.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from oncoshift.training.loader import Loader
from oncoshift.training.optimizers import build_optimizer, learning_rate
from oncoshift.training.sampling import epoch_generator
from oncoshift.training.validation import validate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from oncoshift.data.tables import TrainingData
    from oncoshift.methods.base import Method
    from oncoshift.settings import Train
    from oncoshift.training.inputs import Inputs

    EpochHook = Callable[[dict[str, float]], None]


@dataclass
class Trainer:
    """Trains one method on one data set.

    Attributes:
        method: the method around its network.
        data: what training may see; the target side has no labels.
        inputs: network input for the pack's rows.
        settings: section `train`.
        seed: decides batches, views and dropout.
        job: id written into checkpoints.
        checkpoint: file of the checkpoint, replaced after each epoch.
        on_epoch: called with each epoch's figures once they are on disk; also, on resuming, with those of the past.
    """

    method: Method
    data: TrainingData
    inputs: Inputs
    settings: Train
    seed: int
    job: str
    checkpoint: Path
    on_epoch: EpochHook

    def fit(self) -> list[dict[str, float]]:
        """Train to the last epoch, from the checkpoint where there is one.

        Returns:
            One row of figures an epoch.

        Raises:
            TrainingError: the loss is not finite, with the tiles of the batch.
        """
        fabric = Fabric(
            accelerator={"auto": "auto", "cpu": "cpu", "cuda": "cuda"}[self.settings.device],
            devices=1,
            precision="bf16-mixed" if self.settings.precision == "auto" else self.settings.precision,
        )
        optimizer = build_optimizer(self.method.parameters(), self.settings)
        self.method.to(memory_format=torch.channels_last)
        past = load_checkpoint(self.checkpoint, self.job)
        if past is not None:
            self.method.load_state_dict(past.method)
            optimizer.load_state_dict(past.optimizer)
        module, fabric_optimizer = fabric.setup(self.method, optimizer)
        history = list(past.history) if past is not None else []
        for row in history:
            self.on_epoch(row)
        for epoch in range(len(history), self.settings.epochs):
            began = time.monotonic()
            row = {"epoch": float(epoch), **self._epoch(fabric, module, fabric_optimizer, epoch)}
            row |= validate(self.method.net, self.data, self.inputs, fabric.device)
            row |= {"epoch_seconds": time.monotonic() - began, "timestamp_ms": float(int(time.time() * 1000))}
            history.append(row)
            save_checkpoint(
                self.checkpoint,
                Checkpoint(self.job, epoch + 1, self.method.state_dict(), optimizer.state_dict(), history),
            )
            self.on_epoch(row)
        return history

    def _epoch(
        self, fabric: Fabric, module: torch.nn.Module, optimizer: torch.optim.Optimizer, epoch: int
    ) -> dict[str, float]:
        loader = Loader(self.data, self.inputs, self.settings, self.seed, fabric.device, self.method.needs)
        torch.manual_seed(int(epoch_generator(self.seed, epoch).integers(2**62)))  # dropout
        module.train()
        sums: dict[str, torch.Tensor] = {}
        for step, batch in enumerate(loader.epoch(epoch)):
            progress = (epoch * loader.steps + step) / (self.settings.epochs * loader.steps)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(self.settings, progress)
            loss, figures = module(batch, epoch, progress)
            if not torch.isfinite(loss):
                raise TrainingError(self._not_finite(epoch, step, loader.plan(epoch).source[step], figures))
            optimizer.zero_grad()
            fabric.backward(loss)
            if self.settings.grad_clip is not None:
                norm = fabric.clip_gradients(
                    module, optimizer, max_norm=self.settings.grad_clip, error_if_nonfinite=False
                )
                if not torch.isfinite(norm):
                    raise TrainingError(self._not_finite(epoch, step, loader.plan(epoch).source[step], figures))
                figures = figures | {"gradient_norm": norm.detach()}
            optimizer.step()
            for name, value in figures.items():
                sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value.float()
        return {name: float(value) / loader.steps for name, value in sums.items()}

    def _not_finite(self, epoch: int, step: int, source: NDArray[np.int64], figures: dict[str, torch.Tensor]) -> str:
        values = ", ".join(f"{name} {float(value):.3g}" for name, value in figures.items())
        rows = self.data.source.rows[source].tolist()
        return (
            f"loss or gradient is not finite at epoch {epoch}, step {step} ({values}); "
            f"source rows of the pack: {rows}; "
            f"lower train.lr ({self.settings.lr}), set train.grad_clip, or look at these tiles"
        )
