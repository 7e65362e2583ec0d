"""Training of a method in closed form: from pooled features, in one step, without a checkpoint."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from oncoshift.errors import UntrainableError
from oncoshift.methods.anchored import FEWEST, Solution, solve
from oncoshift.selection.validators import Predictions, compute_scores
from oncoshift.training.validation import validate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.data.tables import TrainingData
    from oncoshift.methods.anchored import Anchored
    from oncoshift.settings import Settings
    from oncoshift.training.inputs import Inputs

_BATCH = 64


def fit_closed_form(
    method: Anchored, data: TrainingData, inputs: Inputs, settings: Settings, device: torch.device
) -> list[dict[str, float]]:
    """Compute the head for the target and write it into the method's network.

    Source accuracy is that of the same recipe, without labels, on each source organ: a head for
    each, judged on its validation tiles. So it tells how far the anchor can be trusted on organs
    whose labels are known. The target's own head is of no use on them.

    Args:
        method: around the network.
        data: that training may read, with the anchor.
        inputs: source of network input.
        settings: of the experiment.
        device: where features are computed.

    Returns:
        One row of figures, as of an epoch.

    Raises:
        UntrainableError: there are too few target tiles.
    """
    began = time.monotonic()
    net = method.net.to(device)
    rows, source, held_out = data.target.rows, data.source, data.source_val
    if len(rows) < FEWEST:
        raise UntrainableError(f"{settings.train.method}: {len(rows)} target tiles; at least {FEWEST} are needed")

    anchor = data.anchor
    if anchor is None:
        raise ValueError("the method needs the anchor of all training tiles, and the data have none")

    def solve_organ(of: NDArray[np.int64]) -> Solution:
        features = _pool(method, inputs, of, device)
        return solve(features, anchor[of], method.components, settings.anchored.tiles, settings.seed)

    predicted = np.full(len(held_out.rows), 0.5)
    for organ in range(len(source.organ_names)):
        members, judged = source.rows[source.organs == organ], held_out.organs == organ
        if len(members) >= FEWEST:
            predicted[judged] = solve_organ(members).predict(_pool(method, inputs, held_out.rows[judged], device))
    solution = solve_organ(rows)
    method.install(solution)
    figures = validate(net, data, inputs, device)
    of_target = solution.predict(_pool(method, inputs, rows, device))
    nuclei = None if data.nuclei is None else data.nuclei[rows]
    scores = compute_scores(Predictions(predicted, held_out.labels, of_target, nuclei))
    row = {
        "epoch": 0.0,
        **figures,
        **scores,
        "estimated_malignant_share": solution.malignant_share,
        "epoch_seconds": time.monotonic() - began,
        "timestamp_ms": float(int(time.time() * 1000)),
    }
    return [row]


@torch.inference_mode()
def _pool(method: Anchored, inputs: Inputs, rows: NDArray[np.int64], device: torch.device) -> NDArray[np.float32]:
    """Compute the trunk's pooled features of rows of the pack, float32 [N, D]."""
    net = method.net.eval()
    parts = [
        net.classifier.trunk.run(inputs.batch(rows[first : first + _BATCH], device), net.trained).float().cpu().numpy()
        for first in range(0, len(rows), _BATCH)
    ]
    return np.concatenate(parts)
