"""What the choice of a method without target labels loses against the best method.

For each target and each pool of two or three source organs, methods are screened as a retraining
with `retrain.methods` does it: two seeds each, and a model from each organ of the pool alone for
the verdict. Each rule then chooses a method without a target label. The labels are read last, to
measure the regret: the balanced accuracy of the best method, mean of its seeds, minus that of the
chosen one.

Run: python benchmarks/choice.py [--quick]
It reads real tiles and weights from ONCOSHIFT_SHARED (default ../shared), keeps features under
build/, as selection.py does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from frozen_features import BUILD, ORGANS, SHARED, Spec, features, fit

from oncoshift.selection.choice import Candidate
from oncoshift.selection.consensus import find_consensus
from oncoshift.selection.oracle import oracle
from oncoshift.selection.rule import score_row
from oncoshift.selection.validators import Predictions, compute_scores
from oncoshift.selection.verdict import ConsensusRule, Evidence, Kind
from oncoshift.settings import SelectSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

METHODS = ("dann", "cdan", "mcc", "cdan_mcc", "self_training")
SEEDS = (0, 1)
LR, STEPS = 1e-3, 600
"""As in the preset `real`."""
RULE = SelectSettings()
WITHIN_REACH = ("lung", "colon")
"""Targets on which some method works; on the others every method is below chance."""


@dataclass(frozen=True)
class Trained:
    """What is kept of one trained model; it holds no label of the target.

    Attributes:
        spec: How it was trained.
        probabilities: Of malignant, on the target's tiles, [T].
        scores: Of the validators.
    """

    spec: Spec
    probabilities: NDArray[np.float64]
    scores: dict[str, float]


@dataclass(frozen=True)
class Screened:
    """A method screened for one target from one pool of source organs.

    Attributes:
        candidate: What is known of it without labels.
        truth: Balanced accuracy on the target, mean of its seeds; this read labels.
    """

    candidate: Candidate
    truth: float


RULES: dict[str, Callable[[Candidate], Any]] = {
    "mean score": lambda each: each.score,
    "mean score, unless refused": lambda each: (not _is_refused(each), each.score),
    "agreement with the consensus": lambda each: each.agreement,
    "verdict, then mean score (selection.choice)": lambda each: each.rank,
}
"""What each rule maximises."""


def _is_refused(candidate: Candidate) -> bool:
    return candidate.verdict is not None and candidate.verdict.kind is Kind.REFUSE


def train(spec: Spec, steps: int) -> Trained:
    """Train one model, predict the target, and score it without labels."""
    torch.set_num_threads(1)
    tiles = pd.read_csv(SHARED / "data" / "tiles.csv")
    values = features(tiles, SHARED, BUILD)
    net, data = fit(tiles, spec, values, steps)

    @torch.inference_mode()
    def predict(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        logits = net.logits(net.features(torch.from_numpy(values[rows])))
        return np.asarray(logits.softmax(1)[:, 1].numpy(), np.float64)

    target = predict(data.target.rows)
    source = Predictions(predict(data.source_val.rows), data.source_val.labels, target)
    return Trained(spec, target, compute_scores(source))


def list_pools(target: str) -> list[tuple[str, ...]]:
    """List the pools of two and three source organs."""
    others = tuple(organ for organ in ORGANS if organ != target)
    return [others, *combinations(others, 2)]


def list_specs(target: str) -> list[Spec]:
    """List one target's models: every method and seed from each pool, and from each organ alone."""
    pools = [*list_pools(target), *((organ,) for organ in ORGANS if organ != target)]
    return [Spec(target, pool, method, LR, seed) for pool in pools for method in METHODS for seed in SEEDS]


def screen(models: dict[Spec, Trained], target: str, pool: tuple[str, ...], method: str) -> Candidate:
    """Describe a method as step `choose` does, without labels."""
    seeds = [models[Spec(target, pool, method, LR, seed)] for seed in SEEDS]
    scores = [score_row(RULE, model.scores) for model in seeds]
    pick = seeds[int(np.argmax(scores))]
    alone = [models[Spec(target, (organ,), method, LR, pick.spec.seed)].probabilities for organ in pool]
    consensus = find_consensus(np.stack(alone))
    judge = ConsensusRule.from_settings(RULE)
    verdict = judge(Evidence(pick.scores["source_accuracy"], pick.probabilities, consensus))
    return Candidate(method, SEEDS, tuple(scores), consensus.agreement_with(pick.probabilities), verdict)


def screen_all(models: dict[Spec, Trained], target: str, labels: NDArray[np.int64]) -> dict[str, list[Screened]]:
    """Screen all methods for a target from each pool; this reads labels for the truth alone."""

    def measure_truth(pool: tuple[str, ...], method: str) -> float:
        seeds = [models[Spec(target, pool, method, LR, seed)] for seed in SEEDS]
        return float(np.mean([oracle(model.probabilities, labels) for model in seeds]))

    return {
        f"{target} ← {'+'.join(pool)}": [
            Screened(screen(models, target, pool, method), measure_truth(pool, method)) for method in METHODS
        ]
        for pool in list_pools(target)
    }


def measure(screened: list[Screened], rule: Callable[[Candidate], Any]) -> dict[str, Any]:
    """Apply a rule, and measure what its choice loses."""
    chosen = max(screened, key=lambda each: rule(each.candidate))
    best = max(each.truth for each in screened)
    return {
        "chosen": chosen.candidate.method,
        "truth": round(chosen.truth, 3),
        "regret": round(best - chosen.truth, 3),
        "verdict": chosen.candidate.verdict.kind.value if chosen.candidate.verdict else "",
    }


def show(cells: dict[str, list[Screened]], figures: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Print all candidates, then each rule's choice and regret."""
    for cell, screened in cells.items():
        print(f"\n{cell}")
        for each in screened:
            found = each.candidate
            kind = found.verdict.kind.value if found.verdict else ""
            print(
                f"{found.method:>14}  score {found.score:.3f}  agreement {found.agreement:6.3f}  {kind:>6}"
                f"  balanced accuracy {each.truth:.3f}"
            )
    for rule, chosen in figures.items():
        print(f"\n{rule}")
        for cell, row in chosen.items():
            print(f"{cell:>32}: {row['chosen']:>14} {row['truth']:.3f}, regret {row['regret']:.3f}, {row['verdict']}")


def summarise(figures: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Average each rule's regret over the pools: within reach, and on all targets."""
    means = {}
    for rule, rows in figures.items():
        near = [row["regret"] for cell, row in rows.items() if cell.split(" ")[0] in WITHIN_REACH]
        every = [row["regret"] for row in rows.values()]
        means[rule] = {"lung and colon": round(float(np.mean(near)), 3), "all": round(float(np.mean(every)), 3)}
    return means


def main() -> None:
    """Train, choose, measure; the last line is one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one target and few steps: does it run at all")
    quick = parser.parse_args().quick
    tiles = pd.read_csv(SHARED / "data" / "tiles.csv")
    torch.set_num_threads(2)
    features(tiles, SHARED, BUILD)
    began = time.monotonic()
    names = ORGANS[:1] if quick else ORGANS
    specs = [spec for target in names for spec in list_specs(target)]
    models = {}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for model in pool.map(train, specs, [50 if quick else STEPS] * len(specs)):
            models[model.spec] = model
            print(f"\rmodels: {len(models)} of {len(specs)}", end="", file=sys.stderr, flush=True)
    labels = np.asarray(tiles["label"] == "malignant", np.int64)
    organs = tiles["organ"].to_numpy()
    cells: dict[str, list[Screened]] = {}
    for target in names:
        cells |= screen_all(models, target, labels[organs == target])
    figures = {
        name: {cell: measure(screened, rule) for cell, screened in cells.items()} for name, rule in RULES.items()
    }
    show(cells, figures)
    print(f"\n{len(models)} models in {time.monotonic() - began:.0f} s")
    print(json.dumps({"benchmark": "choice", "figures": {"regret": summarise(figures), "rules": figures}}))


if __name__ == "__main__":
    main()
