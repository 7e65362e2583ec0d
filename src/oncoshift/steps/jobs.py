"""Training jobs of an experiment: made from its settings, trained, and used for predictions.

The DVC stages and the retraining flow both use this module. Only functions that train or predict
import torch, so finding that there is nothing to do stays quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from oncoshift.data.loading import LabelledSplit, data_fingerprint, load_evaluation_tiles, load_training_data
from oncoshift.data.packs.pack import pack_digest
from oncoshift.fingerprint import fingerprint_value
from oncoshift.settings import replace_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from oncoshift.data.tables import EvaluationTiles, TrainingData
    from oncoshift.layout import Layout
    from oncoshift.settings import Settings
    from oncoshift.training.epoch import EpochHook
    from oncoshift.training.job import Job, TrainedJob


@dataclass(frozen=True)
class ExperimentJobs:
    """Makes jobs for one state of an experiment's data.

    Attributes:
        layout: the experiment.
        variant: the stain variant that all jobs train on.
        sources: the labelled organs of the experiment; a job may use a subset.
        data_digest: content hash of all that training may read.
        pack_digest: content hash of the pack alone.
        folder: where jobs store their results.
    """

    layout: Layout
    variant: str
    sources: tuple[str, ...]
    data_digest: str
    pack_digest: str
    folder: Path

    @classmethod
    def open(cls, layout: Layout, variant: str, sources: tuple[str, ...], folder: Path | None = None) -> ExperimentJobs:
        """Hash the data in their present state.

        Raises:
            DataError: a data stage has not run.
        """
        pack = fingerprint_value(pack_digest(layout.packs / variant))
        return cls(layout, variant, sources, data_fingerprint(layout, variant), pack, folder or layout.jobs)

    def make_job(self, settings: Settings, **changes: Any) -> Job:
        """Make the job of some settings, with changes by dotted key (`__` stands for the dot)."""
        from oncoshift.training.job import Job

        values = {key.replace("__", "."): value for key, value in changes.items()}
        changed = replace_values(settings, values) if values else settings
        return Job(changed, self.data_digest, self.pack_digest, self.folder, self.layout.features)

    def train(self, job: Job, on_epoch: EpochHook, on_features: Callable[[int, int], None] | None = None) -> TrainedJob:
        """Train a job, or return its result; see `training.job.train_job` for the errors."""
        from oncoshift.training.job import train_job

        return train_job(job, self.load_training_data(), on_epoch, on_features)

    def predict(self, trained: TrainedJob, splits: Sequence[LabelledSplit]) -> pd.DataFrame:
        """Predict labelled splits; the columns are `evaluation.domains.PREDICTION_COLUMNS`."""
        from oncoshift.training.job import predict_job

        tiles = self.load_tiles(splits)
        return pd.DataFrame(
            {
                "tile_id": tiles.tile_ids,
                "organ": tiles.organs,
                "group": tiles.groups,
                "label": tiles.labels,
                "probability": predict_job(trained, tiles.images, tiles.rows),
                "seed": trained.job.seed,
            }
        )

    def predict_target(self, trained: TrainedJob) -> NDArray[np.float64]:
        """Predict P(malignant) of the target's training tiles, float64 [T]; no label is read."""
        from oncoshift.training.job import predict_job

        target = self.load_training_data().target
        return predict_job(trained, target.images, target.rows)

    def measure_anchors(self, settings: Settings) -> dict[str, NDArray[np.float64]]:
        """Measure the anchors of `anchor.use` on the target's training tiles, float64 [T] each."""
        from oncoshift.training.anchors import measure_each
        from oncoshift.training.features import FeatureCache

        data, cache = self.load_training_data(), FeatureCache(self.layout.features, self.pack_digest)
        return measure_each(data, data.target.rows, settings, cache, settings.anchor.use)

    def load_tiles(self, splits: Sequence[LabelledSplit]) -> EvaluationTiles:
        """Load the tiles of labelled splits."""
        return load_evaluation_tiles(self.layout, self.variant, splits)

    def load_training_data(self) -> TrainingData:
        """Load all that training may read."""
        return load_training_data(self.layout, self.variant, self.sources)
