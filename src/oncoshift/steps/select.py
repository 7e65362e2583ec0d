"""Step `select`: which seed is the pick, and whether it can be trusted, without target labels.

The pick is the seed with the best `select.validator` above the source floor. Whether it can be trusted is tested with
models of the same method and seed, each adapted from one labelled organ alone: see `selection.consensus`. They are
ordinary jobs, and are reused when they are done. With a frozen trunk they cost seconds, else a training each.
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
    """Trains a job from the one organ that is named."""

VERDICT_TURNED_OFF = Verdict(Kind.DOUBT, ("not asked for (select.verdict is false)",))


@dataclass(frozen=True)
class Agreement:
    """What models from one organ alone and the pick say of the same unlabelled tiles.

    Attributes:
        consensus: of the models from one organ alone.
        predictions: theirs, organ by organ in the order of `sources`, and last the pick's; float64 [N] each.
    """

    consensus: Consensus
    predictions: Sequence[NDArray[np.float64]]


@dataclass(frozen=True)
class Selection:
    """The picked model and the verdict on it.

    Attributes:
        picked: the job.
        seeds: all that it was picked from.
        scores: of these, in their order.
        settings: by which it was picked.
        verdict: whether to believe it.
        agreement: what the verdict rests on; None where there is nothing to compare with.
    """

    picked: TrainedJob
    seeds: Sequence[TrainedJob]
    scores: Sequence[float]
    settings: SelectSettings
    verdict: Verdict
    agreement: Agreement | None

    @property
    def description(self) -> str:
        """The rule by which it was picked, in words; below the floor `score_row` ranks by source accuracy alone."""
        floor = self.settings.source_floor
        picked = f"seed {self.picked.job.seed} of {len(self.seeds)}"
        if self.source_accuracy >= floor:
            return f"{picked}, {self.settings.validator} above source accuracy {floor}"
        shown = format_near_limits(self.source_accuracy, floor)
        return f"{picked}, best source accuracy {shown}; no seed reaches the floor {floor} (select.source_floor)"

    @property
    def source_accuracy(self) -> float:
        """Balanced accuracy of the picked one on source validation tiles, 0 to 1."""
        return self.picked.last.source_accuracy

    @property
    def tags(self) -> dict[str, str]:
        """Tags for the runs and for the registered version."""
        return {
            "oncoshift.selection": self.description,
            "oncoshift.source_accuracy": f"{self.source_accuracy:.4f}",
            "oncoshift.verdict": self.verdict.kind.value,
            "oncoshift.verdict_reasons": "; ".join(self.verdict.reasons),
        }

    def record(self, recorder: Recorder) -> None:
        """Keep scores, pick and verdict, and a picture of who agrees with whom."""
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
        """Figures and a picture of who agrees with whom."""
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
    """Pick a seed, train the method from each organ alone, and compare.

    Args:
        jobs: of the experiment.
        seeds: the method's; of equal ones the first is picked.
        settings: section `select`.
        train_on_organ: trains a job from one organ, which is named.
        say: takes lines of progress for people.
    """
    scores = [_score(jobs, trained, settings) for trained in seeds]
    picked = seeds[int(np.argmax(scores))]
    verdict, agreement = VERDICT_TURNED_OFF, None
    if settings.verdict:
        of_pick, alone = jobs.predict_target(picked), _predict_from_each_organ(jobs, picked.job, train_on_organ, say)
        found = find_consensus(np.stack(alone)) if len(alone) > 1 else None
        verdict = ConsensusRule.from_settings(settings)(Evidence(picked.last.source_accuracy, of_pick, found))
        agreement = None if found is None else Agreement(found, [*alone, of_pick])
    return Selection(picked, seeds, scores, settings, verdict, agreement)


def _score(jobs: ExperimentJobs, trained: TrainedJob, settings: SelectSettings) -> float:
    figures = trained.last
    if settings.validator == ORACLE:
        # The audit's labels, so that the test tiles still took part in no decision. The gate refuses what comes of it.
        table = jobs.predict(trained, ("audit",))
        probabilities, labels = table["probability"].to_numpy(np.float64), table["label"].to_numpy(np.int64)
        figures = figures.with_figures(**{ORACLE: oracle(probabilities, labels)})
    return score_row(settings, figures)


def _predict_from_each_organ(
    jobs: ExperimentJobs, pick: Job, train_on_organ: TrainOnOrgan, say: Callable[[str], None]
) -> list[NDArray[np.float64]]:
    """What models of the pick's method, settings and seed from each organ alone say; nothing where there is one."""
    organs = pick.settings.sources
    if len(organs) == 1:
        return []
    say(f"select: {len(organs)} trainings of {pick.settings.train.method}, from {', '.join(organs)} each alone")
    trained = (
        train_on_organ(jobs.make_job(pick.settings, sources=[organ], single__organ=None), organ) for organ in organs
    )
    return [jobs.predict_target(each) for each in trained]
