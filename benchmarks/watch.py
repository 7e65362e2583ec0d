"""Watching without labels: how many unchanged batches raise an alarm, and which shifts are found.

For each seed, the groups of real lung tiles are divided into training, test and new ones, and a
champion is trained on the other organs' labels and the training tiles: a head on a frozen ImageNet
ResNet50. Batches of new groups are then judged as `oncoshift watch`
judges them: unchanged, restained, blurred, compressed, as by another scanner, of other organs, and
with another share of malignant tiles. Labels are read last, to measure what each shift costs.

Run: python benchmarks/watch.py [--quick]
It reads real tiles and weights from ONCOSHIFT_SHARED (default ../shared), and keeps features and a
table of all batches under build/.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import tempfile
import time
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd
import torch
from frozen_features import CHUNK, ORGANS, SHARED, Spec, build, experiment, training_data
from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage.color import hed2rgb, rgb2hed

from oncoshift.data.tables import TargetTiles
from oncoshift.data.validation.checks import get_limits
from oncoshift.evaluation.intervals import bootstrap_metrics
from oncoshift.evaluation.operating import fit_calibration
from oncoshift.models.weights import load_trunk
from oncoshift.registry.artifacts import TrainingTiles, describe_training
from oncoshift.scoring.inputs import Tile
from oncoshift.selection.consensus import find_consensus
from oncoshift.selection.oracle import oracle
from oncoshift.selection.verdict import ConsensusRule, Evidence, Kind
from oncoshift.serving.classifier import Trunk, normalise
from oncoshift.serving.config import REFERENCE, ServedConfig
from oncoshift.serving.images import decode
from oncoshift.serving.network import NetworkOutput
from oncoshift.serving.predictor import TilePredictor
from oncoshift.serving.shift import ShiftReference
from oncoshift.serving.tissue import measure
from oncoshift.settings import Settings
from oncoshift.training.inputs import FeatureInputs
from oncoshift.training.loop import Trainer
from oncoshift.watching.estimate import Standing, estimate
from oncoshift.watching.profile import ARTIFACTS, Profile, profile_tiles, read_reference
from oncoshift.watching.signals import compare

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from oncoshift.models.network import AdaptationNet

    Pixels = NDArray[np.uint8]
    Change = Callable[[Pixels], Pixels]

TARGET, METHOD, STEPS = "lung", "self_training", 300
SOURCES = {"lung": ("colon", "breast"), "kidney": ("lung", "colon")}
"""Labelled organs by target: of these adaptation succeeds on lung, and fails on kidney."""
SIDE = 112
"""Pixels of a tile as the network sees it: half of those of the files, for speed."""
CONFIG = ServedConfig(
    "oncoshift-watched", TARGET, ("colon",), "resnet50", 256, 0.5, SIDE, limits=get_limits(Settings().ingest)
)
GROUPS, TILES = 24, 2
"""Groups of a batch, and tiles of each."""
SEEDS, UNCHANGED = (3, 4, 5), 40
"""Divisions of the groups, and unchanged batches of each.

The default of `watch.least_shift` was set with seeds 0 to 2 in view, so others are measured.
"""
FEATURES, BATCHES = Path("build/watch/features.npz"), Path("build/watch/batches.csv")
COSTLY = 0.05
"""Loss of balanced accuracy from which a shift must be found."""


def restain(haematoxylin: float, eosin: float) -> Change:
    """Multiply the optical densities of the two stains."""

    def change(pixels: Pixels) -> Pixels:
        stains = rgb2hed(pixels) * np.array([haematoxylin, eosin, 1.0])
        return np.asarray(np.rint(255 * np.clip(hed2rgb(stains), 0, 1)), np.uint8)

    return change


def blur(sigma: float) -> Change:
    """Blur as out of focus, by a Gaussian of `sigma` pixels."""
    return lambda pixels: np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma), np.uint8)


def compress(quality: int) -> Change:
    """Compress as JPEG of a quality up to 100, and decode."""

    def change(pixels: Pixels) -> Pixels:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
        return decode(buffer.getvalue())

    return change


def rescan(gains: tuple[float, float, float], gamma: float, sharpen: float) -> Change:
    """Imitate another scanner: gains of the channels, gamma, and an unsharp mask."""

    def change(pixels: Pixels) -> Pixels:
        values = (pixels / 255.0) ** gamma * np.array(gains)
        values += sharpen * (values - cv2.GaussianBlur(values, (0, 0), 2.0))
        return np.asarray(np.rint(255 * np.clip(values, 0, 1)), np.uint8)

    return change


CHANGES: dict[str, Change] = {
    "stain, strong haematoxylin": restain(1.5, 0.7),
    "stain, pale": restain(0.6, 0.6),
    "blur, 1.5 px": blur(1.5),
    "blur, 3 px": blur(3.0),
    "JPEG, quality 20": compress(20),
    "JPEG, quality 5": compress(5),
    "scanner, bluer and darker": rescan((0.88, 0.92, 1.0), 1.2, 0.6),
    "scanner, warm and bright": rescan((1.0, 0.96, 0.85), 0.75, 1.0),
}
SHARES = {"share, 90 % malignant": 0.9, "share, 90 % benign": 0.1}


class FrozenTrunk:
    """The ImageNet trunk with a memory: equal tiles go through it once, also in later runs.

    Args:
        path: of the memory.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, NDArray[np.float16]] = dict(np.load(path)) if path.is_file() else {}
        self._trunk = Trunk("resnet50").eval()
        load_trunk(self._trunk, "resnet50", str(SHARED / "weights" / "resnet50_imagenet.safetensors"))

    @torch.inference_mode()
    def __call__(self, tiles: Pixels) -> NDArray[np.float32]:
        """Return the pooled features, float32 [N, 2048], of tiles [N, S, S, 3]."""
        keys = [hashlib.sha256(tile.tobytes()).hexdigest()[:24] for tile in tiles]
        new = {key: number for number, key in enumerate(keys) if key not in self._known}
        for start in range(0, len(new), CHUNK):
            part = list(new)[start : start + CHUNK]
            x = normalise(torch.from_numpy(tiles[[new[key] for key in part]]))
            self._known |= dict(zip(part, self._trunk(x).numpy().astype(np.float16), strict=True))
        return np.stack([self._known[key] for key in keys]).astype(np.float32)

    def save(self) -> None:
        """Write the memory."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(self._path, **self._known)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Head:
    """A trained head on the frozen trunk, as the `Network` of a served model."""

    trunk: FrozenTrunk
    net: AdaptationNet

    @torch.inference_mode()
    def __call__(self, tiles: Pixels) -> NetworkOutput:
        """See `Network`."""
        features = self.trunk(tiles)
        logits = self.net.logits(self.net.features(torch.from_numpy(features)))
        return NetworkOutput(logits.numpy(), features)


@dataclass(frozen=True)
class Champion:
    """A trained model and what its version would say of it.

    Attributes:
        predictor: as served.
        reference: profile of its training tiles.
        standing: its verdict and its balanced accuracy on labelled test tiles.
        new: tiles of the target's groups that it has not seen.
    """

    predictor: TilePredictor
    reference: Profile
    standing: Standing
    new: pd.DataFrame


@dataclass(frozen=True)
class Row:
    """One batch, as it was judged and as it was.

    Attributes:
        seed: of division, training and batch.
        kind: what was changed.
        accuracy: its true balanced accuracy; NaN where the batch has one class.
        cost: of the shift, in balanced accuracy.
        alarms: what passed its limit.
        shifts: by signal.
        p: by signal.
        verdict: on the champion.
        estimate: of balanced accuracy, were the verdict trust; NaN if no tile can be judged.
        low: lower end of its interval.
        high: upper end.
        told_low: lower end as `oncoshift watch` tells it, by the verdict; NaN where it is withheld.
        told_high: upper end as told.
    """

    seed: int
    kind: str
    accuracy: float
    cost: float
    alarms: tuple[str, ...]
    shifts: dict[str, float]
    p: dict[str, float]
    verdict: str
    estimate: float
    low: float
    high: float
    told_low: float
    told_high: float


def train_head(
    spec: Spec, target: NDArray[np.int64], tiles: pd.DataFrame, values: NDArray[np.float32]
) -> AdaptationNet:
    """Train a head on features, by some of the target's tiles without their labels."""
    data, settings = training_data(tiles, spec), experiment(spec, STEPS)
    data = replace(data, target=TargetTiles(data.target.images, target))
    method = build(spec, settings)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "checkpoint.pt"
        Trainer(method, data, FeatureInputs(values), settings.train, spec.seed, "x", checkpoint, lambda _: None).fit()
    net: AdaptationNet = deepcopy(method.net).eval()  # `build` makes every method around the same network
    return net


@torch.inference_mode()
def predict(net: AdaptationNet, values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Predict the probabilities of malignant, [N], from features."""
    logits: Tensor = net.logits(net.features(torch.from_numpy(values)))
    return np.asarray(logits.double().softmax(1)[:, 1].numpy())


def make_champion(folder: Path, target: str, seed: int, tiles: pd.DataFrame, trunk: FrozenTrunk) -> Champion:
    """Train a champion, and write what a registered model has of its training tiles.

    Half of the target's groups are trained on, and a tenth is for the labelled figure.
    """
    settings, values = Settings(), trunk(np.stack([prepare(path) for path in tiles["path"]]))
    sources, own = SOURCES[target], tiles[tiles["organ"] == target]
    names = np.random.default_rng(seed).permutation(np.unique(own["group"]))
    ends = [len(names) // 2, len(names) * 6 // 10]
    trained, tested, new = (own[own["group"].isin(part)] for part in np.split(names, ends))
    spec, rows = Spec(target, sources, METHOD, 1e-3, seed), trained.index.to_numpy()
    net = train_head(spec, rows, tiles, values)
    alone = [train_head(replace(spec, sources=(organ,)), rows, tiles, values) for organ in sources]

    data = training_data(tiles, spec)
    on_sources = predict(net, values[data.source_val.rows])
    calibration = fit_calibration(data.source_val.labels, on_sources, settings.evaluate)
    consensus = find_consensus(np.stack([predict(each, values[rows]) for each in alone]))
    evidence = Evidence(oracle(on_sources, data.source_val.labels), predict(net, values[rows]), consensus)
    verdict = ConsensusRule.from_settings(settings.select)(evidence).kind
    measured = None
    if target == TARGET:  # kidney has too few groups for an interval
        p = calibration.apply(predict(net, values[tested.index.to_numpy()]))
        groups = tested["group"].to_numpy(np.str_)
        found = bootstrap_metrics(list_labels(tested), p, groups, names=["balanced_accuracy"])["balanced_accuracy"]
        measured = (found.point, found.low, found.high)

    config = replace(CONFIG, target=target, sources=sources, temperature=calibration.temperature)
    network = Head(trunk, net)
    training = TrainingTiles(
        np.stack([prepare(path) for path in trained["path"]]),
        np.repeat(target, len(trained)),
        trained["group"].to_numpy(np.str_),
        pd.DataFrame([asdict(measure(decode(read(path)))) for path in trained["path"]]),
    )
    (folder / ARTIFACTS).mkdir(parents=True)
    (folder / ARTIFACTS / "config.json").write_text(config.to_json())
    describe_training(folder / ARTIFACTS, network, config, training)
    predictor = TilePredictor(config, network, ShiftReference.load(folder / ARTIFACTS / REFERENCE))
    return Champion(predictor, read_reference(folder), Standing(verdict, measured), new)


@cache
def prepare(path: str) -> Pixels:
    """Decode and resize a tile as the served model does."""
    return TilePredictor(CONFIG, no_network).prepare(read(path)).tile


def no_network(tiles: Pixels) -> NetworkOutput:
    """Refuse to predict: preparing tiles takes no network."""
    raise NotImplementedError


def read_tiles() -> pd.DataFrame:
    """List the tiles: a few of each group, as many of each organ as its groups give."""
    tiles = pd.read_csv(SHARED / "data" / "tiles.csv")
    most = tiles["organ"].map(lambda organ: TILES if organ in ("lung", "colon") else 4 * TILES)
    return tiles[tiles.groupby(["organ", "group"]).cumcount() < most].reset_index(drop=True)


def read(path: str) -> bytes:
    """Read a tile's file."""
    content: bytes = (SHARED / "data" / "tiles" / path).read_bytes()
    return content


def list_labels(tiles: pd.DataFrame) -> NDArray[np.int64]:
    """List the labels of tiles, 0 or 1."""
    return np.asarray(tiles["label"] == "malignant", np.int64)


def profile(champion: Champion, tiles: pd.DataFrame, change: Change | None = None) -> Profile:
    """Profile tiles as `oncoshift watch` does, after a change of their pixels."""
    contents = [read(path) if change is None else encode(change(decode(read(path)))) for path in tiles["path"]]
    groups = np.unique(tiles["group"], return_inverse=True)[1]
    listed = [Tile(path, content) for path, content in zip(tiles["path"], contents, strict=True)]
    return profile_tiles(champion.predictor, listed, groups, lambda _done, _total: None)


def encode(pixels: Pixels) -> bytes:
    """Encode pixels without loss."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def draw_groups(tiles: pd.DataFrame, rng: np.random.Generator, malignant: float | None = None) -> pd.DataFrame:
    """Draw the groups of a batch, evenly or with a share of malignant ones, and tiles of each."""
    if malignant is None:
        names = rng.choice(np.unique(tiles["group"]), min(GROUPS, tiles["group"].nunique()), replace=False)
    else:
        count = round(GROUPS * malignant)
        parts = ((tiles[tiles["label"] == "malignant"], count), (tiles[tiles["label"] == "benign"], GROUPS - count))
        names = np.concatenate([rng.choice(np.unique(part["group"]), size, replace=False) for part, size in parts])
    return tiles[tiles["group"].isin(names)].groupby("group").head(TILES)


def judge(champion: Champion, found: Profile, tiles: pd.DataFrame, seed: int, kind: str, usual: float) -> Row:
    """Judge a batch, and compare it with its labels."""
    settings = Settings()
    signals = compare(champion.reference, found, settings.watch)
    drifted = [signal.name for signal in signals if signal.alarm and signal.name != "malignant"]
    trusted = replace(champion.standing, verdict=Kind.TRUST)
    guess, told = (
        estimate(champion.reference, found, standing, drifted, settings.evaluate)
        for standing in (trusted, champion.standing)
    )
    true = measure_accuracy(found, tiles)
    return Row(
        seed, kind, true, usual - true,
        tuple(signal.name for signal in signals if signal.alarm),
        {signal.name: signal.shift for signal in signals},
        {signal.name: signal.p for signal in signals},
        champion.standing.verdict.value,
        *(np.nan if each is None else each for each in (guess.point, guess.low, guess.high, told.low, told.high)),
    )  # fmt: skip


def measure_accuracy(found: Profile, tiles: pd.DataFrame) -> float:
    """Measure balanced accuracy by labels; a tile without a label by its probability."""
    labels, called = list_labels(tiles), found.is_called_malignant
    return float(np.mean([(called[labels == label] == label).mean() for label in np.unique(labels)]))


def run_seed(seed: int, tiles: pd.DataFrame, trunk: FrozenTrunk) -> list[Row]:
    """Judge the batches of one division of the target."""
    rng = np.random.default_rng([seed, 1])
    with tempfile.TemporaryDirectory() as scratch:
        champion = make_champion(Path(scratch), TARGET, seed, tiles, trunk)
    new = champion.new
    whole = profile(champion, new)
    usual = measure_accuracy(whole, new)

    def take(batch: pd.DataFrame) -> Profile:
        return whole.select(pd.Series(new.index.isin(batch.index), index=whole.tiles.index))

    def judge_drawn(kind: str, malignant: float | None = None) -> Row:
        batch = draw_groups(new, rng, malignant)
        return judge(champion, take(batch), batch, seed, kind, usual)

    rows = [judge_drawn("none") for _ in range(UNCHANGED)]
    rows += [judge_drawn(kind, share) for kind, share in SHARES.items()]
    for kind, change in CHANGES.items():
        batch = draw_groups(new, rng)
        before = measure_accuracy(take(batch), batch)
        rows.append(judge(champion, profile(champion, batch, change), batch, seed, kind, before))
    for organ in ORGANS:
        if organ != TARGET:
            batch = draw_groups(tiles[tiles["organ"] == organ], rng)
            rows.append(judge(champion, profile(champion, batch), batch, seed, f"organ, {organ}", usual))
    print(f"seed {seed}: verdict {champion.standing.verdict.value}, {usual:.3f} on new groups", flush=True)
    return rows


def measure_failed(tiles: pd.DataFrame, trunk: FrozenTrunk) -> dict[str, float | str]:
    """Judge new kidney tiles by a champion whose classes adaptation turned around."""
    with tempfile.TemporaryDirectory() as scratch:
        champion = make_champion(Path(scratch), "kidney", 0, tiles, trunk)
    found, settings = profile(champion, champion.new), Settings().evaluate
    trusted = estimate(champion.reference, found, Standing(Kind.TRUST, None), [], settings)
    guarded = estimate(champion.reference, found, Standing(champion.standing.verdict, None), [], settings)
    return {
        "verdict": champion.standing.verdict.value,
        "true": round(measure_accuracy(found, champion.new), 3),
        "confidence": round(trusted.point or 0.0, 3),
        "estimate": str(guarded),
    }


def tabulate(rows: list[Row]) -> pd.DataFrame:
    """Tabulate the batches."""
    records = []
    for row in rows:
        shifts = {f"{name}_shift": value for name, value in row.shifts.items()}
        p = {f"{name}_p": value for name, value in row.p.items()}
        records.append(
            {"seed": row.seed, "kind": row.kind, "accuracy": row.accuracy, "cost": row.cost,
             "alarms": ", ".join(row.alarms), "alarm": bool(row.alarms), "estimate": row.estimate, "low": row.low,
             "high": row.high, "verdict": row.verdict, "told_low": row.told_low, "told_high": row.told_high,
             **shifts, **p}
        )  # fmt: skip
    return pd.DataFrame(records)


def show(table: pd.DataFrame) -> None:
    """Print a row for each kind of batch."""
    shown = Table(title=f"{TARGET}: batches of {GROUPS} groups with {TILES} tiles each")
    for column in ("kind", "batches", "accuracy", "cost", "alarms", "by", "estimate", "covered"):
        shown.add_column(column, overflow="fold")
    for kind, part in table.groupby("kind", sort=False):
        names = pd.Series([name for row in part["alarms"] for name in row.split(", ") if name]).value_counts()
        covered = ((part["low"] <= part["accuracy"]) & (part["accuracy"] <= part["high"])).mean()
        shown.add_row(
            str(kind), str(len(part)), f"{part['accuracy'].mean():.3f}", f"{part['cost'].mean():+.3f}",
            f"{part['alarm'].sum()}", ", ".join(f"{name} {count}" for name, count in names.items()),
            f"{part['estimate'].mean():.3f}", f"{covered:.2f}",
        )  # fmt: skip
    Console(width=150).print(shown)


def _share(true: pd.Series) -> float | None:
    """Return the share of what is true; None where there is nothing."""
    return round(float(true.mean()), 3) if len(true) else None


def main() -> None:
    """Print the tables; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed: does it run at all")
    quick = parser.parse_args().quick
    began = time.monotonic()
    tiles, trunk = read_tiles(), FrozenTrunk(FEATURES)
    rows = []
    for seed in SEEDS[:1] if quick else SEEDS:
        rows += run_seed(seed, tiles, trunk)
        trunk.save()
    table = tabulate(rows)
    BATCHES.parent.mkdir(exist_ok=True)
    table.to_csv(BATCHES, index=False)
    show(table)
    failed = measure_failed(tiles, trunk)
    print(f"kidney, where adaptation fails: {failed}")
    unchanged = table[table["kind"] == "none"]
    costly = table[(table["kind"] != "none") & (table["cost"] > COSTLY)]
    covered = (table["low"] <= table["accuracy"]) & (table["accuracy"] <= table["high"])
    told = table[table["told_low"].notna()]
    told_covered = (told["told_low"] <= told["accuracy"]) & (told["accuracy"] <= told["told_high"])
    error = (table["estimate"] - table["accuracy"]).abs()
    print(f"each batch: {BATCHES}; {time.monotonic() - began:.0f} s")
    verdicts = table.drop_duplicates("seed")["verdict"].value_counts()
    figures = {
        "batches": len(table),
        "unchanged": len(unchanged),
        "false_alarms": round(float(unchanged["alarm"].mean()), 3),
        "costly": len(costly),
        "found": round(float(costly["alarm"].mean()), 3),
        "estimate_error_unchanged": round(float(error[unchanged.index].mean()), 3),
        "estimate_covered_unchanged": round(float(covered[unchanged.index].mean()), 3),
        "estimate_covered_costly": round(float(covered[costly.index].mean()), 3),
        "verdicts": ", ".join(f"{kind} {count}" for kind, count in verdicts.items()),
        "told": len(told),
        "told_covered_unchanged": _share(told_covered[told.index.intersection(unchanged.index)]),
        "told_costly": len(told.index.intersection(costly.index)),
        "told_covered_costly": _share(told_covered[told.index.intersection(costly.index)]),
        "failed_verdict": failed["verdict"],
        "failed_true": failed["true"],
        "failed_confidence": failed["confidence"],
    }
    print(json.dumps({"benchmark": "watch", "figures": figures}))


if __name__ == "__main__":
    main()
