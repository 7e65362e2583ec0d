"""The files of a served model: weights, network, configuration, and the training tiles' distances.

Each form of the network is compared with the classifier before anything is registered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save_file

from oncoshift.files import sha256_file
from oncoshift.models.export import export_onnx, export_program, measure_difference
from oncoshift.serving.classifier import build_classifier
from oncoshift.serving.config import CONFIG, GRAPH, PROGRAM, REFERENCE, WEIGHTS, ServedConfig
from oncoshift.serving.eager import EagerNetwork
from oncoshift.serving.images import resize
from oncoshift.serving.shift import ShiftReference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from oncoshift.serving.network import Network

COMPARED_TILES = 32
"""Training tiles on which the forms of the network are compared, at most."""

_BATCH = 64


@dataclass(frozen=True)
class TrainingTiles:
    """Tiles that a model was trained on, as its network sees them.

    Attributes:
        images: RGB uint8 [N, S, S, 3], normalised.
        organs: str [N].
        groups: str [N], patients, slides or originals.
    """

    images: NDArray[np.uint8]
    organs: NDArray[np.str_]
    groups: NDArray[np.str_]


def write_artifacts(
    folder: Path,
    config: ServedConfig,
    state: Mapping[str, Tensor],
    examples: Sequence[NDArray[np.uint8]],
    training: TrainingTiles | None,
) -> dict[str, float]:
    """Write a model's files.

    Args:
        folder: is there, and empty.
        config: of the model.
        state: `Classifier.state_dict()`.
        examples: at least two RGB tiles, uint8 [H, W, 3].
        training: tiles that its shift is measured from; None: it is not measured.

    Returns:
        By form (safetensors, onnx, pt2), the largest difference in probability from the classifier.

    Raises:
        RegistryError: a form differs by more than `MAX_DIFFERENCE`.
    """
    classifier = build_classifier(config.backbone, config.bottleneck, config.dropout, config.members)
    classifier.load_state_dict(state)
    eager = EagerNetwork(classifier, "cpu")
    tiles = np.stack([resize(tile, config.tile_size) for tile in examples])
    batch = torch.from_numpy(tiles)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # else only its owner could read it
    onnx = export_onnx(eager.module, batch, folder / GRAPH)
    forms: dict[str, Network] = {
        "safetensors": EagerNetwork.load(config, folder / WEIGHTS, "cpu"),
        "onnx": onnx,
        "pt2": export_program(eager.module, batch, folder / PROGRAM),
    }
    if training is not None:
        tiles = np.concatenate([tiles, training.images[:COMPARED_TILES]])
        _fit_shift(onnx, training).save(folder / REFERENCE)
    differences = {form: measure_difference(f"{config.name}: {form}", net, eager, tiles) for form, net in forms.items()}
    files = {file.name: sha256_file(file) for file in sorted(folder.iterdir()) if file.name != PROGRAM}
    (folder / CONFIG).write_text(replace(config, files=files).to_json(), encoding="utf-8")
    return differences


def _fit_shift(network: Network, training: TrainingTiles) -> ShiftReference:
    starts = range(0, len(training.images), _BATCH)
    features = np.concatenate([network(training.images[start : start + _BATCH]).features for start in starts])
    return ShiftReference.fit(features, training.organs, training.groups)
