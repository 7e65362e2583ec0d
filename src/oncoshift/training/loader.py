"""The loader: shuffled, optionally balanced batches, identical wherever an epoch is resumed.

Each step's tiles and views are a function of data, seed, epoch and step, so there is no state to
save: a run resumed at any step draws what an uninterrupted one would have drawn.
"""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch

from oncoshift.methods.base import Batch
from oncoshift.training.augment import Augmentation
from oncoshift.training.devices import send
from oncoshift.training.sampling import cycle, draw_source_batches, make_epoch_generator, make_step_generators

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from oncoshift.data.tables import TrainingData
    from oncoshift.methods.base import Needs
    from oncoshift.settings import TrainSettings
    from oncoshift.training.inputs import Inputs

Item = TypeVar("Item")

_PREFETCHED = 2
"""Batches prepared ahead while a GPU works on one."""


@dataclass(frozen=True)
class EpochPlan:
    """The tiles of one epoch.

    Attributes:
        source: int64 [steps, B], positions in the source split.
        target: int64 [steps, B], positions in the target split.
    """

    source: NDArray[np.int64]
    target: NDArray[np.int64]


@dataclass(frozen=True)
class Loader:
    """The source of a training's batches.

    Attributes:
        data: that training may read.
        inputs: source of network input.
        settings: section `train`: steps, batch size, balance, augmentation.
        seed: of order and views.
        device: of the batches.
        needs: what the method needs in a batch.
        rank: which of `ranks` equal parts of each batch this process makes.
        ranks: processes that share each batch.
    """

    data: TrainingData
    inputs: Inputs
    settings: TrainSettings
    seed: int
    device: torch.device
    needs: Needs
    rank: int = 0
    ranks: int = 1

    @property
    def steps(self) -> int:
        """Steps an epoch: `steps_per_epoch`, or else one pass over the source tiles."""
        return self.settings.steps_per_epoch or -(-len(self.data.source.rows) // self.settings.batch_size)

    def plan(self, epoch: int) -> EpochPlan:
        """Plan the tiles of each step of an epoch."""
        rng, size = make_epoch_generator(self.seed, epoch), self.settings.batch_size
        source = draw_source_batches(self.data.source, self.steps, size, self.settings.balance, rng)
        return EpochPlan(source, cycle(len(self.data.target.rows), self.steps * size, rng).reshape(self.steps, size))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Iterate over the batches of an epoch from step `start` on."""
        plan = self.plan(epoch)
        batches = (self._make_batch(plan, epoch, step) for step in range(start, self.steps))
        # On the CPU, another thread would take time from the network.
        return _prefetch(batches, _PREFETCHED) if self.device.type == "cuda" else batches

    def _make_batch(self, plan: EpochPlan, epoch: int, step: int) -> Batch:
        # Separate generators, so that a control gets the same views of source tiles as a method
        # that augments target tiles too.
        source_rng, target_rng = make_step_generators(self.seed, epoch, step)
        source = plan.source[step]
        target = self.data.target.rows[plan.target[step]]
        needs = self.needs
        jitter = max(self.settings.stain_jitter, needs.stain_jitter)
        return Batch(
            source=self._make_inputs(self.data.source.rows[source], source_rng, jitter),
            labels=send(torch.from_numpy(self.data.source.labels[source][self._slice]), self.device),
            organs=send(torch.from_numpy(self.data.source.organs[source][self._slice]), self.device),
            target=self._make_inputs(target, target_rng, jitter) if self.needs.target else None,
            target_strong=self._make_inputs(target, target_rng, self.needs.strong_jitter)
            if self.needs.strong
            else None,
            target_anchor=self._get_anchor(target) if self.needs.anchor else None,
        )

    def _get_anchor(self, rows: NDArray[np.int64]) -> torch.Tensor:
        if self.data.anchor is None:
            raise ValueError("the method needs the anchor of target tiles, and the data have none")
        return send(torch.from_numpy(self.data.anchor[rows[self._slice]]).float(), self.device)

    def _make_inputs(self, rows: NDArray[np.int64], rng: np.random.Generator, jitter: float) -> torch.Tensor:
        augmentation = Augmentation(self.settings.augment, jitter)
        # Drawn for the whole batch, so that a tile's view does not depend on the number of
        # processes.
        view = augmentation.draw(len(rows), rng)[self._slice] if augmentation.is_active else None
        return self.inputs.batch(rows[self._slice], self.device, view)

    @property
    def _slice(self) -> slice:
        size = self.settings.batch_size // self.ranks
        return slice(self.rank * size, (self.rank + 1) * size)


def _prefetch(items: Iterable[Item], depth: int) -> Iterator[Item]:
    """Yield the same items, prepared up to `depth` ahead by a thread; its errors raise here."""
    ready: queue.Queue[Item | BaseException | None] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Item | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue
        return None

    def work() -> None:
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
