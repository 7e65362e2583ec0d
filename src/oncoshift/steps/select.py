"""Step `select`: pick a seed and judge whether to trust it, without target labels.

The pick is the seed with the best `select.validator` above the source floor. The verdict compares
it with models of the same method and seed, each adapted from a single labelled organ (see
`selection.consensus`), or, for a method that reads the anchors, with one anchor each; and with the
same on other stain variants. These are ordinary jobs and are reused. With a frozen trunk they take
seconds, otherwise a training each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from oncoshift.anchors.values import describe_anchor
from oncoshift.errors import UntrainableError
from oncoshift.evaluation.agreement import draw_agreement
from oncoshift.labels.table import OF_PRIOR, describe_labels
from oncoshift.methods.registry import METHODS
from oncoshift.selection.anchor import correlate_with_anchor
from oncoshift.selection.consensus import Consensus, find_consensus, find_majority, pairwise_kappa
from oncoshift.selection.oracle import oracle
from oncoshift.selection.rule import ORACLE, score_row
from oncoshift.selection.verdict import ConsensusRule, Evidence, Kind, Verdict, format_near_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from oncoshift.settings import SelectSettings
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.steps.recorder import Recorder
    from oncoshift.training.job import Job, TrainedJob

    TrainWitness = Callable[[ExperimentJobs, Job, str], TrainedJob]
    """Trains a job of the verdict; its title says what differs from the pick's: `lung alone`."""

VERDICT_WITH_LABELS = Verdict(
    Kind.DOUBT,
    ("trained with labels of the target: models that share them agree for that reason; judge it by other labels",),
)
VERDICT_TURNED_OFF = Verdict(Kind.DOUBT, ("not asked for (select.verdict is false)",))


@dataclass(frozen=True)
class Agreement:
    """Agreement of the models from one organ or anchor alone and the pick on unlabelled tiles.

    Attributes:
        names: the organs or anchors.
        consensus: of the models from one alone.
        predictions: theirs, in the order of `names`, then the pick's; float64 [N] each.
        alone: their jobs, in the order of `names`.
    """

    names: tuple[str, ...]
    consensus: Consensus
    predictions: Sequence[NDArray[np.float64]]
    alone: Sequence[TrainedJob]


@dataclass(frozen=True)
class Selection:
    """The picked model and the verdict on it.

    Attributes:
        picked: the picked job.
        seeds: the candidates.
        scores: of the candidates, in their order.
        settings: section `select`.
        verdict: whether to trust the pick.
        agreement: the evidence of the verdict; None without models to compare with.
        anchors: correlation of the pick's predictions with each anchor that is a witness, by name.
        stains: kappa of the pick with the same training on each other stain variant, by name; None
            if that one cannot be trained.
        variant_by_anchor: whether the anchor `nuclei` has chosen the stain variant before.
        left_out: source organs of the experiment that the seeds were not trained on.
        contradictions: kappa of the sources that contradict the others, by organ; empty also where
            `find_contradictions` has not looked.
    """

    picked: TrainedJob
    seeds: Sequence[TrainedJob]
    scores: Sequence[float]
    settings: SelectSettings
    verdict: Verdict
    agreement: Agreement | None
    anchors: Mapping[str, float] = field(default_factory=dict)
    stains: Mapping[str, float | None] = field(default_factory=dict)
    variant_by_anchor: bool = False
    left_out: tuple[str, ...] = ()
    contradictions: Mapping[str, float] = field(default_factory=dict)

    @property
    def anchor(self) -> str:
        """The anchors that had a say, and in what, in one line; empty if none had."""
        settings = self.picked.job.settings
        roles = {
            "training": settings.reads_anchor,
            "verdict": bool(self.anchors),
        }
        said = [role for role, holds in roles.items() if holds]
        used = [f"{describe_anchor(settings.anchor)} in {' and '.join(said)}"] if said else []
        alone = {
            "nuclei picks the seed": self.settings.validator == "nuclei",
            "nuclei chose the stain variant": self.variant_by_anchor,
        }
        return "; ".join([*used, *(words for words, holds in alone.items() if holds)])

    @property
    def target_labels(self) -> str:
        """The labels of the target that trained the pick, in words; empty if none did."""
        return describe_labels(self.picked.last)

    @property
    def description(self) -> str:
        """The selection rule in words; below the floor, `score_row` ranks by source accuracy."""
        floor = self.settings.source_floor
        picked = f"seed {self.picked.job.seed} of {len(self.seeds)}"
        if self.source_accuracy >= floor:
            return f"{picked}, {self.settings.validator} above source accuracy {floor}{self._of_prior}"
        shown = f"{format_near_limits(self.source_accuracy, floor)}{self._of_prior}"
        return f"{picked}, best source accuracy {shown}; no seed reaches the floor {floor} (select.source_floor)"

    @property
    def source_accuracy(self) -> float:
        """Balanced accuracy of the pick on source validation tiles, 0 to 1.

        Where labels of the target corrected it, of the model that they corrected.
        """
        return self.picked.last.source_accuracy

    @property
    def _of_prior(self) -> str:
        """What a figure of the sources is of, where it is not of the pick."""
        return f" ({OF_PRIOR})" if self.target_labels else ""

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the runs and of the registered version."""
        return {
            "oncoshift.selection": self.description,
            "oncoshift.source_accuracy": f"{self.source_accuracy:.4f}{self._of_prior}",
            "oncoshift.verdict": self.verdict.kind.value,
            "oncoshift.verdict_reasons": "; ".join(self.verdict.reasons),
            "oncoshift.anchor": self.anchor or "none",
            "oncoshift.target_labels": self.target_labels or "none",
        }

    def record(self, recorder: Recorder) -> None:
        """Save scores, pick, verdict and the agreement plot."""
        values: dict[str, Any] = {
            "validator": self.settings.validator,
            "scores": {done.job.seed: score for done, score in zip(self.seeds, self.scores, strict=True)},
            "source_accuracies": {done.job.seed: done.last.source_accuracy for done in self.seeds},
            "source_floor": self.settings.source_floor,
            "picked_seed": self.picked.job.seed,
            "anchor": self.anchor,
            "target_labels": self.target_labels,
            "anchor_correlations": {name: round(value, 4) for name, value in self.anchors.items()},
            "left_out": list(self.left_out),
            "stain_agreement": {name: value and round(value, 4) for name, value in self.stains.items()},
        }
        if self.agreement is not None:
            values |= self._record_agreement(recorder, self.agreement)
        values |= {"how": self.description, "verdict": self.verdict.kind.value, "reasons": list(self.verdict.reasons)}
        recorder.save_json("selection.json", values)
        recorder.log_metrics({"score": max(self.scores)}, self.picked.ended_ms)
        read_labels = {"oncoshift.oracle": str(self.settings.validator == ORACLE).lower()}
        for place in (recorder, recorder.outer):
            place.set_tags(self.tags | read_labels)

    def _record_agreement(self, recorder: Recorder, found: Agreement) -> dict[str, Any]:
        """Save the agreement plot and return the figures behind it."""
        settings = self.picked.job.settings
        names = [*(f"{name} alone" for name in found.names), "the pick"]
        kappas = pairwise_kappa(np.stack(found.predictions))
        title = f"agreement on unlabelled {settings.target}\n{settings.train.method}, seed {settings.seed}"
        figure = draw_agreement(names, kappas, title)
        for place in (recorder, recorder.outer):
            place.save_figure("plots/agreement.png", figure)
        return {
            "models": names,
            "agreement": kappas.round(4).tolist(),
            "majority": [found.names[number] for number in found.consensus.majority],
            "strength": found.consensus.strength,
            "agreement_of_pick": found.consensus.agreement_with(found.predictions[-1]),
        }


def run(
    jobs: ExperimentJobs,
    seeds: Sequence[TrainedJob],
    settings: SelectSettings,
    train_witness: TrainWitness,
    say: Callable[[str], None],
) -> Selection:
    """Pick a seed, train the models that the verdict compares it with, and judge it.

    Args:
        jobs: of the experiment.
        seeds: the method's jobs; of equal scores, the first is picked.
        settings: section `select`.
        train_witness: trains a job from one organ, with one anchor, or on another stain variant.
        say: receives lines of progress.
    """
    scores = [_score(jobs, trained, settings) for trained in seeds]
    picked = seeds[int(np.argmax(scores))]
    left_out = tuple(organ for organ in jobs.sources if organ not in picked.job.settings.sources)
    if not settings.verdict:
        return Selection(picked, seeds, scores, settings, VERDICT_TURNED_OFF, None, left_out=left_out)
    if METHODS[picked.job.settings.train.method].reads_labels:
        return Selection(picked, seeds, scores, settings, VERDICT_WITH_LABELS, None, left_out=left_out)
    alone = _train_each_alone(jobs, picked.job, train_witness, say)
    of_pick, *others = (jobs.predict_target(trained) for trained in (picked, *alone.values()))
    found = find_consensus(np.stack(others)) if len(others) > 1 else None
    anchors = _correlate(jobs, picked.job, of_pick) if settings.anchors else {}
    stains = _compare_stains(jobs, picked.job, of_pick, settings.variants, train_witness, say)
    evidence = Evidence(
        picked.last.source_accuracy,
        of_pick,
        found,
        anchors,
        METHODS[picked.job.settings.train.method].reads_anchor,
        picked.last.get("estimated_malignant_share"),
        stains,
        left_out,
    )
    verdict = ConsensusRule.from_settings(settings)(evidence)
    agreement = None if found is None else Agreement(tuple(alone), found, [*others, of_pick], list(alone.values()))
    return Selection(picked, seeds, scores, settings, verdict, agreement, anchors, stains, left_out=left_out)


def find_contradictions(
    jobs: ExperimentJobs,
    selection: Selection,
    limit: float | None,
    train_witness: TrainWitness,
    say: Callable[[str], None],
) -> dict[str, float]:
    """Find the source organs whose models alone contradict those of the others on the target.

    What the pick's seed shows is looked at again with all seeds, as one may be turned around by
    chance: then the mean over seeds of kappa with each model of the majority counts. Of three
    organs that is a vote of two against one, and two may be wrong.

    Args:
        jobs: of the experiment.
        selection: of a method's seeds.
        limit: kappa with the majority of organs below which one contradicts; None: none does.
        train_witness: trains a job from one organ.
        say: receives lines of progress.

    Returns:
        Kappa by organ; empty without a majority that agrees better than by chance, and for a method
        that reads an anchor, whose models are of single anchors.
    """
    found, pick = selection.agreement, selection.picked
    if limit is None or found is None or pick.job.settings.reads_anchor:
        return {}

    def compare(by_seed: Sequence[NDArray[np.float64]]) -> dict[str, float]:
        agreement = np.mean([pairwise_kappa(alone) for alone in by_seed], axis=0)
        strength, majority = find_majority(agreement)
        if strength < selection.settings.refuse_strength:
            return {}
        kappas = {
            organ: float(agreement[number, majority].mean())
            for number, organ in enumerate(found.names)
            if number not in majority
        }
        return {organ: kappa for organ, kappa in kappas.items() if kappa < limit}

    by_seed = [np.stack(found.predictions[:-1])]
    if not compare(by_seed):
        return {}
    try:
        for trained in selection.seeds:
            if trained.job.seed != pick.job.seed:
                others = _train_each_alone(jobs, trained.job, train_witness, say, f", seed {trained.job.seed}")
                by_seed.append(np.stack([jobs.predict_target(each) for each in others.values()]))
    except UntrainableError as error:
        say(f"select: whether a source organ contradicts the others is not known, as one cannot be trained on: {error}")
        return {}
    return compare(by_seed)


def _score(jobs: ExperimentJobs, trained: TrainedJob, settings: SelectSettings) -> float:
    figures = trained.last
    if settings.validator == ORACLE:
        # Audit labels, so that test tiles still take part in no decision. The gate refuses such a
        # pick.
        table = jobs.predict(trained, ("audit",))
        probabilities, labels = table["probability"].to_numpy(np.float64), table["label"].to_numpy(np.int64)
        figures = figures.with_figures(**{ORACLE: oracle(probabilities, labels)})
    return score_row(settings, figures)


def _train_each_alone(
    jobs: ExperimentJobs, pick: Job, train_witness: TrainWitness, say: Callable[[str], None], which: str = ""
) -> dict[str, TrainedJob]:
    """Train the pick's method and seed from each organ, or with each anchor, alone.

    Nothing with one of them. `which` ends the titles of a job that is not the pick.
    """
    settings, method = pick.settings, pick.settings.train.method
    if METHODS[method].reads_anchor:
        variants = {name: jobs.make_job(settings, anchor__use=[name]) for name in settings.anchor.use}
    else:
        variants = {organ: jobs.make_job(settings, sources=[organ], single__organ=None) for organ in settings.sources}
    if len(variants) == 1:
        return {}
    say(f"select: {len(variants)} trainings of {method}, from {', '.join(variants)} each alone")
    return {name: train_witness(jobs, job, f"{name} alone{which}") for name, job in variants.items()}


def _compare_stains(
    jobs: ExperimentJobs,
    pick: Job,
    of_pick: NDArray[np.float64],
    variants: Sequence[str],
    train_witness: TrainWitness,
    say: Callable[[str], None],
) -> dict[str, float | None]:
    """Train the pick's method and seed on each other stain variant; return kappa by variant.

    None for a variant on which it cannot be trained, which is no fault of the pick.
    """
    found: dict[str, float | None] = {}
    for variant in variants:
        if variant == pick.settings.train.variant:
            continue
        others = jobs.on_variant(variant)
        try:
            trained = train_witness(others, others.make_job(pick.settings, train__variant=variant), f"on {variant}")
        except UntrainableError as error:
            say(f"select: {pick.settings.train.method} cannot be trained on {variant}: {error}")
            found[variant] = None
        else:
            found[variant] = float(pairwise_kappa(np.stack([of_pick, others.predict_target(trained)]))[0, 1])
    return found


def _correlate(jobs: ExperimentJobs, pick: Job, of_pick: NDArray[np.float64]) -> dict[str, float]:
    """Correlate the pick's predictions with each anchor, unless it was trained with them."""
    if METHODS[pick.settings.train.method].reads_anchor:
        return {}
    anchors = jobs.measure_anchors(pick.settings)
    return {name: correlate_with_anchor(of_pick, values) for name, values in anchors.items()}
