"""Two processes that share batches give the losses of one, and an error in either is reported."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from oncoshift.errors import ProcessLostError, SettingsError, TrainingError, TrainingInterrupted
from oncoshift.training import distributed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from oncoshift.settings import Settings

FIGURES = ("label_loss", "source_train_accuracy", "target_entropy", "feature_norm", "gradient_norm")
SHORT = {"epochs": 2, "steps_per_epoch": 4, "batch_size": 16}


class PulledPlugError(Exception):
    """A simulated error in a hook, as pruning raises one."""


@pytest.mark.parametrize(
    "method", [pytest.param("erm", marks=pytest.mark.slow), pytest.param("mdd", marks=pytest.mark.slow), "cdan_mcc"]
)
def test_two_processes_train_as_one(
    world: Callable[..., Any], settings_for: Callable[..., Settings], train: Callable[..., Any], method: str
) -> None:
    tiles = world(0)
    one = train(tiles, settings_for(method, 0, train=SHORT), "one")
    two = train(tiles, settings_for(method, 0, train={**SHORT, "processes": 2}), "two")
    for row, other in zip(one.history, two.history, strict=True):
        shared = [name for name in FIGURES if name in row]
        assert "label_loss" in shared
        for name in (*shared, "source_accuracy", "information_maximisation"):
            assert other[name] == pytest.approx(row[name], rel=1e-4, abs=1e-5), name
    expected, state = one.method.state_dict(), two.method.state_dict()
    assert expected.keys() == state.keys()
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
def test_label_shift_is_that_of_the_whole_batch(
    world: Callable[..., Any], settings_for: Callable[..., Settings], train: Callable[..., Any]
) -> None:
    tiles = world(1)
    shift = {"dann": {"label_shift": "reweight"}}
    one = train(tiles, settings_for("dann", 1, train=SHORT, **shift), "one")
    two = train(tiles, settings_for("dann", 1, train={**SHORT, "processes": 2}, **shift), "two")
    for row, other in zip(one.history, two.history, strict=True):
        assert other["domain_loss"] == pytest.approx(row["domain_loss"], rel=1e-4)
        assert other["target_malignant_estimate"] == pytest.approx(row["target_malignant_estimate"], rel=1e-4)


@pytest.mark.slow
def test_an_error_of_the_hook_ends_all_processes_and_a_second_start_goes_on(
    world: Callable[..., Any], settings_for: Callable[..., Settings], train: Callable[..., Any]
) -> None:
    tiles, settings = world(0), settings_for("dann", 0, train={**SHORT, "processes": 2})

    def pull(row):  # type: ignore[no-untyped-def]
        raise PulledPlugError

    with pytest.raises(PulledPlugError):
        train(tiles, settings, "broken", pull)
    rows: list[float] = []
    resumed = train(tiles, settings, "broken", lambda row: rows.append(row["epoch"]))
    whole = train(tiles, settings, "whole")
    assert rows == [0, 1]
    assert all(np.array_equal(a, b) for a, b in zip(_values(resumed), _values(whole), strict=True))


def _values(trained):  # type: ignore[no-untyped-def]
    return [value.numpy() for value in trained.method.state_dict().values()]


def test_sigterm_ends_all_processes_with_a_checkpoint(
    world: Callable[..., Any], settings_for: Callable[..., Settings], train: Callable[..., Any], tmp_path: Path
) -> None:
    settings = settings_for("erm", 0, train={**SHORT, "epochs": 100000, "processes": 2})
    tiles, seen = world(0), threading.Event()

    def terminate() -> None:
        seen.wait(60)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate).start()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingInterrupted, match="goes on"):
        train(tiles, settings, "stopped", lambda _: seen.set())
    assert signal.getsignal(signal.SIGTERM) == before
    assert (tmp_path / "stopped").is_file()


def test_a_batch_that_cannot_be_shared_equally_is_refused(settings_for: Callable[..., Settings]) -> None:
    with pytest.raises(SettingsError, match="batch_size"):
        settings_for("erm", 0, train={"batch_size": 15, "processes": 2})


def _die(argument, report, stopped):  # type: ignore[no-untyped-def]
    if os.environ["LOCAL_RANK"] == argument:
        os.kill(os.getpid(), signal.SIGKILL)
    while not stopped():
        time.sleep(0.01)


def _fail(argument, report, stopped):  # type: ignore[no-untyped-def]
    raise TrainingError(argument)


def _never() -> bool:
    return False


def test_a_killed_process_is_told_and_the_others_are_ended() -> None:
    before = set(torch.multiprocessing.active_children())
    with pytest.raises(ProcessLostError, match=r"process 1 of 2 ended with code -9"):
        distributed.run_ranks(_die, "1", 2, print, _never)
    assert set(torch.multiprocessing.active_children()) == before


def test_an_error_of_a_process_arrives_as_it_is() -> None:
    with pytest.raises(TrainingError, match="these tiles"):
        distributed.run_ranks(_fail, "look at these tiles", 2, print, _never)
