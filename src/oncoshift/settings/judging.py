"""Sections about what becomes of trained models: tuning, selection, evaluation, explanation, gate and tracking."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from oncoshift.methods.registry import METHODS
from oncoshift.selection.registry import VALIDATORS
from oncoshift.settings.base import Names, OneOf, Section, Share


class TuneSettings(Section):
    """The Optuna study that looks for hyperparameters, by source validation and a label-free score."""

    trials: int = Field(4, ge=0, description="0 skips tuning")
    epochs: int = Field(6, ge=1, description="of each trial")
    parameters: Names[str] = Field(
        ("train.lr", "dann.max_lambda"), min_length=1, description="settings by dotted key; all: what the method reads"
    )
    workers: int = Field(1, ge=1, description="processes that share the study")
    minutes: float | None = Field(None, gt=0, description="after the start of tuning, no new trial; null: no limit")
    seeds: int = Field(1, ge=1, description="trainings of one configuration; their mean score counts")
    storage: str = Field("sqlite:///runs/optuna.db", description="study database; a relative path is the project's")
    heartbeat_seconds: int = Field(5, ge=1, description="how often a worker says that its trial is alive")
    seed: int = Field(0, ge=0, description="of the sampler")


class SelectSettings(Section):
    """How a model is picked without target labels, and when the pick is believed."""

    validator: Annotated[str, OneOf((*VALIDATORS, "oracle"))] = Field(
        "information_maximisation", description="oracle reads target labels, for measuring alone; the gate refuses it"
    )
    source_floor: Share = Field(0.8, description="source balanced accuracy below which a model cannot win")
    verdict: bool = Field(True, description="train the method from each source organ alone, and see if they agree")
    least_share: Share = Field(0.02, description="of target tiles in the rarer class; below it the model is a constant")
    refuse_strength: float = Field(0.1, ge=-1, le=1, description="consensus (kappa) below which organs contradict")
    trust_strength: float = Field(0.9, ge=-1, le=1, description="consensus from which they agree")
    refuse_agreement: float = Field(0.3, ge=-1, le=1, description="pick's kappa with them, below which it is refused")
    trust_agreement: float = Field(0.8, ge=-1, le=1, description="pick's kappa with them, from which it is trusted")

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        for name in ("strength", "agreement"):
            refuse, trust = getattr(self, f"refuse_{name}"), getattr(self, f"trust_{name}")
            if refuse > trust:
                raise ValueError(f"refuse_{name} {refuse} is above trust_{name} {trust}; between them is doubt")
        return self


class RetrainSettings(Section):
    """How the retraining flow trains: the control and the method, each with every seed."""

    seeds: int = Field(3, ge=1, description="trainings of each, from `seed` upwards")
    control: Annotated[str, OneOf(tuple(name for name, row in METHODS.items() if not row.uses_target))] = Field(
        "erm", description="a method without the target"
    )


class EvaluateSettings(Section):
    """Stage `evaluate`."""

    bootstrap: int = Field(1000, ge=100, description="resamples of groups")
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="of the intervals")
    calibration_bins: int = Field(10, ge=2, description="bins of probability in the calibration error")


class ExplainSettings(Section):
    """Stage `explain`: Integrated Gradients on a fixed, stratified set of target tiles."""

    tiles: int = Field(16, ge=2, description="how many tiles, half of each predicted class where possible")
    steps: int = Field(50, ge=2, description="points on the path of the integral")
    internal_batch_size: int = Field(16, ge=1, description="points that go through the network at once")


class GateSettings(Section):
    """What a challenger must show on the audit set before it becomes champion."""

    min_balanced_accuracy: Share = Field(0.7, description="floor of the challenger's balanced accuracy")
    min_auroc: Share = Field(0.75, description="floor of its area under the ROC curve")
    min_sensitivity: Share = Field(0.6, description="floor of its sensitivity")
    min_gain_over_control: float = Field(
        0.0, ge=-1, le=1, description="lower end of the interval of the gain over source-only"
    )
    non_inferiority_margin: Share = Field(
        0.02, description="balanced accuracy that a challenger may lose to the champion"
    )
    min_audit_groups: int = Field(6, ge=2, description="fewer labelled groups than this prove nothing")
    without_audit: Literal["refuse", "trust"] = Field(
        "refuse", description="with fewer: refuse, or promote what the verdict without labels trusts"
    )
    below_source_floor: Literal["refuse", "allow"] = Field(
        "refuse", description="a pick that misses select.source_floor: refuse, or judge it by the rest alone"
    )


class TrackingSettings(Section):
    """Where MLflow keeps runs, artifacts and the registry."""

    uri: str = Field("sqlite:///mlruns/mlflow.db", description="a relative SQLite path is the project's")
    experiment: str = Field("oncoshift", description="name of the experiment in MLflow")
    system_metrics: bool = Field(True, description="log what CPU, memory and GPU do")


class JudgingSections(Section):
    """What becomes of trained models."""

    tune: TuneSettings = TuneSettings()
    select: SelectSettings = SelectSettings()
    retrain: RetrainSettings = RetrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    explain: ExplainSettings = ExplainSettings()
    gate: GateSettings = GateSettings()
    tracking: TrackingSettings = TrackingSettings()
