"""Explanations of each pool's models: what is to be explained, and what was, from MLflow.

The source-only model and the one chosen without labels are explained on the same test tiles of the
target, with the seed that was picked and on the stain variant that was chosen.

Galleries go by the call that is evaluated and served: the calibrated probability against the
model's own threshold. The captions of their tiles show the network's own probability, as
`explanation.explain` reads it, which is called at 0.5; so the two may differ.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from oncoshift.explain.nuclei import compare, read_shares
from oncoshift.explain.sample import pick_tiles
from oncoshift.grid.explain import GALLERIES, STEP, TABLE, ModelToExplain, identify_model
from oncoshift.grid.results import find_finished
from oncoshift.grid.rows import CONTROL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from oncoshift.evaluation.intervals import Interval
    from oncoshift.explain.nuclei import NucleiComparison
    from oncoshift.grid.results import Chosen, MeasuredRow, Results
    from oncoshift.grid.rows import Pool
    from oncoshift.registry.tracking import Tracker
    from oncoshift.settings import EvaluateSettings

SHOWN = 6
"""Most tiles of a gallery."""

RUN_FILE = "run.txt"
"""Beside the pictures of a pool: the id of the run that they are of."""

RIGHT, WRONG, UNCERTAIN = "confident-right", "confident-wrong", "least-certain"


@dataclass(frozen=True)
class Pair:
    """The two models of a pool that are to be explained.

    Attributes:
        control: the source-only model.
        chosen: the model that is chosen without labels.
    """

    control: ModelToExplain
    chosen: ModelToExplain


@dataclass(frozen=True)
class ExplainedPair:
    """The two explained models of a pool.

    Attributes:
        pair: the models.
        control: table of the source-only model, one row a tile; see `Explanation.table`.
        chosen: the same of the chosen model, in the same order.
        run: id of the run of the chosen model, which has the galleries.
        settings: section `evaluate`, for the intervals.
    """

    pair: Pair
    control: pd.DataFrame
    chosen: pd.DataFrame
    run: str
    settings: EvaluateSettings

    @property
    def pool(self) -> Pool:
        """Target and sources."""
        return self.pair.chosen.row.pool

    @cached_property
    def comparison(self) -> NucleiComparison:
        """Nuclei shares of the source-only model, then of the chosen one, and their difference."""
        return compare(
            read_shares(self.control),
            read_shares(self.chosen),
            self.chosen["group"].to_numpy(str),
            resamples=self.settings.bootstrap,
            confidence=self.settings.confidence,
        )

    def count_converged(self) -> tuple[int, int]:
        """Count the maps of both models that have converged, and all."""
        return int(self.control["converged"].sum() + self.chosen["converged"].sum()), 2 * len(self.chosen)


def list_pairs(results: Results) -> list[Pair]:
    """List what is to be explained of each pool for which a model was chosen."""
    pairs = []
    for each in results.chosen:
        control = results.find(each.pool, CONTROL, each.row.row.variant)
        if control is not None and (seed := each.row.pick) in control.jobs:
            pairs.append(_plan_pair(each, control, seed, results.settings.explain.tiles))
    return pairs


def _plan_pair(chosen: Chosen, control: MeasuredRow, seed: int, count: int) -> Pair:
    """Plan a pool's pair; labels say only which gallery a tile of the chosen model is in."""
    found = chosen.row.predictions
    found = found[(found["organ"] == chosen.pool.target) & (found["seed"] == seed)].reset_index(drop=True)
    called = found["probability"] >= found["threshold"]
    certainty = _compute_certainty(found["probability"].to_numpy(np.float64), found["threshold"].to_numpy(np.float64))
    known = found.assign(called=called, certainty=certainty, right=called == (found["label"] == 1))
    ids = known["tile_id"].to_numpy(np.str_)
    sample = pick_tiles(ids, np.where(called, 1.0, 0.0), known["group"].to_numpy(np.str_), count)
    tiles = tuple(ids[sample].tolist())
    galleries = {
        RIGHT: _pick_shown(known[known["right"]], certain=True),
        WRONG: _pick_shown(known[~known["right"]], certain=True),
        UNCERTAIN: _pick_shown(known, certain=False),
    }
    shown, row = {name: each for name, each in galleries.items() if each}, chosen.row
    return Pair(
        ModelToExplain(control.row, seed, control.jobs[seed], tiles),
        ModelToExplain(row.row, seed, row.jobs[seed], tiles, shown, row.without),
    )


def _compute_certainty(probabilities: NDArray[np.float64], thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the distance from the threshold as a share of the room on that side, in [0, 1]."""
    room = np.where(probabilities >= thresholds, 1 - thresholds, thresholds)
    return np.abs(probabilities - thresholds) / np.maximum(room, np.finfo(np.float64).tiny)


def _pick_shown(tiles: pd.DataFrame, *, certain: bool) -> tuple[str, ...]:
    """Pick the most or the least certain tiles, both called classes and all groups in turn."""
    ranked = tiles.sort_values(["certainty", "tile_id"], ascending=[not certain, True])
    ranked = ranked.assign(turn=ranked.groupby(["called", "group"]).cumcount()).sort_values("turn", kind="stable")
    ranked = ranked.assign(place=ranked.groupby("called").cumcount()).sort_values("place", kind="stable")
    return tuple(ranked["tile_id"].head(SHOWN).astype(str))


def find_explained(tracker: Tracker, results: Results) -> list[ExplainedPair]:
    """Read the explained pairs of these results; those that are not, or in part, are left out."""
    finished = find_finished(tracker, STEP)
    found = []
    for pair in list_pairs(results):
        control, chosen = (finished.get(identify_model(each, results.settings)) for each in (pair.control, pair.chosen))
        if control is not None and chosen is not None:
            tables = [tracker.read_table(run.info.run_id, f"{TABLE}.json") for run in (control, chosen)]
            found.append(ExplainedPair(pair, tables[0], tables[1], chosen.info.run_id, results.settings.evaluate))
    return found


def write_galleries(tracker: Tracker, results: Results, folder: Path) -> None:
    """Write each explained pool's galleries into a folder of its name, in place of earlier ones.

    Beside them a file names their run. Folders of pools of the grid that are not explained now,
    which show a model of other settings, are removed.

    Args:
        tracker: of the grid's experiment.
        results: with the explained pairs.
        folder: for all pools; git must ignore it, since galleries show tiles of patients.
    """
    explained = {each.pool: each for each in results.explained}
    for pool in results.pools:
        place = folder / name_pool(pool)
        if pool not in explained:
            shutil.rmtree(place, ignore_errors=True)
            continue
        run = explained[pool].run
        with TemporaryDirectory() as scratch:
            fetched = Path(tracker.client.download_artifacts(run, GALLERIES, scratch))
            (fetched / RUN_FILE).write_text(f"{run}\n", encoding="utf-8")
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(fetched, place)


def name_pool(pool: Pool) -> str:
    """Name a pool's folder."""
    return f"{pool.target}.{'.'.join(pool.sources)}"  # no organ has a dot


def tabulate_pairs(explained: Sequence[ExplainedPair]) -> pd.DataFrame:
    """Tabulate the figures of explained pairs, one row each; NaN where groups allow no interval."""
    return pd.DataFrame([_list_figures(each) for each in explained])


def _list_figures(explained: ExplainedPair) -> dict[str, str | int | float]:
    found, row = explained.comparison, explained.pair.chosen.row
    values: dict[str, str | int | float] = {
        "target": row.pool.target,
        "sources": ", ".join(row.pool.sources),
        "method": row.method,
        "variant": row.variant,
        "seed": explained.pair.chosen.seed,
        "tiles": found.tiles,
        "groups": found.groups,
        "nuclei_area": found.first.area,
    }
    for name, summary in (("source_only", found.first), ("chosen", found.second)):
        values |= {f"{name}_share": summary.share, f"{name}_enrichment": summary.enrichment}
        values |= _list_ends(f"{name}_enrichment", summary.interval)
    for name, difference in (("share", found.share), ("enrichment", found.enrichment)):
        values[f"{name}_difference"] = np.nan if difference is None else difference.point
        values |= _list_ends(f"{name}_difference", difference)
    return values


def _list_ends(name: str, interval: Interval | None) -> dict[str, float]:
    low, high = (np.nan, np.nan) if interval is None else (interval.low, interval.high)
    return {f"{name}_low": low, f"{name}_high": high}
