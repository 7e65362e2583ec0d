"""The explanation of a classifier's decisions on some tiles: attributions, table, figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from oncoshift.errors import DataError
from oncoshift.explain.attributions import attribute_tiles
from oncoshift.explain.gallery import draw_gallery
from oncoshift.explain.nuclei import NucleiSummary, compute_attribution_share, find_haematoxylin, summarise
from oncoshift.serving.attributions import Attribution, Convergence

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from oncoshift.explain.kept import KeptParts
    from oncoshift.serving.classifier import Classifier
    from oncoshift.settings import ExplainSettings


@dataclass(frozen=True)
class Explanation:
    """Attributions of N tiles, their overlap with nuclei, and a gallery.

    Attributes:
        attributions: maps, margins and how far they have converged.
        masks: bool [N, S, S], the nuclei that were used.
        table: one row a tile, in the order of the gallery: tile_id, group, probability, called,
            label (where given), nuclei_share, nuclei_area, enrichment, delta, relative_delta,
            steps, stability, converged, mask ("true" or "haematoxylin").
        summary: nuclei shares over all tiles.
        figure: the gallery.
    """

    attributions: Attribution
    masks: NDArray[np.bool_]
    table: pd.DataFrame
    summary: NucleiSummary
    figure: Figure

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the headline numbers, JSON-safe; None where there is no value."""
        interval = self.summary.interval
        numbers: dict[str, float | None] = {
            "nuclei_share": self.summary.share,
            "nuclei_area": self.summary.area,
            "nuclei_enrichment": self.summary.enrichment,
            "nuclei_enrichment_low": interval.low if interval else None,
            "nuclei_enrichment_high": interval.high if interval else None,
            "converged_share": float(self.table["converged"].mean()),
            "steps_max": float(self.table["steps"].max()),
            "relative_delta_median": float(self.table["relative_delta"].median()),
            "relative_delta_max": float(self.table["relative_delta"].max()),
        }
        finite = {name: value if value is not None and np.isfinite(value) else None for name, value in numbers.items()}
        return {"tiles": len(self.table), "tiles_with_nuclei": self.summary.tiles, **finite}


def explain(
    classifier: Classifier,
    tiles: NDArray[np.uint8],
    masks: NDArray[np.bool_] | None,
    *,
    tile_ids: NDArray[np.str_],
    groups: NDArray[np.str_],
    baseline: NDArray[np.floating],
    device: torch.device | str,
    settings: ExplainSettings,
    labels: NDArray[np.int64] | None = None,
    seed: int = 0,
    kept: KeptParts | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Explanation:
    """Explain some tiles, usually those that `pick_tiles` picked.

    Args:
        classifier: on `device`; runs in eval mode and gets its mode back.
        tiles: uint8 [N, S, S, 3].
        masks: bool [N, S, S], the true nuclei; None finds them by their haematoxylin.
        tile_ids: [N].
        groups: [N]; the interval of the enrichment resamples these.
        baseline: [S, S, 3] in [0, 255], the mean training image.
        device: where the classifier lies.
        settings: section `explain`.
        labels: true labels [N], for captions and table only.
        seed: of the bootstrap.
        kept: see `attribute_tiles`.
        on_progress: called with tiles done and tiles in all.

    Raises:
        DataError: shapes do not fit.
    """
    if not len(tiles) == len(tile_ids) == len(groups) or (labels is not None and len(labels) != len(tiles)):
        raise DataError(f"got {len(tiles)} tiles, {len(tile_ids)} ids and {len(groups)} groups, labels aside")
    attributions = attribute_tiles(
        classifier,
        tiles,
        baseline,
        get_convergence(settings),
        batch_size=settings.internal_batch_size,
        device=device,
        kept=kept,
        on_progress=on_progress,
    )
    nuclei = np.stack([find_haematoxylin(tile) for tile in tiles]) if masks is None else masks
    shares = compute_attribution_share(attributions.values, nuclei)
    table = pd.DataFrame(
        {
            "tile_id": tile_ids,
            "group": groups,
            "probability": attributions.probabilities,
            "called": (attributions.margins >= 0).astype(np.int64),
            **({} if labels is None else {"label": labels}),
            "nuclei_share": shares.share,
            "nuclei_area": shares.area,
            "enrichment": shares.enrichment,
            "delta": attributions.delta,
            "relative_delta": attributions.relative_delta,
            "steps": attributions.steps,
            "stability": attributions.stability,
            "converged": attributions.converged,
            "mask": "haematoxylin" if masks is None else "true",
        }
    )
    figure = draw_gallery(tiles, attributions, nuclei, shares, labels)
    return Explanation(attributions, nuclei, table, summarise(shares, groups, seed=seed), figure)


def get_convergence(settings: ExplainSettings) -> Convergence:
    """Get the criterion of convergence from the settings."""
    return Convergence(settings.steps, settings.max_steps, settings.tolerance, settings.stability)
