"""What is known of a network after an epoch: source validation, and scores on the target that need no label."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.selection.information_maximisation import information_maximisation
from oncoshift.selection.source_accuracy import source_accuracy
from oncoshift.training.prediction import predict

if TYPE_CHECKING:
    import torch

    from oncoshift.data.tables import TrainingData
    from oncoshift.models.network import AdaptationNet
    from oncoshift.training.inputs import Inputs


def validate(net: AdaptationNet, data: TrainingData, inputs: Inputs, device: torch.device) -> dict[str, float]:
    """Figures by name; the network's mode is restored afterwards."""
    source = predict(net, inputs, data.source_val.rows, device)
    target = predict(net, inputs, data.target.rows, device)
    return {
        "source_accuracy": source_accuracy(source, data.source_val.labels),
        "information_maximisation": information_maximisation(target),
        "target_malignant_share": float(np.mean(target > 0.5)),
    }
