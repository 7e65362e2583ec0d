"""The validators that score one model from its predictions alone, by the names that `select.validator` and rows use.

What they read is computed after every epoch. DEV and MixVal need more than that, EnsV and agreement of seeds several
models; `benchmarks/selection.py` measures them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from oncoshift.selection.atc import average_thresholded_confidence
from oncoshift.selection.binary import two_columns
from oncoshift.selection.bnm import batch_nuclear_norm
from oncoshift.selection.entropy import negative_entropy
from oncoshift.selection.information_maximisation import information_maximisation
from oncoshift.selection.snd import soft_neighbourhood_density
from oncoshift.selection.source_accuracy import source_accuracy

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

SND_TILES = 2000
"""SND compares every tile with every other: of more target tiles than this it takes evenly spaced ones."""


class Predictions(NamedTuple):
    """What one model says, and the labels that a validator may read.

    Attributes:
        source: probabilities of malignant, float64 [N], on source validation tiles.
        labels: 0 or 1, int64 [N], of those tiles.
        target: probabilities of malignant, float64 [T], on unlabelled target tiles.
    """

    source: NDArray[np.float64]
    labels: NDArray[np.int64]
    target: NDArray[np.float64]


class Validator(NamedTuple):
    """A score, higher is better, and the least value that it can take."""

    score: Callable[[Predictions], float]
    lowest: float


def _snd(model: Predictions) -> float:
    every = -(-len(model.target) // SND_TILES)
    return soft_neighbourhood_density(two_columns(model.target[::every]))


VALIDATORS: dict[str, Validator] = {
    "source_accuracy": Validator(lambda model: source_accuracy(model.source, model.labels), 0.0),
    "information_maximisation": Validator(lambda model: information_maximisation(model.target), 0.0),
    "entropy": Validator(lambda model: negative_entropy(model.target), -1.0),
    "bnm": Validator(lambda model: batch_nuclear_norm(model.target), 0.0),
    "snd": Validator(_snd, 0.0),
    "atc": Validator(
        lambda model: average_thresholded_confidence(model.source, model.labels, model.target),
        0.0,
    ),
}


def all_scores(model: Predictions) -> dict[str, float]:
    """Every validator's score of a model, by name."""
    return {name: validator.score(model) for name, validator in VALIDATORS.items()}
