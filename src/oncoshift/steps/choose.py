"""Step `choose`: choose one of `retrain.methods` by trainings with few seeds, without labels.

Each method is trained with `retrain.screen_seeds` seeds, and step `select` picks one of them and
judges it. These are ordinary jobs: what another retraining has trained is found, and the chosen
method's final trainings find those of its first seeds.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import pandas as pd

from oncoshift.errors import SettingsError, UntrainableError
from oncoshift.evaluation.domains import evaluate_domains
from oncoshift.selection.choice import HEADER, Candidate, Choice, choose
from oncoshift.selection.rule import ORACLE
from oncoshift.steps.calibration import predict_calibrated

if TYPE_CHECKING:
    from collections.abc import Callable

    from oncoshift.settings import Settings
    from oncoshift.steps.jobs import ExperimentJobs
    from oncoshift.steps.recorder import RunRecorder
    from oncoshift.steps.select import Selection

FILE = "choice.json"
"""Artifact with the choice, from which a retraining that goes on reads it."""


def run(settings: Settings, screen: Callable[[str], Selection], say: Callable[[str], None]) -> Choice:
    """Screen methods until all are, or `retrain.minutes` are used up, and choose one.

    Args:
        settings: of the experiment.
        screen: trains a method with few seeds, picks one of them and judges it.
        say: receives lines of progress.

    Raises:
        SettingsError: the choice would depend on target labels.
        UntrainableError: no method can be trained; the first one's.
    """
    if settings.select.validator == ORACLE:
        raise SettingsError(
            "select.validator: oracle reads target labels, and methods would be chosen by them; set retrain.methods to "
            "[]"
        )
    minutes = settings.retrain.minutes
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    candidates: list[Candidate] = []
    first_failure: UntrainableError | None = None
    for method in settings.retrain.methods:
        if any(each.verdict for each in candidates) and time.monotonic() >= deadline:
            say(f"choose: {method} is not trained: the {minutes:g} minutes of retrain.minutes are used up")
            candidates.append(Candidate(method))
            continue
        try:
            candidates.append(describe(method, screen(method)))
        except UntrainableError as error:
            say(f"choose: {method} is left out, as it cannot be trained: {error}")
            candidates.append(Candidate(method, failure=str(error)))
            first_failure = first_failure or error
    if first_failure is not None and all(each.verdict is None for each in candidates):
        raise first_failure
    return choose(candidates)


def describe(method: str, selection: Selection) -> Candidate:
    """Describe a screened method."""
    found = selection.agreement
    return Candidate(
        method,
        tuple(trained.job.seed for trained in selection.seeds),
        tuple(selection.scores),
        None if found is None else found.consensus.agreement_with(found.predictions[-1]),
        selection.verdict,
    )


def record_candidate(recorder: RunRecorder, method: str, selection: Selection) -> None:
    """Save what is known of a screened method in its run; MLflow's UI compares these runs."""
    candidate = describe(method, selection)
    figures = {"candidate/score": candidate.score, "candidate/agreement": candidate.agreement}
    recorder.log_metrics(figures, selection.picked.ended_ms)
    settings = selection.picked.job.settings
    recorder.log_params({"target": settings.target, "sources": ", ".join(settings.sources), "method": method})
    recorder.set_tags(selection.tags | {"oncoshift.chosen": "false"})


def record(recorder: RunRecorder, choice: Choice) -> None:
    """Save the choice as a table, and as a tag of the retraining and of the chosen method's run."""
    recorder.save_sealed(FILE, choice.to_dict())
    table = pd.DataFrame(choice.rows, columns=list(HEADER))
    for place in (recorder, recorder.outer):
        place.save_table("candidates", table)
        place.set_tags({"oncoshift.choice": choice.words})
    recorder.find_step(f"candidate-{choice.method}").set_tags({"oncoshift.chosen": "true"})


def measure(jobs: ExperimentJobs, choice: Choice, settings: Settings) -> pd.DataFrame:
    """Tabulate the candidates' balanced accuracy on test tiles, which shows what the choice lost.

    This reads labels of the target, so it comes after the choice and decides nothing.

    Args:
        jobs: of the experiment.
        choice: whose trainings are found.
        settings: of the experiment.
    """
    rows = []
    for each in choice.candidates:
        made = [jobs.make_job(settings, train__method=each.method, seed=seed) for seed in each.seeds]
        seeds = [jobs.train(job, lambda _epoch: None) for job in made]
        if seeds:
            predictions = pd.concat([predict_calibrated(jobs, trained, settings.evaluate)[0] for trained in seeds])
            found = evaluate_domains(predictions, settings.evaluate).organ(settings.target)
            rows.append((each.method, len(seeds), found.in_words("balanced_accuracy"), found.in_words("auroc")))
    return pd.DataFrame(rows, columns=["method", "seeds", "balanced_accuracy", "auroc"])
