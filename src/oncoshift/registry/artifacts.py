"""The files of a served model: weights, network, configuration, profile of its training tiles.

Each form of the network is compared with the classifier before anything is registered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from scipy.special import expit

from oncoshift.data.parquet import write_table
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

PROFILE = "profile.parquet"
"""A row for each tile of `REFERENCE`: organ, group (a number, as names may be those of patients),
the model's probability, and the measurements of the file. New batches are compared with it."""

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
        measured: measurements of the original files, a row each (see `serving.tissue`); None:
            batches cannot be compared with them.
    """

    images: NDArray[np.uint8]
    organs: NDArray[np.str_]
    groups: NDArray[np.str_]
    measured: pd.DataFrame | None = None


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
    classifier = build_classifier(config.backbone, config.bottleneck, config.dropout, config.members, config.pooling)
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
        describe_training(folder, onnx, config, training)
    differences = {form: measure_difference(f"{config.name}: {form}", net, eager, tiles) for form, net in forms.items()}
    files = {file.name: sha256_file(file) for file in sorted(folder.iterdir()) if file.name != PROGRAM}
    (folder / CONFIG).write_text(replace(config, files=files).to_json(), encoding="utf-8")
    return differences


def describe_training(folder: Path, network: Network, config: ServedConfig, training: TrainingTiles) -> None:
    """Write what a model says of its training tiles: `REFERENCE` and, if measured, `PROFILE`."""
    starts = range(0, len(training.images), _BATCH)
    outputs = [network(training.images[start : start + _BATCH]) for start in starts]
    features = np.concatenate([output.features for output in outputs])
    ShiftReference.fit(features, training.organs, training.groups).save(folder / REFERENCE)
    if training.measured is None:
        return
    logits = np.concatenate([output.logits for output in outputs]).astype(np.float64)
    columns = {
        "organ": training.organs,
        "group": np.unique(training.groups, return_inverse=True)[1],
        "probability": expit((logits[:, 1] - logits[:, 0]) / config.temperature),
    }
    write_table(pd.DataFrame(columns).join(training.measured.reset_index(drop=True)), folder / PROFILE)
