"""Step `explain`: Integrated Gradients on a fixed set of the target's test tiles.

Finished parts stay in the job's folder until all are done, so a killed process resumes and ends
with the same bits.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oncoshift.data.loading import load_masks
from oncoshift.explain.attributions import compute_mean_image
from oncoshift.explain.explanation import Explanation, explain
from oncoshift.explain.kept import KeptParts
from oncoshift.explain.nuclei import tabulate_nuclei
from oncoshift.explain.page import render_page
from oncoshift.explain.sample import pick_tiles
from oncoshift.files import hold_lock
from oncoshift.fingerprint import fingerprint_code, fingerprint_value
from oncoshift.training.job import load_net, predict_job

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from oncoshift.data.tables import EvaluationTiles
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.steps.recorder import Recorder
    from oncoshift.training.job import TrainedJob

_HEADLINE = (
    "nuclei_enrichment",
    "nuclei_enrichment_low",
    "nuclei_enrichment_high",
    "converged_share",
    "randomisation_similarity",
)
"""Numbers that the run of the retraining shows; the step's own run has all of them."""


@dataclass(frozen=True)
class ExplainedModel:
    """A model and its explanation, beside that of the control.

    Attributes:
        trained: the model's job.
        explanation: attributions, their checks and their table.
        control: explanation of the source-only model on the same tiles; None where there is none.
    """

    trained: TrainedJob
    explanation: Explanation
    control: Explanation | None = None

    def record(self, recorder: Recorder) -> None:
        """Save gallery and tables, and log the headline numbers."""
        found, job, ended = self.explanation, self.trained.job, self.trained.ended_ms
        recorder.set_tags({"oncoshift.job": job.id})
        nuclei = self._tabulate_nuclei()
        page = render_page(f"{job.settings.target}: explanation of {job.id}", found, nuclei)
        figure = found.draw()
        recorder.save_text("gallery.html", page)
        recorder.save_figure("integrated_gradients.png", figure)
        recorder.outer.save_text("plots/gallery.html", page)
        recorder.outer.save_figure("plots/integrated_gradients.png", figure)
        recorder.save_table("integrated_gradients", found.table)
        recorder.save_table("nuclei", nuclei)
        if found.checks is not None:
            recorder.save_table("baselines", found.checks.baselines)
        recorder.log_metrics(found.as_dict(), ended)
        headline = {f"explain/{name}": found.as_dict().get(name) for name in _HEADLINE}
        recorder.outer.log_metrics(headline, ended)

    def _tabulate_nuclei(self) -> pd.DataFrame:
        models = {f"adapted ({self.trained.job.settings.train.method})": self.explanation.table}
        if self.control is not None:
            models = {"source-only": self.control.table, **models}
        return tabulate_nuclei(models)


def run(
    jobs: ExperimentJobs,
    trained: TrainedJob,
    on_progress: Callable[[int, int], None] | None = None,
    control: TrainedJob | None = None,
) -> ExplainedModel:
    """Explain a model and, without checks, its control on the same tiles.

    Args:
        jobs: of the experiment.
        trained: the model's job.
        on_progress: called with the number of attribution maps done and the total, of the model.
        control: job of the source-only model.
    """
    tiles = jobs.load_tiles(("test",))
    probabilities = predict_job(trained, tiles.images, tiles.rows)
    picked = pick_tiles(tiles.tile_ids, probabilities, tiles.groups, trained.job.settings.explain.tiles)
    return ExplainedModel(
        trained,
        explain_job(jobs, trained, tiles, picked, on_progress),
        None if control is None else explain_job(jobs, control, tiles, picked, checked=False),
    )


def explain_job(
    jobs: ExperimentJobs,
    trained: TrainedJob,
    tiles: EvaluationTiles,
    picked: NDArray[np.int64],
    on_progress: Callable[[int, int], None] | None = None,
    *,
    checked: bool = True,
    faithfulness: bool = True,
) -> Explanation:
    """Explain a model on some tiles; after a kill it goes on after the last part.

    Args:
        jobs: of the experiment.
        trained: the model's job.
        tiles: of which some are explained.
        picked: [n], their indices in `tiles`.
        on_progress: called with the number of attribution maps done and the total.
        checked: see `explanation.explain`.
        faithfulness: see `explanation.explain`.
    """
    ids, rows = tiles.tile_ids[picked], tiles.rows[picked]
    source = jobs.load_training_data().source
    folder = trained.job.folder / trained.job.id
    folder.mkdir(parents=True, exist_ok=True)
    with hold_lock(folder):
        kept = KeptParts(folder / f"explain-{_compute_key(jobs, trained, ids)}")
        explanation = explain(
            load_net(trained).classifier,
            tiles.images[rows],
            load_masks(jobs.layout, ids.tolist(), tiles.images.shape[1]),
            tile_ids=ids,
            groups=tiles.groups[picked],
            labels=tiles.labels[picked],
            mean_image=compute_mean_image(source.images, source.rows),
            device="cpu",
            settings=trained.job.settings.explain,
            checked=checked,
            faithfulness=faithfulness,
            kept=kept,
            on_progress=on_progress,
        )
        shutil.rmtree(kept.folder, ignore_errors=True)
    return explanation


def _compute_key(jobs: ExperimentJobs, trained: TrainedJob, tile_ids: NDArray[np.str_]) -> str:
    """Hash all that the attributions depend on."""
    settings = trained.job.settings.explain.model_dump(mode="json")
    code = fingerprint_code("oncoshift.explain")
    return fingerprint_value([trained.digest, jobs.data_digest, jobs.pack_digest, settings, tile_ids.tolist(), code])
