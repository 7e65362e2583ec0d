"""Training of a method that corrects a prior by labels: in closed form, from its features."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from oncoshift.errors import TrainingError
from oncoshift.methods.few_labels import correct
from oncoshift.methods.registry import METHODS
from oncoshift.selection.registry import VALIDATORS
from oncoshift.training.prediction import compute_outputs
from oncoshift.training.validation import validate

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import nn

    from oncoshift.data.tables import TargetLabels, TrainingData
    from oncoshift.methods.few_labels import FewLabels
    from oncoshift.settings import Settings
    from oncoshift.training.inputs import Inputs


def fit_few_labels(
    method: FewLabels,
    prior: Mapping[str, float],
    data: TrainingData,
    inputs: Inputs,
    settings: Settings,
    device: torch.device,
) -> list[dict[str, float]]:
    """Correct the head of a trained network, which the method holds, by the labels of the data.

    Args:
        method: around the prior's network.
        prior: figures of the prior's last epoch. What validators read of the sources is the
            prior's: labels of the target say nothing about them.
        data: that training may read, with labels.
        inputs: source of network input.
        settings: of the experiment.
        device: where features are computed.

    Returns:
        One row of figures, as of an epoch.

    Raises:
        TrainingError: see `check_classes`.
    """
    began = time.monotonic()
    given = check_classes(data, settings)
    counts = np.bincount(given.labels, minlength=2)
    net = method.net.to(device)
    features = compute_outputs(net, inputs, data.target.rows, device).features.astype(np.float64)
    head = net.classifier.head
    weight, bias = ((part[1] - part[0]).detach().double().cpu().numpy() for part in (head.weight, head.bias))
    position = {row: number for number, row in enumerate(data.target.rows.tolist())}
    labelled = np.array([position[row] for row in given.rows.tolist()], np.int64)
    count = _count_pairs(method) if METHODS[settings.few_labels.prior].closed_form else 0
    seen = features[:, :count] - features[:, count : 2 * count] if count else features
    correction = correct(seen, features @ weight + bias, labelled, given.labels, components=count > 0)
    if count:
        both = np.concatenate([correction.weights, -correction.weights])
        correction = replace(correction, weights=np.pad(both, (0, net.width - len(both))))
    method.install(correction)
    of_sources = {name: prior[name] for name, row in VALIDATORS.items() if "source" in row.reads and name in prior}
    row = {
        "epoch": 0.0,
        **validate(net, data, inputs, device),
        **of_sources,
        "benign_labels": float(counts[0]),
        "malignant_labels": float(counts[1]),
        "trust_in_prior": correction.scale,
        "epoch_seconds": time.monotonic() - began,
        "timestamp_ms": float(int(time.time() * 1000)),
    }
    return [row]


def check_classes(data: TrainingData, settings: Settings) -> TargetLabels:
    """Return the labels that train.

    Raises:
        TrainingError: there are none of one of the classes.
    """
    given = data.labels
    if given is None or not (counts := np.bincount(given.labels, minlength=2)).all():
        found = "no labels" if given is None else f"{counts[0]} benign and {counts[1]} malignant labels"
        raise TrainingError(
            f"{settings.train.method}: {found} of {settings.target} to train with, and at least one of each class is "
            "needed; run `oncoshift label propose`, fill in the CSV and run `oncoshift label apply`"
        )
    return given


def _count_pairs(method: FewLabels) -> int:
    """Count the pairs of units that hold the two signs of a component; see `methods.anchored`."""
    linear = cast("nn.Linear", method.net.classifier.bottleneck[0])
    return int((linear.weight != 0).any(dim=1).sum()) // 2
