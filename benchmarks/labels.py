"""What a handful of labels buys: accuracy of models that they correct, and errors of their gate.

Heads on frozen ImageNet features of real tiles. In each draw, a third of the target's groups of
each class is held out to measure on; the others are the pool, on which the prior is computed
without labels, and from which `oncoshift.labels.choice` proposes tiles. Their true labels are given
to those alone. Balanced accuracy is that on the groups held out, so neither prior, labels nor gate
have seen these patients.

Gate: models of known quality are judged by labels of pool tiles, whose groups trained nothing. A
model has failed if it is below `FAILED`, and is good from `GOOD`, once on the held-out groups, of
which breast has two with benign tiles, and once on all groups that trained nothing. Some of the
models are bad on purpose: their anchor is turned around, or is noise.

Run: python benchmarks/labels.py [--quick] [--draws N] [--targets ORGAN …] [--epithelium NETWORK]
It reads real tiles and weights from ONCOSHIFT_SHARED (default ../shared), keeps features under
build/, as selection.py does, and runs on one core.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from frozen_features import (
    BUILD,
    COMPONENTS,
    ORGANS,
    RESAMPLES,
    SHARE,
    SHARED,
    Spec,
    add_epithelium_option,
    anchors,
    build,
    choose_anchors,
    experiment,
    features,
    hold_out,
    summarise_draws,
    training_data,
)
from labels_picture import draw_curves
from scipy.special import logit

from oncoshift.anchors.values import combine
from oncoshift.evaluation.few_labels import LabelCounts, compute_probability_above, count_calls
from oncoshift.labels.choice import choose_tiles
from oncoshift.labels.table import GATE, TRAIN
from oncoshift.methods.anchored import Solution, solve
from oncoshift.methods.few_labels import correct
from oncoshift.selection.oracle import oracle
from oncoshift.training.inputs import FeatureInputs
from oncoshift.training.loop import Trainer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oncoshift.settings.training import AnchorSettings

BUDGETS = (6, 10, 20, 40)
"""Numbers of labels, to train or to gate."""
SHARED_BUDGETS = (12, 20, 40)
"""Numbers of labels of which half train and half gate, as `oncoshift label propose` shares them."""
FLOORS = (0.6, 0.7)
"""Values of gate.min_balanced_accuracy; the second is the default."""
BOUND = 0.95
"""As gate.min_label_probability."""
FAILED, GOOD = 0.6, 0.8
"""As in benchmarks/selection.py."""
ADAPTED = ("erm", "dann_mcc", "self_training")
"""Methods that train heads, from all other organs."""
ADAPTED_DRAWS = 8
"""Draws in which they are trained."""
LR, STEPS = 1e-3, 400


@dataclass(frozen=True)
class Organ:
    """A target's tiles.

    Attributes:
        name: The organ.
        rows: Rows in tiles.csv, [T].
        values: Features, [T, D].
        labels: 0 or 1, [T].
        groups: [T].
        anchor: Combined anchors, [T].
    """

    name: str
    rows: NDArray[np.int64]
    values: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]
    anchor: NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """A model, by its logits.

    Attributes:
        name: What it is.
        pool: Logit of malignant of the pool's tiles, [P].
        held: The same of the held-out tiles, [H].
    """

    name: str
    pool: NDArray[np.float64]
    held: NDArray[np.float64]


@dataclass(frozen=True)
class Draw:
    """A division of an organ into pool and held-out groups.

    Attributes:
        organ: The organ.
        seed: Of all that is drawn.
        pool: Positions of the pool's tiles, [P].
        held: Positions of the held-out tiles, [H].
    """

    organ: Organ
    seed: int
    pool: NDArray[np.int64]
    held: NDArray[np.int64]

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels of the pool's tiles, [P]."""
        return self.organ.labels[self.pool]

    @cached_property
    def _solution(self) -> Solution:
        return self._solve(self.organ.anchor[self.pool])

    @cached_property
    def prior(self) -> Model:
        """The prior without labels, `anchored`."""
        return self._score(self._solution, "anchored")

    @cached_property
    def components(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Components of the prior, [P, K] and [H, K]: its pairs of units."""
        pool, held = (
            self.organ.values[of] @ self._solution.projection.T + self._solution.offset for of in (self.pool, self.held)
        )
        return pool, held

    def solve(self, anchor: NDArray[np.float64], name: str) -> Model:
        """Compute a model from an anchor of the pool's tiles."""
        return self._score(self._solve(anchor), name)

    def _solve(self, anchor: NDArray[np.float64]) -> Solution:
        return solve(self.organ.values[self.pool], anchor, COMPONENTS, SHARE, self.seed)

    def _score(self, solution: Solution, name: str) -> Model:
        pool, held = (logit(solution.predict(self.organ.values[of])) for of in (self.pool, self.held))
        return Model(name, pool, held)

    def measure(self, model: Model) -> float:
        """Measure balanced accuracy on the held-out groups."""
        return oracle((model.held > 0).astype(np.float64), self.organ.labels[self.held])

    def measure_all(self, model: Model, trained: NDArray[np.int64] | None = None) -> float:
        """Measure balanced accuracy on all groups without a label that trains."""
        groups = self.organ.groups[self.pool]
        kept = ~np.isin(groups, [] if trained is None else groups[trained])
        logits = np.concatenate([model.pool[kept], model.held])
        labels = np.concatenate([self.labels[kept], self.organ.labels[self.held]])
        return oracle((logits > 0).astype(np.float64), labels)

    def propose(self, train: int, gate: int) -> dict[str, NDArray[np.int64]]:
        """Propose tiles of the pool as `oncoshift label propose` does; positions by use."""
        groups = self.organ.groups[self.pool]
        chosen = choose_tiles(groups, self.prior.pool, {TRAIN: train, GATE: gate}, seed=self.seed)
        return {use: np.array([each.position for each in chosen if each.use == use], np.int64) for use in (TRAIN, GATE)}

    def correct(self, prior: Model, labelled: NDArray[np.int64], features: tuple[Any, Any] | None = None) -> Model:
        """Correct a prior by labels; with those of one class alone nothing is trained."""
        name, labels = f"few_labels of {prior.name}", self.labels[labelled]
        if len(set(labels.tolist())) < 2:
            return replace(prior, name=name)
        pool, held = features or self.components
        found = correct(pool, prior.pool, labelled, labels, components=features is None)
        return Model(
            name,
            *(z @ found.weights + found.bias + found.scale * p for z, p in ((pool, prior.pool), (held, prior.held))),
        )


def read_organ(tiles: pd.DataFrame, values: NDArray[np.float32], name: str, settings: AnchorSettings) -> Organ:
    """Read one target."""
    rows = np.flatnonzero(tiles["organ"] == name)
    return Organ(
        name,
        rows,
        values[rows],
        np.asarray(tiles["label"].iloc[rows] == "malignant", np.int64),
        tiles["group"].to_numpy(np.str_)[rows],
        combine(list(anchors(tiles, name, settings).values())),
    )


def draw(organ: Organ, seed: int) -> Draw:
    """Divide an organ's groups into pool and held-out ones."""
    return Draw(organ, seed, *hold_out(organ.labels, organ.groups, organ.name, seed))


def measure_training(each: Draw) -> list[dict[str, Any]]:
    """Measure models by number of labels that train; one row each."""
    rng = np.random.default_rng([each.seed, 99])
    blind = replace(each.prior, name="nothing", pool=0 * each.prior.pool, held=0 * each.prior.held)
    rows = [{"labels": 0, "how": "prior alone", "accuracy": each.measure(each.prior), "rarer": 0}]
    for count in BUDGETS:
        proposed = each.propose(count, 0)[TRAIN]
        ways = {
            "few_labels": (each.prior, proposed),
            "few_labels, random tiles": (each.prior, rng.permutation(len(each.pool))[:count]),
            "labels alone": (blind, proposed),
        }
        for how, (prior, labelled) in ways.items():
            rarer = int(np.bincount(each.labels[labelled], minlength=2).min())
            model = each.correct(prior, labelled)
            rows.append({"labels": count, "how": how, "accuracy": each.measure(model), "rarer": rarer})
    return [{"target": each.organ.name, "draw": each.seed, **row} for row in rows]


@cache
def prove(floor: float, counts: LabelCounts) -> bool:
    """Judge counts as the gate does: both classes, and a probability that reaches the bound.

    The gate also wants two groups of each class, which can only refuse more.
    """
    return min(counts.total) > 0 and compute_probability_above(floor, counts) >= BOUND


def judge(
    each: Draw, model: Model, gating: NDArray[np.int64], trained: NDArray[np.int64] | None = None
) -> dict[str, Any]:
    """Judge a model by labels of pool tiles; one row.

    Args:
        each: The draw.
        model: The model.
        gating: Positions of the tiles that gate.
        trained: Positions of the tiles that trained it; their groups do not count for its quality
            on all other groups.
    """
    counts = count_calls(each.labels[gating], model.pool[gating] > 0)
    passed = {f"passed_{floor}": prove(floor, counts) for floor in FLOORS}
    truth = {"truth": each.measure(model), "truth_all": each.measure_all(model, trained)}
    return {"target": each.organ.name, "draw": each.seed, "model": model.name, **truth, **passed}


def measure_gate(each: Draw, adapted: list[Model]) -> list[dict[str, Any]]:
    """Judge models by numbers of labels that gate; one row each."""
    noise = np.random.default_rng([each.seed, 7]).normal(size=len(each.pool))
    models = [
        each.prior,
        each.solve(-each.organ.anchor[each.pool], "anchored, turned around"),
        each.solve(noise, "anchored, from noise"),
        *adapted,
    ]
    rows = []
    for count in BUDGETS:
        gating = each.propose(0, count)[GATE]
        rows += [{"labels": count, **judge(each, model, gating)} for model in models]
        for trained in (6, 20):
            given = each.propose(trained, count)
            model = each.correct(each.prior, given[TRAIN])
            rows.append({"labels": count, **judge(each, model, given[GATE], given[TRAIN])})
    return rows


def measure_both(each: Draw) -> list[dict[str, Any]]:
    """Train by half of a budget and gate by the other, as the platform does by default."""
    rows = []
    for budget in SHARED_BUDGETS:
        given = each.propose(budget - budget // 2, budget // 2)
        model = each.correct(each.prior, given[TRAIN])
        rows.append({"labels": budget, **judge(each, model, given[GATE], given[TRAIN])})
    return rows


def train_adapted(each: Draw, tiles: pd.DataFrame, values: NDArray[np.float32], steps: int) -> dict[str, Any]:
    """Train heads from all other organs, without held-out tiles; models and features by method."""
    organ, found = each.organ, {}
    left_out = np.zeros(len(tiles), bool)
    left_out[organ.rows[each.held]] = True
    for method in ADAPTED:
        spec = Spec(organ.name, tuple(name for name in ORGANS if name != organ.name), method, LR, each.seed)
        settings, data = experiment(spec, steps), training_data(tiles, spec, left_out=left_out)
        made = build(spec, settings)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "checkpoint.pt"
            Trainer(made, data, FeatureInputs(values), settings.train, spec.seed, "x", path, lambda _: None).fit()
        net = made.net.eval()
        with torch.inference_mode():
            z = [net.features(torch.from_numpy(values[organ.rows[of]])) for of in (each.pool, each.held)]
            logits = [net.logits(part).double() for part in z]
        pool, held = ((part[:, 1] - part[:, 0]).numpy() for part in logits)
        found[method] = Model(method, pool, held), (z[0].double().numpy(), z[1].double().numpy())
    return found


def measure_adapted(each: Draw, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Measure what labels make of adapted models, by number of labels; one row each."""
    rows = []
    for method, (model, units) in found.items():
        for count in (0, 10, 20):
            corrected = each.correct(model, each.propose(count, 0)[TRAIN], units) if count else model
            row = {"target": each.organ.name, "draw": each.seed, "labels": count, "how": method}
            rows.append({**row, "accuracy": each.measure(corrected)})
    return rows


def summarise(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Average balanced accuracy over draws, with an interval, the 10th percentile and the worst."""
    found = []
    for (target, how, labels), some in pd.DataFrame(rows).groupby(["target", "how", "labels"], sort=False):
        accuracy = some["accuracy"].to_numpy(np.float64)
        row = summarise_draws(accuracy)
        row |= {"least": round(float(accuracy.min()), 3), "draws": len(accuracy)}
        if "rarer" in some:
            row["one class"] = round(float((some["rarer"] == 0).mean()), 3) if labels else 0.0
        found.append({"target": target, "how": how, "labels": labels, **row})
    return pd.DataFrame(found)


def count_errors(rows: list[dict[str, Any]], by: list[str], truth: str = "truth") -> pd.DataFrame:
    """Count failed and good models, and how many of them pass at each floor, with intervals.

    The intervals resample draws, whose models and labels depend on one another.

    Args:
        rows: One model and draw of labels each.
        by: Columns to count by.
        truth: Column by which a model has failed or is good.
    """
    table = pd.DataFrame(rows)
    kinds = {"failed": table[truth] < FAILED, "good": table[truth] >= GOOD}
    found = []
    for key, some in table.groupby(by, sort=False):
        row: dict[str, Any] = dict(zip(by, key if isinstance(key, tuple) else (key,), strict=True))
        for kind, of_kind in kinds.items():
            chosen = some[of_kind.loc[some.index]]
            row[kind] = len(chosen)
            for floor in FLOORS:
                passed = chosen[f"passed_{floor}"].to_numpy(bool)
                row[f"{kind}_passed_{floor}"] = int(passed.sum())
                row[f"{kind}_interval_{floor}"] = _resample(passed, chosen[["target", "draw"]])
        found.append(row)
    return pd.DataFrame(found)


def _resample(passed: NDArray[np.bool_], draws: pd.DataFrame) -> list[float]:
    """Bootstrap the share that passes over draws; empty without any."""
    if not len(passed):
        return []
    number = draws.groupby(["target", "draw"]).ngroup().to_numpy()
    right, total = np.bincount(number, weights=passed), np.bincount(number)
    picked = np.random.default_rng(0).integers(len(total), size=(RESAMPLES, len(total)))
    shares = right[picked].sum(axis=1) / total[picked].sum(axis=1)
    return [round(float(value), 4) for value in np.quantile(shares, (0.025, 0.975))]


def show(figures: dict[str, pd.DataFrame]) -> None:
    """Print the tables."""
    with pd.option_context("display.width", 250, "display.max_columns", 30, "display.max_rows", 400):
        for title, table in figures.items():
            print(f"\n{title}\n{table.to_string(index=False)}")


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one target, few draws: does it run at all")
    parser.add_argument("--draws", type=int, default=60, help="divisions of each target; default: 60")
    parser.add_argument("--targets", nargs="+", choices=ORGANS, default=ORGANS, help="default: all")
    add_epithelium_option(parser)
    return parser.parse_args()


def main() -> None:
    """Draw, label, train, judge; the last line is one JSON object."""
    given = parse()
    torch.set_num_threads(1)
    settings = choose_anchors(given.epithelium)
    tiles = pd.read_csv(SHARED / "data" / "tiles.csv")
    values = features(tiles, SHARED, BUILD)
    began = time.monotonic()
    targets, draws = (("breast",), 3) if given.quick else (given.targets, given.draws)
    trained, judged, shared, corrected = [], [], [], []
    progress: Counter[str] = Counter()
    for name in targets:
        organ = read_organ(tiles, values, name, settings)
        for seed in range(draws):
            each = draw(organ, seed)
            adapted = train_adapted(each, tiles, values, 50 if given.quick else STEPS) if seed < ADAPTED_DRAWS else {}
            trained += measure_training(each)
            judged += measure_gate(each, [model for model, _ in adapted.values()])
            shared += measure_both(each)
            corrected += measure_adapted(each, adapted)
            progress[name] += 1
            print(f"\r{name}: {progress[name]} of {draws} draws", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
    both = [{**row, "how": "half train, half gate", "accuracy": row["truth"]} for row in shared]
    tables = {
        "balanced accuracy on held-out groups, by labels that train": summarise(trained),
        "the same of adapted models, before and after labels": summarise(corrected),
        "the same where half of the labels gate": summarise(both),
        "gate by labels: failed and good models, and how many pass": count_errors(judged, ["labels"]),
        "the same by target": count_errors(judged, ["target", "labels"]),
        "the same, failed and good on all groups": count_errors(judged, ["labels"], "truth_all"),
        "by target, failed and good on all groups": count_errors(judged, ["target", "labels"], "truth_all"),
        "where half of the labels train, failed and good on all groups": count_errors(shared, ["labels"], "truth_all"),
    }
    show(tables)
    used = " + ".join(settings.use)
    print(f"\n{draws} draws of {len(targets)} targets in {time.monotonic() - began:.0f} s; anchors: {used}")
    names = ("training", "adapted", "shared", "gate", "gate_by_target", "gate_all", "gate_all_by_target", "gate_shared")
    figures = {key: table.to_dict("records") for key, table in zip(names, tables.values(), strict=True)}
    draw_curves(figures, BUILD / "labels.png")
    print(f"curves: {BUILD / 'labels.png'}")
    print(json.dumps({"benchmark": "labels", "figures": {"draws": draws, "anchors": settings.use, **figures}}))


if __name__ == "__main__":
    main()
