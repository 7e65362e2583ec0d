"""How much the choice of the stain variant depends on the tiles that the anchor is measured on.

Where the verdict trusts no candidate, the variant is chosen whose models follow the anchor `nuclei`
best. Each model's predictions are correlated with the anchor of the tiles that it saw, so two
variants are compared by two measures. This repeats the choices of a finished grid with one measure
for all: the anchor of each variant's tiles, and the mean of the correlations with all of them.
Nothing is written.

Run, in a project whose `oncoshift paper` is finished, with its options:
    python benchmarks/anchor_packs.py [--preset NAME] [--set KEY=VALUE …]     (minutes)
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import pandas as pd

from oncoshift import cli
from oncoshift.grid import recipe
from oncoshift.grid.results import read_results
from oncoshift.layout import Layout
from oncoshift.retraining.prepare import prepare_data
from oncoshift.selection.anchor import correlate_with_anchor
from oncoshift.selection.choice import choose, follow_anchor
from oncoshift.steps.jobs import ExperimentJobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oncoshift.grid.results import MeasuredRow, Results
    from oncoshift.grid.rows import Pool
    from oncoshift.grid.workers import RowTask
    from oncoshift.selection.choice import Candidate
    from oncoshift.settings import Settings
    from oncoshift.training.epoch import Epoch

OWN, MEAN = "own tiles", "mean of all"


@dataclass(frozen=True)
class Followed:
    """A candidate, and how its seeds follow the anchor of each variant's tiles.

    Attributes:
        measured: its row in the grid.
        by_tiles: correlation of each seed, by what the anchor is measured on.
    """

    measured: MeasuredRow
    by_tiles: dict[str, tuple[float, ...]]


def follow(measured: MeasuredRow, base: ExperimentJobs, settings: Settings) -> Followed:
    """Correlate a candidate's predictions with the anchor `nuclei` of each variant's tiles."""
    jobs, own = base.on_variant(measured.row.variant), measured.row.make_settings(settings, measured.without)
    variants = settings.candidate_variants
    anchors = {name: base.on_variant(name).measure_anchors(own)["nuclei"] for name in variants}
    seeds = [jobs.make_job(own, seed=own.seed + number) for number in range(own.retrain.seeds)]
    predictions = [jobs.predict_target(jobs.train(job, ignore)) for job in seeds]
    found = {name: tuple(correlate_with_anchor(each, anchors[name]) for each in predictions) for name in variants}
    mean = tuple(fmean(values) for values in zip(*found.values(), strict=True))
    return Followed(measured, {OWN: found[measured.row.variant], **found, MEAN: mean})


def ignore(_: Epoch) -> None:
    """Do nothing: a finished job has no more epochs."""


def know(candidates: Sequence[Followed], tiles: str) -> list[Candidate]:
    """Return what a choice knows of candidates, with the anchor of some tiles."""
    found = [(each.measured.candidate, each.by_tiles[tiles]) for each in candidates]
    return [replace(candidate, nuclei=values) for candidate, values in found if candidate is not None]


def choose_by(candidates: Sequence[Followed], tiles: str) -> MeasuredRow:
    """Choose as a retraining does, with the anchor of some tiles."""
    chosen = choose(know(candidates, tiles)).chosen
    return next(
        each.measured
        for each in candidates
        if (each.measured.row.method, each.measured.row.variant) == (chosen.method, chosen.variant)
    )


def compare(results: Results, tasks: Sequence[RowTask]) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
    """Tabulate mean correlations, and what each measure chooses; and return its mean accuracy."""
    folders = {task.row: task.folder for task in tasks}
    settings = results.settings
    followed: dict[Pool, list[Followed]] = {}
    opened: dict[Path, ExperimentJobs] = {}
    variants = settings.candidate_variants
    for measured in chain(*(results.find_candidates(pool, results.candidates, variants) for pool in results.pools)):
        row = measured.row
        folder = folders[row]
        if folder not in opened:
            opened[folder] = ExperimentJobs.open(Layout(folder, Path.cwd()), row.variant, row.pool.sources)
        followed.setdefault(row.pool, []).append(follow(measured, opened[folder], settings))
        print(f"\r{sum(map(len, followed.values()))} candidates", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    correlations, choices = [], []
    accuracies: dict[str, list[float]] = {}
    for pool, candidates in followed.items():
        for variant in variants:
            means = {tiles: follow_anchor(know(candidates, tiles))[variant] for tiles in candidates[0].by_tiles}
            correlations.append({"pool": str(pool), "models on": variant, **means})
        chosen = {tiles: choose_by(candidates, tiles) for tiles in candidates[0].by_tiles}
        words = {}
        for tiles, of in chosen.items():
            accuracies.setdefault(tiles, []).append(of.accuracy)
            words[tiles] = f"{of.row.method} on {of.row.variant} {of.accuracy:.3f}"
        choices.append({"pool": str(pool), **words})
    means = {tiles: round(fmean(values), 3) for tiles, values in accuracies.items()}
    return pd.DataFrame(correlations).round(3), pd.DataFrame(choices), means


def main() -> None:
    """Read the grid, correlate, choose; the last line is one JSON object."""
    given = cli.build_parser().parse_args(["paper", *sys.argv[1:]])
    project = Path.cwd()
    tasks: list[RowTask] = []

    def collect(plan: recipe.GridPlan, planned: Sequence[RowTask]) -> Results:
        tasks.extend(planned)
        return read_results(plan.open_tracker(), plan.settings, [(task.key, task.row) for task in planned])

    def refuse(_: object, task: RowTask) -> None:
        raise SystemExit(f"{task.title} is not measured; run `oncoshift paper` with these options first")

    plan = recipe.make_plan(
        project, preset=given.preset, overrides=tuple(given.overrides), environ=os.environ, say=print
    )
    results = recipe.run_grid(plan, recipe.Steps(data=prepare_data, row=refuse, results=collect))
    correlations, choices, means = compare(results, tasks)
    with pd.option_context("display.width", 250, "display.max_columns", 20):
        print(f"\ncorrelation with the anchor, by the tiles it is measured on\n{correlations.to_string(index=False)}")
        print(f"\nwhat is chosen, and its balanced accuracy\n{choices.to_string(index=False)}")
    figures = {f"mean balanced accuracy, {tiles}": mean for tiles, mean in means.items()}
    print(json.dumps({"benchmark": "anchor_packs", "figures": figures}))


if __name__ == "__main__":
    main()
