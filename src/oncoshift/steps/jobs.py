"""Training jobs of an experiment: made from its settings, trained, and used for predictions.

The DVC stages and the retraining flow both use this module. Only functions that train or predict
import torch, so finding that there is nothing to do stays quick.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from oncoshift.data.loading import LabelledSplit, data_fingerprint, load_evaluation_tiles, load_training_data
from oncoshift.data.packs.pack import Pack, pack_digest
from oncoshift.data.parquet import read_table
from oncoshift.data.tables import LABELS, TargetLabels
from oncoshift.errors import DataError
from oncoshift.fingerprint import fingerprint_value
from oncoshift.labels.table import SKIP, TRAIN, read_labels, select_labels
from oncoshift.methods.registry import METHODS
from oncoshift.settings import replace_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

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
    _others: dict[str, ExperimentJobs] = field(default_factory=dict, init=False, repr=False, compare=False)
    _labels: dict[str, pd.DataFrame] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def open(cls, layout: Layout, variant: str, sources: tuple[str, ...], folder: Path | None = None) -> ExperimentJobs:
        """Hash the data in their present state.

        Raises:
            DataError: a data stage has not run.
        """
        pack = fingerprint_value(pack_digest(layout.packs / variant))
        return cls(layout, variant, sources, data_fingerprint(layout, variant), pack, folder or layout.jobs)

    def on_variant(self, variant: str) -> ExperimentJobs:
        """Open the jobs of the same experiment on a stain variant.

        Raises:
            DataError: its pack is missing.
        """
        if variant == self.variant:
            return self
        if variant not in self._others:
            opened = self.open(self.layout, variant, self.sources, self.folder)
            opened._others[self.variant] = self  # the way back need not hash the data again
            self._others[variant] = opened
        return self._others[variant]

    def make_job(self, settings: Settings, **changes: Any) -> Job:
        """Make the job of some settings, with changes by dotted key (`__` stands for the dot)."""
        from oncoshift.training.job import Job

        values = {key.replace("__", "."): value for key, value in changes.items()}
        changed = replace_values(settings, values) if values else settings
        labels = ""
        if METHODS[changed.train.method].reads_labels:
            labels = self.load_labels(changed.target, TRAIN).digest
        return Job(changed, self.data_digest, self.pack_digest, self.folder, self.layout.features, labels)

    def train(self, job: Job, on_epoch: EpochHook, on_features: Callable[[int, int], None] | None = None) -> TrainedJob:
        """Train a job, or return its result; see `training.job.train_job` for further errors.

        Raises:
            DataError: the labels that train are not those that the job was made for.
        """
        from oncoshift.training.job import train_job

        data = self.load_training_data()
        if METHODS[job.settings.train.method].reads_labels:
            labels = self.load_labels(job.settings.target, TRAIN)
            if labels.digest != job.labels_digest:
                raise DataError(f"{job.id}: the labels of {job.settings.target} have changed meanwhile; start again")
            data = replace(data, labels=labels)
        return train_job(job, data, on_epoch, on_features)

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

    def load_labels(self, target: str, use: str) -> TargetLabels:
        """Load the applied labels of one use that are of the target's training tiles.

        The file is read once, so that a label applied meanwhile does not come in between: what
        trains and what gates is of one state, and so is a job's key.

        Tiles that are held out here, as another experiment may do with them, are left out: their
        labels have another say.

        Raises:
            DataError: the labels cannot be read, or a tile has changed since it was labelled.
        """
        given = select_labels(self._read_labels(target), use)
        split = read_table(self.layout.splits / "target_train.parquet", ("tile_id", "group"), stage="split")
        hashes = read_table(self.layout.tiles / "tiles.parquet", ("tile_id", "sha256"), stage="ingest")
        now = split.merge(hashes, on="tile_id").set_index("tile_id")
        given = given[given["tile_id"].isin(now.index)]
        found = now.loc[given["tile_id"]]
        changed = given.loc[found["sha256"].to_numpy() != given["sha256"].to_numpy(), "tile_id"]
        if len(changed):
            raise DataError(
                f"{self.layout.labels}: {len(changed)} labelled tiles of {target} have changed, for example "
                f"{changed.iloc[0]}; restore them by `dvc checkout`, or propose and label them anew"
            )
        return TargetLabels(
            tile_ids=given["tile_id"].to_numpy(np.str_),
            rows=Pack.open(self.layout.packs / self.variant).rows(given["tile_id"].tolist()),
            labels=np.array([LABELS.index(word) for word in given["label"]], np.int64),
            groups=found["group"].to_numpy(np.str_),
        )

    def count_skipped(self, target: str, use: str) -> int:
        """Count the tiles of one use that a person skipped, and that have no class for that."""
        table = self._read_labels(target)
        return int(((table["use"] == use) & (table["label"] == SKIP)).sum())

    def _read_labels(self, target: str) -> pd.DataFrame:
        if target not in self._labels:
            self._labels[target] = read_labels(self.layout.labels, target)
        return self._labels[target]

    def load_training_data(self) -> TrainingData:
        """Load all that training may read."""
        return load_training_data(self.layout, self.variant, self.sources)


def read_source_groups(layout: Layout) -> set[str]:
    """Read the groups of the sources' tiles, which train and validate every model.

    A patient may have tiles in a source and in the target; the split then trains on both.
    """
    names = ("source_train", "source_val")
    tables = [read_table(layout.splits / f"{name}.parquet", ("group",), stage="split") for name in names]
    return {str(group) for table in tables for group in table["group"]}
