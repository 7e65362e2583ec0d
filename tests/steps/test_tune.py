"""A study gets the right name, search space and workers."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import optuna
import pytest

from oncoshift.cli import main
from oncoshift.errors import SettingsError
from oncoshift.layout import Layout
from oncoshift.registry.tracking import Tracker
from oncoshift.retraining import recorded
from oncoshift.retraining.children import assign_gpus
from oncoshift.retraining.session import RetrainingPlan, Session, log_start
from oncoshift.settings import Settings, dump_settings, load_settings, replace_values
from oncoshift.steps.jobs import ExperimentJobs
from oncoshift.steps.recorder import RunRecorder
from oncoshift.steps.trial import Search
from oncoshift.training.epoch import Epoch
from oncoshift.tuning.study import LostTrialError
from oncoshift.tuning.worker import TrialPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oncoshift.training.epoch import EpochHook
    from oncoshift.training.job import Job, TrainedJob


def search(folder: Path, data: str = "data", **changes: Any) -> Search:
    """Make a search without data or a store, which its name and space do not need."""
    values = {key.replace("__", "."): value for key, value in changes.items()}
    settings = replace_values(Settings(), {"tune.parameters": ["train.lr", "dann.max_lambda"], **values})
    layout = Layout(folder)
    jobs = ExperimentJobs(layout, "none", settings.sources, data, "pack", layout.jobs)
    lines.clear()
    return Search(settings, settings.tune, jobs, "", lines.append)


lines: list[str] = []


@pytest.mark.parametrize(
    "changes",
    [
        {"tune__trials": 50, "tune__workers": 4, "tune__minutes": 5.0},
        {"tune__storage": "postgresql://host/studies", "tune__heartbeat_seconds": 60},
        {"train__epochs": 99, "retrain__seeds": 7, "gate__min_auroc": 0.9, "tracking__experiment": "other"},
        {"mcc__weight": 2.0},
    ],
)
def test_a_study_goes_on_whatever_its_scores_do_not_depend_on(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert search(tmp_path, **changes).name == search(tmp_path).name


@pytest.mark.parametrize(
    "changes",
    [
        {"tune__epochs": 7},
        {"tune__seeds": 2},
        {"tune__seed": 1},
        {"tune__parameters": ["train.lr"]},
        {"select__validator": "bnm"},
        {"select__source_floor": 0.5},
        {"train__weight_decay": 0.5},
        {"dann__schedule": "paper"},
        {"seed": 3},
        {"data": "other"},
        {"retrain__left_out": ["colon"]},
    ],
)
def test_scores_that_cannot_be_compared_are_never_in_one_study(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert search(tmp_path, **changes).name != search(tmp_path).name


def test_trials_do_not_learn_from_what_was_left_out(tmp_path: Path) -> None:
    found = search(tmp_path, retrain__left_out=["colon"])
    assert found.settings.sources == ("lung", "colon", "breast")
    assert found.trained_settings.sources == ("lung", "breast")


def test_what_the_method_does_not_read_is_left_out_and_said(tmp_path: Path) -> None:
    found = search(tmp_path, train__method="mcc")
    assert found.first_values == {"train.lr": 0.01}
    assert lines == ["tune: mcc does not read dann.max_lambda; left out"]
    assert set(search(tmp_path, train__method="dann_mcc", tune__parameters=["all"]).first_values) >= {
        "dann.hidden", "mcc.temperature", "train.optimizer", "model.dropout",
    }  # fmt: skip


def test_tuning_by_target_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="oracle reads target labels"):
        search(tmp_path, select__validator="oracle").first_values  # noqa: B018


class Quiet(Session):
    """A session without data, and so without inputs to log."""

    def log_inputs(self, recorder: RunRecorder, names: Sequence[str]) -> None:
        pass


def test_a_retrainings_parameters_are_those_that_it_trains_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This also holds if it resumes after a kill and its study has found better ones since."""
    found = search(tmp_path)
    tracker = Tracker(f"sqlite:///{tmp_path}/mlflow.db", "tests")
    parent = tracker.find_or_start_run("key", "retrain")
    plan = RetrainingPlan(tmp_path, found.jobs.layout, found.settings, "sqlite://", "", lines.append)
    session = Quiet(plan, found.jobs, RunRecorder(tracker, parent, "key"))
    report = session.plan.layout.tiles / "report"
    report.mkdir(parents=True)
    (report / "report.html").touch()
    log_start(session)
    first = tracker.client.get_run(parent).data.params
    assert first["method"] == "dann"
    for rate in (0.027, 0.05):
        best = replace_values(session.settings, {"train.lr": rate, "dann.max_lambda": 0.23})
        monkeypatch.setattr(recorded, "run_study", lambda *_, best=best: best)
        assert recorded.tune(session).train.lr == 0.027
        log_start(session)
        saved = Path(tracker.client.download_artifacts(parent, "settings.yaml", str(tmp_path)))
        assert load_settings(saved) == replace_values(best, {"train.lr": 0.027})
        assert tracker.client.get_run(parent).data.params == first
    assert lines == ["tune: resumes with the values that were chosen before; --force tunes again"]


@pytest.mark.parametrize("outcome", [optuna.TrialPruned, LostTrialError])
def test_only_a_pruned_trial_frees_its_checkpoint(tmp_path: Path, outcome: type[Exception]) -> None:
    """Nobody resumes a pruned trial, but another worker may be about to resume a lost one."""
    found = search(tmp_path)

    class Jobs(ExperimentJobs):
        def train(self, job: Job, *_: object) -> TrainedJob:
            folder = job.folder / job.id
            folder.mkdir(parents=True)
            (folder / "checkpoint.pt").touch()
            raise outcome

    jobs = Jobs(**{each.name: getattr(found.jobs, each.name) for each in fields(found.jobs) if each.init})
    with pytest.raises(outcome):
        replace(found, jobs=jobs)._train(Mock(), TrialPlan(0, {}, Mock()), 0)
    left = [path.name for path in jobs.folder.glob("*/*")]
    assert left == (["checkpoint.pt"] if outcome is LostTrialError else [])


def test_a_trial_says_where_it_is_each_tenth_of_its_epochs(tmp_path: Path) -> None:
    """Epochs that a killed worker had trained are not said again."""
    found = search(tmp_path, tune__epochs=20)
    made = 1000 * int(time.time() + 60)

    class Jobs(ExperimentJobs):
        def train(self, job: Job, on_epoch: EpochHook | None = None, *_: object) -> TrainedJob:
            assert on_epoch is not None
            for number in range(20):
                figures = {"source_accuracy": 1.0, job.settings.select.validator: 0.5}
                on_epoch(Epoch({"epoch": number, "timestamp_ms": 0 if number < 8 else made, **figures}))
            return Mock()

    jobs = Jobs(**{each.name: getattr(found.jobs, each.name) for each in fields(found.jobs) if each.init})
    replace(found, jobs=jobs)._train(Mock(), TrialPlan(3, {}, Mock()), 0)
    assert lines == [f"trial 3: epochs of seed 0: {done}/20" for done in (9, 10, 12, 14, 16, 18, 20)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "error: tune.workers: 0 is not allowed; input should be greater than or equal to 1"),
        (["--minutes", "0"], "error: tune.minutes: 0.0 is not allowed; input should be greater than 0"),
        (["--trials", "0"], "error: tune.trials is 0, so there is nothing to tune; give --trials"),
        (["--params", "elsewhere/params.yaml"], "error: tune reads"),
    ],
)
def test_the_command_refuses_before_it_begins(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    for folder in (tmp_path, tmp_path / "elsewhere"):
        (folder / "params.yaml").write_text(dump_settings(Settings()), encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    assert main(["tune", *options]) == 2
    assert capsys.readouterr().err.startswith(message)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("visible", "each", "expected"),
    [
        ("0,1,2,3", 1, ["0", "1", "2", "3", "0"]),
        ("4,7", 1, ["4", "7", "4", "7", "4"]),
        ("0,1,2,3", 2, ["0,1", "2,3", "0,1", "2,3", "0,1"]),
        ("GPU-a,GPU-b,GPU-c", 2, ["GPU-a,GPU-b", "GPU-c,GPU-a", "GPU-b,GPU-c", "GPU-a,GPU-b", "GPU-c,GPU-a"]),
        ("5", 1, [None] * 5),
        ("", 1, [None] * 5),
        ("0,1", 2, [None] * 5),
    ],
)
def test_each_worker_has_gpus_of_its_own_as_far_as_they_go(
    monkeypatch: pytest.MonkeyPatch, visible: str, each: int, expected: list[str | None]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [assign_gpus(worker, each).get("CUDA_VISIBLE_DEVICES") for worker in range(5)] == expected
