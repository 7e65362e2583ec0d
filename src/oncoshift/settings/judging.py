"""Sections about models: tuning, selection, evaluation, explanation, gate, watching, tracking."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from oncoshift.grid.registry import PROTOCOLS
from oncoshift.methods.registry import METHODS
from oncoshift.selection.registry import VALIDATORS
from oncoshift.settings.base import Names, OneOf, Organ, Section, Share, StainVariant


class TuneSettings(Section):
    """The Optuna study: hyperparameters by source validation and a label-free score."""

    trials: int = Field(4, ge=0, description="number of trials; 0: no tuning")
    epochs: int = Field(6, ge=1, description="epochs of each trial")
    parameters: Names[str] = Field(
        ("train.lr", "dann.max_lambda"),
        min_length=1,
        description="dotted keys of the settings to tune; all: every one that the method reads",
    )
    workers: int = Field(1, ge=1, description="number of processes that share the study")
    minutes: float | None = Field(None, gt=0, description="minutes after which no new trial starts; null: no limit")
    seeds: int = Field(1, ge=1, description="trainings of each configuration; their mean score counts")
    storage: str = Field(
        "sqlite:///runs/optuna.db", description="URL of the study's database; a relative path is within the project"
    )
    heartbeat_seconds: int = Field(5, ge=1, description="seconds between a worker's heartbeats")
    seed: int = Field(0, ge=0, description="seed of the sampler")


class SelectSettings(Section):
    """Selection of a model without target labels, and the limits of the verdict on it."""

    validator: Annotated[str, OneOf((*VALIDATORS, "oracle"))] = Field(
        "information_maximisation",
        description="label-free score; oracle reads target labels, for measurements only, and the gate refuses it",
    )
    source_floor: Share = Field(0.8, description="least balanced accuracy on the sources; a model below it ranks last")
    verdict: bool = Field(
        True, description="whether to train the method on each source organ alone and compare the models"
    )
    least_share: Share = Field(
        0.02, description="least share of target tiles in the rarer class; with less the model is a constant"
    )
    refuse_strength: float = Field(
        0.1, ge=-1, le=1, description="consensus (kappa) below which source organs contradict one another"
    )
    trust_strength: float = Field(0.9, ge=-1, le=1, description="consensus (kappa) from which source organs agree")
    refuse_agreement: float = Field(
        0.3, ge=-1, le=1, description="kappa of the pick with the consensus, below which it is refused"
    )
    trust_agreement: float = Field(
        0.8, ge=-1, le=1, description="kappa of the pick with the consensus, from which it is trusted"
    )

    anchors: bool = Field(False, description="whether the anchors of anchor.use are a second witness of the verdict")
    trust_anchors: float = Field(
        0.75,
        ge=-1,
        le=1,
        description="consensus (kappa) of models trained with each anchor alone, from which they agree",
    )
    refuse_correlation: float = Field(
        0.1, ge=-1, le=1, description="correlation with an anchor below which the classes count as inverted"
    )
    trust_correlation: float = Field(
        0.25, ge=-1, le=1, description="correlation with every anchor from which the model is trusted"
    )
    variants: Names[StainVariant] = Field(
        (),
        description="stain variants on which the pick's method and seed are trained once more, as witnesses of the "
        "verdict",
    )
    trust_stain: float = Field(
        0.75,
        ge=-1,
        le=1,
        description="kappa of the pick with the model of every other variant, from which it is trusted",
    )

    @field_validator("variants", mode="before")
    @classmethod
    def _read_nothing(cls, value: Any) -> Any:
        return () if value is None else value

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        for name in ("strength", "agreement", "correlation"):
            refuse, trust = getattr(self, f"refuse_{name}"), getattr(self, f"trust_{name}")
            if refuse > trust:
                raise ValueError(f"refuse_{name} {refuse} is above trust_{name} {trust}; between them is doubt")
        return self


class RetrainSettings(Section):
    """Trainings of a retraining: control and method with every seed; the choice of the method."""

    seeds: int = Field(3, ge=1, description="number of seeds of each, from `seed` upwards")
    control: Annotated[str, OneOf(tuple(name for name, row in METHODS.items() if not row.uses_target))] = Field(
        "erm", description="source-only method that gains are measured against"
    )
    methods: Names[Annotated[str, OneOf(tuple(METHODS))]] = Field(
        (), description="methods of which one is chosen without target labels; empty: train.method is trained"
    )
    variants: Names[StainVariant] = Field(
        (),
        description="stain variants of which one is chosen with the method, by the anchor nuclei; empty: train.variant",
    )
    screen_seeds: int = Field(2, ge=1, description="number of seeds with which each of them is trained for the choice")
    minutes: float | None = Field(
        None, gt=0, description="minutes after which no further method is trained for the choice; null: no limit"
    )
    leave_out_below: float | None = Field(
        -0.2,
        ge=-1,
        le=0,
        description="kappa, of the models from a source organ alone with those of the majority of organs, below which "
        "a candidate of methods is trained again without that organ; null: never; it takes select.verdict",
    )
    left_out: Names[Organ] = Field(
        (), description="source organs that the method does not learn from, as a choice has found; the control does"
    )

    @field_validator("methods", "variants", "left_out", mode="before")
    @classmethod
    def _read_nothing(cls, value: Any) -> Any:
        return () if value is None else value


class EvaluateSettings(Section):
    """Stage `evaluate`."""

    bootstrap: int = Field(1000, ge=100, description="number of bootstrap resamples of groups")
    confidence: float = Field(0.95, gt=0.5, lt=1.0, description="confidence level of the intervals")
    calibration_bins: int = Field(10, ge=2, description="number of probability bins of the calibration error")
    calibration: Literal["temperature", "none"] = Field(
        "temperature", description="scaling of served probabilities, fitted on source validation"
    )
    operating_point: Literal["fixed", "youden", "sensitivity"] = Field(
        "fixed",
        description="threshold of malignant: fixed at evaluate.threshold, or on source validation by Youden's index, "
        "or the highest with evaluate.min_sensitivity",
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="probability from which a tile is malignant, if fixed")
    min_sensitivity: Share = Field(0.95, description="least sensitivity on source validation of the operating point")


class ExplainSettings(Section):
    """Stage `explain`: Integrated Gradients on a fixed, stratified set of target tiles."""

    tiles: int = Field(16, ge=2, description="number of tiles, half of each predicted class where possible")
    steps: int = Field(
        16, ge=1, description="steps of the integral at first; doubled, tile by tile, until it has converged"
    )
    max_steps: int = Field(512, ge=1, description="steps beyond which they are not doubled; such tiles are reported")
    tolerance: float = Field(
        0.05, gt=0, description="largest completeness delta of a converged tile, as a share of the margin's change"
    )
    stability: float = Field(
        0.95, ge=-1, le=1, description="least cosine of a converged tile's maps of old and of new points"
    )
    baseline: Literal["mean", "blurred", "white", "black"] = Field(
        "mean", description="image that stands for nothing to see: mean training tile, the tile blurred, or one colour"
    )
    checked_tiles: int = Field(
        8, ge=0, description="number of tiles on which baselines are compared and parameters randomised; 0: no checks"
    )
    internal_batch_size: int = Field(16, ge=1, description="number of points that go through the network at once")

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        if self.max_steps < self.steps:
            raise ValueError(f"max_steps {self.max_steps} is below steps {self.steps}")
        return self


class GateSettings(Section):
    """Conditions on the audit set for a challenger to become champion."""

    min_balanced_accuracy: Share = Field(0.7, description="least balanced accuracy of the challenger")
    min_auroc: Share = Field(0.75, description="least area under its ROC curve")
    min_sensitivity: Share = Field(0.6, description="least sensitivity of the challenger")
    min_gain_over_control: float = Field(
        0.0, ge=-1, le=1, description="least lower end of the interval of the gain over the control"
    )
    non_inferiority_margin: Share = Field(
        0.02, description="balanced accuracy that the challenger may lose against the champion"
    )
    min_audit_groups: int = Field(6, ge=2, description="least number of labelled groups for a decision by labels")
    max_ece: Share | None = Field(
        None, description="largest expected calibration error on the audit set; null: no bound"
    )
    min_worst_seed: Share | None = Field(
        None, description="least balanced accuracy of the method's worst seed on the audit set; null: no bound"
    )
    max_latency_ms: float | None = Field(
        None, gt=0, description="most milliseconds to score a tile as served, on this machine; null: no bound"
    )
    max_alarms: int | None = Field(
        None, ge=0, description="most open findings of the training and of the data's validation; null: no bound"
    )
    max_map_similarity: Share | None = Field(
        None, description="largest similarity of attribution maps to those of randomised parameters; null: no bound"
    )
    approval: Literal["none", "human"] = Field(
        "none", description="human: what passes becomes champion only when a person has approved it"
    )
    approval_hours: float = Field(72.0, gt=0, description="hours to approve; a version that nobody approves is refused")
    without_audit: Literal["refuse", "trust", "few_labels"] = Field(
        "refuse",
        description="with fewer groups: refuse, or promote what the verdict without labels trusts, or what the labels "
        "of `oncoshift label` prove",
    )
    min_label_probability: float = Field(
        0.95,
        gt=0.5,
        lt=1,
        description="few_labels: least probability, by the labels that gate, that balanced accuracy exceeds its floor",
    )
    below_source_floor: Literal["refuse", "allow"] = Field(
        "refuse", description="with a pick below select.source_floor: refuse it, or judge it by the other conditions"
    )


class WatchSettings(Section):
    """Watching of unlabelled batches: how they are compared, and the limits of alarms."""

    tiles: int = Field(1000, ge=20, description="most tiles of a batch that are looked at, spread over its groups")
    permutations: int = Field(1999, ge=199, description="most permutations of groups in each test")
    false_alarms: float = Field(
        0.05, gt=0, lt=0.5, description="share of unchanged batches that may raise an alarm, over all tests of a batch"
    )
    least_shift: float = Field(
        0.3,
        ge=0,
        description="least distance of an alarm by stain, quality or embedding; 1: that of a training group",
    )
    least_share: Share = Field(
        0.1, description="least change of an alarm by the share of malignant tiles or of abstentions"
    )


class TrackingSettings(Section):
    """MLflow: where runs, artifacts and the registry are kept."""

    uri: str = Field(
        "sqlite:///mlruns/mlflow.db",
        description="URI of the MLflow server or database; a relative SQLite path is within the project",
    )
    experiment: str = Field("oncoshift", description="name of the experiment in MLflow")
    system_metrics: bool = Field(True, description="whether to log the use of CPU, memory and GPU")
    wait_minutes: float = Field(
        10.0,
        ge=4,  # the longest that a promotion waits for the lease of a process that died elsewhere
        description="minutes that a retraining waits for MLflow's server, or a study's database, when it goes away",
    )


class PaperSettings(Section):
    """The grid of `oncoshift paper`; each row is trained with `retrain.seeds` seeds."""

    pools: tuple[tuple[Organ, ...], ...] = Field(
        (
            ("lung", "colon", "breast"),
            ("colon", "lung", "breast"),
            ("breast", "lung", "colon"),
            ("lung", "colon", "breast", "kidney"),
            ("colon", "lung", "breast", "kidney"),
            ("breast", "lung", "colon", "kidney"),
            ("kidney", "lung", "colon", "breast"),
        ),
        min_length=1,
        description="what is adapted from where: lists of organs, the target first",
    )
    methods: Names[Annotated[str, OneOf(tuple(METHODS))]] = Field(
        (
            "dann", "cdan", "mcc", "mdd", "dann_multi", "self_training", "dann_mcc", "cdan_mcc", "anchored",
            "dann_mcc_orient",
        ),
        min_length=1,
        description="adapting methods; erm, single and ensemble are always trained",
    )  # fmt: skip
    variants: Names[StainVariant] = Field(
        ("none", "reinhard"),
        min_length=1,
        description="stain variants; other protocols have the first alone",
    )
    protocols: Names[Annotated[str, OneOf(tuple(PROTOCOLS))]] = Field(
        tuple(PROTOCOLS),
        min_length=1,
        description="honest, and others on pools of two sources, to see what each difference to it is worth",
    )
    workers: int = Field(2, ge=1, description="number of processes that train rows at once")

    @field_validator("pools", mode="before")
    @classmethod
    def _convert_pools(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            return value
        return tuple(tuple(pool) if isinstance(pool, list) else pool for pool in value)

    @field_validator("pools")
    @classmethod
    def _check_pools(cls, pools: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
        for pool in pools:
            if len(pool) < 2 or len(set(pool)) < len(pool):
                raise ValueError(f"{list(pool)} is no pool; name a target and then one source or more, each once")
        if len(set(pools)) < len(pools):
            raise ValueError("names a pool more than once")
        return pools

    @field_validator("methods")
    @classmethod
    def _check_methods(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        for name in methods:
            if not METHODS[name].uses_target or METHODS[name].reads_labels:
                raise ValueError(f"names {name}, which does not adapt without labels; leave it out")
        return methods


class JudgingSections(Section):
    """The sections about trained models."""

    tune: TuneSettings = TuneSettings()
    select: SelectSettings = SelectSettings()
    retrain: RetrainSettings = RetrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    explain: ExplainSettings = ExplainSettings()
    gate: GateSettings = GateSettings()
    watch: WatchSettings = WatchSettings()
    paper: PaperSettings = PaperSettings()
    tracking: TrackingSettings = TrackingSettings()
