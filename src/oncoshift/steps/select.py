"""Step `select`: pick a seed and judge whether to trust it, without target labels.

The pick is the seed with the best `select.validator` above the source floor. The verdict compares
it with models of the same method and seed, each adapted from a single labelled organ (see
`selection.consensus`). These are ordinary jobs and are reused. With a frozen trunk they take
seconds, otherwise a training each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from oncoshift.evaluation.agreement import draw_agreement
from oncoshift.selection.consensus import Consensus, find_consensus, pairwise_kappa
from oncoshift.selection.oracle import oracle
from oncoshift.selection.rule import ORACLE, score_row
from oncoshift.selection.verdict import ConsensusRule, Evidence, Kind, Verdict, format_near_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from oncoshift.settings import SelectSettings
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.steps.recorder import Recorder
    from oncoshift.training.job import Job, TrainedJob

    TrainOnOrgan = Callable[[Job, str], TrainedJob]
    """Trains a job from the named organ alone."""

VERDICT_TURNED_OFF = Verdict(Kind.DOUBT, ("not asked for (select.verdict is false)",))


@dataclass(frozen=True)
class Agreement:
    """Agreement of the single-organ models and the pick on the same unlabelled tiles.

    Attributes:
        consensus: of the single-organ models.
        predictions: theirs, in the order of `sources`, then the pick's; float64 [N] each.
        alone: jobs of the single-organ models, in the order of `sources`.
    """

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
        agreement: the evidence of the verdict; None without single-organ models to compare with.
    """

    picked: TrainedJob
    seeds: Sequence[TrainedJob]
    scores: Sequence[float]
    settings: SelectSettings
    verdict: Verdict
    agreement: Agreement | None

    @property
    def description(self) -> str:
        """The selection rule in words; below the floor, `score_row` ranks by source accuracy."""
        floor = self.settings.source_floor
        picked = f"seed {self.picked.job.seed} of {len(self.seeds)}"
        if self.source_accuracy >= floor:
            return f"{picked}, {self.settings.validator} above source accuracy {floor}"
        shown = format_near_limits(self.source_accuracy, floor)
        return f"{picked}, best source accuracy {shown}; no seed reaches the floor {floor} (select.source_floor)"

    @property
    def source_accuracy(self) -> float:
        """Balanced accuracy of the pick on source validation tiles, 0 to 1."""
        return self.picked.last.source_accuracy

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the runs and of the registered version."""
        return {
            "oncoshift.selection": self.description,
            "oncoshift.source_accuracy": f"{self.source_accuracy:.4f}",
            "oncoshift.verdict": self.verdict.kind.value,
            "oncoshift.verdict_reasons": "; ".join(self.verdict.reasons),
        }

    def record(self, recorder: Recorder) -> None:
        """Save scores, pick, verdict and the agreement plot."""
        values: dict[str, Any] = {
            "validator": self.settings.validator,
            "scores": {done.job.seed: score for done, score in zip(self.seeds, self.scores, strict=True)},
            "source_accuracies": {done.job.seed: done.last.source_accuracy for done in self.seeds},
            "source_floor": self.settings.source_floor,
            "picked_seed": self.picked.job.seed,
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
        organs, target = settings.sources, settings.target
        names = [*(f"{organ} alone" for organ in organs), "the pick"]
        kappas = pairwise_kappa(np.stack(found.predictions))
        title = f"agreement on unlabelled {target}\n{settings.train.method}, seed {settings.seed}"
        figure = draw_agreement(names, kappas, title)
        for place in (recorder, recorder.outer):
            place.save_figure("plots/agreement.png", figure)
        return {
            "models": names,
            "agreement": kappas.round(4).tolist(),
            "majority": [organs[number] for number in found.consensus.majority],
            "strength": found.consensus.strength,
            "agreement_of_pick": found.consensus.agreement_with(found.predictions[-1]),
        }


def run(
    jobs: ExperimentJobs,
    seeds: Sequence[TrainedJob],
    settings: SelectSettings,
    train_on_organ: TrainOnOrgan,
    say: Callable[[str], None],
) -> Selection:
    """Pick a seed, train the method from each organ alone, and compare their predictions.

    Args:
        jobs: of the experiment.
        seeds: the method's jobs; of equal scores, the first is picked.
        settings: section `select`.
        train_on_organ: trains a job from one named organ.
        say: receives lines of progress.
    """
    scores = [_score(jobs, trained, settings) for trained in seeds]
    picked = seeds[int(np.argmax(scores))]
    verdict, agreement = VERDICT_TURNED_OFF, None
    if settings.verdict:
        alone = _train_on_each_organ(jobs, picked.job, train_on_organ, say)
        of_pick, *others = (jobs.predict_target(trained) for trained in (picked, *alone))
        found = find_consensus(np.stack(others)) if len(others) > 1 else None
        verdict = ConsensusRule.from_settings(settings)(Evidence(picked.last.source_accuracy, of_pick, found))
        agreement = None if found is None else Agreement(found, [*others, of_pick], alone)
    return Selection(picked, seeds, scores, settings, verdict, agreement)


def _score(jobs: ExperimentJobs, trained: TrainedJob, settings: SelectSettings) -> float:
    figures = trained.last
    if settings.validator == ORACLE:
        # Audit labels, so that test tiles still take part in no decision. The gate refuses such a
        # pick.
        table = jobs.predict(trained, ("audit",))
        probabilities, labels = table["probability"].to_numpy(np.float64), table["label"].to_numpy(np.int64)
        figures = figures.with_figures(**{ORACLE: oracle(probabilities, labels)})
    return score_row(settings, figures)


def _train_on_each_organ(
    jobs: ExperimentJobs, pick: Job, train_on_organ: TrainOnOrgan, say: Callable[[str], None]
) -> list[TrainedJob]:
    """Train the pick's method and seed on each organ alone; nothing with one organ."""
    organs = pick.settings.sources
    if len(organs) == 1:
        return []
    say(f"select: {len(organs)} trainings of {pick.settings.train.method}, from {', '.join(organs)} each alone")
    return [
        train_on_organ(jobs.make_job(pick.settings, sources=[organ], single__organ=None), organ) for organ in organs
    ]
