"""Metrics of one model on one set of labelled tiles."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    matthews_corrcoef,
    roc_auc_score,
)

from oncoshift.errors import DataError
from oncoshift.evaluation.calibration import expected_calibration_error

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Metrics:
    """Metrics of one model on one set of tiles; malignant is the positive class.

    Shares lie in [0, 1]. A metric is None if it needs a class that is absent.

    Attributes:
        tiles: number of tiles.
        groups: number of groups (patients, slides, originals).
        prevalence: share of malignant tiles.
        accuracy: share of tiles classified correctly.
        balanced_accuracy: mean of sensitivity and specificity.
        auroc: area under the ROC curve.
        auprc: area under the precision–recall curve, as average precision.
        sensitivity: share of malignant tiles called malignant.
        specificity: share of benign tiles called benign.
        f1: harmonic mean of precision and sensitivity.
        mcc: Matthews correlation coefficient, in [−1, 1]; 0 for constant predictions.
        ece: expected calibration error.
        brier: mean squared distance of probability and label (Brier 1950).
        tn: benign tiles called benign.
        fp: benign tiles called malignant.
        fn: malignant tiles called benign.
        tp: malignant tiles called malignant.
    """

    tiles: int
    groups: int
    prevalence: float
    accuracy: float
    balanced_accuracy: float | None
    auroc: float | None
    auprc: float | None
    sensitivity: float | None
    specificity: float | None
    f1: float | None
    mcc: float | None
    ece: float
    brier: float
    tn: int
    fp: int
    fn: int
    tp: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def compute_metrics(
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    groups: NDArray[np.str_],
    threshold: float = 0.5,
    bins: int = 10,
) -> Metrics:
    """Compute the metrics of one model.

    Args:
        labels: [N], 0 benign, 1 malignant.
        probabilities: of malignant, [N] in [0, 1].
        groups: [N], the patient, slide or original of each tile.
        threshold: probability from which a tile is called malignant.
        bins: number of bins of the calibration error.

    Raises:
        DataError: shapes differ, there are no tiles, or values are out of range.
    """
    check_predictions(labels, probabilities, groups)
    called = (probabilities >= threshold).astype(np.int64)
    tn, fp, fn, tp = (int(count) for count in confusion_matrix(labels, called, labels=[0, 1]).ravel())
    benign, malignant = tn + fp, fn + tp
    both = benign > 0 and malignant > 0
    return Metrics(
        tiles=len(labels),
        groups=len(np.unique(groups)),
        prevalence=malignant / len(labels),
        accuracy=float(accuracy_score(labels, called)),
        balanced_accuracy=float(balanced_accuracy_score(labels, called)) if both else None,
        auroc=float(roc_auc_score(labels, probabilities)) if both else None,
        auprc=float(average_precision_score(labels, probabilities)) if both else None,
        sensitivity=tp / malignant if malignant else None,
        specificity=tn / benign if benign else None,
        f1=float(f1_score(labels, called)) if malignant else None,
        mcc=float(matthews_corrcoef(labels, called)) if both else None,
        ece=expected_calibration_error(labels, probabilities, bins),
        brier=float(brier_score_loss(labels, probabilities)),
        tn=tn,
        fp=fp,
        fn=fn,
        tp=tp,
    )


def check_predictions(labels: NDArray[np.int64], probabilities: NDArray[np.float64], groups: NDArray[np.str_]) -> None:
    """Check that arrays have one shape, and values are labels and probabilities.

    Args:
        labels: must be [N], N ≥ 1, in {0, 1}.
        probabilities: must be [N], finite, in [0, 1].
        groups: must be [N].

    Raises:
        DataError: they are not; the message has the shapes, or the first wrong value and its
            position.
    """
    shapes = {"labels": labels.shape, "probabilities": probabilities.shape, "groups": groups.shape}
    if labels.ndim != 1 or len(set(shapes.values())) > 1:
        raise DataError(f"labels, probabilities and groups must all be [N], got {shapes}; squeeze them first")
    if len(labels) == 0:
        raise DataError("no tiles to evaluate: the split or the filter before this step left none")
    for name, values, valid in (
        ("labels", labels, np.isin(labels, (0, 1))),
        ("probabilities", probabilities, (probabilities >= 0) & (probabilities <= 1)),
    ):
        if not valid.all():
            first = int(np.argmin(valid))
            allowed = "0 or 1" if name == "labels" else "in [0, 1]"
            raise DataError(f"{name}[{first}] is {values[first]}; {name} must be {allowed}")
