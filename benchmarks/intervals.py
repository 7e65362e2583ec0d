"""Benchmark of bootstrap intervals: all metrics at once, and a loop over scikit-learn's functions.

    python benchmarks/intervals.py [--tiles 10000] [--groups 500] [--resamples 2000]

Both draw whole groups with replacement and compute the same ten metrics but ECE, which scikit-learn
does not have. The loop runs for a few resamples and is scaled to all of them, in the same process
and on one thread. Times are CPU seconds, which other processes disturb little.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    matthews_corrcoef,
    recall_score,
    roc_auc_score,
)

from oncoshift.evaluation.intervals import bootstrap_metrics

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOOP_RESAMPLES = 20


def make_tiles(tiles: int, groups: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.str_]]:
    """Make labels, probabilities and groups of one class each."""
    rng = np.random.default_rng(0)
    index = np.arange(tiles) % groups
    labels = (index % 2).astype(np.int64)
    scores = 0.5 + 0.3 * (labels - 0.5) + rng.normal(0, 0.2, groups)[index] + rng.normal(0, 0.2, tiles)
    return labels, np.clip(scores, 0, 1), index.astype(str)


def run_loop(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], groups: NDArray[np.str_], resamples: int
) -> None:
    """Bootstrap by drawing groups and calling scikit-learn for each metric."""
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(groups == name) for name in np.unique(groups)]
    for _ in range(resamples):
        rows = np.concatenate([members[number] for number in rng.integers(0, len(members), len(members))])
        truth, scores = labels[rows], probabilities[rows]
        called = (scores >= 0.5).astype(int)
        for score in (accuracy_score, balanced_accuracy_score, recall_score, f1_score, matthews_corrcoef):
            score(truth, called)
        recall_score(truth, called, pos_label=0)
        for score in (roc_auc_score, average_precision_score, brier_score_loss):
            score(truth, scores)


def main() -> None:
    """Print a table, and the figures as JSON in the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=10_000)
    parser.add_argument("--groups", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=2000)
    given = parser.parse_args()
    tiles = make_tiles(given.tiles, given.groups)
    bootstrap_metrics(*tiles, resamples=100)  # the first call pays for imports
    seconds = []
    for _ in range(3):
        started = time.process_time()
        bootstrap_metrics(*tiles, resamples=given.resamples)
        seconds.append(time.process_time() - started)
    started = time.process_time()
    run_loop(*tiles, LOOP_RESAMPLES)
    loop = (time.process_time() - started) * given.resamples / LOOP_RESAMPLES
    own = float(np.median(seconds))
    print(f"{given.resamples} resamples of {given.tiles} tiles in {given.groups} groups, ten metrics")
    print(f"{'oncoshift':<40}{own:>10.2f} s")
    print(f"{'scikit-learn in a loop, nine metrics':<40}{loop:>10.2f} s   ({loop / own:.0f} ×)")
    figures = {"seconds": round(own, 3), "loop_seconds": round(loop, 1), "loop_ratio": round(loop / own, 1)}
    print(json.dumps({"benchmark": "intervals", "figures": figures}))


if __name__ == "__main__":
    main()
