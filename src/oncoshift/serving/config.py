"""The configuration of a served model: everything but its weights."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Self

from oncoshift.serving.stain import StainReference
from oncoshift.serving.tissue import TissueLimits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oncoshift.serving.timm_trunk import Pooling

LABELS = ("benign", "malignant")

CONFIG, GRAPH, WEIGHTS, PROGRAM, REFERENCE = (
    "config.json", "model.onnx", "weights.safetensors", "model.pt2", "shift.npz",
)  # fmt: skip
"""Files of a served model: its configuration; the network for ONNX Runtime, for training and
explanation, and for torch.export; and the training tiles' distances."""


@dataclass(frozen=True)
class ServedConfig:
    """Everything but the weights that defines a served model; config.json in the registered model.

    Attributes:
        name: the registered model's name.
        target: the organ that the model was adapted to.
        sources: the labelled organs.
        backbone: the trunk, as `model.backbone` names it.
        bottleneck: width of the shared feature.
        dropout: of the bottleneck; unused in serving, kept so that training can start from this
            model.
        tile_size: side of the square to which a tile is resized, pixels.
        variant: the stain variant that the model was trained on.
        reference: the stain reference of the variant's method; None for variant `none`.
        threshold: the probability, after `temperature`, from which a tile is labelled malignant.
        members: number of classifiers whose mean probability is predicted; 1 is no ensemble.
        files: name of each file beside config.json that the model reads → its SHA-256; set when
            they are written.
        temperature: logits are divided by it before the softmax; 1 leaves them as they are.
        um_per_pixel: scale of the training tiles at `tile_size`, µm per pixel; None if unknown.
        limits: what a tile must have to be judged; None in models of old versions, which judge
            everything.
        pooling: how the trunk pools tokens; see `timm_trunk.TimmTrunk`.
    """

    name: str
    target: str
    sources: tuple[str, ...]
    backbone: str
    bottleneck: int
    dropout: float
    tile_size: int
    variant: str = "none"
    reference: StainReference | None = None
    threshold: float = 0.5
    members: int = 1
    files: Mapping[str, str] = field(default_factory=dict)
    temperature: float = 1.0
    um_per_pixel: float | None = None
    limits: TissueLimits | None = None
    pooling: Pooling = "auto"

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature {self.temperature}: must be positive and finite")
        method = "none" if self.reference is None else self.reference.method
        if self.variant != method:
            raise ValueError(
                f"variant {self.variant!r} with a stain reference of {method!r}; every variant but `none` needs its own"
            )

    def to_json(self) -> str:
        """Return the text of config.json."""
        reference = self.reference and self.reference.to_dict()
        return json.dumps({**asdict(self), "reference": reference, "labels": LABELS}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote, in this version or an earlier one."""
        values = json.loads(text)
        if tuple(values.pop("labels")) != LABELS:
            raise ValueError(f"config.json: labels are not {list(LABELS)}; another version of this code wrote it")
        if (reference := values["reference"]) is not None:
            values["reference"] = StainReference.from_dict(reference)
        if (limits := values.get("limits")) is not None:
            values["limits"] = TissueLimits(**limits)
        if (digest := values.pop("weights_sha256", None)) is not None:  # of models that knew torch alone
            values["files"] = {WEIGHTS: digest}
        return cls(**{**values, "sources": tuple(values["sources"])})
