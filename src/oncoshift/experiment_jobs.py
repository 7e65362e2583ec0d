"""Training jobs of an experiment on disk: made from its settings, trained, and asked for predictions.

The DVC stages and the retraining flow both go through here.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from oncoshift.data.loading import (
    LabelledSplit,
    data_fingerprint,
    load_evaluation_tiles,
    load_masks,
    load_training_data,
)
from oncoshift.data.packs.pack import pack_digest
from oncoshift.explain.attributions import mean_image
from oncoshift.explain.explanation import Explanation, explain
from oncoshift.explain.kept import KeptParts
from oncoshift.explain.sample import pick_tiles
from oncoshift.files import held
from oncoshift.fingerprint import code_fingerprint, value_fingerprint
from oncoshift.settings import with_values
from oncoshift.training.job import Job, TrainedJob, load_net, predict_job, train_job

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from oncoshift.data.tables import TrainingData
    from oncoshift.layout import Layout
    from oncoshift.settings import ExplainSettings, Settings
    from oncoshift.training.loop import EpochHook


@dataclass(frozen=True)
class ExperimentJobs:
    """Makes jobs for one state of an experiment's data.

    Attributes:
        layout: the experiment.
        variant: the stain variant that all jobs train on.
        sources: the labelled organs of the experiment; a job may be of some of them.
        data_digest: content hash of all that training may read.
        pack_digest: content hash of the pack alone.
        folder: where jobs keep their results.
    """

    layout: Layout
    variant: str
    sources: tuple[str, ...]
    data_digest: str
    pack_digest: str
    folder: Path

    @classmethod
    def open(cls, layout: Layout, variant: str, sources: tuple[str, ...], folder: Path | None = None) -> ExperimentJobs:
        """Hash the data as they are now.

        Raises:
            DataError: a data stage has not run.
        """
        pack = value_fingerprint(pack_digest(layout.packs / variant))
        return cls(layout, variant, sources, data_fingerprint(layout, variant), pack, folder or layout.jobs)

    def job(self, settings: Settings, **changes: Any) -> Job:
        """The job that settings name, with dotted keys (`__` for the dot) changed."""
        values = {key.replace("__", "."): value for key, value in changes.items()}
        changed = with_values(settings, values) if values else settings
        return Job(changed, self.data_digest, self.pack_digest, self.folder, self.layout.features)

    def train(self, job: Job, on_epoch: EpochHook, on_features: Callable[[int, int], None] | None = None) -> TrainedJob:
        """Train a job, or return its result if it is done; see `training.job.train_job` for the errors."""
        return train_job(job, self._data(), on_epoch, on_features)

    def predict(self, job: Job, trained: TrainedJob, splits: Sequence[LabelledSplit]) -> pd.DataFrame:
        """A job's predictions on labelled splits, with the columns of `evaluation.report.PREDICTION_COLUMNS`."""
        tiles = load_evaluation_tiles(self.layout, self.variant, splits)
        return pd.DataFrame(
            {
                "tile_id": tiles.tile_ids,
                "organ": tiles.organs,
                "group": tiles.groups,
                "label": tiles.labels,
                "probability": predict_job(job, trained, tiles.images, tiles.rows),
                "seed": job.settings.seed,
            }
        )

    def predict_target(self, job: Job, trained: TrainedJob) -> NDArray[np.float64]:
        """A job's probability of malignant on the target's training tiles, float64 [T]; no label is read."""
        target = self._data().target
        return predict_job(job, trained, target.images, target.rows)

    def explain(
        self, job: Job, trained: TrainedJob, on_progress: Callable[[int, int], None] | None = None
    ) -> Explanation:
        """Integrated Gradients of a job's model on a fixed set of the target's test tiles.

        Parts that are done lie in the job's folder until all are, so a killed process goes on to the same bits.

        Args:
            job: which one.
            trained: its result.
            on_progress: called with tiles done and tiles in all.
        """
        tiles = load_evaluation_tiles(self.layout, self.variant, ("test",))
        source = self._data().source
        settings = job.settings.explain
        probabilities = predict_job(job, trained, tiles.images, tiles.rows)
        picked = pick_tiles(tiles.tile_ids, probabilities, tiles.groups, settings.tiles)
        ids, rows = tiles.tile_ids[picked], tiles.rows[picked]
        folder = job.folder / job.id
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder):
            kept = KeptParts(folder / f"explain-{self._explain_key(trained, settings, ids)}")
            explanation = explain(
                load_net(job, trained).classifier,
                tiles.images[rows],
                load_masks(self.layout, ids.tolist(), tiles.images.shape[1]),
                tile_ids=ids,
                groups=tiles.groups[picked],
                labels=tiles.labels[picked],
                baseline=mean_image(source.images, source.rows),
                device="cpu",
                settings=settings,
                kept=kept,
                on_progress=on_progress,
            )
            shutil.rmtree(kept.folder, ignore_errors=True)
        return explanation

    def _explain_key(self, trained: TrainedJob, settings: ExplainSettings, tile_ids: NDArray[np.str_]) -> str:
        """Hash of all that decides attributions."""
        code = code_fingerprint("oncoshift.explain")
        parts = [trained.digest, self.data_digest, self.pack_digest, settings.model_dump(mode="json")]
        return value_fingerprint([*parts, tile_ids.tolist(), code])

    def _data(self) -> TrainingData:
        return load_training_data(self.layout, self.variant, self.sources)
