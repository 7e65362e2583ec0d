"""The network of a served model, run by ONNX Runtime. Needs neither torch nor MLflow."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, NamedTuple, Protocol

import onnxruntime

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

INPUT, OUTPUTS = "tiles", ("logits", "features")
"""Names in the graph."""

DEVICES = ("auto", "cpu", "cuda")

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class NetworkOutput(NamedTuple):
    """What a network says of N tiles.

    Attributes:
        logits: float32 [N, 2], benign and malignant.
        features: float32 [N, D], the trunk's pooled features; those of an ensemble's members side
            by side.
    """

    logits: NDArray[np.float32]
    features: NDArray[np.float32]


class Network(Protocol):
    """A network that maps RGB tiles, uint8 [N, S, S, 3], to logits and features."""

    def __call__(self, tiles: NDArray[np.uint8]) -> NetworkOutput:
        """Run the network."""
        ...


class OnnxNetwork:
    """An ONNX graph that `oncoshift.models.export` wrote; safe to call from several threads.

    Attributes:
        device: cpu or cuda.
    """

    def __init__(self, path: Path, device: str = "auto", threads: int = 0) -> None:
        """Load a graph.

        Args:
            path: the .onnx file.
            device: cpu; cuda; or auto, which is cuda where ONNX Runtime has it.
            threads: for one batch on the CPU; 0: as many as OMP_NUM_THREADS says, or one a core.

        Raises:
            ValueError: there is no such device, or ONNX Runtime cannot use it.
        """
        chosen = _choose_device(device)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or int(os.environ.get("OMP_NUM_THREADS") or 0)
        providers: list[str | tuple[str, dict[str, str]]] = [_PROVIDERS["cpu"]]
        if chosen == "cuda":
            with redirect_stdout(sys.stderr):  # which hears of libraries that are not there
                onnxruntime.preload_dlls()  # that pip has installed
            # With TF32, its default, probabilities differ from the CPU's in the fourth digit.
            providers.insert(0, (_PROVIDERS["cuda"], {"use_tf32": "0"}))
        self._session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        # Where CUDA's libraries are missing, ONNX Runtime goes on without it.
        self.device = "cuda" if _PROVIDERS["cuda"] in self._session.get_providers() else "cpu"
        if device == "cuda" and self.device == "cpu":
            raise ValueError(
                "device cuda: ONNX Runtime cannot load its CUDA provider, and its messages above say why; install "
                "onnxruntime-gpu[cuda,cudnn], or choose cpu"
            )

    def __call__(self, tiles: NDArray[np.uint8]) -> NetworkOutput:
        """See `Network`."""
        logits, features = self._session.run(list(OUTPUTS), {INPUT: tiles})
        return NetworkOutput(logits, features)


def _choose_device(device: str) -> str:
    if device not in DEVICES:
        raise ValueError(f"device {device!r}: choose one of {', '.join(DEVICES)}")
    has_cuda = _PROVIDERS["cuda"] in onnxruntime.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise ValueError(
            "device cuda: this ONNX Runtime has no CUDA; install onnxruntime-gpu in place of onnxruntime, or choose cpu"
        )
    return device if device != "auto" else ("cuda" if has_cuda else "cpu")
