"""Sections `model` and `train`: one network, and one training of it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from oncoshift.anchors.registry import ANCHORS
from oncoshift.methods.registry import METHODS
from oncoshift.serving.trunks import HUB, PARTS, TRUNKS, check_pooling, is_trunk
from oncoshift.settings.base import Choices, Names, OneOf, Range, Section, Share, StainVariant

RUNTIME_SETTINGS = frozenset(
    {"device", "processes", "nodes", "threads", "checkpoint_steps", "checkpoint_minutes", "on_nonfinite"}
)
"""Settings of section `train` that change no more of a job's network than rounding and the draws of
dropout.

They are no part of a job's id, so a job begun on one machine is found and continued on another.
`precision` and `micro_batches` are part of it; `precision: auto` counts as `auto`, and done.json
records the precision that the device chose.
"""


class ModelSettings(Section):
    """The network."""

    backbone: str = Field(
        "resnet18",
        description=f"trunk: {', '.join(TRUNKS)}, timm/NAME or hf-hub:OWNER/NAME@COMMIT (see docs/trunks.md)",
    )
    weights: str = Field(
        "none",
        description="pretrained weights: none, the path of a .safetensors state dict, imagenet (of a ResNet) or "
        "pretrained (of an hf-hub trunk)",
    )
    pooling: Literal["auto", "cls", "mean", "both"] = Field(
        "auto",
        description="features of a vision transformer: class token, mean of the patches, or both; auto: as it has them",
    )
    freeze: Annotated[str, OneOf(("none", *PARTS, "all"))] = Field(
        "none", description="last frozen part of the trunk; all parts from the stem up to it are frozen"
    )
    lora: int | None = Field(
        None,
        ge=1,
        description="rank of LoRA adapters of a vision transformer's attention, which learn in place of the trunk's "
        "weights; null: none",
    )
    bottleneck: Annotated[int, Field(ge=8), Choices((64, 128, 256, 512))] = Field(
        256, description="width of the shared feature (paper: 512)"
    )
    dropout: Annotated[float, Field(ge=0.0, lt=1.0), Range(0.0, 0.7)] = Field(
        0.5, description="dropout rate of the shared feature"
    )
    batch_norm: Literal["shared", "per_domain"] = Field(
        "shared", description="per_domain: separate statistics for sources and target, with one scale and shift"
    )

    @field_validator("backbone")
    @classmethod
    def _check_backbone(cls, value: str) -> str:
        if not is_trunk(value):
            raise ValueError(
                f"must be one of {', '.join(TRUNKS)}, or timm/NAME, or hf-hub:OWNER/NAME@COMMIT with all 40 digits of "
                "the commit"
            )
        return value

    @field_validator("weights")
    @classmethod
    def _check_weights(cls, value: str) -> str:
        if value not in ("none", "imagenet", "pretrained") and not value.endswith(".safetensors"):
            raise ValueError("must be none, imagenet, pretrained or the path of a .safetensors file")
        return value

    @model_validator(mode="after")
    def _check_trunk(self) -> Self:
        takes = {"imagenet": self.backbone in TRUNKS, "pretrained": self.backbone.startswith(HUB)}
        if not takes.get(self.weights, True):
            raise ValueError(
                f"model.weights {self.weights} is not known of {self.backbone}; give the path of a .safetensors file"
            )
        if self.backbone in TRUNKS:
            check_pooling(self.backbone, self.pooling)
        if self.batch_norm == "per_domain" and self.backbone not in TRUNKS:
            raise ValueError(
                f"model.batch_norm per_domain: BatchNorm is separated in {' and '.join(TRUNKS)} alone, and not in "
                f"{self.backbone}; set it to shared"
            )
        return self

    @model_validator(mode="after")
    def _check_lora(self) -> Self:
        if self.lora is None:
            return self
        if self.backbone in TRUNKS:
            raise ValueError(
                f"model.lora {self.lora}: adapters are of attention, and {self.backbone} has none; choose a vision "
                "transformer, such as timm/vit_small_patch16_224, or set model.lora to null"
            )
        if self.freeze in (PARTS[-1], "all"):
            raise ValueError(
                f"model.lora {self.lora}: adapters are added to the parts that are not frozen, and with model.freeze "
                f"{self.freeze!r} there is none; set model.freeze to none, or model.lora to null"
            )
        return self


class TrainSettings(Section):
    """One training job: a method, a stain variant and a seed."""

    method: Annotated[str, OneOf(tuple(METHODS))] = Field(
        "dann", description="adaptation method, or a source-only method"
    )
    variant: StainVariant = Field("none", description="stain normalisation of the tiles; one of normalize.variants")
    epochs: int = Field(12, ge=1, description="number of epochs; the network is validated after each")
    steps_per_epoch: int | None = Field(15, ge=1, description="steps in an epoch; null: one pass over the source tiles")
    batch_size: Annotated[int, Field(ge=2), Choices((16, 32, 64))] = Field(
        32, description="source tiles in a step; the same number of target tiles is added"
    )
    balance: bool = Field(True, description="whether batches hold every source organ and label evenly")
    optimizer: Annotated[Literal["adamw", "sgd"], Choices()] = Field(
        "sgd", description="optimiser; sgd uses train.momentum"
    )
    lr: Annotated[float, Field(gt=0), Range(1e-3, 3e-2, log=True)] = Field(1e-2, description="highest learning rate")
    weight_decay: Annotated[float, Field(ge=0), Range(1e-5, 1e-2, log=True)] = Field(
        1e-4, description="weight decay, as the optimiser applies it"
    )
    momentum: Annotated[float, Field(ge=0.0, lt=1.0), Range(0.0, 0.95)] = Field(
        0.9, description="Nesterov momentum of sgd"
    )
    schedule: Annotated[Literal["constant", "linear", "cosine"], Choices()] = Field(
        "linear", description="schedule of the learning rate after the warm-up; linear and cosine end at 0"
    )
    warmup: Annotated[Share, Range(0.0, 0.2)] = Field(
        0.0, description="share of all steps over which the learning rate rises from 0"
    )
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0), Range(0.0, 0.2)] = Field(
        0.0, description="share of each label that is spread evenly over the classes"
    )
    ema: Annotated[float | None, Field(gt=0, lt=1), Choices((None, 0.99, 0.999))] = Field(
        None, description="decay of a moving average of the weights, which is then validated and kept"
    )
    grad_clip: float | None = Field(1.0, gt=0, description="largest gradient norm; null: no limit")
    augment: bool = Field(
        True, description="whether tiles are randomly turned and mirrored; not possible behind a frozen trunk part"
    )
    stain_jitter: Annotated[float, Field(ge=0, le=1), Range(0.0, 0.3)] = Field(
        0.0, description="spread of the random strengths of haematoxylin and eosin, log scale"
    )
    precision: Literal["auto", "32-true", "bf16-mixed"] = Field(
        "auto", description="auto: bf16-mixed where the device supports it natively, else 32-true"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU if there is one")
    processes: int = Field(
        1, ge=1, description="number of GPUs, or of CPU processes, of each machine that share each batch (DDP)"
    )
    nodes: int = Field(
        1, ge=1, description="number of machines that share each batch; above 1, torchrun or srun starts the processes"
    )
    threads: int | None = Field(
        None, ge=1, description="CPU threads of torch; null: one where only heads train, else torch's default"
    )
    compile: bool = Field(
        False, description="whether to use torch.compile; it pays on a GPU, where the first step takes minutes"
    )
    deterministic: bool = Field(
        False, description="whether a repeated run gives the same bits on a GPU too, at some cost in speed"
    )
    micro_batches: int = Field(
        1, ge=1, description="number of parts of a batch that go through the network one after another"
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop", description="what to do at a loss that is not finite: stop the training, or skip the step"
    )
    checkpoint_steps: int | None = Field(
        None, ge=1, description="steps between checkpoints within an epoch; null: none by steps"
    )
    checkpoint_minutes: float | None = Field(
        5.0, gt=0, description="minutes between checkpoints within an epoch; null: none by time"
    )

    @model_validator(mode="after")
    def _check_batch_parts(self) -> Self:
        parts = self.ranks * self.micro_batches
        if self.batch_size % parts:
            factors = "nodes × processes × micro_batches" if self.nodes > 1 else "processes × micro_batches"
            raise ValueError(f"batch_size {self.batch_size} cannot be cut into {factors} = {parts} equal parts")
        return self

    @property
    def ranks(self) -> int:
        """Number of processes, on all machines, that share each batch."""
        return self.nodes * self.processes


class AnchorSettings(Section):
    """The anchors: prior knowledge of morphology, for methods that read it and for the verdict."""

    use: Names[Annotated[str, OneOf(tuple(ANCHORS))]] = Field(
        ("nuclei",), min_length=1, description="anchors; a method reads their mean, the verdict the least"
    )
    epithelium: str | None = Field(
        None, description="path of an ONNX segmentation network, for anchor epithelium; null: there is none"
    )
    epithelium_channel: int = Field(1, ge=0, description="number of the network's map that is epithelium, from 0")
    epithelium_side: int = Field(128, ge=16, description="side in pixels of the tiles that the network gets")

    @model_validator(mode="after")
    def _check_epithelium(self) -> Self:
        if "epithelium" in self.use and self.epithelium is None:
            raise ValueError("use names epithelium, which needs an ONNX network; give its path as anchor.epithelium")
        return self


class TrainingSections(Section):
    """The sections about the network and its training."""

    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    anchor: AnchorSettings = AnchorSettings()
