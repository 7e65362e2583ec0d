"""Training of heads on frozen ImageNet features of real tiles, for benchmarks."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from oncoshift.anchors.values import measure_anchor, standardise
from oncoshift.data.tables import SourceTiles, TargetTiles, TrainingData
from oncoshift.files import atomic
from oncoshift.methods.factory import wrap_network
from oncoshift.models.network import AdaptationNet
from oncoshift.models.weights import load_trunk
from oncoshift.serving.classifier import Trunk, normalise
from oncoshift.serving.images import decode
from oncoshift.settings import TrainSettings, parse_settings
from oncoshift.settings.training import AnchorSettings
from oncoshift.training.devices import pick_precision
from oncoshift.training.inputs import FeatureInputs
from oncoshift.training.loop import Trainer

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from numpy.typing import NDArray

    from oncoshift.methods.base import Method
    from oncoshift.settings import Settings

SHARED = Path(os.environ.get("ONCOSHIFT_SHARED", "../shared"))
BUILD = Path("build/selection")
CHUNK = 32
ORGANS = ("lung", "colon", "breast", "kidney")
RESAMPLES = 2000
COMPONENTS, SHARE = 128, 0.8
"""Of `anchored`: half of the default bottleneck, and the share of tiles that a seed draws."""
DOMAIN_HEAD = {"weight": 1.0, "max_lambda": 1.0}
"""Settings of every method with a domain or auxiliary head: the plain form, not tuned."""


def features(tiles: pd.DataFrame, shared: Path, folder: Path) -> NDArray[np.float32]:
    """Return pooled ImageNet ResNet50 features, float32 [M, 2048], cached in `folder`."""
    weights = shared / "weights" / "resnet50_imagenet.safetensors"
    precision = pick_precision(TrainSettings(), torch.device("cpu"))
    key = hashlib.sha256(weights.read_bytes() + "".join([*tiles["sha256"], precision]).encode()).hexdigest()[:32]
    path = folder / f"{key}.npy"
    if path.is_file():
        cached: NDArray[np.float32] = np.load(path)
        return cached
    trunk = Trunk("resnet50").eval().to(memory_format=torch.channels_last)
    load_trunk(trunk, "resnet50", str(weights))
    values = np.empty((len(tiles), trunk.width), np.float32)
    for first in range(0, len(tiles), CHUNK):
        part = tiles["path"].iloc[first : first + CHUNK]
        images = np.stack([decode((shared / "data" / "tiles" / name).read_bytes()) for name in part])
        x = normalise(torch.from_numpy(images)).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            values[first : first + len(part)] = trunk(x).float().numpy()
        print(f"\rfeatures: {first + len(part)} of {len(tiles)} tiles", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, values)
    return values


@dataclass(frozen=True)
class TileFiles:
    """Tiles by row, read when they are asked for.

    Attributes:
        files: Their paths.
    """

    files: tuple[Path, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of tiles, side, side, 3."""
        return (len(self), *self[0].shape)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: Any, /) -> NDArray[np.uint8]:
        """Return the tile of a row, or the tiles of rows int64 [N]."""
        if np.ndim(rows) == 0:
            return decode(self.files[rows].read_bytes())
        return np.stack([self[row] for row in rows])


def anchors(tiles: pd.DataFrame, target: str, settings: AnchorSettings) -> dict[str, NDArray[np.float64]]:
    """Return the anchors of an organ's tiles, standardised, float64 [T] by name, and cache them."""
    images = TileFiles(tuple(SHARED / "data" / "tiles" / path for path in tiles["path"]))
    groups = pd.factorize(tiles["group"])[0].astype(np.int64)
    digest = hashlib.sha256("".join(tiles["sha256"]).encode()).hexdigest()
    of = np.flatnonzero(tiles["organ"] == target)
    known = settings, BUILD / "anchors", digest
    return {name: standardise(measure_anchor(name, images, groups, *known, of)) for name in settings.use}


def add_epithelium_option(parser: ArgumentParser) -> None:
    """Add the option `--epithelium`, which `choose_anchors` reads."""
    parser.add_argument("--epithelium", help="ONNX network of the anchor epithelium; without it, nuclei alone")


def choose_anchors(epithelium: str | None) -> AnchorSettings:
    """Choose nuclei, and epithelium too where its network is given."""
    use = ("nuclei",) if epithelium is None else ("nuclei", "epithelium")
    return AnchorSettings(use=use, epithelium=epithelium)


def hold_out(
    labels: NDArray[np.int64], groups: NDArray[np.str_], target: str, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold out a third of the groups of each class, at least one.

    Args:
        labels: of the target's tiles, 0 or 1, [T].
        groups: of the tiles, [T].
        target: one of ORGANS, each of which has draws of its own.
        seed: of the draw.

    Returns:
        Positions of the other tiles, [P], and of those held out, [H].
    """
    rng = np.random.default_rng([seed, ORGANS.index(target)])
    majority = pd.Series(labels).groupby(groups).mean() > 0.5
    held: list[str] = []
    for malignant in (False, True):
        names = rng.permutation(majority.index[majority == malignant].to_numpy(np.str_))
        held += names[: max(1, round(len(names) / 3))].tolist()
    out = np.isin(groups, held)
    return np.flatnonzero(~out), np.flatnonzero(out)


def summarise_draws(accuracies: NDArray[np.float64]) -> dict[str, float]:
    """Summarise a figure of draws, [D]: mean, 95 % interval of the mean, and tenth percentile."""
    drawn = np.random.default_rng(0).choice(accuracies, (RESAMPLES, len(accuracies))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    figures = {"mean": accuracies.mean(), "low": low, "high": high, "tenth": np.quantile(accuracies, 0.1)}
    return {name: round(float(value), 3) for name, value in figures.items()}


@dataclass(frozen=True)
class Spec:
    """One model to train.

    Attributes:
        target: Organ without labels.
        sources: Labelled organs.
        method: One of METHODS.
        lr: Learning rate.
        seed: Seed of the training.
    """

    target: str
    sources: tuple[str, ...]
    method: str
    lr: float
    seed: int


class Pooled(nn.Module):
    """A stand-in for the frozen trunk, as the inputs here are its outputs."""

    def run(self, x: Tensor, parts: tuple[str, ...]) -> Tensor:  # noqa: ARG002
        """Return the input."""
        return x


def experiment(spec: Spec, steps: int) -> Settings:
    """Return the settings of one model's training: a head on frozen features."""
    return parse_settings(
        {
            "target": spec.target,
            "sources": spec.sources,
            "seed": spec.seed,
            "model": {"backbone": "resnet50", "freeze": "all"},
            "train": {
                "method": spec.method,
                "epochs": 1,
                "steps_per_epoch": steps,
                "optimizer": "adamw",
                "lr": spec.lr,
                "augment": False,
                "precision": "32-true",
                "device": "cpu",
                "threads": 1,
            },
            **dict.fromkeys(("dann", "cdan", "dann_multi", "mdd"), DOMAIN_HEAD),
        }
    )


@cache
def empty_net() -> AdaptationNet:
    """Return the network without its frozen trunk; cached, since making a ResNet50 is slow."""
    settings = experiment(Spec("lung", ("colon",), "erm", 1e-3, 0), 1)
    net = AdaptationNet(settings.model)
    net.classifier.trunk = Pooled()  # type: ignore[assignment]  # stands for it
    net.frozen = ()
    return net


def build(spec: Spec, settings: Settings) -> Method:
    """Build the method around a freshly initialised head."""
    torch.manual_seed(spec.seed)
    net = empty_net()
    for module in net.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    return wrap_network(net, settings)


class Pool(Protocol):
    """A target and its sources."""

    @property
    def target(self) -> str:
        """Organ without labels."""
        ...

    @property
    def sources(self) -> tuple[str, ...]:
        """Labelled organs."""
        ...


def training_data(
    tiles: pd.DataFrame,
    pool: Pool,
    images: NDArray[np.uint8] | None = None,
    left_out: NDArray[np.bool_] | None = None,
) -> TrainingData:
    """Hold out every fifth group of each source organ and label; drop the target's labels.

    Args:
        tiles: rows of tiles.csv, M of them.
        pool: the target and its sources.
        images: uint8 [M, S, S, 3]; None where inputs are features.
        left_out: bool [M], tiles of the target that are not trained on; None: all are.
    """
    labels = np.asarray(tiles["label"] == "malignant", np.int64)
    organs = pd.Index(pool.sources).get_indexer(pd.Index(tiles["organ"]))
    held_out = number_groups(tiles) % 5 == 4
    shown = np.empty((len(tiles), 1, 1, 3), np.uint8) if images is None else images

    def source(mask: NDArray[np.bool_]) -> SourceTiles:
        rows = np.flatnonzero(mask & (organs >= 0))
        return SourceTiles(shown, rows, labels[rows], organs[rows].astype(np.int64), pool.sources)

    target = (tiles["organ"] == pool.target).to_numpy()
    rows = np.flatnonzero(target if left_out is None else target & ~left_out)
    return TrainingData(source(~held_out), source(held_out), TargetTiles(shown, rows))


def number_groups(tiles: pd.DataFrame) -> NDArray[np.int64]:
    """Number the groups of each organ and label from 0, in the order of their names; int64 [M]."""
    groups = tiles.groupby(["organ", "label"])["group"]
    return groups.transform(lambda group: pd.factorize(group, sort=True)[0]).to_numpy(np.int64)


def fit(tiles: pd.DataFrame, spec: Spec, values: NDArray[np.float32], steps: int) -> tuple[AdaptationNet, TrainingData]:
    """Train one model on features [M, D]; return its network, in eval mode, and what it read."""
    data, settings = training_data(tiles, spec), experiment(spec, steps)
    method = build(spec, settings)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.pt"
        Trainer(method, data, FeatureInputs(values), settings.train, spec.seed, "x", checkpoint, lambda _: None).fit()
    return method.net.eval(), data
