"""The cross-organ matrix of a retraining, from models that step `select` has already trained.

It reads labels of the target's test tiles, so it is computed after the pick and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from oncoshift.evaluation.cross_organ import build_cross_organ, draw_cross_organ
from oncoshift.methods.registry import METHODS
from oncoshift.steps.calibration import predict_calibrated

if TYPE_CHECKING:
    from oncoshift.settings import EvaluateSettings
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.steps.recorder import Recorder
    from oncoshift.steps.select import Selection


@dataclass(frozen=True)
class CrossOrgan:
    """The matrix of one retraining.

    Attributes:
        matrix: see `evaluation.cross_organ.build_cross_organ`.
        target: the organ adapted to.
        method: name of the method.
    """

    matrix: pd.DataFrame
    target: str
    method: str

    @property
    def title(self) -> str:
        """The method, and whether labels of the target trained it."""
        labels = "by a handful of its labels" if METHODS[self.method].reads_labels else "without its labels"
        return f"{self.method}, adapted to {self.target} {labels}"

    def record(self, recorder: Recorder) -> None:
        """Save the matrix as a table and as a heat map."""
        figure = draw_cross_organ(self.matrix, self.target, self.title)
        recorder.save_table("cross_organ", self.matrix)
        for place in (recorder, recorder.outer):
            place.save_figure("plots/cross_organ.png", figure)


def run(jobs: ExperimentJobs, selection: Selection, settings: EvaluateSettings) -> CrossOrgan:
    """Evaluate the models from each organ alone, and the seeds from all organs, on every organ.

    Args:
        jobs: of the experiment.
        selection: the models; those from one organ alone are there if `select.verdict` is true.
        settings: section `evaluate`.
    """
    pick = selection.picked.job.settings
    found = None if METHODS[pick.train.method].reads_anchor else selection.agreement
    alone = {} if found is None else dict(zip(found.names, found.alone, strict=True))
    predictions = {organ: predict_calibrated(jobs, trained, settings)[0] for organ, trained in alone.items()}
    seeds = [predict_calibrated(jobs, trained, settings)[0] for trained in selection.seeds]
    all_of_them = alone and not selection.left_out
    predictions["all" if all_of_them else ", ".join(pick.sources)] = pd.concat(seeds)
    return CrossOrgan(build_cross_organ(predictions, settings), pick.target, pick.train.method)
