"""Scores of one model by the validators of `selection.registry`, from its predictions alone.

Their input is computed after every epoch. DEV and MixVal need more than that, EnsV and agreement of
seeds need several models; `benchmarks/selection.py` measures all of them.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, NamedTuple

from oncoshift.selection.registry import VALIDATORS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Predictions(NamedTuple):
    """Predictions of one model, and the labels that a validator may read.

    Attributes:
        source: probabilities of malignant, float64 [N], on source validation tiles.
        labels: 0 or 1, int64 [N], of those tiles.
        target: probabilities of malignant, float64 [T], on unlabelled target tiles.
        nuclei: the anchor `nuclei` of the same tiles, float64 [T]; None: it was not measured.
    """

    source: NDArray[np.float64]
    labels: NDArray[np.int64]
    target: NDArray[np.float64]
    nuclei: NDArray[np.float64] | None = None


def score(validator: str, model: Predictions) -> float:
    """Score a model by one validator; higher is better."""
    row = VALIDATORS[validator]
    value: float = resolve_name(row.score)(*(getattr(model, part) for part in row.reads))
    return value


def compute_scores(model: Predictions) -> dict[str, float]:
    """Score a model by every validator that has what it reads; the scores by name."""
    known = [name for name, row in VALIDATORS.items() if all(getattr(model, part) is not None for part in row.reads)]
    return {name: score(name, model) for name in known}
