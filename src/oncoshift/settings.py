"""params.yaml, a preset and `--set` overrides become one frozen, validated `Settings`.

With `settings_files` this is the only module that knows where settings come from. Everything else receives the section
it needs.
What tuning may try stands beside a default, as `Range` or `Choices` in its annotation (see `oncoshift.tuning.space`).

Later sources win: defaults below < params.yaml < preset < `--set`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from oncoshift.errors import SettingsError
from oncoshift.secrets import has_password
from oncoshift.settings_files import dump, expand, find_preset, merge, nest, parse_override, read_mapping, written

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")


def _without_repeats(names: tuple[T, ...]) -> tuple[T, ...]:
    repeated = sorted({str(name) for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"names {', '.join(repeated)} more than once")
    return names


Names = Annotated[tuple[T, ...], AfterValidator(_without_repeats)]
"""A list in which nothing stands twice."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]
StainVariant = Literal["none", "reinhard", "macenko", "vahadane"]
Organ = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
MethodName = Literal[
    "erm", "single", "stain_aug", "ensemble", "adabn", "dann", "cdan", "mcc", "mdd", "dann_multi", "self_training",
    "dann_mcc", "cdan_mcc",
]  # fmt: skip


@dataclass(frozen=True)
class Range:
    """What tuning may try for a numeric setting, both ends included."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Choices:
    """What tuning may try for any other setting; without values, all that a literal or a truth value can be."""

    values: tuple[bool | int | float | str | None, ...] = ()


LambdaSchedule = Annotated[Literal["paper", "ganin", "constant"], Choices()]


class Section(BaseModel):
    """A frozen section of params.yaml that refuses unknown keys and takes no word for a number or a truth value."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("*")
    @classmethod
    def _no_password(cls, value: Any) -> Any:
        """Settings are logged, hashed and written to files; a variable in them is not."""
        if isinstance(value, str) and has_password(written(value)):
            raise ValueError("it holds a password; write ${NAME} in its place, and set the environment variable NAME")
        return value


class Phantom(Section):
    """The made-up data set; read by `oncoshift phantom` alone, which writes it to `ingest.root`."""

    organs: Names[Organ] = ("lung", "colon", "breast", "kidney")
    tile_size: int = Field(64, ge=32, le=1024, description="side of a tile, pixels")
    groups_per_class: int = Field(20, ge=2)
    tiles_per_group: int = Field(8, ge=1)
    seed: int = Field(0, ge=0)


class Ingest(Section):
    """Stage `ingest`: which tiles there are, and which are unusable."""

    adapter: Literal[
        "breakhis", "folder", "lc25000", "manifest", "multi_cancer", "nct_crc", "patchcamelyon", "phantom"
    ] = "phantom"
    root: str = Field("data/raw", description="folder, .zip or .tar (`manifest`: also the CSV) as the adapter expects")
    include_squamous: bool = Field(False, description="lc25000, multi_cancer: take lung_scc, too")
    magnification: Literal[40, 100, 200, 400] = Field(200, description="breakhis: of the microscope")
    allow_ct: bool = Field(False, description="multi_cancer: take its kidney, which is abdominal CT")
    min_size: int = Field(32, ge=8, description="shorter side below which a tile is quarantined, pixels")
    min_tissue: Share = Field(0.05, description="share of tissue pixels below which a tile is blank")
    min_sharpness: float = Field(0.0025, ge=0.0, description="below it a tile is blurred; see data.validation.checks")
    min_saturation: float = Field(0.03, ge=0.0, description="of optical density; below it a tile is grey, so not H&E")
    min_stain_share: Share = Field(0.5, description="share of tissue with a hue of H&E below which a tile is not H&E")
    min_eosin_share: Share = Field(0.05, description="the same towards eosin: below it a tile is a blue picture")
    max_quarantine_share: Share = Field(0.02, description="of unusable files; duplicates do not count")
    join_near_duplicates: bool = Field(True, description="tiles that come from one original become one group")


class Split(Section):
    """Stage `split`: by group, stratified, seeded. Shares are shares of groups."""

    val_share: Share = Field(0.2, description="of each source organ's groups, for source validation")
    audit_share: Share = Field(0.2, description="of the target's labelled groups, for the gate alone")
    test_share: Share = Field(0.3, description="of the target's labelled groups, for the report alone")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _target_keeps_training_tiles(self) -> Self:
        if self.audit_share + self.test_share > 0.8:
            raise ValueError("audit_share + test_share must leave at least 0.2 of the target's groups for training")
        return self


class Normalize(Section):
    """Stage `normalize`: decode, resize and stain-normalise every tile once, into packs."""

    variants: Names[StainVariant] = ("none", "reinhard")
    tile_size: int = Field(64, ge=32, le=512, description="side of a packed tile, pixels")
    standardize_luminosity: bool = Field(True, description="first stretch L so that its 95th percentile is white")
    fit: Literal["tile", "group"] = Field("tile", description="one stain fit a tile, or one for the tiles of a group")
    precision: Literal["fast", "exact"] = Field("fast", description="exact: as staintools to 0.1 grey levels")
    backend: Literal["auto", "numba", "torch", "staintools"] = Field(
        "auto",
        description="auto: torch on a GPU where there is one, else numba; their packs differ by a grey level here and "
        "there, so name one where machines of both kinds share data",
    )
    shard_tiles: int = Field(2048, ge=1, description="tiles in a shard of a pack, at most")
    workers: int | None = Field(None, ge=1, description="processes; default: one a core")


class Model(Section):
    """The network."""

    backbone: Literal["resnet18", "resnet50"] = "resnet18"
    weights: str = Field("none", description="none | imagenet | path of a .safetensors state dict")
    freeze: Literal["none", "stem", "layer1", "layer2", "layer3", "layer4", "all"] = Field(
        "none", description="the trunk is frozen from the stem up to and including this part"
    )
    bottleneck: Annotated[int, Field(ge=8), Choices((64, 128, 256, 512))] = Field(
        256, description="width of the shared feature, paper: 512"
    )
    dropout: Annotated[float, Field(ge=0.0, lt=1.0), Range(0.0, 0.7)] = 0.5
    batch_norm: Literal["shared", "per_domain"] = Field(
        "shared", description="per_domain: sources and target have statistics of their own, and one scale and shift"
    )

    @field_validator("weights")
    @classmethod
    def _known_weights(cls, value: str) -> str:
        if value not in ("none", "imagenet") and not value.endswith(".safetensors"):
            raise ValueError("must be none, imagenet or the path of a .safetensors file")
        return value


class Train(Section):
    """One training job: a method, a stain variant and a seed."""

    method: MethodName = "dann"
    variant: StainVariant = "none"
    epochs: int = Field(12, ge=1)
    steps_per_epoch: int | None = Field(15, ge=1, description="null: one pass over the source tiles")
    batch_size: Annotated[int, Field(ge=2), Choices((16, 32, 64))] = Field(
        32, description="source tiles a step; as many target tiles come beside them"
    )
    balance: bool = Field(True, description="fill batches evenly from every source organ and label")
    optimizer: Annotated[Literal["adamw", "sgd"], Choices()] = "sgd"
    lr: Annotated[float, Field(gt=0), Range(1e-3, 3e-2, log=True)] = 1e-2
    weight_decay: Annotated[float, Field(ge=0), Range(1e-5, 1e-2, log=True)] = 1e-4
    momentum: Annotated[float, Field(ge=0.0, lt=1.0), Range(0.0, 0.95)] = Field(
        0.9, description="of sgd, in Nesterov's form"
    )
    schedule: Annotated[Literal["constant", "linear", "cosine"], Choices()] = "linear"
    warmup: Annotated[Share, Range(0.0, 0.2)] = Field(
        0.0, description="share of all steps over which the learning rate rises to its value"
    )
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0), Range(0.0, 0.2)] = 0.0
    ema: Annotated[float | None, Field(gt=0, lt=1), Choices((None, 0.99, 0.999))] = Field(
        None, description="decay of a running average of the weights, which is then what is kept"
    )
    grad_clip: float | None = Field(1.0, gt=0)
    augment: bool = Field(True, description="random dihedral views; not possible behind a frozen trunk part")
    stain_jitter: Annotated[float, Field(ge=0, le=1), Range(0.0, 0.3)] = Field(
        0.0, description="spread of the strengths of haematoxylin and eosin in random views, log scale"
    )
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto", description="auto: bf16-mixed where the device computes in it, else 32-true"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: int = Field(1, ge=1, description="GPUs, or CPU processes, that share each batch (DDP)")
    threads: int | None = Field(None, ge=1, description="CPU threads for torch; default: torch's own choice")
    compile: bool = Field(False, description="torch.compile; pays on a GPU, where the first step takes minutes")
    deterministic: bool = Field(False, description="equal bits twice on a GPU as well, at some cost in speed")
    micro_batches: int = Field(1, ge=1, description="parts of a batch that go through the network one after another")
    on_nonfinite: Literal["stop", "skip"] = Field("stop", description="what a loss that is not finite does")
    checkpoint_steps: int | None = Field(None, ge=1, description="also within an epoch: every so many steps")
    checkpoint_minutes: float | None = Field(5.0, gt=0, description="also within an epoch: every so many minutes")

    @model_validator(mode="after")
    def _batch_has_equal_parts(self) -> Self:
        parts = self.processes * self.micro_batches
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut into processes × micro_batches = {parts} equal parts"
            )
        return self


class Single(Section):
    """Source-only training on one organ."""

    organ: Organ | None = Field(None, description="one of `sources`; default: the first")


class StainAug(Section):
    """Source-only training with random stain strengths (Tellez 2018): augmentation in place of normalisation."""

    jitter: Annotated[float, Field(gt=0, le=1), Range(0.05, 0.5, log=True)] = Field(
        0.2, description="as train.stain_jitter, of which the larger one counts"
    )


class SelfTraining(Section):
    """Consistency of weak and strong views of target tiles (FixMatch, Sohn 2020; AdaMatch, Berthelot 2022)."""

    weight: Annotated[float, Field(gt=0), Range(0.1, 3.0, log=True)] = 1.0
    threshold: Annotated[float, Field(gt=0.5, le=1), Range(0.7, 0.98)] = Field(
        0.9, description="confidence of a pseudo-label, relative to the mean confidence on the sources"
    )
    align: Annotated[bool, Choices()] = Field(
        True, description="bring the target's predicted proportions to the sources' (AdaMatch)"
    )
    stain_jitter: Annotated[float, Field(ge=0, le=1), Range(0.1, 0.6)] = Field(
        0.3, description="of the strong view; see train.stain_jitter"
    )


class DomainHead(Section):
    """What the methods with a domain head have in common; each has a section of its own."""

    schedule: LambdaSchedule = Field("ganin", description="how λ grows over training")
    max_lambda: Annotated[float, Field(gt=0), Range(0.1, 1.0, log=True)] = 0.33
    weight: Annotated[float, Field(gt=0), Range(0.3, 10.0, log=True)] = Field(
        3.0, description="of the domain loss; the trunk sees weight × λ of it, paper: 1"
    )
    hidden: Annotated[int, Field(ge=0), Choices((0, 64, 256))] = Field(
        0, description="width of the domain head's hidden layer; 0 is the paper's linear head"
    )
    label_shift: Annotated[Literal["none", "reweight"], Choices()] = Field(
        "none", description="reweight: source tiles count by the target's class proportions as the model predicts them"
    )


class Dann(DomainHead):
    """Domain-adversarial training (Ganin 2016)."""


class Cdan(DomainHead):
    """Conditional domain-adversarial training (Long 2018); its head sees features times predictions, so λ is larger."""

    max_lambda: Annotated[float, Field(gt=0), Range(0.1, 1.0, log=True)] = 1.0
    entropy_weighting: Annotated[bool, Choices()] = Field(
        True, description="CDAN+E: tiles of a certain class count more"
    )


class DannMulti(DomainHead):
    """Domain-adversarial training with a head over all organs."""


class Mcc(Section):
    """Minimum class confusion (Jin 2020)."""

    temperature: Annotated[float, Field(gt=0), Range(1.0, 4.0)] = 2.5
    weight: Annotated[float, Field(gt=0), Range(0.1, 3.0, log=True)] = 1.0


class Mdd(Section):
    """Margin disparity discrepancy (Zhang 2019)."""

    schedule: LambdaSchedule = Field("ganin", description="how λ grows over training")
    max_lambda: Annotated[float, Field(gt=0), Range(0.1, 1.0, log=True)] = 0.33
    weight: Annotated[float, Field(gt=0), Range(0.3, 10.0, log=True)] = Field(
        3.0, description="of the disparity; the trunk sees weight × λ of it"
    )
    margin: Annotated[float, Field(ge=1), Range(1.0, 8.0, log=True)] = 2.0
    hidden: Annotated[int, Field(ge=0), Choices((0, 64, 256))] = Field(
        64, description="width of the auxiliary head's hidden layer; 0: linear, as the label's"
    )


class Tune(Section):
    """The Optuna study that looks for hyperparameters, by source validation and a label-free score."""

    trials: int = Field(4, ge=0, description="0 skips tuning")
    epochs: int = Field(6, ge=1)
    parameters: Names[str] = Field(
        ("train.lr", "dann.max_lambda"), min_length=1, description="settings by dotted key; all: what the method reads"
    )
    workers: int = Field(1, ge=1, description="processes that share the study")
    minutes: float | None = Field(None, gt=0, description="after the start of tuning, no new trial; null: no limit")
    seeds: int = Field(1, ge=1, description="trainings of one configuration; their mean score counts")
    storage: str = Field("sqlite:///runs/optuna.db", description="study database; a relative path is the project's")
    heartbeat_seconds: int = Field(5, ge=1)
    seed: int = Field(0, ge=0)


class Select(Section):
    """How a model is picked without target labels, and when the pick is believed."""

    validator: Literal["information_maximisation", "entropy", "bnm", "snd", "atc", "source_accuracy", "oracle"] = Field(
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
    def _limits_in_order(self) -> Self:
        for name in ("strength", "agreement"):
            refuse, trust = getattr(self, f"refuse_{name}"), getattr(self, f"trust_{name}")
            if refuse > trust:
                raise ValueError(f"refuse_{name} {refuse} is above trust_{name} {trust}; between them is doubt")
        return self


class Retrain(Section):
    """How the retraining flow trains: the control and the method, each with every seed."""

    seeds: int = Field(3, ge=1)
    control: Literal["erm", "single", "stain_aug", "ensemble"] = Field("erm", description="a method without the target")


class Evaluate(Section):
    """Stage `evaluate`."""

    bootstrap: int = Field(1000, ge=100, description="resamples of groups")
    confidence: float = Field(0.95, gt=0.5, lt=1.0)
    calibration_bins: int = Field(10, ge=2)


class Explain(Section):
    """Stage `explain`: Integrated Gradients on a fixed, stratified set of target tiles."""

    tiles: int = Field(16, ge=2, description="how many tiles, half of each predicted class where possible")
    steps: int = Field(50, ge=2)
    internal_batch_size: int = Field(16, ge=1)


class Gate(Section):
    """What a challenger must show on the audit set before it becomes champion."""

    min_balanced_accuracy: Share = 0.7
    min_auroc: Share = 0.75
    min_sensitivity: Share = 0.6
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


class Tracking(Section):
    """Where MLflow keeps runs, artifacts and the registry."""

    uri: str = Field("sqlite:///mlruns/mlflow.db", description="a relative SQLite path is the project's")
    experiment: str = "oncoshift"
    system_metrics: bool = True


class Settings(Section):
    """All settings of one experiment; params.yaml has the same shape."""

    target: Organ = "kidney"
    sources: Names[Organ] = ("lung", "colon", "breast")
    seed: int = Field(0, ge=0, description="of a single training; seeds of a retraining count up from here")
    phantom: Phantom = Phantom()
    ingest: Ingest = Ingest()
    split: Split = Split()
    normalize: Normalize = Normalize()
    model: Model = Model()
    train: Train = Train()
    single: Single = Single()
    stain_aug: StainAug = StainAug()
    dann: Dann = Dann()
    cdan: Cdan = Cdan()
    mcc: Mcc = Mcc()
    mdd: Mdd = Mdd()
    dann_multi: DannMulti = DannMulti()
    self_training: SelfTraining = SelfTraining()
    tune: Tune = Tune()
    select: Select = Select()
    retrain: Retrain = Retrain()
    evaluate: Evaluate = Evaluate()
    explain: Explain = Explain()
    gate: Gate = Gate()
    tracking: Tracking = Tracking()

    @property
    def registered_model(self) -> str:
        """Name of the target's model in the registry."""
        return f"oncoshift-{self.target}"

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if self.target in self.sources:
            raise ValueError(f"target {self.target!r} is also in sources; a target is adapted to without its labels")
        if not self.sources:
            raise ValueError("sources is empty; name at least one labelled organ")
        if self.train.variant not in self.normalize.variants:
            raise ValueError(
                f"train.variant {self.train.variant!r} is not in normalize.variants {list(self.normalize.variants)}"
            )
        methods = {self.train.method, self.retrain.control}
        jitters = self.train.stain_jitter > 0 or "train.stain_jitter" in self.tune.parameters
        strong = "self_training.stain_jitter"
        for name, changes_tiles in (
            ("train.stain_jitter", jitters),
            (f"tune.parameters: {strong}", strong in self.tune.parameters),
            ("stain_aug", "stain_aug" in methods),
        ):
            if changes_tiles and self.model.freeze != "none":
                raise ValueError(
                    f"{name} changes tiles, and with model.freeze {self.model.freeze!r} training reads "
                    "features that were computed once; set one of them to its default"
                )
        per_domain = self.model.batch_norm == "per_domain" or "adabn" in methods
        if per_domain and self.model.freeze in ("layer4", "all"):
            name = "adabn" if "adabn" in methods else "model.batch_norm per_domain"
            raise ValueError(
                f"{name} is about BatchNorm in the trained parts of the trunk, and with model.freeze "
                f"{self.model.freeze!r} none is trained; freeze less of it (layer3), or choose another method"
            )
        if "single" in methods and self.single.organ not in (None, *self.sources):
            raise ValueError(f"single.organ {self.single.organ!r} is not one of the sources {list(self.sources)}")
        return self


_USED_LATE = ("tune.storage", "tracking.uri")
"""Settings whose `${NAME}` stays in them until they are used (`experiments.resolved_url`): it may be a password."""


def load_settings(
    params: Path | None = None, *, preset: str | None = None, overrides: tuple[str, ...] = (), trusted: bool = True
) -> Settings:
    """Read and validate settings.

    Args:
        params: a params.yaml; None takes the defaults alone.
        preset: a name under `presets/` beside params.yaml, or the path of a YAML file.
        overrides: `section.key=value` strings; values are YAML.
        trusted: whether who asks may read any file as a preset; else one in the folder of params.yaml alone.

    Returns:
        The validated settings, with `${NAME:-default}` in the strings of files replaced from the environment, but for
        `tune.storage` and `tracking.uri`.

    Raises:
        SettingsError: a file is missing or no YAML, or a key or value is not allowed; the message has one line
            per problem with the key's path, the value and what is allowed.
    """
    merged: dict[str, Any] = {}
    if params is not None:
        merged = read_mapping(params)
    if preset is not None:
        project = params.parent if params is not None else Path()
        merged = merge(merged, read_mapping(find_preset(preset, project, trusted=trusted)))
    merged = expand(merged, _USED_LATE)
    for override in overrides:
        merged = merge(merged, parse_override(override))
    return validate(merged)


def validate(values: dict[str, Any]) -> Settings:
    """Turn a plain mapping into `Settings`; see `load_settings` for the errors."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(problem) for problem in error.errors())) from None


def dump_settings(settings: Settings) -> str:
    """The settings as the text of a params.yaml; reading it gives the same settings."""
    return dump(settings.model_dump(mode="json"))


def flatten(settings: Settings) -> dict[str, Any]:
    """Dotted key → value, for run parameters."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = value

    walk("", settings.model_dump(mode="json"))
    return flat


def with_values(settings: Settings, values: dict[str, Any]) -> Settings:
    """A validated copy with dotted keys replaced, as tuning does for a trial."""
    return validate(merge(settings.model_dump(mode="json"), nested(values)))


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key → value as sections, as params.yaml has them; the reverse of `flatten`."""
    sections: dict[str, Any] = {}
    for key, value in values.items():
        sections = merge(sections, nest(key.split("."), value))
    return sections


_IN_YAML = {"valid tuple": "list", "valid boolean": "true or false", "valid dictionary or instance of": "section like"}
"""Pydantic's words for what a value should be → those of somebody who writes YAML."""


def _explain(problem: Any) -> str:
    """One line for one pydantic problem: the key's path, the value, what is allowed."""
    path = ".".join(str(part) for part in problem["loc"]) or "params.yaml"
    if problem["type"] == "extra_forbidden":
        section: Any = Settings
        for part in problem["loc"][:-1]:
            section = section.model_fields[part].annotation
        return f"{path}: unknown key; allowed here: {', '.join(section.model_fields)}"
    message: str = problem["msg"].removeprefix("Value error, ")
    for theirs, ours in _IN_YAML.items():
        message = message.replace(theirs, ours)
    value = list(problem["input"]) if isinstance(problem["input"], tuple) else problem["input"]
    if problem["loc"]:
        return f"{path}: {value!r} is not allowed; {message[0].lower()}{message[1:]}"
    return message
