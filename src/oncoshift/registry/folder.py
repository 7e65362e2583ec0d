"""A trained classifier as an MLflow model folder: weights, serving code, pinned requirements.

Nothing of it is a pickle, and predicting needs neither torch nor anything of the training stack.
"""

from __future__ import annotations

import io
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mlflow.pyfunc
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType
from packaging.version import Version
from PIL import Image

import oncoshift.serving
from oncoshift.errors import RegistryError
from oncoshift.fingerprint import find_library
from oncoshift.registry.artifacts import write_artifacts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from oncoshift.registry.artifacts import TrainingTiles
    from oncoshift.serving.config import ServedConfig

# OpenCV as `opencv-python`, although a server needs no display: staintools asks for it, and two
# distributions of OpenCV in one environment would overwrite each other's files. So this project has
# no other, and MLflow would warn of one.
SERVED_PACKAGES = ("mlflow-skinny", "numpy", "onnxruntime", "opencv-python", "pandas", "pillow", "simplejpeg")

DEFAULT_BATCH_SIZE = 64

_SHIPPED_INIT = '''"""The part of oncoshift that serves; the rest stays importable where it is installed."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
'''

# MLflow keeps the model that a models-from-code script sets in a module's global.
_save_lock = threading.Lock()


@dataclass(frozen=True)
class Package:
    """A trained classifier and its description.

    Attributes:
        config: what the weights need to become a model; its `name` is that of the registered model.
        state: `TileClassifier.state_dict()`.
        card: the model card, Markdown.
        examples: at least two uint8 RGB tiles [H, W, 3], kept as the input example; with one, an
            error in batching would go unnoticed.
        training: tiles from which the shift of others is measured; None: it is not.
    """

    config: ServedConfig
    state: Mapping[str, Tensor]
    card: str
    examples: Sequence[NDArray[np.uint8]]
    training: TrainingTiles | None = None

    def __post_init__(self) -> None:
        if len(self.examples) < 2:
            raise RegistryError(f"{self.config.name}: {len(self.examples)} input example(s); give at least two tiles")


def save_folder(package: Package, folder: Path, model: Model | None = None) -> dict[str, float]:
    """Write the package as an MLflow model folder; needs no MLflow store.

    Args:
        package: the package to write.
        folder: folder to write to; absent or empty.
        model: MLflow's metadata with the ids of a logged model; default: none.

    Returns:
        By form (safetensors, onnx, pt2), the largest difference in probability from the classifier.

    Raises:
        RegistryError: a form of the network differs too much from the classifier.
    """
    with TemporaryDirectory() as scratch, _save_lock:
        work = Path(scratch) / "artifacts"
        work.mkdir()
        differences = write_artifacts(work, package.config, package.state, package.examples, package.training)
        (work / "card.md").write_text(package.card, encoding="utf-8")
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(_find_serving_code() / "pyfunc.py"),
            artifacts={file.name: str(file) for file in sorted(work.iterdir())},
            code_paths=[str(_copy_serving_code(Path(scratch) / "oncoshift"))],
            model_config={"device": "auto", "threads": 0},
            signature=_build_signature(package.config),
            input_example=pd.DataFrame({"image": [_encode_png(tile) for tile in package.examples]}),
            pip_requirements=list_requirements(package.config),
            mlflow_model=model,
        )
    return differences


def list_requirements(config: ServedConfig) -> list[str]:
    """List what serving needs, at the versions installed here, without local build suffixes."""
    names = SERVED_PACKAGES if config.reference is None else (*SERVED_PACKAGES, "numba")
    return [f"{name}=={Version(pin).public}" for name, pin in map(find_library, names)]


def _build_signature(config: ServedConfig) -> ModelSignature:
    # `Any`, because bytes, base64 text and pixel arrays are all images; MLflow's `binary` would
    # refuse the last two.
    scaled = config.um_per_pixel is not None
    scale = [ColSpec(DataType.double, "um_per_pixel", required=False)] if scaled else []
    inputs = Schema([ColSpec(AnyType(), "image"), *scale])  # type: ignore[no-untyped-call]
    outputs = Schema(
        [
            ColSpec(DataType.string, "label", required=False),
            ColSpec(DataType.double, "probability", required=False),
            ColSpec(DataType.double, "shift", required=False),
            ColSpec(DataType.string, "abstain", required=False),
            ColSpec(DataType.string, "error", required=False),
            ColSpec(DataType.string, "explanation", required=False),
            *([ColSpec(DataType.string, "scale", required=False)] if scaled else []),
        ]
    )
    params = ParamSchema(
        [
            ParamSpec("threshold", DataType.double, config.threshold),
            ParamSpec("batch_size", DataType.long, DEFAULT_BATCH_SIZE),
            ParamSpec("explain", DataType.boolean, False),
        ]
    )
    return ModelSignature(inputs, outputs, params)


def _find_serving_code() -> Path:
    return Path(oncoshift.serving.__path__[0])


def _copy_serving_code(folder: Path) -> Path:
    """Copy the package `oncoshift` with its serving part alone."""
    shutil.copytree(_find_serving_code(), folder / "serving", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "__init__.py").write_text(_SHIPPED_INIT, encoding="utf-8")
    return folder


def _encode_png(tile: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(tile).save(buffer, format="PNG")
    return buffer.getvalue()
