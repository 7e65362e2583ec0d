"""A handful of labels from proposal to promotion: DVC keeps them, some train, others gate."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import pandas as pd
import pytest
import yaml
from e2e.conftest import Project

from oncoshift.cli import main
from oncoshift.data.raw import read_raw_tiles
from oncoshift.data.tables import LABELS
from oncoshift.errors import DataError
from oncoshift.files import sha256_file
from oncoshift.labels.sheet import read_rows, write_rows
from oncoshift.labels.table import GATE, TRAIN, read_labels
from oncoshift.layout import Layout
from oncoshift.maintenance.contents import list_named_hashes, list_settings
from oncoshift.registry.loading import load_served
from oncoshift.retraining.prepare import make_plan, open_jobs
from oncoshift.retraining.session import compute_retraining_key
from oncoshift.versioning import hash_file

MODEL = "oncoshift-kidney"


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, with_data: Path) -> Project:
    """A project with a sheet that was proposed, filled in with the true labels, and applied."""
    root = Path(shutil.copytree(with_data, tmp_path_factory.mktemp("labelled") / "copy", symlinks=True))
    project = Project(root)
    project.change(tune={"trials": 0}, model={"freeze": "all"}, train={"augment": False})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(["label", "propose", "--budget", "12"]) == 0
        fill_in(root)
        assert main(["label", "apply"]) == 0
    return project


def fill_in(root: Path, wrong: bool = False) -> None:
    """Write the true labels into a sheet, or the opposite ones."""
    path = root / "labels" / "kidney" / "labels.csv"
    truth = pd.read_parquet(root / "data" / "tiles" / "tiles.parquet").set_index("tile_id")["label"]
    words = LABELS[::-1] if wrong else LABELS
    write_rows(path, [replace(row, label=words[truth[row.tile_id]]) for row in read_rows(path)])


def key(project: Project, **overrides: str) -> str:
    """Compute the key of the retraining that these settings would start."""
    changes = tuple(f"{name.replace('__', '.')}={value}" for name, value in overrides.items())
    plan = make_plan(project.root, preset=None, overrides=changes, force=False, environ={}, say=print, name=None)
    plan = replace(plan, layout=Layout(project.root))
    return compute_retraining_key(plan, open_jobs(plan))


def test_proposed_tiles_are_of_the_training_split_alone(labelled: Project) -> None:
    splits = {
        name: pd.read_parquet(labelled.root / "data" / "splits" / f"{name}.parquet")
        for name in ("target_train", "audit", "test")
    }
    rows = read_rows(labelled.root / "labels" / "kidney" / "labels.csv")
    assert len(rows) == 12
    assert {row.tile_id for row in rows} <= set(splits["target_train"]["tile_id"])
    assert not {row.group for row in rows} & {*splits["audit"]["group"], *splits["test"]["group"]}
    groups = {use: {row.group for row in rows if row.use == use} for use in (TRAIN, GATE)}
    assert all(groups.values())
    assert not groups[TRAIN] & groups[GATE]


def test_applied_labels_are_versioned_and_part_of_a_backup(labelled: Project) -> None:
    table = read_labels(Layout(labelled.root).labels, "kidney")
    assert len(table) == 12
    pointer = labelled.root / "data" / "labels" / "kidney.csv.dvc"
    (out,) = yaml.safe_load(pointer.read_text())["outs"]
    assert out["md5"] in list_named_hashes(labelled.root)
    assert pointer.relative_to(labelled.root) in list_settings(labelled.root)
    subprocess.run([sys.executable, "-m", "dvc", "status", pointer], cwd=labelled.root, check=True)


def test_labels_that_are_gone_come_back_from_dvc(labelled: Project) -> None:
    folder = Layout(labelled.root).labels
    before = (folder / "kidney.csv").read_bytes()
    (folder / "kidney.csv").unlink()
    with pytest.raises(DataError, match="run `dvc checkout"):
        read_labels(folder, "kidney")
    subprocess.run([sys.executable, "-m", "dvc", "checkout", folder / "kidney.csv.dvc"], cwd=labelled.root, check=True)
    assert (folder / "kidney.csv").read_bytes() == before


def test_more_labels_join_them_and_other_uses_are_refused(
    labelled: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(labelled.root, tmp_path / "copy", symlinks=True))
    monkeypatch.chdir(root)
    before = read_labels(Layout(root).labels, "kidney")
    assert main(["label", "propose", "--budget", "6", "--gate", "4"]) == 0
    rows = read_rows(root / "labels" / "kidney" / "labels.csv")
    assert not {row.tile_id for row in rows} & set(before["tile_id"]), "nobody is asked twice"
    fill_in(root)
    assert main(["label", "propose"]) == 2
    assert f"has {len(rows)} answers that were not applied" in capsys.readouterr().err
    assert main(["label", "apply"]) == 0
    after = read_labels(Layout(root).labels, "kidney")
    assert len(after) == len(before) + len(rows) > len(before)
    assert before.merge(after, how="left", indicator=True)["_merge"].eq("both").all(), "nothing is lost"
    path = root / "labels" / "kidney" / "labels.csv"
    write_rows(path, [replace(row, use=GATE if row.use == TRAIN else TRAIN) for row in rows])
    assert main(["label", "apply"]) == 2
    assert "line 2: group" in capsys.readouterr().err
    pd.testing.assert_frame_equal(read_labels(Layout(root).labels, "kidney"), after)


def test_only_what_reads_labels_depends_on_them(labelled: Project, tmp_path: Path) -> None:
    copy = Project(Path(shutil.copytree(labelled.root, tmp_path / "copy", symlinks=True)))
    path = copy.root / "data" / "labels" / "kidney.csv"
    methods = {name: {"train__method": name} for name in ("few_labels", "anchored", "dann")}
    asked = {**methods, "gate": {"gate__without_audit": "few_labels"}}
    before = {name: key(copy, **given) for name, given in asked.items()}
    path.write_text(path.read_text().replace("gate,benign", "gate,skip", 1))
    gate_changed = {name for name, given in asked.items() if key(copy, **given) != before[name]}
    assert gate_changed == {"few_labels", "gate"}
    plan = make_plan(copy.root, preset=None, overrides=(), force=False, environ={}, say=print)
    jobs = open_jobs(plan)
    ids = [jobs.make_job(plan.settings, train__method=name).id for name in methods]
    path.write_text(path.read_text().replace("train,benign", "train,skip", 1))
    jobs = open_jobs(plan)
    again = [jobs.make_job(plan.settings, train__method=name).id for name in methods]
    assert [one == other for one, other in zip(ids, again, strict=True)] == [False, True, True]


def test_the_stage_train_depends_on_labels_where_its_method_reads_them(
    labelled: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(labelled.root)
    kept = labelled.root / "data" / "code" / "labels.sha256"
    before = kept.read_text()
    assert before == "none\n"
    assert main(["code", "--set", "train.method=few_labels"]) == 0
    assert kept.read_text() == f"{sha256_file(Layout(labelled.root).labels / 'kidney.csv')}\n"
    assert main(["code"]) == 0
    assert kept.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["propose", "--budget", "0"], "name at least one tile"),
        (["propose", "--budget", "5", "--gate", "6"], "--budget 5 --gate 6"),
        (["propose", "--out", "data"], "is no sheet of tiles; name another folder"),
        (["apply", "nowhere/labels.csv"], "no sheet.json beside it"),
        (["propose", "--target", "liver"], "no tiles of liver"),
    ],
)
def test_mistakes_are_told(
    labelled: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(labelled.root)
    assert main(["label", *arguments]) == 2
    assert said in capsys.readouterr().err


def count_right(project: Project, version: str) -> str:
    """Count the right calls of a registered version on the tiles that gate, in the gate's words."""
    rows = read_labels(Layout(project.root).labels, "kidney").query("use == 'gate'")
    model = load_served(f"models:/{MODEL}/{version}", f"sqlite:///{project.root}/mlruns/mlflow.db")
    raw = read_raw_tiles(Layout(project.root), rows["tile_id"].tolist())
    said = cast("pd.DataFrame", model.predict(raw))
    (threshold,) = (each.default for each in model.metadata.signature.params.params if each.name == "threshold")
    called = [LABELS[probability >= threshold] for probability in said["probability"]]
    of_class = [[word == name for word, label in zip(called, rows["label"], strict=True) if label == name]
                for name in LABELS]  # fmt: skip
    return ", ".join(f"{sum(right)} of {len(right)} {name}" for right, name in zip(of_class, LABELS, strict=True))


@pytest.mark.slow
def test_labels_train_and_gate_a_retraining_and_are_named_wherever_it_is_judged(
    labelled: Project, tmp_path: Path, prefect_server: str
) -> None:
    project = Project(Path(shutil.copytree(labelled.root, tmp_path / "copy", symlinks=True)), prefect_server)
    project.change(train={"method": "few_labels"}, gate={"min_audit_groups": 100, "without_audit": "few_labels"})
    project.run()
    client = project.client
    (version,) = client.search_model_versions(f"name = '{MODEL}'")
    trained = read_labels(Layout(project.root).labels, "kidney").query("use == 'train'")["label"].value_counts()
    named = f"{trained.sum()} ({trained['benign']} benign, {trained['malignant']} malignant)"
    assert version.tags["oncoshift.target_labels"] == named
    assert version.tags["oncoshift.verdict"] == "doubt"
    assert f"labels of kidney that a person gave for training: {named}" in version.description
    assert "no label of kidney was used" not in version.description
    experiment = client.get_experiment_by_name("oncoshift")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs["few_labels · seed 0"].data.tags["oncoshift.target_labels"] == named
    assert {"train/benign_labels", "train/trust_in_prior"} <= runs["few_labels · seed 0"].data.metrics.keys()
    digest = hash_file(Layout(project.root).labels / "kidney.csv")
    read = {each.dataset.name: each.dataset.digest for each in runs["few_labels · seed 0"].inputs.dataset_inputs}
    assert read["labels"] == digest, "garbage collection keeps the version that a retraining has read"
    assert "labels" not in {each.dataset.name for each in runs["erm · seed 0"].inputs.dataset_inputs}
    gate = Path(client.download_artifacts(runs["gate"].info.run_id, "gate.md")).read_text(encoding="utf-8")
    assert f"Labels of the target trained this model: {named}." in gate
    assert f"right on {count_right(project, version.version)}, of " in gate, "the floor of these tests is 0"
    assert "| labels apart | 0 | 0 |" in gate
    assert "labels have judged 0 earlier versions" in gate
    assert version.tags["oncoshift.source_accuracy"].endswith(" (of the model before labels corrected it)")
    assert "source_accuracy" in runs["few_labels · seed 0"].data.tags["mlflow.note.content"]
    (retraining,) = (run for run in runs.values() if run.data.tags["oncoshift.step"] == "retrain")
    report = Path(client.download_artifacts(retraining.info.run_id, "report.html")).read_text(encoding="utf-8")
    assert " (of the model before labels corrected it)</td>" in report
    summary = Path(client.download_artifacts(retraining.info.run_id, "summary.md")).read_text(encoding="utf-8")
    assert "(of the model before labels corrected it)" in summary


@pytest.mark.slow
def test_another_target_has_an_experiment_of_its_own_and_its_labels_are_the_projects(
    labelled: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(labelled.root, tmp_path / "copy", symlinks=True))
    monkeypatch.chdir(root)
    sources = "sources=[colon, kidney]"
    assert main(["label", "propose", "--set", "target=lung", "--set", sources, "--budget", "6"]) == 0
    sheet = root / "labels" / "lung" / "labels.csv"
    truth = pd.read_parquet(root / "data" / "tiles" / "tiles.parquet").set_index("tile_id")["label"]
    write_rows(sheet, [replace(row, label=LABELS[truth[row.tile_id]]) for row in read_rows(sheet)])
    assert main(["label", "apply", str(sheet)]) == 0
    assert "new labels of lung" in capsys.readouterr().out
    assert len(read_labels(Layout(root).labels, "lung")) == 6
    experiment = root / "experiments" / "custom-lung"
    assert not (experiment / "data" / "labels").exists()
    monkeypatch.chdir(experiment)
    assert main(["train", "--set", "train.method=few_labels"]) == 0
    assert list((root / "runs" / "jobs").glob("few_labels-*")), "it finds them, and shares what it trains"
