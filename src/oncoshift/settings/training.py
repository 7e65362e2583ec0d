"""Sections `model` and `train`: one network, and one training of it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from oncoshift.methods.registry import METHODS
from oncoshift.serving.trunks import PARTS, TRUNKS
from oncoshift.settings.base import Choices, OneOf, Range, Section, Share, StainVariant

RUNTIME_SETTINGS = frozenset(
    {"device", "processes", "threads", "checkpoint_steps", "checkpoint_minutes", "on_nonfinite"}
)
"""Settings of section `train` that do not decide a job's network, but for rounding and the draws of dropout.

So a job that was begun on one machine goes on, and is found, on another. `precision` and `micro_batches` do decide it,
and `precision: auto` counts as that: what a device made of it is in done.json.
"""


class ModelSettings(Section):
    """The network."""

    backbone: Annotated[str, OneOf(TRUNKS)] = Field("resnet18", description="the trunk")
    weights: str = Field("none", description="none | imagenet | path of a .safetensors state dict")
    freeze: Annotated[str, OneOf(("none", *PARTS, "all"))] = Field(
        "none", description="the trunk is frozen from the stem up to and including this part"
    )
    bottleneck: Annotated[int, Field(ge=8), Choices((64, 128, 256, 512))] = Field(
        256, description="width of the shared feature, paper: 512"
    )
    dropout: Annotated[float, Field(ge=0.0, lt=1.0), Range(0.0, 0.7)] = Field(0.5, description="of the shared feature")
    batch_norm: Literal["shared", "per_domain"] = Field(
        "shared", description="per_domain: sources and target have statistics of their own, and one scale and shift"
    )

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, value: str) -> str:
        if value not in ("none", "imagenet") and not value.endswith(".safetensors"):
            raise ValueError("must be none, imagenet or the path of a .safetensors file")
        return value


class TrainSettings(Section):
    """One training job: a method, a stain variant and a seed."""

    method: Annotated[str, OneOf(tuple(METHODS))] = Field("dann", description="the adaptation, or a source-only method")
    variant: StainVariant = Field("none", description="stain normalisation of the tiles; one of normalize.variants")
    epochs: int = Field(12, ge=1, description="after each, the network is validated")
    steps_per_epoch: int | None = Field(15, ge=1, description="null: one pass over the source tiles")
    batch_size: Annotated[int, Field(ge=2), Choices((16, 32, 64))] = Field(
        32, description="source tiles a step; as many target tiles come beside them"
    )
    balance: bool = Field(True, description="fill batches evenly from every source organ and label")
    optimizer: Annotated[Literal["adamw", "sgd"], Choices()] = Field("sgd", description="sgd has train.momentum")
    lr: Annotated[float, Field(gt=0), Range(1e-3, 3e-2, log=True)] = Field(1e-2, description="highest learning rate")
    weight_decay: Annotated[float, Field(ge=0), Range(1e-5, 1e-2, log=True)] = Field(
        1e-4, description="as the optimizer applies it"
    )
    momentum: Annotated[float, Field(ge=0.0, lt=1.0), Range(0.0, 0.95)] = Field(
        0.9, description="of sgd, in Nesterov's form"
    )
    schedule: Annotated[Literal["constant", "linear", "cosine"], Choices()] = Field(
        "linear", description="of the learning rate after the warm-up; linear and cosine end at 0"
    )
    warmup: Annotated[Share, Range(0.0, 0.2)] = Field(
        0.0, description="share of all steps over which the learning rate rises to its value"
    )
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0), Range(0.0, 0.2)] = Field(
        0.0, description="share of each label that is spread evenly over the classes"
    )
    ema: Annotated[float | None, Field(gt=0, lt=1), Choices((None, 0.99, 0.999))] = Field(
        None, description="decay of a running average of the weights, which is then what is kept"
    )
    grad_clip: float | None = Field(1.0, gt=0, description="largest norm of the gradient; null: no limit")
    augment: bool = Field(True, description="random dihedral views; not possible behind a frozen trunk part")
    stain_jitter: Annotated[float, Field(ge=0, le=1), Range(0.0, 0.3)] = Field(
        0.0, description="spread of the strengths of haematoxylin and eosin in random views, log scale"
    )
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto", description="auto: bf16-mixed where the device computes in it, else 32-true"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one")
    processes: int = Field(1, ge=1, description="GPUs, or CPU processes, that share each batch (DDP)")
    threads: int | None = Field(
        None, ge=1, description="CPU threads for torch; default: one for heads alone, else torch's choice"
    )
    compile: bool = Field(False, description="torch.compile; pays on a GPU, where the first step takes minutes")
    deterministic: bool = Field(False, description="equal bits twice on a GPU as well, at some cost in speed")
    micro_batches: int = Field(1, ge=1, description="parts of a batch that go through the network one after another")
    on_nonfinite: Literal["stop", "skip"] = Field("stop", description="what a loss that is not finite does")
    checkpoint_steps: int | None = Field(None, ge=1, description="also within an epoch: every so many steps")
    checkpoint_minutes: float | None = Field(5.0, gt=0, description="also within an epoch: every so many minutes")

    @model_validator(mode="after")
    def _check_batch_parts(self) -> Self:
        parts = self.processes * self.micro_batches
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be cut into processes × micro_batches = {parts} equal parts"
            )
        return self


class TrainingSections(Section):
    """One network, and one training of it."""

    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
