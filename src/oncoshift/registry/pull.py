"""A registered model as a folder that runs without a store, a network or oncoshift."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from oncoshift.errors import RegistryError
from oncoshift.models.export import export_script
from oncoshift.registry.card import replace_sections
from oncoshift.registry.loading import find_folder
from oncoshift.serving.config import CONFIG, LABELS, WEIGHTS, ServedConfig
from oncoshift.serving.eager import EagerNetwork
from oncoshift.serving.trunks import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from torch import Tensor, nn

SCRIPT = "torchscript_model.pt"

_EXAMPLE = '''"""Classify image files: python example.py tile.png another.jpg

Needs the packages of requirements.txt, and no network: pip install -r requirements.txt
"""

import sys
from pathlib import Path

import mlflow.pyfunc

folder = Path(__file__).resolve().parent
files = [Path(name) for name in sys.argv[1:]]
if not files:
    sys.exit(__doc__)

model = mlflow.pyfunc.load_model(str(folder / "model"))
table = model.predict({"image": [file.read_bytes() for file in files]})
table.insert(0, "file", [file.name for file in files])
print(table.to_string(index=False))
'''


_SECTIONS = {
    "Gate": "Decided after this card was written: `oncoshift audit` has the decision, where the model is registered.",
    "Load": "```sh\npip install -r requirements.txt\npython example.py TILE.png …\n```\n\n`model/` is an MLflow model "
    "for `mlflow.pyfunc.load_model`; `wsinfer/`, if it is there, is for WSInfer and QuPath.",
}
"""Sections of the card that differ in a folder that runs by itself."""


def pull(uri: str, tracking_uri: str | None, folder: Path, um_per_pixel: float | None = None) -> list[str]:
    """Write a model with its requirements, card, an example and a WSInfer model.

    Args:
        uri: see `loading.load_served`.
        tracking_uri: the store, for a model that is in one.
        folder: must be absent or empty.
        um_per_pixel: scale of the training tiles, for WSInfer; default: what the model says.

    Returns:
        What could not be written, and why; in words.

    Raises:
        RegistryError: there is no such model, its files are missing or damaged, or the folder holds
            something.
        UnavailableError: the store does not answer.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RegistryError(f"{folder}: is there and not empty; choose another folder, or remove it")
    source = find_folder(uri, tracking_uri)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        made = Path(scratch) / "pulled"
        shutil.copytree(source, made / "model", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(made / "model" / "requirements.txt", made)
        card = (made / "model" / "artifacts" / "card.md").read_text(encoding="utf-8")
        (made / "README.md").write_text(replace_sections(card, _SECTIONS), encoding="utf-8")
        (made / "example.py").write_text(_EXAMPLE, encoding="utf-8")
        missing = _write_wsinfer(made / "model" / "artifacts", made / "wsinfer", um_per_pixel)
        if folder.exists():
            folder.rmdir()
        made.rename(folder)
    return missing


def _write_wsinfer(artifacts: Path, folder: Path, um_per_pixel: float | None) -> list[str]:
    """Write config.json and TorchScript as WSInfer and QuPath read them, or say why not."""
    config = ServedConfig.from_json((artifacts / CONFIG).read_text(encoding="utf-8"))
    spacing = um_per_pixel or config.um_per_pixel
    if config.reference is not None:
        return [f"no WSInfer model: it cannot normalise stains, and this model needs {config.variant}"]
    if spacing is None:
        return ["no WSInfer model: it must know the scale of the training tiles; give --um-per-pixel"]
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps(describe_for_wsinfer(config, spacing), indent=2) + "\n", encoding="utf-8")
    classifier = EagerNetwork.load(config, artifacts / WEIGHTS, "cpu").classifier
    example = torch.zeros(2, 3, config.tile_size, config.tile_size)
    export_script(_Calibrated(classifier, config.temperature).eval(), example, folder / SCRIPT)
    return []


def describe_for_wsinfer(config: ServedConfig, um_per_pixel: float) -> dict[str, object]:
    """Return the content of config.json by version 1.0 of WSInfer's schema.

    See wsinfer_zoo/schemas/model-config.schema.json of github.com/SBU-BMI/wsinfer-zoo.
    """
    normalisation = {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
    return {
        "spec_version": "1.0",
        "architecture": config.backbone,
        "num_classes": len(LABELS),
        "class_names": list(LABELS),
        "patch_size_pixels": config.tile_size,
        "spacing_um_px": um_per_pixel,
        "transform": [
            {"name": "Resize", "arguments": {"size": config.tile_size}},
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": normalisation},
        ],
    }


class _Calibrated(torch.nn.Module):
    """Normalised tiles [N, 3, S, S] to logits [N, 2] whose softmax is calibrated."""

    def __init__(self, classifier: nn.Module, temperature: float) -> None:
        super().__init__()
        self.classifier = classifier
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        """Run the classifier."""
        logits: Tensor = self.classifier(x)
        return logits / self.temperature
