"""The training loop of every method, on Lightning Fabric, in one process or several."""

from __future__ import annotations

import logging
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.strategies import DDPStrategy

from oncoshift.errors import TrainingError, TrainingInterrupted, UntrainableError
from oncoshift.models.batch_norm import replace_batch_norm
from oncoshift.models.collective import reduce_any, wait_for_all
from oncoshift.training.average import WeightAverage
from oncoshift.training.checkpoint import (
    Checkpoint,
    Position,
    extract_trained_state,
    load_checkpoint,
    restore,
    save_checkpoint,
)
from oncoshift.training.devices import (
    begin_reading,
    check_processes,
    enforcing_determinism,
    explaining_out_of_memory,
    pick_device,
    pick_precision,
)
from oncoshift.training.distributed import discard_figures, find_launcher, run_ranks
from oncoshift.training.interruption import interruptible
from oncoshift.training.loader import Loader
from oncoshift.training.memory import keeping_freed_memory
from oncoshift.training.optimizers import build_optimizer, compute_learning_rate
from oncoshift.training.sampling import derive_dropout_seed
from oncoshift.training.validation import validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lightning_fabric.plugins.environments import ClusterEnvironment
    from torch import Tensor

    from oncoshift.data.tables import TrainingData
    from oncoshift.methods.base import Batch, Method
    from oncoshift.settings import TrainSettings
    from oncoshift.training.inputs import Inputs

    RowHook = Callable[[dict[str, float]], None]
    """A hook that takes the figures of an epoch; see `training.epoch`."""

MAX_SKIPPED_IN_A_ROW = 10
"""Consecutive skipped steps after which a training is given up."""

_CALIBRATION_BATCH = 64

_STOP_CHECK_STEPS = 10
"""Steps between two exchanges of whether to stop among processes: each makes a GPU wait."""

_log = logging.getLogger(__name__)


@dataclass
class Trainer:
    """A training of one method on one data set.

    Attributes:
        method: the method around its network.
        data: that training may read; its target part has no labels.
        inputs: source of network input.
        settings: section `train`.
        seed: of batches, views and dropout.
        job: id of the job, written into checkpoints.
        checkpoint: file that is replaced after each epoch and, depending on settings, within
            epochs.
        on_epoch: called with each epoch's figures once they are on disk; on resuming, with past
            ones too.
    """

    method: Method
    data: TrainingData
    inputs: Inputs
    settings: TrainSettings
    seed: int
    job: str
    checkpoint: Path
    on_epoch: RowHook

    def fit(self) -> list[dict[str, float]]:
        """Train to the last epoch, from the checkpoint if there is one.

        Afterwards the method's network holds the weights to keep; with `train.ema`, the averaged
        ones.

        Returns:
            One row of figures an epoch.

        Raises:
            SettingsError: there are fewer GPUs than processes, or no launcher started those of
                several machines.
            UntrainableError: the loss is not finite; the message names the tiles of the batch.
            TrainingError: memory does not suffice.
            TrainingInterrupted: SIGTERM came; the checkpoint holds all progress.
        """
        ranks, device = self.settings.ranks, pick_device(self.settings.device)
        check_processes(self.settings.processes, device)
        launcher = find_launcher(self.settings)
        _log.info("%s: %d process(es) on %s, %s", self.job, ranks, device, pick_precision(self.settings, device))
        with interruptible() as stopped:
            if ranks == 1 or launcher is not None:
                _Run(self, stopped, launcher).finish()
            else:
                run_ranks(_run_rank, replace(self, on_epoch=discard_figures), ranks, self.on_epoch, stopped)
            wait_for_all()  # the first has written the last checkpoint
            if stopped():  # it came after the last step, so nothing has handled it yet
                raise TrainingInterrupted(
                    f"training was asked to end as it ended; {self.checkpoint} holds all of it: start it again"
                )
        done = load_checkpoint(self.checkpoint, self.job)
        if done is None or done.position["epoch"] < self.settings.epochs:
            raise TrainingError(f"{self.checkpoint}: the training left no checkpoint of its end; start it again")
        restore(self.method, done.method)
        if done.average is not None:
            restore(self.method.net, done.average)
        history: list[dict[str, float]] = done.position["history"]
        return history


class _Check(NamedTuple):
    """A step whose loss and gradient are checked in the next one, so that no GPU has to wait."""

    epoch: int
    step: int
    is_finite: Callable[[], bool]
    figures: dict[str, Tensor]


class _Run:
    """A training in progress in this process, which is the only one or a rank of several."""

    def __init__(
        self, trainer: Trainer, stopped: Callable[[], bool], launcher: ClusterEnvironment | None = None
    ) -> None:
        self.trainer, self.stopped = trainer, stopped
        settings, method = trainer.settings, trainer.method
        device = pick_device(settings.device)
        self.fabric = Fabric(
            accelerator=device.type,
            devices=settings.processes,
            num_nodes=settings.nodes,
            # Buffers are functions of the whole batch, so they are the same on every rank.
            strategy=DDPStrategy(broadcast_buffers=False) if settings.ranks > 1 else "auto",
            precision=pick_precision(settings, device),
            plugins=[launcher or LightningEnvironment()],
        )
        self.fabric.launch()
        if settings.ranks > 1:
            replace_batch_norm(method.net, per_domain=False)
        optimizer = build_optimizer(method.parameters(), settings)
        method.to(memory_format=torch.channels_last)
        self.average = None if settings.ema is None else WeightAverage(method.net, settings.ema)
        past = load_checkpoint(trainer.checkpoint, trainer.job)
        if past is not None:
            restore(method, past.method)
            if self.average is not None and past.average is not None:
                restore(self.average.net, past.average)
        if settings.compile:
            method.net.compile_trained_parts()
        self.module, self.optimizer = self.fabric.setup(method, optimizer)
        if past is not None:
            optimizer.load_state_dict(past.optimizer)  # the parameters must be on their device first
        self.position = Position() if past is None else Position(**past.position)
        if self.average is not None:
            self.average.net.to(self.fabric.device)
        self.loader = Loader(
            trainer.data,
            trainer.inputs,
            settings,
            trainer.seed,
            self.fabric.device,
            method.needs,
            self.fabric.global_rank,
            self.fabric.world_size,
        )
        self.saved_at = time.monotonic()
        self.unchecked: _Check | None = None

    def finish(self) -> None:
        """Train from the checkpoint to the end."""
        trainer, position = self.trainer, self.position
        for row in position.history:
            trainer.on_epoch(row)
        side = trainer.data.source.images.shape[1]
        guard = explaining_out_of_memory(trainer.settings, side, self.fabric.device)
        with keeping_freed_memory(), enforcing_determinism(trainer.settings.deterministic), guard:
            while position.epoch < trainer.settings.epochs:
                self._train_epoch()
                row = self._compute_figures()
                position.end_epoch(row)
                self._save_checkpoint()
                trainer.on_epoch(row)

    def _train_epoch(self) -> None:
        """Train the remaining steps of the current epoch."""
        position = self.position
        self.module.train()
        for batch in self._iterate_batches():
            began = time.monotonic()
            self._run_step(batch)
            position.spent += time.monotonic() - began
            position.step += 1
            if self._is_stopped():
                self._save_checkpoint()
                self.fabric.barrier()  # the checkpoint is written before any rank reports it
                raise TrainingInterrupted(
                    f"training was asked to end, at epoch {position.epoch}, step {position.step}; "
                    f"{self.trainer.checkpoint} holds what was done: start it again and it goes on"
                )
            if self._is_due():
                self._save_checkpoint()
        self._check_last_step()

    def _is_stopped(self) -> bool:
        """Decide, equally on every rank, whether the training stops here."""
        step, ranks = self.position.step, self.fabric.world_size
        asks = ranks == 1 or step % _STOP_CHECK_STEPS == 0 or step == self.loader.steps
        return asks and reduce_any(self.stopped(), self.fabric.device)

    def _iterate_batches(self) -> Iterator[Batch]:
        """Iterate over the epoch's remaining batches, and time the waits for them."""
        position = self.position
        batches = self.loader.epoch(position.epoch, position.step)
        while True:
            began = time.monotonic()
            batch = next(batches, None)
            waited = time.monotonic() - began
            position.waited += waited
            position.spent += waited
            if batch is None:
                return
            yield batch

    def _run_step(self, batch: Batch) -> None:
        settings, position = self.trainer.settings, self.position
        steps_done = position.epoch * self.loader.steps + position.step
        progress = steps_done / (settings.epochs * self.loader.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = compute_learning_rate(settings, progress)
        torch.manual_seed(
            derive_dropout_seed(self.trainer.seed, position.epoch, position.step) + self.fabric.global_rank
        )
        skips = settings.on_nonfinite == "skip"
        before = [buffer.clone() for buffer in self.trainer.method.buffers()] if skips else []
        loss, figures = self._backpropagate(batch, progress)
        norm = self.fabric.clip_gradients(
            self.module, self.optimizer, max_norm=settings.grad_clip or math.inf, error_if_nonfinite=False
        ).detach()
        figures["gradient_norm"] = norm
        finite = begin_reading(torch.isfinite(loss) & torch.isfinite(norm))
        check = _Check(position.epoch, position.step, finite, figures)
        if skips and not check.is_finite():
            return self._skip_step(check, before)
        self._check_last_step()
        self.unchecked = check
        self.optimizer.step()
        position.skipped_in_a_row = 0
        if self.average is not None:
            self.average.update(self.trainer.method.net, steps_done)
        for name, value in figures.items():
            sums = position.sums.get(name)
            position.sums[name] = value.float() if sums is None else sums + value.float()
        return None

    def _backpropagate(self, batch: Batch, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Backpropagate a batch in `micro_batches` parts; return mean loss and figures."""
        parts = split_batch(batch, self.trainer.settings.micro_batches)
        self.optimizer.zero_grad()
        total: Tensor | None = None
        sums: dict[str, Tensor] = {}
        for number, part in enumerate(parts, 1):
            waits = self.fabric.world_size > 1 and number < len(parts)  # ranks exchange gradients only once a step
            with self.fabric.no_backward_sync(self.module) if waits else nullcontext():
                loss, figures = self.module(part, self.position.epoch, progress)
                self.fabric.backward(loss / len(parts))
            total = loss.detach() / len(parts) + (0 if total is None else total)
            for name, value in figures.items():
                sums[name] = value / len(parts) + sums.get(name, 0)
        if total is None:
            raise ValueError("a batch has no tiles")
        return total, sums

    def _skip_step(self, check: _Check, before: list[Tensor]) -> None:
        """Skip a step: restore everything, running statistics too, to the state before it."""
        position = self.position
        for buffer, value in zip(self.trainer.method.buffers(), before, strict=True):
            buffer.copy_(value)
        position.skipped += 1
        position.skipped_in_a_row += 1
        if position.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise UntrainableError(
                f"{MAX_SKIPPED_IN_A_ROW} steps in a row were skipped; {self._describe_nonfinite(check)}"
            )

    def _check_last_step(self) -> None:
        """Check the previous step, which the device has probably finished by now.

        Raises:
            UntrainableError: loss or gradient is not finite.
        """
        check, self.unchecked = self.unchecked, None
        if check is not None and not check.is_finite():
            raise UntrainableError(self._describe_nonfinite(check))

    def _compute_figures(self) -> dict[str, float]:
        """Compute the figures of the epoch that has just ended."""
        trainer, position, device = self.trainer, self.position, self.fabric.device
        began = time.monotonic()
        net = trainer.method.net if self.average is None else self.average.net
        if trainer.method.calibrates:
            rows = trainer.data.target.rows
            starts = range(0, len(rows), _CALIBRATION_BATCH)
            trainer.method.calibrate(
                net, (trainer.inputs.batch(rows[start : start + _CALIBRATION_BATCH], device) for start in starts)
            )
        counted = max(self.loader.steps - position.skipped, 1)
        row = {"epoch": float(position.epoch)} | {name: float(sums) / counted for name, sums in position.sums.items()}
        if trainer.settings.on_nonfinite == "skip":
            row["skipped_steps"] = float(position.skipped)
        if self.fabric.is_global_zero:
            row |= validate(net, trainer.data, trainer.inputs, device)
        return row | {
            "data_wait_share": position.waited / max(position.spent, 1e-9),
            "epoch_seconds": position.spent + time.monotonic() - began,
            "timestamp_ms": float(int(time.time() * 1000)),
        }

    def _is_due(self) -> bool:
        settings = self.trainer.settings
        by_step = settings.checkpoint_steps is not None and self.position.step % settings.checkpoint_steps == 0
        minutes = (time.monotonic() - self.saved_at) / 60
        return by_step or (settings.checkpoint_minutes is not None and minutes >= settings.checkpoint_minutes)

    def _save_checkpoint(self) -> None:
        """Write the checkpoint on the first rank; the others have the same state."""
        self._check_last_step()
        self.saved_at = time.monotonic()
        if not self.fabric.is_global_zero:
            return
        frozen = self.trainer.method.net.frozen_names
        method = extract_trained_state(self.trainer.method, tuple(f"net.{name}" for name in frozen))
        average = None if self.average is None else extract_trained_state(self.average.net, frozen)
        optimizer = self.optimizer.state_dict()
        save_checkpoint(
            self.trainer.checkpoint, Checkpoint(self.trainer.job, vars(self.position), method, optimizer, average)
        )

    def _describe_nonfinite(self, check: _Check) -> str:
        values = ", ".join(f"{name} {float(value):.3g}" for name, value in check.figures.items())
        data, plan = self.trainer.data, self.loader.plan(check.epoch)
        tiles = f"source tiles: {data.names(data.source.rows[plan.source[check.step]])}"
        if self.trainer.method.needs.target:
            tiles += f"; target tiles: {data.names(data.target.rows[plan.target[check.step]])}"
        return (
            f"loss or gradient is not finite at epoch {check.epoch}, step {check.step} ({values}); lower train.lr "
            f"({self.trainer.settings.lr}), set train.grad_clip, or look at the tiles of the batch; {tiles}"
        )


def split_batch(batch: Batch, parts: int) -> list[Batch]:
    """Split a batch into equal parts, each with its share of source and target tiles."""
    if parts == 1:
        return [batch]
    chunks = [[None] * parts if field is None else field.chunk(parts) for field in batch]
    return [type(batch)(*fields) for fields in zip(*chunks, strict=True)]


def _run_rank(trainer: Trainer, report: RowHook, stopped: Callable[[], bool]) -> None:
    """Train as one rank of several, of which the first reports."""
    trainer.on_epoch = report
    _Run(trainer, stopped).finish()
