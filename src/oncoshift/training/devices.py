"""Device, precision, determinism and memory of a training."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch

from oncoshift.errors import SettingsError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from oncoshift.settings import TrainSettings

Precision = Literal["32-true", "bf16-mixed"]

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def pick_device(name: str) -> torch.device:
    """Pick the device; `auto` takes a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def pick_precision(settings: TrainSettings, device: torch.device) -> Precision:
    """Pick the precision; `auto` takes bf16 only where it is native: emulated, it is slow."""
    if settings.precision != "auto":
        return settings.precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return "bf16-mixed" if native else "32-true"


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to a device, without waiting for it.

    A copy to a GPU from ordinary memory would wait until all that the GPU was given before is done.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def begin_reading(flag: Tensor) -> Callable[[], bool]:
    """Begin to copy a flag from its device, and return a function that waits for that copy alone.

    `bool(flag)` would wait for all that the GPU was given in the meantime, too.
    """
    if flag.device.type != "cuda":
        return lambda: bool(flag)
    copy = torch.empty(flag.shape, dtype=flag.dtype, pin_memory=True).copy_(flag, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record(torch.cuda.current_stream(flag.device))

    def read() -> bool:
        copied.synchronize()
        return bool(copy)

    return read


def check_processes(processes: int, device: torch.device) -> None:
    """Check that each process gets a GPU of its own; the CPU's cores are shared.

    Raises:
        SettingsError: there are fewer GPUs.
    """
    if device.type == "cuda" and processes > torch.cuda.device_count():
        raise SettingsError(
            f"train.processes {processes}: there are {torch.cuda.device_count()} GPUs, and each process needs one; "
            "lower it, or set train.device to cpu"
        )


@contextmanager
def using_one_thread() -> Iterator[None]:
    """Limit torch to one CPU thread while the context is open."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def enforcing_determinism(wanted: bool) -> Iterator[None]:
    """Use deterministic algorithms, on a GPU too, while the context is open.

    Raises:
        RuntimeError: by torch, for an operation that has no deterministic form on the device.
    """
    if not wanted:
        yield
        return
    before, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    workspace = os.environ.get(_WORKSPACE)
    os.environ.setdefault(_WORKSPACE, ":4096:8")  # without it cuBLAS may add up in another order
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark
        if workspace is None:
            del os.environ[_WORKSPACE]


@contextmanager
def explaining_out_of_memory(settings: TrainSettings, side: int, device: torch.device) -> Iterator[None]:
    """Turn an out-of-memory error into one that says what was requested and what to lower.

    Args:
        settings: section `train`.
        side: side of a tile, pixels.
        device: that the training runs on.

    Raises:
        TrainingError: the device or the machine has not enough memory.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        parts, share = settings.micro_batches, settings.batch_size // settings.ranks
        size = f"{share} source tiles of {side} × {side} and as many of the target"
        more = next((k for k in range(parts + 1, share + 1) if share % k == 0), None)
        advice = f"set train.micro_batches to {more}, or " if more else ""
        raise TrainingError(
            f"{_describe_memory(device)} is too small for {size} in {parts} part{'s' if parts > 1 else ''}; "
            f"{advice}lower train.batch_size ({str(error).splitlines()[0]})"
        ) from error


def _describe_memory(device: torch.device) -> str:
    if device.type != "cuda":
        return "the machine's memory"
    total = torch.cuda.get_device_properties(device).total_memory
    return f"the memory of {torch.cuda.get_device_name(device)} ({total / 2**30:.0f} GiB)"
