"""The flow trains and promotes, repeats nothing, and redoes only what a change affects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.tiny_settings import TINY_TRUNK

from oncoshift.cli import main
from oncoshift.registry.audit import read_lines

if TYPE_CHECKING:
    from e2e.conftest import Project

MODEL = "oncoshift-kidney"


@pytest.fixture(scope="module")
def project(bare_project: Project, prefect_server: str) -> Project:
    """A project without data, with a lasting Prefect server.

    In tests/e2e/test_pulled_plug.py flows start their own server.
    """
    bare_project.prefect = prefect_server
    return bare_project


@pytest.fixture(scope="module", autouse=True)
def first_output(project: Project) -> str:
    """Output of the first retraining."""
    return project.run()


@pytest.fixture(scope="module")
def second_output(project: Project) -> str:
    """Output of a later retraining on changed data."""
    project.change(phantom={"seed": 1}, tune={"trials": 0}, retrain={"seeds": 1})
    return project.run()


def parents(project: Project) -> list[mlflow.entities.Run]:
    experiment = project.client.get_experiment_by_name("oncoshift")
    return project.client.search_runs([experiment.experiment_id], "tags.`oncoshift.step` = 'retrain'")


def test_first_run_trains_proves_and_promotes(project: Project, first_output: str) -> None:
    assert "kidney ← lung, colon, made-up data" in first_output
    assert "source-only (erm)" in first_output
    assert "adapted (dann)" in first_output
    assert f"champion of {MODEL}: version 1" in first_output
    lines = first_output.splitlines()
    assert all(any(f"trial {n}: " in line for line in lines) for n in range(2))
    (parent,) = parents(project)
    assert parent.info.status == "FINISHED"
    assert {
        "target/balanced_accuracy",
        "target/balanced_accuracy_low",
        "control/auroc",
        "gain/balanced_accuracy",
    } <= set(parent.data.metrics)
    assert parent.info.run_name == "kidney ← lung+colon · dann · 2 seeds"
    assert parent.data.params["trunk"] == TINY_TRUNK
    assert parent.data.tags["oncoshift.made_up_data"] == "true"
    inputs = {each.dataset.name: each for each in parent.inputs.dataset_inputs}
    assert set(inputs) == {"source_train", "source_val", "target_train", "audit", "test", "packs (none)"}
    assert inputs["packs (none)"].dataset.digest.endswith(".dir"), "DVC's hash of the packs"
    names = {artifact.path for artifact in project.client.list_artifacts(parent.info.run_id, "plots")}
    assert {
        "plots/comparison.png",
        "plots/integrated_gradients.png",
        "plots/gallery.html",
        "plots/agreement.png",
        "plots/cross_organ.png",
        "plots/shortcuts.png",
        "plots/embedding.png",
    } <= names


def test_every_trial_seed_and_stage_is_a_nested_run(project: Project) -> None:
    (parent,) = parents(project)
    experiment = parent.info.experiment_id
    nested = project.client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    names = sorted(run.info.run_name for run in nested)
    seeds = ["dann · seed 0", "dann · seed 1", "erm · seed 0", "erm · seed 1"]
    assert names == sorted(["tune", *seeds, "evaluate", "select", "explain", "register", "gate"])
    (tune,) = [run for run in nested if run.info.run_name == "tune"]
    trials = project.client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{tune.info.run_id}'")
    assert sorted(run.info.run_name for run in trials) == ["trial-0", "trial-1"]
    (seed,) = [run for run in nested if run.info.run_name == "dann · seed 0"]
    assert "target/balanced_accuracy_low" in seed.data.metrics
    read = {each.dataset.name for each in seed.inputs.dataset_inputs}
    assert read == {"source_train", "source_val", "target_train", "packs (none)"}, "no labelled target tile"
    assert [point.step for point in project.client.get_metric_history(seed.info.run_id, "train/domain_accuracy")] == [
        0,
        1,
    ]


def test_the_pick_and_its_verdict_are_logged_with_a_training_from_each_organ_alone(project: Project) -> None:
    (parent,) = parents(project)
    experiment = parent.info.experiment_id
    (select,) = project.client.search_runs([experiment], "tags.`oncoshift.step` = 'select'")
    alone = project.client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{select.info.run_id}'")
    assert sorted(run.info.run_name for run in alone) == ["dann · colon alone", "dann · lung alone"]
    for run in alone:
        assert run.info.run_name == f"dann · {run.data.params['sources']} alone"
        assert [point.step for point in project.client.get_metric_history(run.info.run_id, "train/domain_loss")] == [
            0,
            1,
        ]
    found = json.loads(Path(project.client.download_artifacts(select.info.run_id, "selection.json")).read_text())
    scores = {
        run.data.params["seed"]: run.data.metrics["train/information_maximisation"]
        for run in project.client.search_runs([experiment], "tags.`oncoshift.step` = 'train'")
        if run.data.tags["oncoshift.method"] == "dann"
    }
    assert found["scores"] == pytest.approx(scores), "the floor is 0 here"
    assert str(found["picked_seed"]) == max(scores, key=scores.__getitem__)
    version = project.client.get_model_version(MODEL, "1")
    for tags in (select.data.tags, parent.data.tags, version.tags):
        assert tags["oncoshift.verdict"] == found["verdict"]
        assert tags["oncoshift.selection"].startswith(f"seed {found['picked_seed']} of 2, information_maximisation")
    assert parent.data.tags["oncoshift.oracle"] == "false"
    assert "## Gate\n\n**promote**" in version.description
    (served,) = project.client.search_runs([experiment], f"attributes.run_name = 'dann · seed {found['picked_seed']}'")
    assert f"this model (seed {found['picked_seed']})" in version.description
    assert f"| balanced_accuracy&emsp; | {served.data.metrics['target/balanced_accuracy']:.3f} [" in version.description
    audited = [json.loads(line)["entry"] for line in read_lines(project.client, MODEL)]
    assert version.tags["oncoshift.gate.auroc"].startswith("passed: ")
    gate = next(entry for entry in audited if entry["kind"] == "gate")
    assert f"the verdict is {found['verdict']}" in gate["flags"][0]
    assert f"verdict without labels: {found['verdict']}" in project.log.read_text()


def test_champion_is_pulled_and_scores(project: Project) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{project.root}/mlruns/mlflow.db")
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")
    tile = next((project.root / "data/raw/kidney/malignant").glob("*.png"))
    scored = model.predict(pd.DataFrame({"image": [tile.read_bytes()]}))
    assert 0 <= scored["probability"].iloc[0] <= 1
    assert (scored["label"].iloc[0] in ("benign", "malignant")) == (scored["abstain"].iloc[0] is None)


@pytest.mark.slow
def test_drift_of_new_tiles_is_an_event_in_prefect(project: Project, prefect_server: str) -> None:
    batch = project.root / "incoming" / "dark"
    batch.mkdir(parents=True)
    for tile in (project.root / "data/raw/kidney").glob("*/*.png"):
        dark = np.asarray(Image.open(tile)) * 0.5
        Image.fromarray(dark.astype(np.uint8)).save(batch / f"{tile.parent.name}-{tile.name}")
    code = project.start(str(batch), module="flows.watch").wait(400)
    assert code == 0, project.log.read_text()[-6000:]
    assert "drift: " in project.log.read_text()
    experiment = project.client.get_experiment_by_name("oncoshift watch")
    (run,) = project.client.search_runs([experiment.experiment_id])
    assert "watch/stain_shift" in run.data.metrics
    found = httpx.post(f"{prefect_server}/events/filter", json={"filter": {"event": {"name": ["oncoshift.drift"]}}})
    (event,) = found.json()["events"]
    assert event["resource"]["prefect.resource.id"] == f"oncoshift.model.{MODEL}"
    assert event["payload"]["batch"] == "dark"
    assert "stain" in event["payload"]["alarms"]
    assert (project.root / "runs" / "watch" / f"{MODEL}.html").is_file()


@pytest.mark.slow
def test_second_run_finds_nothing_to_do_however_it_would_be_done(project: Project) -> None:
    project.change(tune={"workers": 2}, train={"checkpoint_minutes": 1.0})
    output = project.run()
    assert "nothing was trained" in output
    assert "epoch" not in output
    assert len(parents(project)) == 1
    assert len(project.client.search_model_versions(f"name = '{MODEL}'")) == 1


def test_a_person_is_told_so_without_a_prefect_server(project: Project, prefect_server: str) -> None:
    project.prefect = None
    code = project.start("retrain", "--params", str(project.root / "params.yaml"), module="oncoshift.cli").wait(400)
    project.prefect = prefect_server
    assert code == 0, project.log.read_text()
    assert "nothing was trained" in project.log.read_text()
    assert f"champion of {MODEL}: version 1" in project.log.read_text()
    assert not (project.root / ".prefect" / "server.log").exists()
    assert len(parents(project)) == 1


@pytest.mark.slow
def test_a_changed_gate_judges_again_and_trains_nothing(project: Project) -> None:
    output = project.run("--set", "gate.min_audit_groups=3")
    assert output.count("already trained; nothing that it depends on has changed") == 6
    assert len(parents(project)) == 2
    assert len(project.client.search_model_versions(f"name = '{MODEL}'")) == 1


@pytest.mark.slow
def test_changed_data_challenge_the_champion(project: Project, second_output: str) -> None:
    assert "trained before" not in second_output
    aliases = project.client.get_registered_model(MODEL).aliases
    versions = [str(version.version) for version in project.client.search_model_versions(f"name = '{MODEL}'")]
    assert sorted(versions) == ["1", "2"]
    assert "not inferior to champion" in second_output
    assert ("champion of oncoshift-kidney: version 2" in second_output) == (str(aliases["champion"]) == "2")


@pytest.mark.slow
@pytest.mark.usefixtures("second_output")
def test_force_trains_all_again_and_a_gate_without_labels_goes_by_the_verdict(project: Project) -> None:
    project.change(gate={"min_audit_groups": 100, "without_audit": "trust"})
    output = project.run("--force")
    assert "trained before" not in output
    assert "decided without labels (without_audit)" in output
    assert "agrees with champion: kappa" in output
    assert "audit groups" not in output
    assert "dann seed 0: epoch 2/2" in output
    assert len(project.client.search_model_versions(f"name = '{MODEL}'")) == 3


def test_people_score_tiles_by_the_champion_and_list_what_there_is(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.root)
    assert main(["score", "data/raw/kidney/benign"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "path,probability,label,shift,abstain,error"
    assert len(printed[1:]) == 24
    assert main(["score", "data/raw/kidney/benign", "--model", "models:/oncoshift-skin@champion"]) == 2
    assert main(["promote", "99", "--reason", "no such"]) == 2
    assert main(["models"]) == 0
    assert main(["compare"]) == 0
    assert "retrain-kidney-" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("second_output")
def test_people_promote_and_roll_back(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project.root)

    def champion() -> str:
        return str(project.client.get_registered_model(MODEL).aliases["champion"])

    before = champion()
    other = next(number for number in ("1", "2") if number != before)
    assert main(["promote", other, "--reason", "a person says so", "--force"]) == 0
    assert champion() == other
    assert main(["rollback", "--reason", "the person was wrong"]) == 0
    assert champion() == before
    assert main(["promote", other, "--reason", "once more"]) == 2
    assert "was rolled back (the person was wrong)" in capsys.readouterr().err
