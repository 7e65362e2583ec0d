"""How well each method does on real tiles: heads on frozen ImageNet features, each organ once as the unlabelled target.

Sources are all other organs. Every method has the defaults of settings.py, no hyperparameter is tuned for any. Balanced
accuracy is that of the last step on all tiles of the target, which training saw without labels, as the mean over seeds
with a 95 % bootstrap interval over groups and seeds; the gain over source-only is paired.

Run: python benchmarks/methods.py [--quick]. Tiles, weights and cached features are those of benchmarks/selection.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from selection import BUILD, LR, ORGANS, SHARED, STEPS, Spec, features, train_all

from oncoshift.evaluation.intervals import bootstrap_metrics, paired_difference

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONTROL = "erm"
ENSEMBLE = "ensemble"
METHODS = (
    CONTROL, "dann", "dann_multi", "cdan", "mcc", "mdd", "self_training", "dann_mcc", "cdan_mcc",
)  # fmt: skip
"""Those that need tiles or BatchNorm, stain_aug and adabn, have nothing to do behind a frozen trunk."""
SEEDS = (0, 1, 2)
RESAMPLES = 1000

Probabilities = dict[str, "NDArray[np.float64]"]


def wanted(target: str, methods: tuple[str, ...], seeds: tuple[int, ...]) -> list[Spec]:
    """The networks to train for one target, those of the ensemble's members last."""
    sources = tuple(organ for organ in ORGANS if organ != target)
    pooled = [Spec(target, sources, method, LR, seed) for method in methods for seed in seeds]
    return pooled + [Spec(target, (organ,), CONTROL, LR, seed) for organ in sources for seed in seeds]


def by_method(target: str, trained: dict[Spec, NDArray[np.float64]], seeds: tuple[int, ...]) -> Probabilities:
    """Probabilities of malignant [seeds, tiles] by method; the ensemble's are the mean over its members."""
    sources = tuple(organ for organ in ORGANS if organ != target)
    methods = dict.fromkeys(spec.method for spec in trained if spec.target == target and spec.sources == sources)
    found = {
        method: np.stack([trained[Spec(target, sources, method, LR, seed)] for seed in seeds]) for method in methods
    }
    members = [[trained[Spec(target, (organ,), CONTROL, LR, seed)] for organ in sources] for seed in seeds]
    return found | {ENSEMBLE: np.mean(members, axis=1)}


def measure(found: Probabilities, labels: NDArray[np.int64], groups: NDArray[np.str_]) -> dict[str, dict[str, object]]:
    """Figures of each method on one target; here labels are read."""
    figures: dict[str, dict[str, object]] = {}
    for method, probabilities in found.items():
        metrics = bootstrap_metrics(
            labels, probabilities, groups, resamples=RESAMPLES, names=("balanced_accuracy", "auroc")
        )
        gain = paired_difference(
            labels, probabilities, found[CONTROL], groups, "balanced_accuracy", resamples=RESAMPLES
        )
        level = metrics["balanced_accuracy"]
        figures[method] = {
            "balanced_accuracy": [round(value, 3) for value in (level.point, level.low, level.high)],
            "auroc": round(metrics["auroc"].point, 3),
            "gain": [round(value, 3) for value in (gain.point, gain.low, gain.high)],
        }
    return figures


def show(figures: dict[str, dict[str, dict[str, object]]]) -> None:
    """Print the table: balanced accuracy [interval] / AUROC; a star where the gain's interval lies above 0."""
    print(f"{'':>14}" + "".join(f"{target:>28}" for target in figures))
    for method in next(iter(figures.values())):
        cells = []
        for rows in figures.values():
            (point, low, high), gain = rows[method]["balanced_accuracy"], rows[method]["gain"]  # type: ignore[misc]
            star = "*" if gain[1] > 0 else " "  # type: ignore[index]
            cells.append(f"{point:.3f} [{low:.3f}, {high:.3f}] {rows[method]['auroc']:.2f}{star}")
        print(f"{method:>14}" + "".join(f"{cell:>28}" for cell in cells))


def main() -> None:
    """Train, measure, print; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one target, few steps: does it run at all")
    quick = parser.parse_args().quick
    targets, methods, seeds = (ORGANS[:1], METHODS[:2], SEEDS[:2]) if quick else (ORGANS, METHODS, SEEDS)
    tiles = pd.read_csv(SHARED / "data" / "tiles.csv")
    torch.set_num_threads(2)
    features(tiles, SHARED, BUILD)
    began = time.monotonic()
    specs = [spec for target in targets for spec in wanted(target, methods, seeds)]
    trained = {model.spec: model.probabilities for model in train_all(specs, 50 if quick else STEPS)}
    labels = (tiles["label"] == "malignant").to_numpy(np.int64)
    figures = {}
    for target in targets:
        rows = (tiles["organ"] == target).to_numpy()
        groups = tiles["group"].to_numpy(np.str_)[rows]
        figures[target] = measure(by_method(target, trained, seeds), labels[rows], groups)
        print(f"measured: {target}", file=sys.stderr)
    show(figures)
    print(f"\n{len(specs)} models, {len(seeds)} seeds, in {time.monotonic() - began:.0f} s")
    print(json.dumps({"benchmark": "methods", "figures": figures}))


if __name__ == "__main__":
    main()
