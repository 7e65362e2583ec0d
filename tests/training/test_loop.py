"""The loop resumes, averages, skips, refuses and measures as specified."""

from __future__ import annotations

import itertools
import os
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from support.small_training import Watched, maps, small_method, trainer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from oncoshift.errors import TrainingError
from oncoshift.methods.base import Batch, Needs
from oncoshift.training.checkpoint import load_checkpoint
from oncoshift.training.inputs import FeatureInputs
from oncoshift.training.loader import Loader
from oncoshift.training.loop import MAX_SKIPPED_IN_A_ROW, _Run, split_batch
from oncoshift.training.prediction import predict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from oncoshift.training.loop import Trainer

BROKEN = 7
"""Row of a source tile that is used for training."""


class PulledPlugError(Exception):
    """A simulated kill."""


def pull_at(batch: int) -> Callable[[NDArray[np.int64]], None]:
    """Make a callback for each batch that fails at one of them."""
    numbers = itertools.count(1)

    def tell(rows: NDArray[np.int64]) -> None:
        if next(numbers) == batch:
            raise PulledPlugError

    return tell


def state(done: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in done.method.state_dict().items()}


def assert_same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


HOW = {
    "sgd, averaged": {"optimizer": "sgd", "ema": 0.9},
    "adamw, bf16, parts": {"optimizer": "adamw", "precision": "bf16-mixed", "micro_batches": 2},
    "by time": {"checkpoint_steps": None, "checkpoint_minutes": 1e-9, "warmup": 0.5},
    "skipping": {"on_nonfinite": "skip"},
}


@pytest.mark.parametrize("changes", HOW.values(), ids=HOW)
def test_killed_within_an_epoch_it_goes_on_from_the_last_step_to_the_same_bits(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    how = {"checkpoint_steps": 1, **changes}
    whole = trainer(tmp_path / "whole", **how)
    expected = whole.fit()
    broken = Watched(FeatureInputs(maps()), pull_at(8))  # two batches of inputs a step: source and target of the 4th
    with pytest.raises(PulledPlugError):
        trainer(tmp_path / "broken", inputs=broken, **how).fit()
    left = load_checkpoint(tmp_path / "broken", "job")
    assert left is not None
    assert (left.position["epoch"], left.position["step"]) == (0, 3)
    torch.manual_seed(12345)  # what happened in between must not matter
    resumed = trainer(tmp_path / "broken", method=small_method(seed=9), **how)
    history = resumed.fit()
    assert_same_bits(state(whole), state(resumed))
    timed = {"epoch_seconds", "timestamp_ms", "data_wait_share"}
    assert [{k: v for k, v in row.items() if k not in timed} for row in expected] == [
        {k: v for k, v in row.items() if k not in timed} for row in history
    ]


def test_without_steps_or_minutes_there_is_a_checkpoint_an_epoch(tmp_path: Path) -> None:
    broken = Watched(FeatureInputs(maps()), pull_at(8))
    with pytest.raises(PulledPlugError):
        trainer(tmp_path / "broken", inputs=broken, checkpoint_minutes=None).fit()
    assert not (tmp_path / "broken").exists()


def test_what_is_kept_and_validated_is_the_average(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", ema=0.8)
    history = run.fit()
    left = load_checkpoint(tmp_path / "run", "job")
    assert left is not None
    assert left.average is not None
    kept = run.method.net.state_dict()
    assert_same_bits(kept, left.average)
    assert not torch.equal(kept["head.weight"], left.method["net.head.weight"])
    assert torch.equal(kept["norm.running_mean"], left.method["net.norm.running_mean"]), "statistics are copied"
    said = predict(run.method.net, run.inputs, run.data.target.rows, torch.device("cpu"))
    assert history[-1]["target_malignant_share"] == float((said > 0.5).mean())


@pytest.mark.parametrize("name", ["erm", "dann"])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(tmp_path: Path, name: str) -> None:
    def after_a_step(parts: int) -> dict[str, torch.Tensor]:
        run = trainer(
            tmp_path / f"{parts}",
            small_method(name, norm=False, dropout=0.0),
            epochs=1, steps_per_epoch=1, micro_batches=parts, lr=1.0, grad_clip=None, schedule="constant",
        )  # fmt: skip
        run.fit()
        return state(run)

    whole, parts, start = after_a_step(1), after_a_step(4), small_method(name, norm=False).state_dict()
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(whole["net.head.weight"], start["net.head.weight"], atol=1e-3)


def test_a_batch_is_cut_into_parts_of_source_and_target() -> None:
    batch = Batch(torch.arange(4), torch.arange(4), torch.arange(4) + 10, torch.arange(6), None)
    first, second = split_batch(batch, 2)
    assert (first.source.tolist(), second.organs.tolist(), second.target.tolist()) == ([0, 1], [12, 13], [3, 4, 5])
    assert first.target_strong is None


def first_step_with(run: Trainer, row: int) -> int:
    """Find the first step of epoch 0 whose source batch holds a row of the pack."""
    plan = Loader(run.data, run.inputs, run.settings, run.seed, torch.device("cpu"), Needs(target=True)).plan(0)
    return next(step for step, batch in enumerate(plan.source) if row in run.data.source.rows[batch])


@pytest.mark.parametrize("grad_clip", [1.0, None])
def test_a_loss_that_is_not_finite_stops_and_names_step_and_tiles(tmp_path: Path, grad_clip: float | None) -> None:
    inputs = FeatureInputs(maps(broken=(BROKEN,)))
    run = trainer(tmp_path / "run", inputs=inputs, steps_per_epoch=20, checkpoint_steps=1, grad_clip=grad_clip)
    step = first_step_with(run, BROKEN)
    assert 0 < step < 19
    with pytest.raises(TrainingError, match=rf"not finite at epoch 0, step {step} \(") as error:
        run.fit()
    sources, targets = str(error.value).split("source tiles: ")[1].split("; target tiles: ")
    assert f"tile-{BROKEN}" in sources.split(", ")
    assert len(sources.split(", ")) == len(targets.split(", ")) == 8
    assert {int(name.removeprefix("tile-")) >= 40 for name in targets.split(", ")} == {True}
    assert "label_loss nan" in str(error.value)
    left = load_checkpoint(tmp_path / "run", "job")
    assert left is not None
    assert left.position["step"] == step, "what is on disk is from before the broken step"
    assert all(torch.isfinite(value).all() for value in left.method.values())


def test_a_gradient_that_is_not_finite_stops_too(tmp_path: Path) -> None:
    method = small_method("erm")
    method.net.head.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(TrainingError, match=r"epoch 0, step 0 \(label_loss 0\.[0-9]+.*gradient_norm (inf|nan)"):
        trainer(tmp_path / "run", method, grad_clip=None).fit()


def test_skipped_steps_change_nothing_and_are_counted(tmp_path: Path) -> None:
    inputs = FeatureInputs(maps(broken=(BROKEN,)))
    run = trainer(tmp_path / "run", inputs=inputs, epochs=1, steps_per_epoch=20, on_nonfinite="skip")
    plan = Loader(run.data, run.inputs, run.settings, run.seed, torch.device("cpu"), Needs(target=True)).plan(0)
    bad = sum(BROKEN in run.data.source.rows[batch] for batch in plan.source)
    assert 0 < bad < 20
    (row,) = run.fit()
    assert row["skipped_steps"] == bad
    assert all(torch.isfinite(value).all() for value in run.method.state_dict().values()), "BatchNorm's as well"
    assert np.isfinite(row["label_loss"])
    assert row["label_loss"] < 5, "a mean over the steps that were done"


def test_a_training_that_skips_on_and_on_stops(tmp_path: Path) -> None:
    method = small_method("erm")
    before = {name: value.clone() for name, value in method.state_dict().items()}
    inputs = FeatureInputs(maps(broken=tuple(range(40))))
    run = trainer(tmp_path / "run", method, inputs, steps_per_epoch=30, on_nonfinite="skip")
    with pytest.raises(TrainingError, match=rf"{MAX_SKIPPED_IN_A_ROW} steps in a row.*epoch 0, step 9 .*tile-"):
        run.fit()
    assert_same_bits(before, state(run))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_says_what_was_asked_for_and_what_helps(tmp_path: Path, error: Any) -> None:
    method = small_method()

    def fail(*_: object) -> None:
        raise error

    method.net.conv.register_forward_hook(fail)
    with pytest.raises(TrainingError, match=r"8 source tiles of 4 × 4 .* in 2 parts; set train.micro_batches to 4"):
        trainer(tmp_path / "run", method, micro_batches=2).fit()
    with pytest.raises(TrainingError, match=r"in 8 parts; lower train\.batch_size"):
        trainer(tmp_path / "run", method, micro_batches=8).fit()


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path: Path) -> None:
    method = small_method()

    def fail(*_: object) -> None:
        raise RuntimeError("shapes do not fit")

    method.net.conv.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        trainer(tmp_path / "run", method).fit()


def test_deterministic_holds_while_training_gives_equal_bits_and_ends_with_it(tmp_path: Path) -> None:
    seen: list[tuple[bool, str | None]] = []

    def look(*_: object) -> None:
        seen.append((torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")))

    runs = []
    for name in ("first", "second"):
        method = small_method()
        method.net.conv.register_forward_hook(look)
        runs.append(trainer(tmp_path / name, method, deterministic=True))
        runs[-1].fit()
    assert set(seen) == {(True, ":4096:8")}
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    assert_same_bits(state(runs[0]), state(runs[1]))


def test_the_wait_for_data_is_a_share_of_the_epochs_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def pass_(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now)
    method = small_method("erm")
    inputs = Watched(FeatureInputs(maps()), lambda _rows: pass_(0.75 if method.net.training else 0.0))
    method.register_forward_hook(lambda *_: pass_(0.25))
    for row in trainer(tmp_path / "run", method, inputs).fit():
        assert row["data_wait_share"] == 0.75
        assert row["epoch_seconds"] == 5.0


def test_the_learning_rate_of_each_step_is_that_of_the_schedule(tmp_path: Path) -> None:
    rates: list[float] = []
    method = small_method("erm")

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        rates.append(optimizer.param_groups[0]["lr"])

    handle = register_optimizer_step_pre_hook(look)
    try:
        trainer(tmp_path / "run", method, epochs=2, steps_per_epoch=4, warmup=0.25, lr=0.8).fit()
    finally:
        handle.remove()
    assert rates == pytest.approx([0.0, 0.4, 0.8, 0.8 * 5 / 6, 0.8 * 4 / 6, 0.8 * 3 / 6, 0.8 * 2 / 6, 0.8 / 6])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_no_step_waits_for_what_a_gpu_still_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_step = _Run._run_step

    def run_watched(run: _Run, batch: Batch) -> None:
        torch.cuda.set_sync_debug_mode("error" if run.position.step else "default")
        try:
            run_step(run, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(_Run, "_run_step", run_watched)
    run = trainer(tmp_path / "run", device="cuda", ema=0.9)
    assert len(run.fit()) == run.settings.epochs


def test_two_processes_share_batch_norm_and_train_as_one(tmp_path: Path) -> None:
    histories, states = [], []
    for processes in (1, 2):
        run = trainer(tmp_path / f"{processes}", small_method(dropout=0.0), processes=processes, ema=0.9)
        histories.append(run.fit())
        states.append(state(run))
    for row, other in zip(*histories, strict=True):
        for name in ("label_loss", "domain_loss", "gradient_norm", "feature_norm", "information_maximisation"):
            assert other[name] == pytest.approx(row[name], rel=1e-4, abs=1e-5), name
    assert states[0].keys() == states[1].keys()
    for key in ("net.norm.running_mean", "net.norm.running_var", "net.conv.weight", "terms.dann.head.weight"):
        torch.testing.assert_close(states[1][key], states[0][key], rtol=1e-3, atol=1e-5)


def test_a_training_goes_on_with_another_number_of_processes(tmp_path: Path) -> None:
    def pull(row: dict[str, float]) -> None:
        raise PulledPlugError

    def run(path: Path, **changes: Any) -> Trainer:
        return trainer(path, small_method(dropout=0.0), **changes)

    whole = run(tmp_path / "whole")
    expected = whole.fit()
    with pytest.raises(PulledPlugError):
        trainer(tmp_path / "broken", small_method(dropout=0.0), on_epoch=pull).fit()
    history = run(tmp_path / "broken", processes=2).fit()
    assert history[1]["label_loss"] == pytest.approx(expected[1]["label_loss"], rel=1e-4)
