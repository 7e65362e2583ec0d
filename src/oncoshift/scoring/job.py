"""A scoring job from the input to the run in MLflow; it continues what a killed one wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, cast

from oncoshift.registry.loading import is_in_store, load_identified
from oncoshift.scoring.inputs import TileInput
from oncoshift.scoring.output import open_scores
from oncoshift.scoring.record import record_scores
from oncoshift.scoring.run import count_network_threads, score_tiles

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from oncoshift.parallel import Progress
    from oncoshift.registry.loading import ModelIdentity
    from oncoshift.scoring.output import Totals


class Outcome(NamedTuple):
    """The end of a scoring job.

    Attributes:
        model: the model that scored.
        scored: number of tiles scored by this process.
        totals: what the output contains, with the tiles of earlier processes.
        run: id of the run in MLflow; None for a model outside of a store, or without new tiles.
    """

    model: ModelIdentity
    scored: int
    totals: Totals
    run: str | None


def run_scoring(
    source: Path, out: Path, uri: str, store: str | None, experiment: str | None, progress: Progress
) -> Outcome:
    """Score the tiles of an input into a folder of Parquet files.

    Args:
        source: a folder, a CSV or an archive; see `TileInput`.
        out: the folder of Parquet files; see `open_scores`.
        uri: the model; see `load_served`.
        store: URI of the tracking store, for a model in a store.
        experiment: name of the retrainings' experiment there, beside which the run is recorded.
        progress: called with the number of tiles done and the total.

    Raises:
        DataError: the input cannot be read or has no tiles, or the output holds something else.
        RegistryError: see `load_served`.
        UnavailableError: see `load_served`.
    """
    tiles = TileInput(source)
    tiles.count()  # before the model is loaded, which takes seconds
    model, identity = load_identified(uri, store, count_network_threads())
    with open_scores(out, identity, source) as scores:
        scored = score_tiles(lambda images: cast("pd.DataFrame", model.predict(images)), tiles, scores, progress)
        totals = scores.sum_up()
        run = None
        if scored and store is not None and experiment is not None and is_in_store(uri):
            run = record_scores(store, experiment, scores, source, totals)
    return Outcome(identity, scored, totals, run)
