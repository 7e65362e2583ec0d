"""Export of a trained classifier: for ONNX Runtime, torch.export, and TorchScript.

Each export is run beside the classifier in float32, on batches of several sizes.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch

from oncoshift.errors import RegistryError
from oncoshift.serving.network import INPUT, OUTPUTS, NetworkOutput, OnnxNetwork

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from oncoshift.serving.eager import EagerNetwork, ServedModule
    from oncoshift.serving.network import Network

MAX_DIFFERENCE = 1e-4
"""Largest difference in probability between an export and the classifier in float32."""

_OPSET = 18


def export_onnx(module: ServedModule, example: Tensor, path: Path) -> OnnxNetwork:
    """Write a module as ONNX, for a batch of any size.

    Args:
        module: in eval mode, on the CPU.
        example: RGB tiles, uint8 [N, S, S, 3], N ≥ 2.
        path: of the .onnx file.

    Returns:
        What ONNX Runtime makes of it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of age, and of constants, which are meant
        # By tracing: the newer exporter makes the same graph of a ResNet in ten times the time.
        torch.onnx.export(
            module, (example,), path, dynamo=False, opset_version=_OPSET, input_names=[INPUT],
            output_names=list(OUTPUTS), dynamic_axes={name: {0: "batch"} for name in (INPUT, *OUTPUTS)},
        )  # fmt: skip
    return OnnxNetwork(path, "cpu")


def export_program(module: ServedModule, example: Tensor, path: Path) -> Network:
    """Write a module by torch.export, for a batch of any size.

    Args:
        module: in eval mode, on the CPU.
        example: RGB tiles, uint8 [N, S, S, 3], N ≥ 2.
        path: of the .pt2 file.

    Returns:
        What torch makes of the file.
    """
    program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    program.example_inputs = None  # torch would keep them as a pickle
    torch.export.save(program, path)
    return _as_network(torch.export.load(path).module())


def export_script(module: torch.nn.Module, example: Tensor, path: Path) -> torch.jit.ScriptModule:
    """Write a module as TorchScript, by tracing, for a batch of any size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of age, and of constants, which are meant
        with torch.inference_mode():
            script = torch.jit.trace(module, example)  # type: ignore[no-untyped-call]
        torch.jit.save(script, path)
        loaded: torch.jit.ScriptModule = torch.jit.load(path)  # type: ignore[no-untyped-call]
    return loaded


def measure_difference(name: str, network: Network, eager: EagerNetwork, tiles: NDArray[np.uint8]) -> float:
    """Compare an export with the classifier that it was made of.

    Args:
        name: of the export, for the message.
        network: the export.
        eager: the classifier.
        tiles: RGB, uint8 [N, S, S, 3]; all at once, and the first alone.

    Returns:
        The largest difference in probability.

    Raises:
        RegistryError: it is above `MAX_DIFFERENCE`.
    """
    found = max(float(np.abs(_softmax(network(part)) - _softmax(eager(part))).max()) for part in (tiles, tiles[:1]))
    if not found <= MAX_DIFFERENCE:
        raise RegistryError(
            f"{name}: its probabilities differ from the classifier's by up to {found:.1e}, and {MAX_DIFFERENCE:.0e} is "
            "allowed; nothing was registered"
        )
    return found


def _softmax(output: NetworkOutput) -> NDArray[np.float64]:
    """Return probabilities of malignant, [N]; NaN where the logits are not finite."""
    margin = (output.logits[:, 1] - output.logits[:, 0]).astype(np.float64)
    probabilities: NDArray[np.float64] = 1 / (1 + np.exp(-margin))
    return probabilities


def _as_network(module: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Network:
    def run(tiles: NDArray[np.uint8]) -> NetworkOutput:
        with torch.inference_mode():
            logits, features = module(torch.from_numpy(tiles))
        return NetworkOutput(logits.numpy(), features.numpy())

    return run
