"""The results of the grid, read back from the runs of its rows in MLflow.

Everything on the page is computed from the predictions and facts that rows have recorded, so the
page is made again by the command that made it, in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from oncoshift.evaluation.intervals import Interval
from oncoshift.evaluation.resampling import TooFewGroupsError
from oncoshift.fingerprint import fingerprint_value
from oncoshift.grid.measure import CANDIDATE, FACTS, PREDICTIONS, STEP
from oncoshift.grid.registry import HONEST
from oncoshift.grid.rows import CONTROL, LEAVING_OUT, list_pools
from oncoshift.methods.registry import METHODS
from oncoshift.registry.pages import read_pages
from oncoshift.registry.tracking import KEY_TAG
from oncoshift.retraining.naming import describe_commit
from oncoshift.selection.choice import choose, name_left_out
from oncoshift.selection.registry import VALIDATORS
from oncoshift.selection.rule import score_row
from oncoshift.steps.evaluate import compute_gain

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping, Sequence

    from mlflow.entities import Run

    from oncoshift.grid.explained import ExplainedPair
    from oncoshift.grid.rows import Pool, Row
    from oncoshift.registry.tracking import Tracker
    from oncoshift.selection.choice import Candidate, Choice
    from oncoshift.settings import EvaluateSettings, Settings

FAILED_BELOW, GOOD_FROM = 0.6, 0.8
"""Balanced accuracy on the target below which a model has failed, and from which it is good."""


@dataclass(frozen=True)
class MeasuredRow:
    """A row and what its run in MLflow recorded.

    Attributes:
        row: the row.
        run: id of its run.
        facts: of `measure.Measurement.record`.
        predictions: its table; empty if it cannot be trained.
    """

    row: Row
    run: str
    facts: Mapping[str, Any]
    predictions: pd.DataFrame

    @property
    def failure(self) -> str:
        """Why it cannot be trained; empty if it was."""
        return str(self.facts["failure"])

    @property
    def candidate(self) -> Candidate | None:
        """What a choice without labels knows of it."""
        found = self.facts["candidate"]
        return None if found is None else CANDIDATE.validate_python(found)

    @property
    def without(self) -> tuple[str, ...]:
        """The sources that it left out, as they contradict the others."""
        return () if self.candidate is None else tuple(self.candidate.without)

    @property
    def repeats_another(self) -> bool:
        """Whether no source was to be left out, so that it is the row with all of them again."""
        return self.row.leaves_out and not self.without

    @property
    def pick(self) -> int | None:
        """The seed that is picked without labels; None where the row was not judged."""
        found = self.candidate
        return found.seeds[int(np.argmax(found.scores))] if found is not None and found.scores else None

    @property
    def jobs(self) -> dict[int, str]:
        """Ids of the row's jobs by seed."""
        return dict(zip(sorted(map(int, self.facts["scores"])), self.facts["jobs"], strict=True))

    def get_interval(self, organ: str, metric: str = "balanced_accuracy") -> Interval | None:
        """Return a metric on an organ with its interval; None where there is none."""
        found = self.facts.get("report", {}).get(organ, {}).get("intervals", {}).get(metric)
        return None if found is None else Interval(**found)

    def list_seeds(self, organ: str, metric: str = "balanced_accuracy") -> dict[int, float]:
        """List a metric on an organ by seed."""
        seeds = self.facts.get("report", {}).get(organ, {}).get("seeds", {})
        return {int(seed): float(values[metric]) for seed, values in seeds.items() if values[metric] is not None}

    @property
    def of_target(self) -> Interval | None:
        """Balanced accuracy on the target's test tiles."""
        return self.get_interval(self.row.pool.target)

    def compute_mean(self, organ: str) -> float:
        """Compute the mean balanced accuracy on an organ over seeds; NaN if there is none."""
        seeds = list(self.list_seeds(organ).values())
        return float(np.mean(seeds)) if seeds else np.nan

    @property
    def accuracy(self) -> float:
        """Balanced accuracy on the target's test tiles, the mean over seeds; NaN if it has none."""
        return self.compute_mean(self.row.pool.target)

    @property
    def is_candidate(self) -> bool:
        """Whether it was judged without labels, and its choice can be measured with them."""
        return self.candidate is not None and self.candidate.verdict is not None and not np.isnan(self.accuracy)

    def count(self, organ: str) -> tuple[int, int]:
        """Count tiles and groups of an organ that it was measured on."""
        tiles = self.predictions[self.predictions["organ"] == organ]
        return int(tiles["tile_id"].nunique()), int(tiles["group"].nunique())


@dataclass(frozen=True)
class Chosen:
    """The choice among a pool's candidates without labels, and what it loses.

    Attributes:
        pool: target and sources.
        choice: the choice.
        row: of the chosen candidate.
        best: of what a retraining chooses from, the one with the best mean on test tiles, by the
            target's labels.
    """

    pool: Pool
    choice: Choice
    row: MeasuredRow
    best: MeasuredRow

    @property
    def regret(self) -> float:
        """What the chosen one loses against the best candidate, in balanced accuracy."""
        return self.best.accuracy - self.row.accuracy


@dataclass(frozen=True)
class Results:
    """All rows of a grid.

    Attributes:
        rows: in their order.
        settings: of the grid.
        command: the command that makes them.
        commit: of the code that made them, in words.
        run: id of the run for tables and pictures.
        explained: the pools' models whose explanations were found.
    """

    rows: Sequence[MeasuredRow]
    settings: Settings
    command: str
    commit: str
    run: str
    explained: Sequence[ExplainedPair] = ()
    _gains: dict[tuple[str, str], Interval | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def pools(self) -> list[Pool]:
        """The pools, in the order of settings."""
        return list_pools(self.settings)

    @property
    def organs(self) -> list[str]:
        """All organs, in the order in which pools name them."""
        return list(dict.fromkeys(organ for pool in self.pools for organ in (pool.target, *pool.sources)))

    @property
    def variants(self) -> tuple[str, ...]:
        """The stain variants."""
        return self.settings.paper.variants

    def name_candidate(self, method: str, variant: str, without: Collection[str] = ()) -> str:
        """Name a method, with its stain variant unless it is the first, and sources left out."""
        on = [] if variant == self.variants[0] else [f"on {variant}"]
        return " ".join([method, *on, *name_left_out(without)])

    def name_chosen(self, choice: Choice) -> str:
        """Name the chosen candidate."""
        return self.name_candidate(choice.method, choice.variant, choice.chosen.without)

    def find(self, pool: Pool, name: str, variant: str | None = None, protocol: str = HONEST) -> MeasuredRow | None:
        """Find a row by pool and name, of the first variant unless another is asked for."""
        wanted = pool, name, variant or self.variants[0], protocol
        for each in self.rows:
            row = each.row
            if (row.pool, row.name, row.variant, row.protocol) == wanted and not each.failure:
                return each
        return None

    def find_all(self, pool: Pool, method: str, variant: str) -> list[MeasuredRow]:
        """Find a method's rows from all sources, and without some if any contradicts the others."""
        found = self.find(pool, method, variant), self.find(pool, f"{method}{LEAVING_OUT}", variant)
        return [each for each in found if each is not None and not each.repeats_another]

    def find_candidate(self, pool: Pool, method: str, variant: str) -> MeasuredRow | None:
        """Find a method's row as a retraining has it: the one without some sources, if there is."""
        found = self.find_all(pool, method, variant)
        return found[-1] if found else None

    def compute_difference(self, one: MeasuredRow | None, other: MeasuredRow | None) -> Interval | None:
        """Compute balanced accuracy on the target, the first row minus the second, paired by group.

        None where a row is missing, or where groups are too few.
        """
        if one is None or other is None:
            return None
        key = one.run, other.run
        if key not in self._gains:
            self._gains[key] = _pair(one, other, self.settings.evaluate)
        return self._gains[key]

    def compute_gain(self, row: MeasuredRow | None) -> Interval | None:
        """Compute what a row gains over source-only from the same pool, variant and protocol."""
        if row is None:
            return None
        control = self.find(row.row.pool, CONTROL, row.row.variant, row.row.protocol)
        return self.compute_difference(row, control)

    @property
    def candidates(self) -> tuple[str, ...]:
        """The methods that a retraining with these settings chooses from; all if it names none."""
        return self.settings.retrain.methods or self.all_candidates

    @property
    def all_candidates(self) -> tuple[str, ...]:
        """All methods of the grid that read no anchor."""
        return tuple(name for name in self.settings.paper.methods if not METHODS[name].reads_anchor)

    @cached_property
    def chosen(self) -> list[Chosen]:
        """The choice on each pool, among the candidates of a retraining with these settings."""
        return self.choose_among(self.candidates, self.settings.candidate_variants)

    def choose_among(self, methods: Sequence[str], variants: Sequence[str]) -> list[Chosen]:
        """Choose among methods and variants on each pool by what is known without labels."""
        made = []
        for pool in self.pools:
            if found := self.find_candidates(pool, methods, variants):
                choice = choose([each.candidate for each in found if each.candidate is not None])
                row = next(each for each in found if each.candidate == choice.chosen)
                usual = self.find_candidates(pool, self.candidates, self.settings.candidate_variants)
                made.append(Chosen(pool, choice, row, max(usual or found, key=lambda each: each.accuracy)))
        return made

    def find_candidates(self, pool: Pool, methods: Sequence[str], variants: Sequence[str]) -> list[MeasuredRow]:
        """Find the rows among which a retraining chooses one of some methods and variants."""
        each_row = [self.find_candidate(pool, name, variant) for name, variant in product(methods, variants)]
        return [row for row in each_row if row is not None and row.is_candidate]

    @cached_property
    def judged(self) -> pd.DataFrame:
        """Every judged row: what is known of its pick without labels, and the balanced accuracy.

        Columns: pool, method, variant, verdict, stain (kappa; NaN without), balanced_accuracy.
        """
        found = []
        for each in self.rows:
            if (candidate := each.candidate) is None or candidate.verdict is None or each.repeats_another:
                continue
            accuracy = None if each.pick is None else each.list_seeds(each.row.pool.target).get(each.pick)
            if accuracy is not None:
                row, stain = each.row, np.nan if candidate.stain is None else candidate.stain
                found.append((str(row.pool), row.name, row.variant, candidate.verdict.kind.value, stain, accuracy))
        return pd.DataFrame(found, columns=["pool", "method", "variant", "verdict", "stain", "balanced_accuracy"])

    @cached_property
    def models(self) -> pd.DataFrame:
        """Every adapted model that validators may rank: its scores, and its balanced accuracy."""
        found = []
        for each in self.rows:
            row = each.row
            plain = not (METHODS[row.method].closed_form or METHODS[row.method].reads_anchor or row.leaves_out)
            if each.failure or not (row.adapts and plain and row.protocol == HONEST):
                continue
            accuracies = each.list_seeds(row.pool.target)
            for seed, scores in each.facts["scores"].items():
                if (accuracy := accuracies.get(int(seed))) is not None:
                    place = {"pool": str(row.pool), "method": row.method, "variant": row.variant, "seed": int(seed)}
                    found.append({**place, "balanced_accuracy": accuracy, **scores})
        return pd.DataFrame(found)

    def rank_validators(self) -> pd.DataFrame:
        """Tabulate validators by pool: Spearman with the truth, and the regret of the pick.

        Scores are those that select, with the source floor. Models of methods in closed form and of
        those that read an anchor are left out: the scores of the former are partly of other heads,
        and an anchor is no witness for what learnt from it.
        """
        if self.models.empty:
            return pd.DataFrame(columns=["validator", "pool", "spearman", "regret"])
        found = []
        known = [name for name in VALIDATORS if name in self.models]
        for pool, models in self.models.groupby("pool", sort=False):
            for name in known:
                select = self.settings.select.model_copy(update={"validator": name})
                rows = models.dropna(subset=[name])
                truth = rows["balanced_accuracy"].to_numpy(np.float64)
                scores = np.array([score_row(select, _to_figures(row)) for row in rows.to_dict("records")])
                if len(np.unique(scores)) > 1:
                    regret = float(truth.max() - truth[int(np.argmax(scores))])
                    found.append((name, str(pool), float(spearmanr(scores, truth).statistic), regret))
        return pd.DataFrame(found, columns=["validator", "pool", "spearman", "regret"])


def _to_figures(row: Mapping[Hashable, Any]) -> dict[str, float]:
    return {str(name): value for name, value in row.items()}


def _pair(one: MeasuredRow, other: MeasuredRow, settings: EvaluateSettings) -> Interval | None:
    try:
        return compute_gain(one.row.pool.target, one.predictions, other.predictions, settings)
    except TooFewGroupsError:
        return None


def find_finished_rows(tracker: Tracker) -> dict[str, Run]:
    """Find the finished rows of all grids, by their keys."""
    return find_finished(tracker, STEP)


def find_finished(tracker: Tracker, step: str) -> dict[str, Run]:
    """Find the finished runs of all grids that have a tag `oncoshift.step`, by their keys."""
    wanted = f"tags.`oncoshift.step` = '{step}' and attributes.status = 'FINISHED'"
    runs = read_pages(
        lambda token: tracker.client.search_runs([tracker.experiment_id], wanted, max_results=1000, page_token=token)
    )
    return {run.data.tags[KEY_TAG]: run for run in runs}


def collect_results(tracker: Tracker, settings: Settings, command: str, rows: Sequence[tuple[str, Row]]) -> Results:
    """Read rows by their keys, and start the run of their results, or find it.

    Args:
        tracker: of the grid's experiment.
        settings: of the grid.
        command: the command that makes the results.
        rows: key and row, each finished.
    """
    measured, commits = _read_rows(tracker, rows)
    key = f"paper-results-{fingerprint_value([[key for key, _ in rows], settings.model_dump(mode='json')])}"
    run = tracker.find_or_start_run(key, "results of the grid", tags={"oncoshift.step": "paper-results"})
    return Results(measured, settings, command, ", ".join(sorted(commits)), run)


def read_results(tracker: Tracker, settings: Settings, rows: Sequence[tuple[str, Row]]) -> Results:
    """Read some rows by their keys, each finished, without a run for their results."""
    return Results(_read_rows(tracker, rows)[0], settings, "", "", "")


def _read_rows(tracker: Tracker, rows: Sequence[tuple[str, Row]]) -> tuple[list[MeasuredRow], set[str]]:
    """Read rows, and the commits that made them."""
    finished = find_finished_rows(tracker)
    commits = {describe_commit(finished[key].data.tags) for key, _ in rows}
    return [_read_row(tracker, finished[key], row) for key, row in rows], commits


def _read_row(tracker: Tracker, run: Run, row: Row) -> MeasuredRow:
    facts = tracker.read_sealed(run.info.run_id, FACTS, "failure", "candidate")
    if facts["failure"]:
        return MeasuredRow(row, run.info.run_id, facts, pd.DataFrame(columns=["organ", "tile_id", "group"]))
    table = tracker.read_table(run.info.run_id, f"{PREDICTIONS}.json")
    return MeasuredRow(row, run.info.run_id, facts, table.astype({"tile_id": str, "organ": str, "group": str}))
