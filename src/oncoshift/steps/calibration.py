"""The calibration of trained models: fitted on source validation, applied to all their predictions.

Evaluation, gate and registration use the same one, so that what is measured is what is served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oncoshift.evaluation.operating import Calibration, fit_calibration
from oncoshift.methods.registry import METHODS

if TYPE_CHECKING:
    import pandas as pd

    from oncoshift.settings import EvaluateSettings
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.training.job import TrainedJob


def fit_job(jobs: ExperimentJobs, trained: TrainedJob, settings: EvaluateSettings) -> Calibration:
    """Fit a job's calibration on source validation."""
    return _fit(jobs.predict(trained, ("source_val",)), trained, settings)


def predict_calibrated(
    jobs: ExperimentJobs, trained: TrainedJob, settings: EvaluateSettings
) -> tuple[pd.DataFrame, Calibration]:
    """Predict source_val and test, with calibrated probabilities.

    Returns:
        The predictions, with the columns of `evaluation.domains.PREDICTION_COLUMNS`, `threshold`
        and `uncalibrated`, the network's own probability; and the calibration.
    """
    table = jobs.predict(trained, ("source_val", "test"))
    calibration = _fit(table, trained, settings)
    plain = table["probability"].to_numpy(np.float64)
    scaled = table.assign(probability=calibration.apply(plain), threshold=calibration.threshold, uncalibrated=plain)
    return scaled, calibration


def _fit(table: pd.DataFrame, trained: TrainedJob, settings: EvaluateSettings) -> Calibration:
    """Fit on the rows of source organs; those of the target are held out.

    A head of the target's own is of no use on the sources, and keeps its probabilities.
    """
    if METHODS[trained.job.settings.train.method].closed_form:
        return Calibration(threshold=settings.threshold)
    rows = table[table["organ"].isin(trained.job.settings.sources)]
    labels, probabilities = rows["label"].to_numpy(np.int64), rows["probability"].to_numpy(np.float64)
    return fit_calibration(labels, probabilities, settings)
