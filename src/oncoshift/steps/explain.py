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
from oncoshift.explain.sample import pick_tiles
from oncoshift.files import hold_lock
from oncoshift.fingerprint import fingerprint_code, fingerprint_value
from oncoshift.training.job import load_net, predict_job

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.steps.recorder import Recorder
    from oncoshift.training.job import TrainedJob


@dataclass(frozen=True)
class ExplainedModel:
    """A model and its explanation.

    Attributes:
        trained: the model's job.
        explanation: attributions, their table and their figure.
    """

    trained: TrainedJob
    explanation: Explanation

    def record(self, recorder: Recorder) -> None:
        """Save the gallery, the table, and the share of attribution on nuclei."""
        found, ended = self.explanation, self.trained.ended_ms
        recorder.set_tags({"oncoshift.job": self.trained.job.id})
        recorder.save_figure("integrated_gradients.png", found.figure)
        recorder.outer.save_figure("plots/integrated_gradients.png", found.figure)
        recorder.save_table("integrated_gradients", found.table)
        recorder.log_metrics(found.as_dict(), ended)
        recorder.outer.log_metrics({f"explain/{name}": value for name, value in found.as_dict().items()}, ended)


def run(
    jobs: ExperimentJobs, trained: TrainedJob, on_progress: Callable[[int, int], None] | None = None
) -> ExplainedModel:
    """Explain a model.

    Args:
        jobs: of the experiment.
        trained: the model's job.
        on_progress: called with the number of tiles done and the total.
    """
    tiles = jobs.load_tiles(("test",))
    source = jobs.load_training_data().source
    settings = trained.job.settings.explain
    probabilities = predict_job(trained, tiles.images, tiles.rows)
    picked = pick_tiles(tiles.tile_ids, probabilities, tiles.groups, settings.tiles)
    ids, rows = tiles.tile_ids[picked], tiles.rows[picked]
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
            baseline=compute_mean_image(source.images, source.rows),
            device="cpu",
            settings=settings,
            kept=kept,
            on_progress=on_progress,
        )
        shutil.rmtree(kept.folder, ignore_errors=True)
    return ExplainedModel(trained, explanation)


def _compute_key(jobs: ExperimentJobs, trained: TrainedJob, tile_ids: NDArray[np.str_]) -> str:
    """Hash all that the attributions depend on."""
    settings = trained.job.settings.explain.model_dump(mode="json")
    code = fingerprint_code("oncoshift.explain")
    return fingerprint_value([trained.digest, jobs.data_digest, jobs.pack_digest, settings, tile_ids.tolist(), code])
