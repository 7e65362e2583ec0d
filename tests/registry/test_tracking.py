"""Runs are found by key, shared between processes, and keep what was logged first."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from oncoshift.errors import RegistryError
from oncoshift.files import DamagedFileError
from oncoshift.registry.embedded import SQLITE
from oncoshift.registry.source import read_git_tags
from oncoshift.registry.tracking import KEY_TAG, Tracker

if TYPE_CHECKING:
    from collections.abc import Callable


def test_the_same_key_is_the_same_run(tracker: Tracker, unique: Callable[[str], str]) -> None:
    key = unique("run")
    parent = tracker.find_or_start_run(unique("parent"), "retrain")
    run_id = tracker.find_or_start_run(key, "seed 0", parent, {"method": "dann"})
    assert tracker.find_or_start_run(key, "another name") == run_id
    tags = tracker.client.get_run(run_id).data.tags
    assert tags["mlflow.parentRunId"] == parent
    assert (tags["method"], tags["mlflow.source.git.commit"], tags["mlflow.runName"]) == ("dann", "abc", "seed 0")


def test_a_failed_run_runs_again_and_a_finished_one_stays_finished(
    tracker: Tracker, unique: Callable[[str], str]
) -> None:
    key = unique("run")
    run_id = tracker.find_or_start_run(key, "x")
    tracker.finish(run_id, "FAILED")
    assert not tracker.is_finished(key)
    assert tracker.find_or_start_run(key, "x") == run_id
    assert tracker.client.get_run(run_id).info.status == "RUNNING"
    tracker.finish(run_id)
    assert tracker.find_or_start_run(key, "x") == run_id
    assert tracker.is_finished(key)
    ended = tracker.client.get_run(run_id).info.end_time
    tracker.finish(run_id)
    assert tracker.client.get_run(run_id).info.end_time == ended
    with pytest.raises(RegistryError, match="'DONE'"):
        tracker.finish(run_id, "DONE")


def test_threads_that_ask_at_once_get_one_run(tracker: Tracker, unique: Callable[[str], str]) -> None:
    key = unique("race")
    with ThreadPoolExecutor(4) as pool:
        ids = set(pool.map(lambda _: tracker.find_or_start_run(key, "x"), range(4)))
    assert ids == {tracker.find_or_start_run(key, "x")}
    assert len(tracker.client.search_runs([tracker.experiment_id], f"tags.`{KEY_TAG}` = '{key}'")) == 1


def test_processes_that_open_a_new_store_at_once_share_it(tmp_path: Path) -> None:
    code = (
        "import sys; from oncoshift.registry.tracking import Tracker\n"
        "print('experiment', Tracker(sys.argv[1], 'e').experiment_id)"
    )
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    command = [sys.executable, "-c", code, uri]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1]
    assert {file.name for file in (tmp_path / "new").iterdir()} == {"mlflow.db", ".mlflow.db.lock"}


def test_artifacts_lie_beside_the_database(tracker: Tracker, uri: str, unique: Callable[[str], str]) -> None:
    run = tracker.client.get_run(tracker.find_or_start_run(unique("run"), "x"))
    folder = uri.removeprefix(SQLITE).removesuffix("mlflow.db") + "artifacts"
    assert run.info.artifact_uri == f"file://{folder}/{run.info.run_id}/artifacts"


def test_a_folder_logged_again_is_replaced(tracker: Tracker, unique: Callable[[str], str], tmp_path: Path) -> None:
    run_id = tracker.find_or_start_run(unique("run"), "x")
    for text in ("first", "second"):
        (tmp_path / "report.md").write_text(text)
        tracker.log_folder(run_id, tmp_path, "data")
    assert [item.path for item in tracker.client.list_artifacts(run_id, "data")] == ["data/report.md"]
    logged = tracker.client.download_artifacts(run_id, "data/report.md")
    assert Path(logged).read_text() == "second"


def test_metrics_logged_again_add_nothing(tracker: Tracker, unique: Callable[[str], str]) -> None:
    run_id = tracker.find_or_start_run(unique("run"), "x")
    rows = [(step, 1_700_000_000_000 + step, {"loss": 1 / (step + 1), "odd": math.nan}) for step in range(600)]
    rows.append((600, 1_700_000_001_000, {"loss": math.inf}))
    tracker.log_metrics(run_id, rows[:400])
    tracker.log_metrics(run_id, rows)
    tracker.log_metrics(run_id, rows)
    loss = tracker.client.get_metric_history(run_id, "loss")
    odd = tracker.client.get_metric_history(run_id, "odd")
    assert sorted(metric.step for metric in loss) == list(range(601))
    assert sorted(metric.step for metric in odd) == list(range(600))
    assert all(math.isnan(metric.value) for metric in odd)
    assert {metric.step: metric.timestamp for metric in loss}[3] == 1_700_000_000_003


def test_params_keep_their_first_value_and_long_ones_are_cut(
    tracker: Tracker, unique: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    run_id = tracker.find_or_start_run(unique("run"), "x")
    many = {f"p{number}": number for number in range(150)}
    tracker.log_params(run_id, {**many, "long": "a" * 7000})
    tracker.log_params(run_id, {**many, "p3": 4, "late": 1})
    params = tracker.client.get_run(run_id).data.params
    assert len(params) == 152
    assert (params["p3"], params["late"]) == ("3", "1")
    assert len(params["long"]) == 6000
    assert params["long"].endswith("a …")
    assert "other values of p3;" in caplog.text


def test_a_table_logged_again_is_not_doubled(tracker: Tracker, unique: Callable[[str], str], tmp_path: Path) -> None:
    run_id = tracker.find_or_start_run(unique("run"), "x")
    table = pd.DataFrame({"organ": ["lung", "colon"], "auroc": [0.9, None]})
    for _ in range(2):
        tracker.log_table(run_id, table, "tables/metrics.json")
        tracker.log_json(run_id, {"λ": 1}, "lambda.json")
    saved = tracker.client.download_artifacts(run_id, "tables/metrics.json", str(tmp_path))
    pd.testing.assert_frame_equal(pd.read_json(saved, orient="split"), table)
    entries = json.loads(tracker.client.get_run(run_id).data.tags["mlflow.loggedArtifacts"])
    assert entries == [{"path": "tables/metrics.json", "type": "table"}]


DAMAGES: dict[str, Callable[[str], str | None]] = {
    "a figure": lambda text: text.replace("0.5", "0.6"),
    "emptied": lambda _text: "",
    "cut": lambda text: text[:20],
    "garbled": lambda _text: "{}",
    "gone": lambda _text: None,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_sealed_json_that_has_changed_is_told(tracker: Tracker, unique: Callable[[str], str], damage: str) -> None:
    run_id = tracker.find_or_start_run(unique("run"), "x")
    values = {"gain": 0.5, "organ": "λ"}
    tracker.log_sealed(run_id, values, "summary.json")
    assert tracker.read_sealed(run_id, "summary.json", "gain") == values
    path = Path(tracker.client.get_run(run_id).info.artifact_uri.removeprefix("file://")) / "summary.json"
    changed = DAMAGES[damage](path.read_text())
    path.unlink() if changed is None else path.write_text(changed)
    with pytest.raises(DamagedFileError, match=rf"run {run_id}: artifact summary\.json: (damaged|cannot be read)"):
        tracker.read_sealed(run_id, "summary.json", "gain")


def test_inputs_carry_their_dvc_digest_once(tracker: Tracker, unique: Callable[[str], str]) -> None:
    run_id = tracker.find_or_start_run(unique("run"), "x")
    digest = f"{'0' * 32}.dir"
    for _ in range(2):
        tracker.log_input(run_id, "kidney/audit", digest, "data/splits/audit.parquet", "audit", {"tiles": 12})
        tracker.log_input(run_id, "lung/source_train", "1" * 32, "data/splits/x.parquet", "training")
    inputs = tracker.client.get_run(run_id).inputs.dataset_inputs
    found = {each.dataset.name: each for each in inputs}
    assert len(inputs) == 2
    assert found["kidney/audit"].dataset.digest == digest
    assert json.loads(str(found["kidney/audit"].dataset.profile)) == {"tiles": 12}
    assert [(tag.key, tag.value) for tag in found["kidney/audit"].tags] == [("mlflow.data.context", "audit")]
    with pytest.raises(RegistryError, match="more than 36"):
        tracker.log_input(run_id, "x", "0" * 37, "x", "audit")


def test_system_metrics_of_a_short_job_and_of_its_second_start(tracker: Tracker, unique: Callable[[str], str]) -> None:
    run_id = tracker.find_or_start_run(unique("run"), "x")
    for _ in range(2):
        with tracker.sampling_system_metrics(run_id, interval=0.2):
            time.sleep(1.2)
    samples = tracker.client.get_metric_history(run_id, "system/system_memory_usage_megabytes")
    steps = sorted(sample.step for sample in samples)
    assert len(steps) >= 4
    assert steps == list(range(len(steps)))


def test_system_metrics_never_fail_the_job(tracker: Tracker, caplog: pytest.LogCaptureFixture) -> None:
    done = False
    with tracker.sampling_system_metrics("no-such-run", interval=0.05):
        time.sleep(0.2)
        done = True
    assert done


def commit(folder: Path) -> None:
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    (folder / "file").write_text("1")
    for arguments in (["init", "-q"], ["add", "file"], [*identity, "commit", "-qm", "m"]):
        subprocess.run(["git", "-C", str(folder), *arguments], check=True)


def test_git_tags_of_a_clean_a_changed_and_no_working_tree(tmp_path: Path) -> None:
    assert read_git_tags(tmp_path) == {}
    commit(tmp_path)
    tags = read_git_tags(tmp_path)
    assert len(tags["mlflow.source.git.commit"]) == 40
    assert tags["mlflow.source.git.dirty"] == "false"
    (tmp_path / "file").write_text("2")
    assert read_git_tags(tmp_path)["mlflow.source.git.dirty"] == "true"


def test_a_checkout_of_another_user_is_told_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    commit(tmp_path)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own way of testing this
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    (tmp_path / "project").mkdir()
    tags = read_git_tags(tmp_path / "project")
    assert tags.keys() == {"oncoshift.git_error"}
    remedy = f"git config --global --add safe.directory {tmp_path}"
    assert tags["oncoshift.git_error"].endswith(remedy)
    assert remedy in caplog.text

    config = tmp_path / "gitconfig"
    config.write_text(f"[safe]\n    directory = {tmp_path}\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    assert len(read_git_tags(tmp_path / "project")["mlflow.source.git.commit"]) == 40, "the remedy helps"


def test_git_that_is_absent_has_no_commit_or_fails_is_told_in_a_checkout_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "outside").mkdir()
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "init", "-q", str(checkout)], check=True)
    assert read_git_tags(checkout) == {"oncoshift.git_error": "there is no commit yet; make one"}
    commit(checkout)
    (checkout / ".git" / "index").write_bytes(b"cut short")
    tags = read_git_tags(checkout)
    assert len(tags["mlflow.source.git.commit"]) == 40
    assert tags["oncoshift.git_error"].startswith("`git status --porcelain --untracked-files=no`: ")
    (checkout / ".git" / "HEAD").write_text("")
    assert read_git_tags(checkout).keys() == {"oncoshift.git_error"}
    caplog.clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_git_tags(checkout) == {"oncoshift.git_error": "git is not installed, or not on PATH"}
    assert "git is not installed" in caplog.text
    caplog.clear()
    assert read_git_tags(tmp_path / "outside") == {}
    assert not caplog.text


def test_what_the_store_refuses_does_not_hide_what_ends_the_process(
    tracker: Tracker, unique: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    run = tracker.find_or_start_run(unique("gone"), "x")
    tracker.client.delete_run(run)
    tracker.abandon(run, "FAILED", {"why": "no reason"})
    assert f"run {run} stays RUNNING in MLflow until the next start: " in caplog.text


def test_only_a_run_that_is_not_finished_is_postponed(tracker: Tracker, unique: Callable[[str], str]) -> None:
    run = tracker.find_or_start_run(unique("postponed"), "x")
    tracker.postpone(run)
    assert tracker.client.get_run(run).info.status == "SCHEDULED"
    tracker.finish(run)
    tracker.postpone(run)
    assert tracker.client.get_run(run).info.status == "FINISHED"
