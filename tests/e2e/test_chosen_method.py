"""A retraining that is stopped while it chooses method and stain variant goes on from there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from e2e.conftest import Project

from oncoshift.retraining import prepare, recipe, recorded
from oncoshift.steps import select

if TYPE_CHECKING:
    from mlflow.entities import Run

METHODS, VARIANTS = ["dann", "mcc"], ["none", "reinhard"]
CANDIDATES = ["dann · none", "dann · reinhard", "mcc · none", "mcc · reinhard"]
STEPS = recipe.Steps(
    prepare.prepare_data, recorded.choose, recorded.tune, recorded.train, recorded.evaluate, recorded.select,
    recorded.explain, recorded.register, recorded.gate,
)  # fmt: skip


def make_project(with_data: Path, folder: Path, methods: list[str], variants: list[str]) -> Project:
    """Make a project that chooses among methods and stain variants."""
    project = Project(Path(shutil.copytree(with_data, folder / "copy", symlinks=True)))
    project.change(
        retrain={"seeds": 2, "methods": methods, "variants": variants, "screen_seeds": 1},
        normalize={"variants": VARIANTS},
        tune={"trials": 0},
        explain={"tiles": 2, "checked_tiles": 0},
        tracking={"system_metrics": False},
    )
    return project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, with_data: Path) -> Project:
    return make_project(with_data, tmp_path_factory.mktemp("choice"), METHODS, VARIANTS)


def retrain(project: Project, stop_at: str = "") -> list[str]:
    """Retrain here, until a line of progress that stops it as Ctrl-C would; return the lines."""
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if stop_at and line.startswith(stop_at):
            raise KeyboardInterrupt

    plan = prepare.make_plan(project.root, preset=None, overrides=(), force=False, environ={}, say=say)
    recipe.retrain(plan, STEPS)
    return said


def find_runs(project: Project, step: str) -> list[Run]:
    experiment = project.client.get_experiment_by_name("oncoshift")
    found: list[Run] = project.client.search_runs([experiment.experiment_id], f"tags.`oncoshift.step` = '{step}'")
    return found


def list_jobs(project: Project) -> dict[str, int]:
    """List when each finished job was written, by its id."""
    return {path.parent.name: path.stat().st_mtime_ns for path in project.root.glob("runs/jobs/*/done.json")}


def test_a_retraining_chooses_and_goes_on_after_a_stop(project: Project) -> None:
    with pytest.raises(KeyboardInterrupt):
        retrain(project, stop_at="mcc · none seed 0: epoch 1/2")
    begun = list_jobs(project)
    assert sorted(name.split("-")[0] for name in begun) == ["dann"] * 6, "on each variant a seed, and each organ alone"
    said = retrain(project)
    assert sum("already trained" in line for line in said) >= 6
    assert begun.items() <= list_jobs(project).items(), "nothing is trained twice"
    # Of each candidate a seed and two organs alone; of the chosen one another seed, which may be
    # the pick and then needs the organs of its own; of the control two seeds.
    assert len(list_jobs(project)) in (15, 17)

    (parent,) = find_runs(project, "retrain")
    (choose,) = find_runs(project, "choose")
    file = Path(project.client.download_artifacts(choose.info.run_id, "choice.json"))
    choice = json.loads(file.read_text())
    method, variant = choice["method"], choice["variant"]
    followed = {name: [0.0] for name in VARIANTS}
    for each in choice["candidates"]:
        followed[each["variant"]] += each["nuclei"]
    if all(each["verdict"]["kind"] != "trust" for each in choice["candidates"]):
        assert variant == max(VARIANTS, key=lambda name: sum(followed[name])), "as the anchor says"
    assert parent.info.run_name == f"kidney ← lung+colon · {method} · 2 seeds"
    assert (parent.data.params["candidates"], parent.data.params["candidate_variants"]) == (
        "dann, mcc",
        "none, reinhard",
    )
    assert (parent.data.params["method"], parent.data.params["variant"]) == (method, variant)
    trusted = any(each["verdict"]["kind"] == "trust" for each in choice["candidates"])
    words = parent.data.tags["oncoshift.choice"]
    assert words.startswith(f"{method} on {variant}")
    assert "chosen of 4 without target labels" in words
    assert ("by the anchor nuclei" in words) is not trusted
    assert ("nuclei chose the stain variant" in parent.data.tags["oncoshift.anchor"]) is not trusted
    assert parent.data.tags["oncoshift.oracle"] == "false"
    candidates = {run.info.run_name: run.data for run in find_runs(project, "candidate")}
    assert {name: data.tags["oncoshift.chosen"] for name, data in candidates.items()} == {
        name: str(name == f"{method} · {variant}").lower() for name in CANDIDATES
    }
    figures = {"candidate/score", "candidate/nuclei", "candidate/agreement"}
    assert all(figures <= set(data.metrics) for data in candidates.values())
    trained = {(run.data.params["method"], run.data.params["variant"]) for run in find_runs(project, "train")}
    assert trained == {("erm", variant), (method, variant)}


def test_people_find_the_choice_where_they_look(project: Project) -> None:
    (parent,) = find_runs(project, "retrain")
    choice = parent.data.tags["oncoshift.choice"]

    def read(name: str) -> str:
        return Path(project.client.download_artifacts(parent.info.run_id, name)).read_text(encoding="utf-8")

    version = project.client.get_model_version("oncoshift-kidney", "1")
    assert choice.startswith(f"{version.tags['method']} on {version.tags['variant']}")
    assert f"Method: {choice}." in read("summary.md")
    assert f"Method: {choice}." in version.description
    assert version.tags["oncoshift.choice"] == choice
    report = read("report.html")
    assert "Choice of method and stain variant, without target labels" in report
    assert "Shortcuts: which plain measures separate the classes" in report
    assert report.count("AUROC of plain measures for malignant, by organ</figcaption>") == 1, "not among the pictures"
    assert "The candidates on the target&#39;s test tiles, read after the choice" in report
    assert json.loads(read("candidates.json"))["columns"][0] == "method"


def test_where_nothing_has_changed_nothing_is_chosen_again(project: Project) -> None:
    before = list_jobs(project)
    assert not any("choose" in line for line in retrain(project))
    assert list_jobs(project) == before


def test_a_source_that_contradicts_the_others_is_left_out_of_all_that_follows(
    with_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(with_data, tmp_path, methods=["mcc"], variants=[])
    # Two sources have no majority, so it is said which contradicts.
    monkeypatch.setattr(select, "find_contradictions", lambda *_: {"colon": -0.8})
    said = retrain(project)
    assert "mcc: trained again without colon (kappa -0.80), which contradicts the other source organs" in said
    (parent,) = find_runs(project, "retrain")
    assert (parent.data.params["sources"], parent.data.params["left_out"]) == ("lung, colon", "colon")
    assert parent.data.tags["oncoshift.choice"].startswith("mcc without colon, chosen of 1")
    assert {run.info.run_name: run.data.tags["oncoshift.chosen"] for run in find_runs(project, "candidate")} == {
        "mcc": "false",
        "mcc · without colon": "true",
    }
    finals = [run for run in find_runs(project, "train") if run.data.tags["mlflow.parentRunId"] == parent.info.run_id]
    assert {(run.data.params["method"], run.data.params["sources"]) for run in finals} == {
        ("erm", "lung, colon"),
        ("mcc", "lung"),
    }
    settings = yaml.safe_load(Path(project.client.download_artifacts(parent.info.run_id, "settings.yaml")).read_text())
    assert (settings["sources"], settings["retrain"]["left_out"]) == (["lung", "colon"], ["colon"])
    assert settings["retrain"]["methods"] == [], "as a preset it repeats this, and chooses nothing"
    version = project.client.get_model_version("oncoshift-kidney", "1")
    assert "from labelled lung to unlabelled kidney" in version.description
    assert "Method: mcc without colon, chosen of 1" in version.description
