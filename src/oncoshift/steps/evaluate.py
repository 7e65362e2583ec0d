"""Step `evaluate`: performance of trained models on the sources and the target's test tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from sklearn.metrics import roc_curve

from oncoshift.errors import DataError
from oncoshift.evaluation.domains import Report, evaluate_domains, split_by_organ
from oncoshift.evaluation.intervals import Interval, bootstrap_difference
from oncoshift.evaluation.plots import (
    draw_comparison_figure,
    draw_confusion_figure,
    draw_reliability_figure,
    draw_roc_figure,
)
from oncoshift.evaluation.resampling import TooFewGroupsError
from oncoshift.evaluation.weighted import METRIC_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncoshift.evaluation.domains import OrganResult
    from oncoshift.settings import EvaluateSettings, Settings
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.steps.recorder import Recorder
    from oncoshift.training.job import TrainedJob


@dataclass(frozen=True)
class EvaluatedMethod:
    """The performance of one method.

    Attributes:
        seeds: its trained jobs, one per seed.
        predictions: of all seeds, with the columns of `evaluation.domains.PREDICTION_COLUMNS`.
        report: over its seeds; source organs on source_val, the target on test.
        bins: number of bins of the reliability diagram.
    """

    seeds: Sequence[TrainedJob]
    predictions: pd.DataFrame
    report: Report
    bins: int

    def record(self, recorder: Recorder, folder: str = "") -> None:
        """Save the report and the three plots.

        Args:
            recorder: where to save them.
            folder: prefix of their names, ending in a slash.
        """
        recorder.save_text(f"{folder}report.md", self.report.to_markdown())
        recorder.save_figure(f"{folder}roc.png", draw_roc_figure(self.predictions))
        recorder.save_figure(f"{folder}reliability.png", draw_reliability_figure(self.predictions, self.bins))
        recorder.save_figure(f"{folder}confusion.png", draw_confusion_figure(self.predictions))


@dataclass(frozen=True)
class Evaluation:
    """Control and method, compared.

    Attributes:
        target: the organ adapted to.
        method: name of the adapting method.
        control: name of the source-only method.
        methods: name → performance.
        gain: balanced accuracy on the target's test tiles, adapted minus control, paired by group
            and seed; None if there are too few groups for an interval.
        without_gain: the reason for `gain` being None; else empty.
    """

    target: str
    method: str
    control: str
    methods: Mapping[str, EvaluatedMethod]
    gain: Interval | None
    without_gain: str = ""

    @property
    def reports(self) -> dict[str, Report]:
        """Name of each method → its report."""
        return {name: method.report for name, method in self.methods.items()}

    def record(self, recorder: Recorder) -> None:
        """Save each method's results, each seed's metrics in its own run, and the comparison."""
        for name, method in self.methods.items():
            recorder.save_table(f"{name}/predictions", method.predictions.reset_index(drop=True))
            method.record(recorder, f"{name}/")
            recorder.save_json(f"{name}/report.json", method.report.to_dict())
            recorder.save_table(f"{name}/organs", method.report.to_frame())
            _record_seeds(recorder, method, self.target)
        comparison = draw_comparison_figure(self.reports)
        for place in (recorder, recorder.outer):
            place.save_figure("plots/comparison.png", comparison)
        ended = max(trained.ended_ms for method in self.methods.values() for trained in method.seeds)
        recorder.outer.log_metrics(self.headline, ended)

    @property
    def headline(self) -> dict[str, float]:
        """The metrics of method and control on the target, and the gain, by stable names."""
        values: dict[str, float] = {}
        for prefix, method in (("target", self.method), ("control", self.control)):
            values |= _list_figures(prefix, self.methods[method].report.organ(self.target))
        if self.gain is not None:
            values |= _list_interval("gain/balanced_accuracy", self.gain)
        return values


def run(jobs: ExperimentJobs, trained: Mapping[str, Sequence[TrainedJob]], settings: Settings) -> Evaluation:
    """Predict and score control and method, and the difference between them.

    Args:
        jobs: of the experiment.
        trained: method → its seeds' jobs.
        settings: of the experiment.

    Raises:
        DataError: there are no labelled test tiles of the target.
    """
    predictions = {name: _predict(jobs, seeds) for name, seeds in trained.items()}
    if settings.target not in set(next(iter(predictions.values()))["organ"]):
        raise DataError(
            f"no labelled test tiles of {settings.target}, so nothing can be proved; label tiles of two more "
            "groups of each class, or raise split.test_share"
        )
    methods = {name: _score(seeds, predictions[name], settings.evaluate) for name, seeds in trained.items()}
    method, control = settings.train.method, settings.retrain.control
    try:
        gain = _compute_gain(settings, predictions[method], predictions[control])
    except TooFewGroupsError as error:
        return Evaluation(settings.target, method, control, methods, None, str(error))
    return Evaluation(settings.target, method, control, methods, gain)


def evaluate_one(jobs: ExperimentJobs, trained: TrainedJob, settings: EvaluateSettings) -> EvaluatedMethod:
    """Predict and score one model, with nothing to compare it with."""
    return _score([trained], _predict(jobs, [trained]), settings)


def compute_roc_points(predictions: pd.DataFrame) -> pd.DataFrame:
    """Compute the ROC curve of each organ's first seed, for DVC plots."""
    curves = []
    for tiles in split_by_organ(predictions):
        false, true, _ = roc_curve(tiles.labels, tiles.probabilities[0])
        curves.append(pd.DataFrame({"organ": tiles.organ, "false_positive_rate": false, "true_positive_rate": true}))
    return pd.concat(curves)


def _predict(jobs: ExperimentJobs, seeds: Sequence[TrainedJob]) -> pd.DataFrame:
    return pd.concat([jobs.predict(trained, ("source_val", "test")) for trained in seeds])


def _score(seeds: Sequence[TrainedJob], predictions: pd.DataFrame, settings: EvaluateSettings) -> EvaluatedMethod:
    return EvaluatedMethod(seeds, predictions, evaluate_domains(predictions, settings), settings.calibration_bins)


def _compute_gain(settings: Settings, adapted: pd.DataFrame, control: pd.DataFrame) -> Interval:
    of_method, of_control = (
        next(tiles for tiles in split_by_organ(table) if tiles.organ == settings.target) for table in (adapted, control)
    )
    return bootstrap_difference(
        of_method.labels,
        of_method.probabilities,
        of_control.probabilities,
        of_method.groups,
        "balanced_accuracy",
        resamples=settings.evaluate.bootstrap,
        confidence=settings.evaluate.confidence,
    )


def _record_seeds(recorder: Recorder, method: EvaluatedMethod, target: str) -> None:
    """Log each seed's metrics on the target in its training's run, for comparison in the UI."""
    result = method.report.organ(target)
    for trained in method.seeds:
        settings = trained.job.settings
        values = _list_figures("target", result, settings.seed)
        recorder.find_step(f"train-{settings.train.method}-s{settings.seed}").log_metrics(values, trained.ended_ms)


def _list_figures(prefix: str, result: OrganResult, seed: int | None = None) -> dict[str, float]:
    """List an organ's metrics, of one seed or the mean over seeds, with their intervals."""
    intervals = result.intervals if seed is None else result.seed_intervals(seed)
    values: dict[str, float] = {}
    for name in METRIC_NAMES:
        if name in intervals:
            values |= _list_interval(f"{prefix}/{name}", intervals[name])
        elif (point := result.mean(name) if seed is None else getattr(result.per_seed[seed], name)) is not None:
            values[f"{prefix}/{name}"] = point
    return values


def _list_interval(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.point, f"{name}_low": interval.low, f"{name}_high": interval.high}
