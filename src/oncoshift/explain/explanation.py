"""The explanation of a classifier's calls on some tiles: attributions, checks, tables."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from oncoshift.anchors.nuclei import find_nuclei
from oncoshift.errors import DataError
from oncoshift.explain.checks import Checks, Subject, measure_faithfulness, run_checks
from oncoshift.explain.gallery import draw_gallery
from oncoshift.explain.nuclei import NucleiSummary, compute_attribution_share, read_shares, summarise
from oncoshift.explain.sample import spread_out
from oncoshift.serving.attributions import Attribution

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
    """Attributions of N tiles, their overlap with nuclei, and whether they can be trusted.

    Attributes:
        tiles: uint8 [N, S, S, 3], that were explained.
        attributions: maps, margins and how far they have converged.
        masks: bool [N, S, S], the nuclei that were used.
        table: one row a tile, in the order of the gallery: tile_id, group, probability, called,
            label (where given), nuclei_share, nuclei_area, enrichment, delta, relative_delta,
            steps, stability, converged, mask ("true" or "haematoxylin"); where faithfulness was
            measured, also deletion, insertion and road.
        random_order: deletion, insertion and road by name, with pixels in random order; empty where
            faithfulness was not measured.
        summary: nuclei shares over all tiles.
        checks: of baselines and of randomised parameters; None where none were asked for.
    """

    tiles: NDArray[np.uint8]
    attributions: Attribution
    masks: NDArray[np.bool_]
    table: pd.DataFrame
    random_order: dict[str, float]
    summary: NucleiSummary
    checks: Checks | None

    def take(self, rows: NDArray[np.int64], *, seed: int = 0) -> Explanation:
        """Take some of the tiles: the summary is theirs, and there are no checks.

        Args:
            rows: [n], indices of tiles.
            seed: of the bootstrap.
        """
        table, masks = self.table.iloc[rows].reset_index(drop=True), self.masks[rows]
        return replace(
            self,
            tiles=self.tiles[rows],
            attributions=Attribution(*(values[rows] for values in vars(self.attributions).values())),
            masks=masks,
            table=table,
            random_order={},
            summary=summarise(read_shares(table), table["group"].to_numpy(str), seed=seed),
            checks=None,
        )

    def draw(self) -> Figure:
        """Draw the gallery as a picture."""
        labels = self.table["label"].to_numpy(np.int64) if "label" in self.table else None
        shares = compute_attribution_share(self.attributions.values, self.masks)
        return draw_gallery(self.tiles, self.attributions, self.masks, shares, labels)

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
        for name, value in self.random_order.items():
            numbers |= {name: float(self.table[name].mean()), f"{name}_random_order": value}
        if self.checks is not None:
            numbers["randomisation_similarity"] = self.checks.randomisation_similarity
        finite = {name: value if value is not None and np.isfinite(value) else None for name, value in numbers.items()}
        return {"tiles": len(self.table), "tiles_with_nuclei": self.summary.tiles, **finite}


def explain(
    classifier: Classifier,
    tiles: NDArray[np.uint8],
    masks: NDArray[np.bool_] | None,
    *,
    tile_ids: NDArray[np.str_],
    groups: NDArray[np.str_],
    mean_image: NDArray[np.floating],
    device: torch.device | str,
    settings: ExplainSettings,
    labels: NDArray[np.int64] | None = None,
    checked: bool = True,
    faithfulness: bool = True,
    seed: int = 0,
    kept: KeptParts | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Explanation:
    """Explain some tiles, usually those that `pick_tiles` picked.

    Args:
        classifier: to explain; it is not changed.
        tiles: uint8 [N, S, S, 3].
        masks: bool [N, S, S], the true nuclei; None finds them by their haematoxylin.
        tile_ids: [N].
        groups: [N]; the interval of the enrichment resamples these.
        mean_image: [S, S, 3] in [0, 255], of the training tiles; the baseline `mean`, and what
            deletion leaves.
        device: where to compute.
        settings: section `explain`.
        labels: true labels [N], for pictures and table only.
        checked: whether to compare baselines and randomise parameters, on `settings.checked_tiles`.
        faithfulness: whether to measure what removing pixels does.
        seed: of the bootstrap, and of random orders and parameters.
        kept: see `attribute_tiles`.
        on_progress: called with attribution maps done and in all; checks need several of a tile.

    Raises:
        DataError: shapes do not fit.
    """
    if not len(tiles) == len(tile_ids) == len(groups) or (labels is not None and len(labels) != len(tiles)):
        raise DataError(f"got {len(tiles)} tiles, {len(tile_ids)} ids and {len(groups)} groups, labels aside")
    subject = Subject(classifier, mean_image, device, settings, kept, on_progress)
    checks = spread_out(len(tiles), settings.checked_tiles) if checked else np.array([], np.int64)
    subject.plan(len(tiles), len(checks))
    attributions = subject.attribute(tiles, settings.baseline)
    nuclei = np.stack([find_nuclei(tile) for tile in tiles]) if masks is None else masks
    shares = compute_attribution_share(attributions.values, nuclei)
    measured = measure_faithfulness(subject, tiles, attributions, seed) if faithfulness else None
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
            **({} if measured is None else vars(measured[0])),
            "mask": "haematoxylin" if masks is None else "true",
        }
    )
    return Explanation(
        tiles,
        attributions,
        nuclei,
        table,
        {} if measured is None else {name: float(values.mean()) for name, values in vars(measured[1]).items()},
        summarise(shares, groups, seed=seed),
        run_checks(subject, tiles, nuclei, attributions, checks, seed) if len(checks) else None,
    )
