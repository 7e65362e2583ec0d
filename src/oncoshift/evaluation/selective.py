"""Selective prediction: the error rate if a model may abstain from its least confident tiles.

Tiles are ordered by confidence, the distance of the logit from that of the threshold. The
risk–coverage curve gives the error rate among the most confident share of tiles, and AURC, the area
under it (Geifman & El-Yaniv 2017, arXiv 1705.08500), is its mean over all coverages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from scipy.special import logit

from oncoshift.evaluation.domains import split_by_organ
from oncoshift.evaluation.plots import OKABE_ITO
from oncoshift.markdown import escape

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from oncoshift.evaluation.domains import OrganPredictions


@dataclass(frozen=True)
class RiskCoverage:
    """The risk–coverage curve of one model on N tiles.

    Attributes:
        coverage: float64 [N], 1 / N to 1.
        risk: float64 [N], error rate among the tiles that are covered.
    """

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]

    @property
    def aurc(self) -> float:
        """Area under the curve, in [0, 1]; lower is better."""
        return float(self.risk.mean())


def compute_risk_coverage(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], threshold: float = 0.5
) -> RiskCoverage:
    """Compute the risk–coverage curve, with errors spread evenly over equally confident tiles.

    Args:
        labels: [N] in {0, 1}, N ≥ 1.
        probabilities: of malignant, [N] in [0, 1].
        threshold: probability from which a tile is called malignant.
    """
    wrong = ((probabilities >= threshold) != (labels == 1)).astype(np.float64)
    with np.errstate(divide="ignore"):  # certain tiles are infinitely far from the threshold
        confidence = np.abs(logit(probabilities) - logit(threshold))
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    ends = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True]) + 1
    errors = np.interp(np.arange(1, len(wrong) + 1), np.r_[0, ends], np.r_[0.0, np.cumsum(wrong[order])[ends - 1]])
    count = np.arange(1, len(wrong) + 1)
    return RiskCoverage(count / len(wrong), errors / count)


def describe_aurc(predictions: pd.DataFrame) -> str:
    """Format AURC, and error rates at three coverages, as Markdown; means over seeds.

    Args:
        predictions: with the columns `oncoshift.evaluation.domains.PREDICTION_COLUMNS`.
    """
    lines = ["| organ | AURC | error at 50 % coverage | at 80 % | at 100 % |", "|---|---|---|---|---|"]
    for tiles in split_by_organ(predictions):
        curves = _compute_curves(tiles)
        risks = [np.mean([np.interp(share, each.coverage, each.risk) for each in curves]) for share in (0.5, 0.8, 1)]
        cells = [f"{value:.3f}" for value in (np.mean([each.aurc for each in curves]), *risks)]
        lines.append(f"| {' | '.join([escape(tiles.organ), *cells])} |")
    return "\n".join(lines)


def draw_risk_coverage_figure(predictions: pd.DataFrame) -> Figure:
    """Draw the risk–coverage curve of each organ, as the mean over seeds; the lower the better.

    Args:
        predictions: with the columns `oncoshift.evaluation.domains.PREDICTION_COLUMNS`.
    """
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    styles = ("-", "--", "-.", ":")
    highest = 0.05
    for number, tiles in enumerate(split_by_organ(predictions)):
        curves = _compute_curves(tiles)
        risk = np.mean([each.risk for each in curves], axis=0)
        label = f"{tiles.organ}: AURC {np.mean([each.aurc for each in curves]):.3f}"
        colour, style = OKABE_ITO[number % len(OKABE_ITO)], styles[number % len(styles)]
        axes.plot(curves[0].coverage, risk, color=colour, linestyle=style, linewidth=2, label=label)
        highest = max(highest, float(risk.max()))
    axes.set(xlim=(0, 1), ylim=(0, 1.05 * highest), xlabel="coverage: share of tiles that get a prediction")
    axes.set_ylabel("risk: error rate among them")
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _compute_curves(tiles: OrganPredictions) -> list[RiskCoverage]:
    """Compute the curve of each seed's model."""
    models = zip(tiles.probabilities, tiles.thresholds, strict=True)
    return [compute_risk_coverage(tiles.labels, row, threshold) for row, threshold in models]
