"""Step `choose`: choose a method and a stain variant by trainings with few seeds, without labels.

Each of `retrain.methods` is trained on each of `retrain.variants` with `retrain.screen_seeds`
seeds, and step `select` picks one of them and judges it. Where the model from one source organ
alone contradicts those from the others on the target, that organ would teach the opposite of what
they teach, and the candidate is trained again without it. These are ordinary jobs: what another
retraining has trained is found, and the chosen candidate's final trainings find those of its first
seeds.
"""

from __future__ import annotations

import math
import time
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import pandas as pd

from oncoshift.errors import UntrainableError
from oncoshift.evaluation.domains import evaluate_domains
from oncoshift.methods.registry import METHODS
from oncoshift.selection.choice import HEADER, Candidate, Choice, choose, leave_out, name_left_out
from oncoshift.steps.calibration import predict_calibrated

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from oncoshift.settings import Settings
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.steps.recorder import RunRecorder
    from oncoshift.steps.select import Selection

    Kappas = Mapping[str, float]

FILE = "choice.json"
"""Artifact with the choice, from which a retraining that goes on reads it."""


def run(settings: Settings, screen: Callable[[str, str, Kappas], Selection], say: Callable[[str], None]) -> Choice:
    """Screen candidates until all are, or `retrain.minutes` are used up, and choose one.

    A method is screened on all variants before the next one is, as variants are compared by all
    methods that were.

    Args:
        settings: of the experiment.
        screen: trains a method on a variant, without the source organs of a mapping to kappa, with
            few seeds, picks one of them and judges it.
        say: receives lines of progress.

    Raises:
        UntrainableError: no method can be trained; the first one's.
    """
    minutes = settings.retrain.minutes
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    candidates: list[Candidate] = []
    first_failure: UntrainableError | None = None
    for method, variant in product(settings.retrain.methods, settings.candidate_variants):
        name = name_candidate(settings, method, variant)
        if any(each.verdict for each in candidates) and time.monotonic() >= deadline:
            say(f"choose: {name} is not trained: the {minutes:g} minutes of retrain.minutes are used up")
            candidates.append(Candidate(method, variant))
            continue
        try:
            candidates.append(describe(*screen_twice(name, partial(screen, method, variant), say)))
        except UntrainableError as error:
            say(f"choose: {name} is left out, as it cannot be trained: {error}")
            candidates.append(Candidate(method, variant, failure=str(error)))
            first_failure = first_failure or error
    if first_failure is not None and all(each.verdict is None for each in candidates):
        raise first_failure
    return choose(candidates)


def screen_twice(
    name: str, screen: Callable[[Kappas], Selection], say: Callable[[str], None]
) -> tuple[Selection, Kappas]:
    """Screen a candidate, and again without the source organs that contradict the others, if any.

    Args:
        name: of the candidate.
        screen: trains the candidate without the source organs of a mapping to kappa, picks a seed
            and judges it.
        say: receives lines of progress.

    Returns:
        The last selection, and the organs that it was trained without, with their kappa.
    """
    selection = screen({})
    without = selection.contradictions
    if not without:
        return selection, without
    told = " and ".join(f"{organ} (kappa {kappa:.2f})" for organ, kappa in without.items())
    say(f"{name}: trained again without {told}, which contradicts the other source organs")
    return screen(without), without


def name_candidate(settings: Settings, method: str, variant: str, without: Collection[str] = ()) -> str:
    """Name a candidate: the method, the variant if there are several, and organs left out."""
    parts = [method, *([variant] if len(settings.candidate_variants) > 1 else [])]
    return " · ".join([*parts, *name_left_out(without)])


def describe(selection: Selection, without: Kappas) -> Candidate:
    """Describe a screened candidate that was trained without some source organs."""
    found, train = selection.agreement, selection.picked.job.settings.train
    return Candidate(
        train.method,
        train.variant,
        tuple(trained.job.seed for trained in selection.seeds),
        tuple(selection.scores),
        tuple(trained.last["nuclei"] for trained in selection.seeds),
        None if found is None else found.consensus.agreement_with(found.predictions[-1]),
        min((kappa for kappa in selection.stains.values() if kappa is not None), default=None),
        selection.verdict,
        reads_anchor=METHODS[train.method].reads_anchor,
        without=dict(without),
    )


def record_candidate(recorder: RunRecorder, selection: Selection, without: Kappas) -> None:
    """Save what is known of a screened candidate in its run; MLflow's UI compares these runs."""
    candidate = describe(selection, without)
    figures = {
        "candidate/score": candidate.score,
        "candidate/nuclei": candidate.following,
        "candidate/agreement": candidate.agreement,
        "candidate/stain": candidate.stain,
    }
    recorder.log_metrics(figures, selection.picked.ended_ms)
    settings = selection.picked.job.settings
    about = {"target": settings.target, "sources": ", ".join(settings.sources)}
    recorder.log_params(about | {"method": candidate.method, "variant": candidate.variant})
    recorder.set_tags(selection.tags | {"oncoshift.chosen": "false"})


def record(recorder: RunRecorder, choice: Choice, name: str) -> None:
    """Save the choice as a table, and as a tag of the retraining and of the chosen candidate's run.

    Args:
        recorder: of the step.
        choice: to record.
        name: of the chosen candidate; see `name_candidate`.
    """
    recorder.save_sealed(FILE, choice.to_dict())
    table = pd.DataFrame(choice.rows, columns=list(HEADER))
    for place in (recorder, recorder.outer):
        place.save_table("candidates", table)
        place.set_tags({"oncoshift.choice": choice.words})
    recorder.find_step(f"candidate-{name}").set_tags({"oncoshift.chosen": "true"})


def measure(jobs: ExperimentJobs, choice: Choice, settings: Settings) -> pd.DataFrame:
    """Tabulate the candidates' balanced accuracy on test tiles, which shows what the choice lost.

    This reads labels of the target, so it comes after the choice and decides nothing.

    Args:
        jobs: of the experiment, on any variant.
        choice: whose trainings are found.
        settings: of the experiment.
    """
    rows = []
    for each in choice.candidates:
        if each.seeds:
            on, own = jobs.on_variant(each.variant), {"train__method": each.method, "train__variant": each.variant}
            made = [on.make_job(leave_out(settings, each.without), seed=seed, **own) for seed in each.seeds]
            seeds = [on.train(job, lambda _epoch: None) for job in made]
            predictions = pd.concat([predict_calibrated(on, trained, settings.evaluate)[0] for trained in seeds])
            found = evaluate_domains(predictions, settings.evaluate).organ(settings.target)
            metrics = found.in_words("balanced_accuracy"), found.in_words("auroc")
            rows.append((each.method, each.variant, ", ".join(each.without), len(seeds), *metrics))
    return pd.DataFrame(rows, columns=["method", "variant", "without", "seeds", "balanced_accuracy", "auroc"])
