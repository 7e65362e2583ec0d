"""Checks of a map: other baselines, random parameters, and removal of the pixels it points at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from oncoshift.explain.attributions import attribute_tiles
from oncoshift.explain.faithfulness import Faithfulness, FaithfulnessTest, rank_pixels, rank_randomly
from oncoshift.explain.kept import KeptParts
from oncoshift.explain.nuclei import compute_attribution_share, summarise
from oncoshift.explain.randomisation import compute_similarity, randomise_parameters
from oncoshift.serving.attributions import Attribution, Convergence, prepare_classifier

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray
    from torch import nn

    from oncoshift.explain.attributions import Baseline
    from oncoshift.settings import ExplainSettings

BASELINES: tuple[Baseline, ...] = ("mean", "blurred", "white", "black")


@dataclass(frozen=True)
class Checks:
    """Outcome of the checks on some of the tiles.

    Attributes:
        baselines: one row a baseline: baseline, agreement (mean Spearman correlation with the maps
            of the baseline in use), nuclei_share, nuclei_area, enrichment, margin_change (mean of
            |f(tile) − f(baseline)|), converged (share of tiles).
        randomisation_similarity: mean over tiles of |Spearman's correlation| between a map and that
            of randomised parameters; from about 0.5 on, the map shows the tile, not the classifier.
    """

    baselines: pd.DataFrame
    randomisation_similarity: float


@dataclass
class Subject:
    """A classifier whose decisions are explained, and how.

    Attributes:
        classifier: to explain.
        mean_image: [S, S, 3] in [0, 255], the baseline `mean`.
        device: where to compute.
        settings: section `explain`.
        kept: where finished parts are kept.
        on_progress: called with tiles done and tiles in all.
    """

    classifier: nn.Module
    mean_image: NDArray[np.floating]
    device: torch.device | str
    settings: ExplainSettings
    kept: KeptParts | None = None
    on_progress: Callable[[int, int], None] | None = None
    _done: int = field(default=0, init=False)
    _all: int = field(default=0, init=False)

    def plan(self, tiles: int, checked: int) -> None:
        """Set how many tiles there are to attribute, for progress."""
        self._done, self._all = 0, tiles + checked * len(BASELINES)

    @property
    def convergence(self) -> Convergence:
        """The criterion of convergence in the settings."""
        settings = self.settings
        return Convergence(settings.steps, settings.max_steps, settings.tolerance, settings.stability)

    def attribute(
        self,
        tiles: NDArray[np.uint8],
        baseline: Baseline,
        *,
        classifier: nn.Module | None = None,
        convergence: Convergence | None = None,
    ) -> Attribution:
        """Attribute tiles, by the classifier or by another one, and report progress."""
        name = baseline if classifier is None else "randomised"
        # The parts of the main maps lie in the folder itself.
        kept = self.kept and (KeptParts(self.kept.folder / name) if self._done else self.kept)
        done = self._done

        def report(now: int, _of: int) -> None:
            if self.on_progress is not None:
                self.on_progress(done + now, self._all)

        found = attribute_tiles(
            classifier or self.classifier,
            tiles,
            self.mean_image if baseline == "mean" else baseline,
            convergence or self.convergence,
            batch_size=self.settings.internal_batch_size,
            device=self.device,
            kept=kept,
            on_progress=report,
        )
        self._done += len(tiles)
        return found


def measure_faithfulness(
    subject: Subject, tiles: NDArray[np.uint8], attributions: Attribution, seed: int
) -> tuple[Faithfulness, Faithfulness]:
    """Measure faithfulness of the maps, and of a random order of pixels."""
    called = (attributions.margins >= 0).astype(np.int64)
    prepared = prepare_classifier(subject.classifier).to(subject.device)
    test = FaithfulnessTest(prepared, tiles, subject.mean_image, called, subject.settings.internal_batch_size)
    orders = rank_pixels(attributions.values, called), rank_randomly(attributions.values.shape, seed)
    first, second = (test.run(order, seed) for order in orders)
    return first, second


def run_checks(
    subject: Subject,
    tiles: NDArray[np.uint8],
    nuclei: NDArray[np.bool_],
    attributions: Attribution,
    checked: NDArray[np.int64],
    seed: int,
) -> Checks:
    """Compare baselines and randomise parameters.

    Args:
        subject: that was explained.
        tiles: uint8 [N, S, S, 3].
        nuclei: bool [N, S, S].
        attributions: of all tiles.
        checked: which tiles to check, at least one.
        seed: of the random parameters.
    """
    chosen = Attribution(*(values[checked] for values in vars(attributions).values()))
    used = subject.settings.baseline
    rows = []
    for baseline in (used, *(each for each in BASELINES if each != used)):
        found = chosen if baseline == used else subject.attribute(tiles[checked], baseline)
        summary = summarise(compute_attribution_share(found.values, nuclei[checked]))
        rows.append(
            {
                "baseline": baseline,
                "agreement": float(np.nanmean(compute_similarity(found.values, chosen.values))),
                "nuclei_share": summary.share,
                "nuclei_area": summary.area,
                "enrichment": summary.enrichment,
                "margin_change": float(np.abs(found.margins - found.baseline_margins).mean()),
                "converged": float(found.converged.mean()),
            }
        )
    # Margins of a random network hardly change, so that deltas would never be small enough.
    steps = min(2 * subject.settings.steps, subject.settings.max_steps)
    grid = Convergence(steps, steps)
    other = randomise_parameters(subject.classifier, seed)
    randomised = subject.attribute(tiles[checked], used, classifier=other, convergence=grid)
    similarity = np.abs(compute_similarity(randomised.values, chosen.values))
    return Checks(pd.DataFrame(rows), float(np.nanmean(similarity)) if np.isfinite(similarity).any() else np.nan)
