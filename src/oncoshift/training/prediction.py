"""Predictions of a network for rows of a pack: probabilities and shared features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch

from oncoshift.training.memory import keeping_freed_memory

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.models.network import TrainedNet
    from oncoshift.training.inputs import Inputs

Domain = Literal["source", "target"]


class Outputs(NamedTuple):
    """The outputs for N rows.

    Attributes:
        probabilities: of malignant, float64 [N].
        features: the shared feature, float32 [N, bottleneck].
    """

    probabilities: NDArray[np.float64]
    features: NDArray[np.float32]


def predict(net: TrainedNet, inputs: Inputs, rows: NDArray[np.int64], device: torch.device) -> NDArray[np.float64]:
    """Predict the probability of malignant, float64 [N], as served; see `compute_outputs`."""
    return compute_outputs(net, inputs, rows, device).probabilities


@keeping_freed_memory()
@torch.inference_mode()
def compute_outputs(
    net: TrainedNet,
    inputs: Inputs,
    rows: NDArray[np.int64],
    device: torch.device,
    domain: Domain = "target",
    batch: int = 64,
) -> Outputs:
    """Compute probabilities and features in one forward pass; restore the network's mode.

    Args:
        net: on `device`.
        inputs: source of network input.
        rows: int64 [N], of the pack.
        device: where to compute.
        domain: whose statistics to use if BatchNorm has them per domain.
        batch: rows per forward pass.
    """
    was_training = net.training
    net.eval()
    probabilities, features = [np.empty(0)], [np.empty((0, net.width), np.float32)]
    for first in range(0, len(rows), batch):
        x = inputs.batch(rows[first : first + batch], device)
        z = net.features(x, sources=len(x) if domain == "source" else 0)
        probabilities.append(net.logits(z).double().softmax(1)[:, 1].cpu().numpy())
        features.append(z.float().cpu().numpy())
    net.train(was_training)
    return Outputs(np.concatenate(probabilities), np.concatenate(features))
