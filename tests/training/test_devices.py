"""Device, precision and processes: `auto` resolves as documented, and bad choices are refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch

from oncoshift.errors import SettingsError
from oncoshift.settings import TrainSettings
from oncoshift.training.devices import check_processes, enforcing_determinism, pick_device, pick_precision

if TYPE_CHECKING:
    from typing import Any

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("there", "expected"), [(True, "cuda"), (False, "cpu")])
def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch, there: bool, expected: Any) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert pick_device("auto").type == expected
    assert pick_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    ("avx512", "amx", "expected"),
    [(False, False, "32-true"), (True, False, "bf16-mixed"), (False, True, "bf16-mixed")],
)
def test_auto_takes_bf16_where_the_processor_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool, expected: Any
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert pick_precision(TrainSettings(), CPU) == expected
    assert pick_precision(TrainSettings(precision="bf16-mixed"), CPU) == "bf16-mixed"
    assert pick_precision(TrainSettings(precision="32-true"), CPU) == "32-true"


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_gpu_that_emulates_bf16_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch, native: bool, expected: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert pick_precision(TrainSettings(), GPU) == expected


def test_each_process_wants_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_processes(2, GPU)
    check_processes(3, CPU)
    with pytest.raises(SettingsError, match=r"train\.processes 3: there are 2 GPUs"):
        check_processes(3, GPU)


def test_determinism_is_restored_after_an_error_and_leaves_what_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    inside = []

    def fail() -> None:
        inside.extend([torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark])
        raise KeyError

    with pytest.raises(KeyError), enforcing_determinism(True):
        fail()
    assert inside == [True, False]
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
