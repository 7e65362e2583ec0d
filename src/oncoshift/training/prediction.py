"""Class probabilities of a network for rows of a pack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.models.network import AdaptationNet
    from oncoshift.training.inputs import Inputs


@torch.inference_mode()
def predict(
    net: AdaptationNet, inputs: Inputs, rows: NDArray[np.int64], device: torch.device, batch: int = 64
) -> NDArray[np.float64]:
    """Probability of malignant for each row, float64 [N]; the network's mode is restored afterwards."""
    was_training = net.training
    net.eval()
    parts = [
        net.logits(net.features(inputs.batch(rows[first : first + batch], device))).double().softmax(1)[:, 1].cpu()
        for first in range(0, len(rows), batch)
    ]
    net.train(was_training)
    return torch.cat(parts).numpy() if parts else np.empty(0)
