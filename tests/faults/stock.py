"""What a project has: runs, weights, versions and history, to compare one project with another."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import optuna

from oncoshift.experiments import resolve_url
from oncoshift.files import sha256_file
from oncoshift.registry.audit import read_lines
from oncoshift.registry.changes import INTENT_TAG
from oncoshift.registry.history import list_events, read_aliases
from oncoshift.registry.store import open_client
from oncoshift.registry.tracking import KEY_TAG
from oncoshift.tuning.study import SharedStudy

if TYPE_CHECKING:
    from faults.retrainings import Project

MODEL = "oncoshift-kidney"

Curves = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Stock:
    """What a project has.

    Attributes:
        runs: number of runs by key and status.
        curves: steps of each metric, by the run's key and the metric's name.
        weights: SHA-256 of the weights by job.
        models: number of logged models by status.
        versions: job of each version.
        aliases: version by alias.
        history: kind, version and replaced version of each change, oldest first.
        audit: kind and version of each line of the audit log.
        trials: values and score of each trial, by study.
    """

    runs: Counter[tuple[str, str]]
    curves: dict[str, Curves]
    weights: dict[str, str]
    models: Counter[str]
    versions: dict[str, str]
    aliases: dict[str, str]
    history: list[tuple[str, str, str | None]]
    audit: list[tuple[str, str]]
    trials: dict[str, list[tuple[int, str, str]]]


def take_stock(project: Project) -> Stock:
    """Read what a project has."""
    client = open_client(project.uri)
    experiment = client.get_experiment_by_name("oncoshift")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=5000)
    registered = client.get_registered_model(MODEL)
    assert INTENT_TAG not in registered.tags, "a change of the champion is left unfinished"
    entries = [json.loads(line)["entry"] for line in read_lines(client, MODEL)]
    return Stock(
        runs=Counter((run.data.tags[KEY_TAG], run.info.status) for run in runs),
        curves={
            run.data.tags[KEY_TAG]: {
                name: tuple(sorted(point.step for point in client.get_metric_history(run.info.run_id, name)))
                for name in run.data.metrics
            }
            for run in runs
        },
        weights={path.parent.name: sha256_file(path) for path in project.root.glob("runs/jobs/*/weights.safetensors")},
        models=Counter(str(model.status) for model in client.search_logged_models([experiment.experiment_id])),
        versions={
            str(each.version): each.tags["oncoshift.job"] for each in client.search_model_versions(f"name = '{MODEL}'")
        },
        aliases=read_aliases(client, MODEL),
        history=[(event.kind, event.version, event.replaced) for event in list_events(client, MODEL)],
        audit=[(str(entry["kind"]), str(entry["version"])) for entry in entries],
        trials=_read_trials(project),
    )


def _read_trials(project: Project) -> dict[str, list[tuple[int, str, str]]]:
    url = resolve_url(project.settings["tune"]["storage"], project.root)
    studies = {name: SharedStudy(url, name, 1) for name in optuna.get_all_study_names(url)}
    return {
        name: sorted((each.number, each.state, f"{each.values} {each.score}") for each in study.list_trials())
        for name, study in studies.items()
    }


def check_whole(stock: Stock, undisturbed: Stock) -> None:
    """Check that nothing was lost, nothing doubled, and nothing is left unfinished."""
    assert {status for _, status in stock.runs} == {"FINISHED"}, "a run is left unfinished"
    assert set(stock.runs.values()) == {1}, "a run is doubled"
    assert stock.aliases.keys() <= {"champion", "previous"}, "a challenger is left"
    changes = [each for each in stock.history if each[0] == "promote"]
    assert [each[2] for each in changes[1:]] == [each[1] for each in changes[:-1]], "the history has a gap"
    assert stock.aliases["champion"] == changes[-1][1], "the champion is not the last one promoted"
    for name in Stock.__dataclass_fields__:
        assert getattr(stock, name) == getattr(undisturbed, name), f"{name}: not those of an undisturbed project"
