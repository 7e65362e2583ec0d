"""The loader resumes at any batch, gives controls the same source views, and passes on errors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from oncoshift.methods.base import Needs
from oncoshift.settings import TrainSettings
from oncoshift.training.inputs import FeatureInputs, PixelInputs
from oncoshift.training.loader import Loader, _prefetch

if TYPE_CHECKING:
    from oncoshift.data.tables import TrainingData
    from oncoshift.training.inputs import Inputs

SETTINGS = TrainSettings(batch_size=12, steps_per_epoch=5, augment=True, stain_jitter=0.2)


def loader(
    data: TrainingData, *, with_target: bool = True, settings: TrainSettings = SETTINGS, seed: int = 3
) -> Loader:
    return Loader(data, PixelInputs(data.source.images), settings, seed, torch.device("cpu"), Needs(target=with_target))


def test_an_epoch_entered_at_any_step_goes_on_the_same(data: TrainingData) -> None:
    whole = list(loader(data).epoch(2))
    assert len(whole) == 5
    for start in (1, 4):
        for batch, expected in zip(loader(data).epoch(2, start), whole[start:], strict=True):
            assert torch.equal(batch.source, expected.source)
            assert torch.equal(batch.labels, expected.labels)
            assert batch.target is not None
            assert expected.target is not None
            assert torch.equal(batch.target, expected.target)


def test_seed_and_epoch_decide(data: TrainingData) -> None:
    def first(seed: int, epoch: int) -> torch.Tensor:
        return next(iter(loader(data, seed=seed).epoch(epoch))).source

    assert not torch.equal(first(3, 0), first(3, 1))
    assert not torch.equal(first(3, 0), first(4, 0))


def test_a_control_sees_the_same_source_tiles_and_views(data: TrainingData) -> None:
    for control, adapted in zip(loader(data, with_target=False).epoch(0), loader(data).epoch(0), strict=True):
        assert control.target is None
        assert torch.equal(control.source, adapted.source)


def test_batches_are_the_planned_tiles(data: TrainingData) -> None:
    plain = loader(data, settings=SETTINGS.model_copy(update={"augment": False, "stain_jitter": 0.0}))
    batch, plan = next(iter(plain.epoch(1))), plain.plan(1)
    rows = data.source.rows[plan.source[0]]
    expected = PixelInputs(data.source.images).batch(rows, torch.device("cpu"))
    assert torch.equal(batch.source, expected)
    assert batch.labels.tolist() == data.source.labels[plan.source[0]].tolist()
    assert batch.organs.tolist() == data.source.organs[plan.source[0]].tolist()


def test_without_a_number_of_steps_an_epoch_passes_over_the_source_once(data: TrainingData) -> None:
    settings = SETTINGS.model_copy(update={"steps_per_epoch": None, "balance": False})
    plan = loader(data, settings=settings).plan(0)
    assert set(plan.source.ravel().tolist()) == set(range(len(data.source.rows)))


def test_augmentation_differs_between_steps_that_hold_the_same_tile(data: TrainingData) -> None:
    one = replace(data, source=replace(data.source, rows=data.source.rows[:1], labels=data.source.labels[:1],
                                       organs=data.source.organs[:1]))  # fmt: skip
    views = [batch.source[0].numpy().tobytes() for batch in loader(one).epoch(0)]
    assert len(set(views)) > 1


class Copies(TorchDispatchMode):
    """Counts copies between devices, by whether the host waits for them."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = {"waiting": 0, "not waiting": 0}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        made = func(*args, **given)
        if func.overloadpacket == torch.ops.aten._to_copy and made.device != args[0].device:
            self.counts["not waiting" if given.get("non_blocking") else "waiting"] += 1
        return made


@pytest.mark.parametrize("features", [False, True], ids=["tiles", "features"])
def test_a_batch_for_a_gpu_is_made_without_waiting_for_what_the_gpu_does(
    data: TrainingData, features: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.shape)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    images = data.source.images
    inputs: Inputs = FeatureInputs(np.zeros((len(images), 4), np.float16)) if features else PixelInputs(images)
    needs = Needs(target=True, strong=True, strong_jitter=0.5, anchor=True)
    known = replace(data, anchor=np.zeros(len(images)))
    made = Loader(known, inputs, SETTINGS, 3, torch.device("cuda"), needs)
    with FakeTensorMode(allow_non_fake_inputs=True), Copies() as copies:
        batch = made._make_batch(made.plan(0), 0, 0)
    assert {part.device.type for part in batch if part is not None} == {"cuda"}
    assert copies.counts == {"waiting": 0, "not waiting": len(pinned)}
    assert len(pinned) >= len(batch)


def test_batches_made_ahead_are_the_same_and_errors_come_through() -> None:
    assert list(_prefetch(iter(range(20)), 2)) == list(range(20))

    def broken():  # type: ignore[no-untyped-def]
        yield 1
        raise ValueError("tile 2")

    ahead = _prefetch(broken(), 2)
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="tile 2"):
        next(ahead)


def test_leaving_early_stops_the_thread() -> None:
    made: list[int] = []

    def endless():  # type: ignore[no-untyped-def]
        number = 0
        while True:
            made.append(number)
            yield np.zeros(1)
            number += 1

    ahead = _prefetch(endless(), 2)
    next(ahead)
    ahead.close()  # type: ignore[attr-defined]
    assert len(made) < 10
