"""Where ONNX Runtime runs a network: on the GPU if CUDA can be loaded, and never by mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch

from oncoshift.models.export import export_onnx
from oncoshift.serving.classifier import TileClassifier
from oncoshift.serving.eager import EagerNetwork
from oncoshift.serving.network import OnnxNetwork

if TYPE_CHECKING:
    from pathlib import Path

TILES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export_onnx(EagerNetwork(TileClassifier("resnet18", 16, 0.5), "cpu").module, torch.from_numpy(TILES), path)
    return path


@pytest.fixture
def cuda_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime that was built for CUDA, on a machine without CUDA's libraries."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])


def test_without_cuda_it_is_refused_by_name_and_passed_over_by_default(graph: Path) -> None:
    assert OnnxNetwork(graph).device == "cpu"
    with pytest.raises(ValueError, match="install onnxruntime-gpu in place of onnxruntime, or choose cpu"):
        OnnxNetwork(graph, "cuda")


@pytest.mark.usefixtures("cuda_that_does_not_load")
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_that_does_not_load_is_refused_by_name_and_passed_over_by_default(
    graph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert OnnxNetwork(graph).device == "cpu"
    with pytest.raises(ValueError, match="cannot load its CUDA provider"):
        OnnxNetwork(graph, "cuda")
    assert capsys.readouterr().out == "", "standard output is for what a command prints"


@pytest.mark.skipif("CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="needs a GPU")
def test_a_gpu_says_the_same_as_the_cpu(graph: Path) -> None:
    on_gpu, on_cpu = (OnnxNetwork(graph, device)(TILES) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(on_gpu.logits, on_cpu.logits, atol=1e-5)
