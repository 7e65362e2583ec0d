"""One model of the grid explained: attributions of test tiles of the target, and its galleries."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from oncoshift.errors import DataError
from oncoshift.fingerprint import fingerprint_code, fingerprint_value
from oncoshift.steps.explain import explain_job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from oncoshift.explain.explanation import Explanation
    from oncoshift.grid.rows import Row
    from oncoshift.settings import Settings
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.steps.recorder import RunRecorder
    from oncoshift.training.job import TrainedJob

STEP = "paper-explain"
"""Tag `oncoshift.step` of the run of an explained model."""

TABLE, GALLERIES = "nuclei_tiles", "galleries"
"""Artifacts of its run: a table with one row a tile, and the folder of its galleries."""

_ENLARGED = 1.5
"""Of a gallery: a tile of 224 pixels is then shown with about as many."""
_SAY_SECONDS = 60.0
_FOUND_SECONDS = 1.0
"""A part that is there sooner was found on disk, or costs next to nothing."""


@dataclass(frozen=True)
class ModelToExplain:
    """A model of the grid, and the tiles on which it is to be explained.

    Attributes:
        row: the row that it belongs to.
        seed: which of the row's models.
        job: id of its job.
        tiles: ids of the test tiles that the nuclei share is measured on.
        galleries: ids of further test tiles by the name of the gallery that shows them.
        without: sources that its training left out.
    """

    row: Row
    seed: int
    job: str
    tiles: tuple[str, ...]
    galleries: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The model in words."""
        return f"explain {self.row.title} · seed {self.seed}"

    @property
    def all_tiles(self) -> tuple[str, ...]:
        """All tiles, each once: first `tiles`, then those that only galleries show."""
        return tuple(dict.fromkeys(chain(self.tiles, *self.galleries.values())))


@dataclass(frozen=True)
class ModelExplanation:
    """The explanation of a model.

    Attributes:
        model: what was to be explained.
        trained: its job.
        explanation: of `ModelToExplain.all_tiles`, in their order.
    """

    model: ModelToExplain
    trained: TrainedJob
    explanation: Explanation

    def record(self, recorder: RunRecorder) -> None:
        """Save the table of the tiles, their figures and the galleries in the model's run."""
        row = self.model.row
        recorder.log_params(
            {
                "target": row.pool.target,
                "sources": ", ".join(row.pool.sources),
                "method": row.name,
                "variant": row.variant,
                "seed": self.model.seed,
                "tiles": len(self.model.tiles),
            }
        )
        recorder.set_tags({"oncoshift.job": self.model.job})
        measured = self._take(self.model.tiles)
        recorder.log_metrics(measured.as_dict(), self.trained.ended_ms)
        recorder.save_table(TABLE, measured.table)
        for name, tiles in self.model.galleries.items():
            figure = self._take(tiles).draw()
            width, height = figure.get_size_inches()
            figure.set_size_inches(_ENLARGED * width, _ENLARGED * height)
            recorder.save_figure(f"{GALLERIES}/{name}.png", figure)

    def _take(self, tiles: Sequence[str]) -> Explanation:
        places = {tile: number for number, tile in enumerate(self.model.all_tiles)}
        return self.explanation.take(np.array([places[tile] for tile in tiles], np.int64))


def identify_model(model: ModelToExplain, settings: Settings) -> str:
    """Hash all that an explanation depends on: job, tiles, settings and code.

    Args:
        model: what is to be explained.
        settings: of the grid.
    """
    own = settings.explain.model_dump(mode="json", exclude={"tiles", "checked_tiles", "internal_batch_size"})
    parts = [model.job, model.tiles, dict(model.galleries), own, fingerprint_code(__name__)]
    return f"paper-explain-{fingerprint_value(parts)}"


def explain_model(
    jobs: ExperimentJobs, model: ModelToExplain, settings: Settings, say: Callable[[str], None]
) -> ModelExplanation:
    """Explain a model on its tiles; after a kill it goes on after the last tiles.

    Args:
        jobs: of the pool and variant of the model's row.
        model: what is to be explained.
        settings: of the grid.
        say: receives lines of progress.

    Raises:
        DataError: code or data have changed since the model was measured.
    """
    job = jobs.make_job(model.row.make_settings(settings, model.without), seed=model.seed)
    tiles = jobs.load_tiles(("test",))
    picked = pd.Index(tiles.tile_ids).get_indexer(pd.Index(model.all_tiles))
    if job.id != model.job or (picked < 0).any():
        raise DataError("code or data have changed since the model was measured; start the grid again")
    trained = jobs.train(job, lambda _epoch: None)
    progress = _report_tiles(model.title, say)
    explanation = explain_job(
        jobs, trained, tiles, picked.astype(np.int64), progress, checked=False, faithfulness=False
    )
    return ModelExplanation(model, trained, explanation)


def _report_tiles(title: str, say: Callable[[str], None]) -> Callable[[int, int], None]:
    """Make a hook of tiles done and tiles in all that says how long it takes, once a minute.

    Tiles that a killed process left come first, and each part of them takes no time. The pace is
    that of the others; until some are known there is no estimate.
    """
    next_at = last_at = time.monotonic()
    last = made = 0
    seconds = 0.0

    def report(done: int, total: int) -> None:
        nonlocal next_at, last_at, last, made, seconds
        now = time.monotonic()
        if last and now - last_at >= _FOUND_SECONDS:
            made, seconds = made + done - last, seconds + now - last_at
        last, last_at = done, now
        if now >= next_at and done < total:
            next_at = now + _SAY_SECONDS
            left = f", about {seconds / made * (total - done) / 60:.0f} min to go" if made else ""
            say(f"{title}: {done} of {total} tiles{left}")

    return report
