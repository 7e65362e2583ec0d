"""What the method `anchored` reaches without labels: by anchor, and by share of the classes.

Features of a frozen ImageNet ResNet50 on real tiles. In each draw, a third of the target's groups
of each class is held out, as in labels.py, and the head is computed from the other tiles: their
features and anchors, and no label. Balanced accuracy is that on the groups held out.

- By anchor: each alone and both together, with the AUROC of the anchor itself.
- Agreement: of two models, each computed with one anchor alone, by Cohen's kappa on the tiles that
  they were computed from. The verdict trusts no model of both below `select.trust_anchors`; it asks
  for more, so what reaches that limit is the most that it may trust.
- By share: tiles of one class are left out until the other has a given share.

Run: python benchmarks/anchored.py [--epithelium NETWORK.onnx]     (ten minutes on one core)
It reads real tiles and weights from ONCOSHIFT_SHARED (default ../shared), and keeps features and
anchors under build/, as selection.py does. The network is the one named in docs/anchors.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from frozen_features import (
    BUILD,
    COMPONENTS,
    ORGANS,
    SHARE,
    SHARED,
    add_epithelium_option,
    anchors,
    choose_anchors,
    features,
    hold_out,
    summarise_draws,
)
from matplotlib.figure import Figure
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from oncoshift.anchors.values import combine
from oncoshift.evaluation.plots import OKABE_ITO
from oncoshift.methods.anchored import solve
from oncoshift.selection.oracle import oracle
from oncoshift.selection.verdict import SAFE_SHARES
from oncoshift.settings import parse_settings

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from oncoshift.methods.anchored import Solution

FAILED = 0.6
"""Balanced accuracy below which a model has failed, as in selection.py."""
CLASS_SHARES = (0.125, 0.25, 0.5, 0.75, 0.875)
"""Shares of malignant tiles that the pool is thinned to."""
THINNED_DRAWS = 20
"""Most draws in which it is."""


@dataclass(frozen=True)
class Draw:
    """A division of a target's tiles.

    Attributes:
        target: Organ.
        seed: Of all that is drawn.
        values: Features of the organ's tiles, [T, D].
        labels: 0 or 1, [T].
        anchors: Of the tiles, standardised, [T] by name.
        pool: Positions of the tiles that models are computed from, [P].
        held: Positions of the tiles that they are measured on, [H].
    """

    target: str
    seed: int
    values: NDArray[np.float32]
    labels: NDArray[np.int64]
    anchors: dict[str, NDArray[np.float64]]
    pool: NDArray[np.int64]
    held: NDArray[np.int64]

    def combine(self, use: list[str], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Combine anchors of some tiles, [N]."""
        return combine([self.anchors[name][rows] for name in use])

    def solve(self, rows: NDArray[np.int64], use: list[str]) -> Solution:
        """Compute a head from tiles and their anchors."""
        return solve(self.values[rows], self.combine(use, rows), COMPONENTS, SHARE, self.seed)

    def call(self, solution: Solution, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Call tiles malignant, 1, or benign, 0; [N]."""
        return (solution.predict(self.values[rows]) > 0.5).astype(np.float64)

    def measure(self, solution: Solution) -> float:
        """Measure balanced accuracy on the tiles held out."""
        return oracle(self.call(solution, self.held), self.labels[self.held])


def list_uses(names: list[str]) -> dict[str, list[str]]:
    """List the anchors that models are computed with: each alone, then all together."""
    each = {name: [name] for name in names}
    return {**each, " + ".join(names): names} if len(names) > 1 else each


def measure(each: Draw) -> list[dict[str, Any]]:
    """Measure the models of one draw; one row for each use of anchors."""
    every = np.arange(len(each.labels))
    rows, calls = [], {}
    for name, use in list_uses(list(each.anchors)).items():
        solution = each.solve(each.pool, use)
        calls[name] = each.call(solution, each.pool)
        rows.append(
            {
                "target": each.target,
                "anchors": name,
                "accuracy": each.measure(solution),
                "anchor_auroc": roc_auc_score(each.labels, each.combine(use, every)),
                "kappa": np.nan,
            }
        )
    if len(each.anchors) > 1:
        rows[-1]["kappa"] = cohen_kappa_score(*(calls[name] for name in each.anchors))
    return rows


def thin(each: Draw, share: float) -> NDArray[np.int64]:
    """Leave out tiles of the pool until `share` of them are malignant; positions, in order."""
    rng = np.random.default_rng([each.seed, 7])
    benign, malignant = (rng.permutation(each.pool[each.labels[each.pool] == label]) for label in (0, 1))
    count = min(len(malignant) / share, len(benign) / (1 - share))
    return np.sort(np.concatenate([malignant[: round(count * share)], benign[: round(count * (1 - share))]]))


def measure_shares(each: Draw) -> list[dict[str, Any]]:
    """Measure models of pools thinned to `CLASS_SHARES`; one row each."""
    rows = []
    for share, (name, use) in product(CLASS_SHARES, list_uses(list(each.anchors)).items()):
        pool = thin(each, share)
        solution = each.solve(pool, use)
        rows.append(
            {
                "target": each.target,
                "malignant": share,
                "anchors": name,
                "tiles": len(pool),
                "accuracy": each.measure(solution),
                "estimated": solution.malignant_share,
                "warned": not SAFE_SHARES[0] <= solution.malignant_share <= SAFE_SHARES[1],
            }
        )
    return rows


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Summarise draws: mean with its 95 % interval, tenth percentile and failed models."""
    found = []
    for (target, name), some in rows.groupby(["target", "anchors"], sort=False):
        values = some["accuracy"].to_numpy()
        about = {"target": target, "anchors": name, "anchor_auroc": round(some["anchor_auroc"].iloc[0], 3)}
        counts = {"failed": int((values < FAILED).sum()), "draws": len(values)}
        found.append({**about, **summarise_draws(values), **counts})
    return pd.DataFrame(found)


def count_agreeing(rows: pd.DataFrame, limit: float) -> pd.DataFrame:
    """Count the models whose single anchors agree enough to be trusted, by target."""
    both = rows.dropna(subset="kappa").assign(failed=lambda table: table["accuracy"] < FAILED)
    both["agreeing"] = both["kappa"] >= limit
    both["failed_agreeing"] = both["failed"] & both["agreeing"]
    counts = both.groupby("target", sort=False).agg(
        kappa=("kappa", "mean"),
        least=("kappa", "min"),
        greatest=("kappa", "max"),
        failed=("failed", "sum"),
        agreeing=("agreeing", "sum"),
        failed_agreeing=("failed_agreeing", "sum"),
        models=("failed", "size"),
    )
    return counts.reset_index().round(3)


def draw_shares(rows: pd.DataFrame, path: Path) -> None:
    """Draw accuracy against the share of malignant tiles, a panel for each target, as a PNG.

    Shares that the verdict takes for safe are shaded.
    """
    targets = list(dict.fromkeys(rows["target"]))
    figure = Figure(figsize=(3.0 * len(targets), 3.3), layout="constrained")
    for axes, target in zip(np.atleast_1d(figure.subplots(1, len(targets), sharey=True)), targets, strict=True):
        axes.axvspan(*SAFE_SHARES, color="0.94", zorder=0)
        for number, name in enumerate(dict.fromkeys(rows["anchors"])):
            some = rows[(rows["target"] == target) & (rows["anchors"] == name)].groupby("malignant")["accuracy"]
            axes.plot(some.mean().index, some.mean(), "o-", color=OKABE_ITO[number], label=name, markersize=4)
        axes.set(title=target, xlabel="malignant share of the tiles", ylim=(0.3, 1.02), xticks=(0, 0.25, 0.5, 0.75, 1))
    figure.axes[0].set_ylabel("balanced accuracy, groups held out")
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
    figure.savefig(path, dpi=120)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=60, help="divisions of each target; default: 60")
    parser.add_argument("--targets", nargs="+", choices=ORGANS, default=ORGANS, help="default: all")
    add_epithelium_option(parser)
    return parser.parse_args()


def main() -> None:
    """Measure all draws; the last line is one JSON object."""
    given = parse()
    torch.set_num_threads(1)
    settings = choose_anchors(given.epithelium)
    tiles = pd.read_csv(SHARED / "data" / "tiles.csv")
    pooled = features(tiles, SHARED, BUILD)
    began = time.monotonic()
    measured, thinned = [], []
    for name in given.targets:
        of = np.flatnonzero(tiles["organ"] == name)
        labels = np.asarray(tiles["label"].iloc[of] == "malignant", np.int64)
        groups = tiles["group"].to_numpy(np.str_)[of]
        measures = anchors(tiles, name, settings)
        for seed in range(given.draws):
            each = Draw(name, seed, pooled[of], labels, measures, *hold_out(labels, groups, name, seed))
            measured += measure(each)
            if seed < THINNED_DRAWS:
                thinned += measure_shares(each)
            print(f"\r{name}: {seed + 1} of {given.draws} draws", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
    rows, shares = pd.DataFrame(measured), pd.DataFrame(thinned)
    by_share = shares.groupby(["target", "anchors", "malignant"], sort=False)
    tables = {
        "accuracy": summarise(rows),
        "agreement": count_agreeing(rows, parse_settings({}).select.trust_anchors),
        "shares": by_share[["tiles", "accuracy", "estimated", "warned"]].mean().reset_index().round(3),
    }
    titles = (
        f"balanced accuracy on held-out groups, no labels; failed: below {FAILED}",
        "agreement of the models of single anchors, and those that reach the limit of trust",
        "by share of malignant tiles: accuracy, estimated share, part of the draws that are warned of",
    )
    for title, table in zip(titles, tables.values(), strict=True):
        print(f"\n{title}\n{table.to_string(index=False)}")
    draw_shares(shares, BUILD / "anchored.png")
    print(
        f"\n{given.draws} draws of each target in {time.monotonic() - began:.0f} s; picture: {BUILD / 'anchored.png'}"
    )
    figures = {key: table.to_dict("records") for key, table in tables.items()}
    print(json.dumps({"benchmark": "anchored", "figures": {"draws": given.draws, "anchors": settings.use, **figures}}))


if __name__ == "__main__":
    main()
