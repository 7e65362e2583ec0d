"""Validation after an epoch, on source validation tiles and, without labels, on the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.errors import UntrainableError
from oncoshift.selection.validators import Predictions, compute_scores
from oncoshift.training.prediction import compute_outputs
from oncoshift.training.proxy_a_distance import proxy_a_distance

if TYPE_CHECKING:
    import torch

    from oncoshift.data.tables import TrainingData
    from oncoshift.models.network import TrainedNet
    from oncoshift.training.inputs import Inputs


def validate(net: TrainedNet, data: TrainingData, inputs: Inputs, device: torch.device) -> dict[str, float]:
    """Compute figures by name from one pass over source validation and target.

    Returns:
        The scores of `selection.validators` by their names; `target_malignant_share`, the share of
        target tiles called malignant; and `proxy_a_distance`, between the shared features of source
        validation and target.

    Raises:
        UntrainableError: predictions are not finite.
    """
    source = compute_outputs(net, inputs, data.source_val.rows, device, "source")
    target = compute_outputs(net, inputs, data.target.rows, device)
    if not all(np.isfinite(part).all() for part in (*source, *target)):
        raise UntrainableError("the network's predictions are not finite after this epoch; lower train.lr")
    nuclei = None if data.nuclei is None else data.nuclei[data.target.rows]
    model = Predictions(source.probabilities, data.source_val.labels, target.probabilities, nuclei)
    return {
        **compute_scores(model),
        "target_malignant_share": float(np.mean(target.probabilities > 0.5)),
        "proxy_a_distance": proxy_a_distance(source.features, target.features),
    }
