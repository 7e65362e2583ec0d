"""Step `evaluate`: performance of trained models on the sources and the target's test tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
from sklearn.metrics import roc_curve

from oncoshift.errors import DataError
from oncoshift.evaluation.domains import Report, evaluate_domains, evaluate_groups, split_by_organ
from oncoshift.evaluation.embedding import draw_embedding
from oncoshift.evaluation.intervals import Interval, bootstrap_differences
from oncoshift.evaluation.plots import (
    draw_comparison_figure,
    draw_confusion_figure,
    draw_reliability_figure,
    draw_roc_figure,
)
from oncoshift.evaluation.resampling import TooFewGroupsError
from oncoshift.evaluation.selective import describe_aurc, draw_risk_coverage_figure
from oncoshift.evaluation.slices import build_slices, format_slices
from oncoshift.evaluation.weighted import METRIC_NAMES
from oncoshift.steps.calibration import predict_calibrated
from oncoshift.steps.embedding import map_features
from oncoshift.steps.properties import measure_tiles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oncoshift.evaluation.domains import OrganResult
    from oncoshift.evaluation.embedding import FeatureMap
    from oncoshift.evaluation.operating import Calibration
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
        groups: the same as `report`, of groups instead of tiles.
        calibrations: seed → temperature and threshold.
        bins: number of bins of the reliability diagram.
    """

    seeds: Sequence[TrainedJob]
    predictions: pd.DataFrame
    report: Report
    groups: Report
    calibrations: Mapping[int, Calibration]
    bins: int

    def record(self, recorder: Recorder, folder: str = "") -> None:
        """Save the report and the plots.

        Args:
            recorder: where to save them.
            folder: prefix of their names, ending in a slash.
        """
        recorder.save_text(f"{folder}report.md", self.to_markdown())
        recorder.save_figure(f"{folder}roc.png", draw_roc_figure(self.predictions))
        recorder.save_figure(f"{folder}reliability.png", draw_reliability_figure(self.predictions, self.bins))
        recorder.save_figure(f"{folder}confusion.png", draw_confusion_figure(self.predictions))
        recorder.save_figure(f"{folder}risk_coverage.png", draw_risk_coverage_figure(self.predictions))

    def to_markdown(self) -> str:
        """Format metrics of tiles and groups, calibration and selective prediction as Markdown."""
        seeds = [
            f"| {seed} | {each.temperature:.3f} | {each.threshold:.3f} |"
            for seed, each in sorted(self.calibrations.items())
        ]
        parts = [
            "## Tiles",
            self.report.to_markdown(),
            "## Groups (mean probability; a group with both labels counts as two)",
            self.groups.to_markdown(),
            "## Calibration, fitted on source validation",
            "\n".join(["| seed | temperature | threshold |", "|---|---|---|", *seeds]),
            "## Selective prediction",
            describe_aurc(self.predictions),
        ]
        return "\n\n".join(parts) + "\n"


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
        maps: features of one seed of control and method.
        slices: metrics of the method by organ, group, stain and quality.
        without_gain: the reason for `gain` being None; else empty.
    """

    target: str
    method: str
    control: str
    methods: Mapping[str, EvaluatedMethod]
    gain: Interval | None
    maps: Sequence[FeatureMap]
    slices: pd.DataFrame
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
            recorder.save_json(f"{name}/report_groups.json", method.groups.to_dict())
            recorder.save_table(f"{name}/organs", method.report.to_frame())
            _record_seeds(recorder, method, self.target)
        recorder.save_table("slices", self.slices)
        recorder.save_text("slices.md", format_slices(self.slices) + "\n")
        comparison, embedding = draw_comparison_figure(self.reports), draw_embedding(self.maps, self.target)
        for place in (recorder, recorder.outer):
            place.save_figure("plots/comparison.png", comparison)
            place.save_figure("plots/embedding.png", embedding)
        ended = max(trained.ended_ms for method in self.methods.values() for trained in method.seeds)
        recorder.outer.log_metrics(self.headline, ended)

    @property
    def headline(self) -> dict[str, float]:
        """The metrics of method and control on the target, and the gain, by stable names."""
        values: dict[str, float] = {}
        for prefix, method in (("target", self.method), ("control", self.control)):
            values |= list_figures(prefix, self.methods[method].report.organ(self.target))
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
    methods = {name: _evaluate(jobs, seeds, settings.evaluate) for name, seeds in trained.items()}
    if settings.target not in set(next(iter(methods.values())).predictions["organ"]):
        raise DataError(
            f"no labelled test tiles of {settings.target}, so nothing can be proved; label tiles of two more "
            "groups of each class, or raise split.test_share"
        )
    method, control = settings.train.method, settings.retrain.control
    roles = {control: "source-only", method: "adapted"}
    maps = [
        map_features(jobs, seeds[0], f"{roles[name]} ({name}), seed {seeds[0].job.seed}")
        for name, seeds in trained.items()
    ]
    properties = measure_tiles(jobs.load_tiles(("test",)))
    slices = build_slices(methods[method].predictions, properties, settings.target)
    try:
        gain = compute_gain(
            settings.target, methods[method].predictions, methods[control].predictions, settings.evaluate
        )
    except TooFewGroupsError as error:
        return Evaluation(settings.target, method, control, methods, None, maps, slices, str(error))
    return Evaluation(settings.target, method, control, methods, gain, maps, slices)


def evaluate_one(jobs: ExperimentJobs, trained: TrainedJob, settings: EvaluateSettings) -> EvaluatedMethod:
    """Predict and score one model, with nothing to compare it with."""
    return _evaluate(jobs, [trained], settings)


def compute_roc_points(predictions: pd.DataFrame) -> pd.DataFrame:
    """Compute the ROC curve of each organ's first seed, for DVC plots."""
    curves = []
    for tiles in split_by_organ(predictions):
        false, true, _ = roc_curve(tiles.labels, tiles.probabilities[0])
        curves.append(pd.DataFrame({"organ": tiles.organ, "false_positive_rate": false, "true_positive_rate": true}))
    return pd.concat(curves)


def compute_gain(target: str, adapted: pd.DataFrame, control: pd.DataFrame, settings: EvaluateSettings) -> Interval:
    """Compute balanced accuracy of one model minus another's, paired by group and seed.

    Args:
        target: the organ whose tiles are compared.
        adapted: predictions with the columns of `evaluation.domains.PREDICTION_COLUMNS`.
        control: the same of the model that is subtracted.
        settings: section `evaluate`.

    Raises:
        TooFewGroupsError: a class has fewer than two groups.
    """
    of_method, of_control = (
        next(tiles for tiles in split_by_organ(table) if tiles.organ == target) for table in (adapted, control)
    )
    return bootstrap_differences(
        of_method.labels,
        of_method.probabilities,
        of_control.probabilities,
        of_method.groups,
        resamples=settings.bootstrap,
        confidence=settings.confidence,
        names=("balanced_accuracy",),
        thresholds=(of_method.thresholds, of_control.thresholds),
    )["balanced_accuracy"]


def list_figures(prefix: str, result: OrganResult, seed: int | None = None) -> dict[str, float]:
    """List an organ's metrics, of one seed or the mean over seeds, with their intervals."""
    intervals = result.intervals if seed is None else result.seed_intervals(seed)
    values: dict[str, float] = {}
    for name in METRIC_NAMES:
        if name in intervals:
            values |= _list_interval(f"{prefix}/{name}", intervals[name])
        elif (point := result.mean(name) if seed is None else getattr(result.per_seed[seed], name)) is not None:
            values[f"{prefix}/{name}"] = point
    return values


def _evaluate(jobs: ExperimentJobs, seeds: Sequence[TrainedJob], settings: EvaluateSettings) -> EvaluatedMethod:
    parts = [predict_calibrated(jobs, trained, settings) for trained in seeds]
    predictions = pd.concat([table for table, _ in parts])
    return EvaluatedMethod(
        seeds=seeds,
        predictions=predictions,
        report=evaluate_domains(predictions, settings),
        groups=evaluate_groups(predictions, settings),
        calibrations={trained.job.seed: found for trained, (_, found) in zip(seeds, parts, strict=True)},
        bins=settings.calibration_bins,
    )


def _record_seeds(recorder: Recorder, method: EvaluatedMethod, target: str) -> None:
    """Log each seed's metrics on the target in its training's run, for comparison in the UI."""
    result = method.report.organ(target)
    for trained in method.seeds:
        settings = trained.job.settings
        values = list_figures("target", result, settings.seed)
        recorder.find_step(f"train-{settings.train.method}-s{settings.seed}").log_metrics(values, trained.ended_ms)


def _list_interval(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.point, f"{name}_low": interval.low, f"{name}_high": interval.high}
