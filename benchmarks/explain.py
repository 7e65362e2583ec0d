"""Integrated Gradients of real tiles by a real ResNet50: our own against Captum, at equal delta.

An ImageNet trunk with heads trained for a few seconds on tiles of lung and colon explains tiles of
lung, kidney and breast, with the mean training tile as baseline. Ours doubles the steps of each
tile until its completeness delta is below the tolerance and its map is stable. Captum takes one
number of steps for all tiles: the smallest of 50, 100, 200, … (50 is its default) at which no
delta is above the tolerance, and only that last call is timed. It gets an internal batch size,
since its default would need 0.2 GB for each step of each tile of 224 pixels. `captum_ratio` is
Captum's time over ours. Times are CPU seconds over all threads: on a machine that does other work
they are more reliable than wall-clock time.

Run: ONCOSHIFT_SHARED=… python benchmarks/explain.py [--tiles 6] [--side 224]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from captum.attr import IntegratedGradients
from PIL import Image
from torch.nn import functional as F

from oncoshift.explain.attributions import attribute_tiles
from oncoshift.models.weights import load_trunk
from oncoshift.serving.attributions import Convergence
from oncoshift.serving.classifier import TileClassifier, normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

TOLERANCE = 0.05
CAPTUM_STEPS = (50, 100, 200, 400, 800)
BATCH = 16


def read_tiles(
    shared: Path, organs: list[str], count: int, side: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read tiles [N, side, side, 3] and labels, as many of each organ and label as possible."""
    table = pd.read_csv(shared / "data" / "tiles.csv")
    table = table[table["organ"].isin(organs)]
    cells = table.groupby(["organ", "label"], sort=True)
    table = cells.sample(-(-count // cells.ngroups), random_state=seed).head(count)
    paths = [shared / "data" / "tiles" / path for path in table["path"]]
    tiles = np.stack([np.asarray(Image.open(path).convert("RGB").resize((side, side))) for path in paths])
    return tiles, (table["label"] == "malignant").to_numpy().astype(np.int64)


def train_heads(shared: Path, side: int) -> tuple[TileClassifier, NDArray[np.float32]]:
    """Return a classifier with trained heads on a frozen ImageNet trunk, and the mean tile."""
    torch.manual_seed(0)
    classifier = TileClassifier("resnet50", 256, 0.5).eval()
    load_trunk(classifier.trunk, "resnet50", str(shared / "weights" / "resnet50_imagenet.safetensors"))
    tiles, labels = read_tiles(shared, ["lung", "colon"], 60, side, seed=0)
    with torch.no_grad():
        x = normalise(torch.from_numpy(tiles))
        features = torch.cat([classifier.trunk(part) for part in x.chunk(-(-len(x) // BATCH))])
    heads = torch.nn.Sequential(classifier.bottleneck, classifier.head).train()
    optimizer = torch.optim.AdamW(heads.parameters(), lr=1e-3)
    for _ in range(300):
        drawn = torch.randint(0, len(labels), (32,))
        optimizer.zero_grad()
        loss = F.cross_entropy(heads(features[drawn]), torch.from_numpy(labels)[drawn])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return classifier.eval(), tiles.mean(axis=0, dtype=np.float32)


def compute_captum_deltas(
    classifier: TileClassifier, tiles: NDArray[np.uint8], baseline: NDArray[np.float32], steps: int
) -> NDArray[np.float64]:
    """Compute relative deltas of Captum's maps, by its default rule, Gauss–Legendre."""

    def margin(x: Tensor) -> Tensor:
        logits: Tensor = classifier(x)
        return logits[:, 1] - logits[:, 0]

    method, start = IntegratedGradients(margin), normalise(torch.from_numpy(baseline)[None])
    deltas = []
    for tile in torch.from_numpy(tiles):
        x = normalise(tile[None])
        values = method.attribute(x, start, n_steps=steps, internal_batch_size=BATCH)
        with torch.no_grad():
            change = (margin(x) - margin(start)).item()
        deltas.append(abs(values.double().sum().item() - change) / abs(change))
    return np.array(deltas)


def main() -> None:
    """Print a table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=6)
    parser.add_argument("--side", type=int, default=224, help="to which tiles are resized, pixels")
    options, shared = parser.parse_args(), Path(os.environ.get("ONCOSHIFT_SHARED", "../shared"))
    classifier, baseline = train_heads(shared, options.side)
    tiles, _ = read_tiles(shared, ["lung", "kidney", "breast"], options.tiles, options.side, seed=3)
    attribute_tiles(classifier, tiles[:1], baseline, Convergence(2, 2), batch_size=BATCH)  # warm up

    began = time.process_time()
    ours = attribute_tiles(classifier, tiles, baseline, Convergence(tolerance=TOLERANCE), batch_size=BATCH)
    our_seconds = time.process_time() - began
    print(
        f"ours: {our_seconds:.1f} s, steps {ours.steps.tolist()}, worst delta {ours.relative_delta.max():.3f}",
        flush=True,
    )

    hardest_first = tiles[np.argsort(-ours.steps, kind="stable")]
    for steps in CAPTUM_STEPS:
        if steps < CAPTUM_STEPS[-1]:
            first = compute_captum_deltas(classifier, hardest_first[:1], baseline, steps)
            if first[0] > TOLERANCE:
                print(f"Captum, {steps} steps: delta {first[0]:.3f} on the hardest tile", flush=True)
                continue
        began = time.process_time()
        deltas = compute_captum_deltas(classifier, hardest_first, baseline, steps)
        captum_seconds = time.process_time() - began
        print(f"Captum, {steps} steps: {captum_seconds:.1f} s, worst delta {deltas.max():.3f}")
        if deltas.max() <= TOLERANCE:
            break
    figures = {
        "side": options.side,
        "captum_ratio": captum_seconds / our_seconds,
        "captum_steps": steps,
        "captum_worst_delta": float(deltas.max()),
        "captum_seconds_a_tile": captum_seconds / len(tiles),
        "our_mean_steps": float(ours.steps.mean()),
        "our_worst_delta": float(ours.relative_delta.max()),
        "our_converged": float(ours.converged.mean()),
        "our_seconds_a_tile": our_seconds / len(tiles),
    }
    print("\n".join(f"{name:24} {value:8.3f}" for name, value in figures.items()))
    print(json.dumps({"benchmark": "explain", "figures": figures}))


if __name__ == "__main__":
    main()
