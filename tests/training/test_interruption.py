"""SIGTERM writes a checkpoint and ends with code 75; a second run gives the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import torch
from support import small_training
from support.small_training import Watched, maps, trainer

from oncoshift.errors import TrainingInterrupted
from oncoshift.training.checkpoint import load_checkpoint
from oncoshift.training.inputs import FeatureInputs
from oncoshift.training.interruption import interruptible, stop_on_sigterm, stopping_at_once

if TYPE_CHECKING:
    from pathlib import Path


def terminate(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def start(checkpoint: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, small_training.__file__, str(checkpoint)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_a_process_that_gets_sigterm_leaves_a_checkpoint_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    process = start(tmp_path / "stopped")
    assert process.stdout is not None
    assert process.stdout.readline() == "8 tiles\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate("go on\n", timeout=120)
    assert process.returncode == 75, said
    assert "goes on" in said
    left = load_checkpoint(tmp_path / "stopped", "job")
    assert left is not None
    assert (left.position["epoch"], left.position["step"]) == (0, 13)

    again = start(tmp_path / "stopped")
    assert again.communicate("go on\n", timeout=120)[1] == ""
    assert again.returncode == 0
    trainer(tmp_path / "whole", steps_per_epoch=20, ema=0.9).fit()
    ended = [torch.load(tmp_path / name, weights_only=True) for name in ("stopped", "whole")]
    for part in ("method", "average"):
        assert ended[0][part].keys() == ended[1][part].keys()
        assert all(torch.equal(value, ended[1][part][name]) for name, value in ended[0][part].items())


def test_it_stops_after_the_step_under_way_and_puts_the_handler_back(tmp_path: Path) -> None:
    batches = 0

    def tell(rows: object) -> None:
        nonlocal batches
        batches += 1
        if batches == 5:  # the source tiles of the third step
            terminate()

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingInterrupted, match="epoch 0, step 3;"):
        trainer(tmp_path / "run", inputs=Watched(FeatureInputs(maps()), tell)).fit()
    assert signal.getsignal(signal.SIGTERM) == before
    left = load_checkpoint(tmp_path / "run", "job")
    assert left is not None
    assert left.position["step"] == 3
    assert batches == 6


def test_one_that_comes_after_the_last_step_is_not_lost(tmp_path: Path) -> None:
    def last(row: dict[str, float]) -> None:
        if row["epoch"] == 1:
            terminate()

    with pytest.raises(TrainingInterrupted, match="holds all of it"):
        trainer(tmp_path / "run", on_epoch=last).fit()
    assert len(trainer(tmp_path / "run").fit()) == 2


def test_what_is_ended_at_once_may_hold_more_of_it() -> None:
    def work() -> None:
        with stopping_at_once():
            with stopping_at_once():
                pass
            terminate()
            pytest.fail("SIGTERM did not end it")

    with interruptible() as stopped:
        with pytest.raises(TrainingInterrupted):
            work()
        assert stopped()


def test_in_another_thread_signals_stay_as_they_are() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with interruptible() as stopped:
            seen.append((signal.getsignal(signal.SIGTERM), stopped()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


def test_a_second_one_does_not_cut_short_what_follows_a_training_that_took_the_first() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        stop_on_sigterm()
        with interruptible() as stopped:
            terminate()
        assert stopped()
        terminate()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_of_training_it_ends_the_work_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        stop_on_sigterm()
        with pytest.raises(TrainingInterrupted, match="start it again"):
            terminate()
        terminate()
    finally:
        signal.signal(signal.SIGTERM, before)
