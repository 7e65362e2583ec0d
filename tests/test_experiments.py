"""Experiments have a folder and settings of their own, and admit one process at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from oncoshift.errors import SettingsError
from oncoshift.experiments import (
    ExperimentError,
    find_project,
    hold_experiment,
    open_layout,
    prepare_experiment,
    resolve_tracking_uri,
    resolve_url,
)
from oncoshift.layout import Layout
from oncoshift.settings import Settings, TrackingSettings, load_settings, replace_values

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "params.yaml").touch()
    (folder / "dvc.yaml").write_text("stages: {}\n")
    return folder


def test_the_project_is_found_from_any_folder_in_it(project: Path) -> None:
    layout = prepare_experiment(project, Settings(), "a")
    deep = layout.folder / "data" / "tiles"
    deep.mkdir(parents=True)
    for start in (project, layout.folder, deep):
        assert find_project(start) == project


def test_a_project_may_itself_lie_in_a_folder_called_experiments(tmp_path: Path) -> None:
    folder = tmp_path / "experiments" / "mine"
    folder.mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        (folder / name).touch()
    assert find_project(folder) == folder


def test_no_project_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="no project here or above"):
        find_project(tmp_path)


def test_an_experiment_has_all_settings_with_the_projects_paths(project: Path) -> None:
    settings = replace_values(Settings(), {"model.weights": "weights/a.safetensors", "train.epochs": 3})
    layout = prepare_experiment(project, settings, "lung-dann")
    written = load_settings(layout.params)
    assert layout.folder == project / "experiments" / "lung-dann"
    assert written.ingest.root == str(project / "data" / "raw")
    assert written.model.weights == str(project / "weights" / "a.safetensors")
    assert written.train.epochs == 3
    assert (layout.folder / "dvc.yaml").read_text() == "stages: {}\n"


def test_absolute_paths_and_named_weights_stay(project: Path) -> None:
    settings = replace_values(Settings(), {"model.weights": "imagenet", "ingest.root": "/tiles"})
    written = load_settings(prepare_experiment(project, settings, "a").params)
    assert (written.model.weights, written.ingest.root) == ("imagenet", "/tiles")


def test_preparing_again_touches_nothing_that_is_the_same(project: Path) -> None:
    def stamps(folder: Path) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}

    layout = prepare_experiment(project, Settings(), "a")
    before = stamps(layout.folder)
    prepare_experiment(project, Settings(), "a")
    assert stamps(layout.folder) == before
    prepare_experiment(project, replace_values(Settings(), {"seed": 1}), "a")
    assert {path for path, stamp in stamps(layout.folder).items() if before[path] != stamp} == {layout.params}


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".hidden", "a b", "é", "a" * 101])
def test_names_cannot_leave_the_folder(project: Path, name: str) -> None:
    with pytest.raises(ExperimentError, match="use letters"):
        prepare_experiment(project, Settings(), name)


def test_the_tracking_store_is_the_projects(project: Path) -> None:
    assert resolve_tracking_uri(project, TrackingSettings(), {}) == f"sqlite:///{project}/mlruns/mlflow.db"
    assert (project / "mlruns").is_dir()
    assert resolve_tracking_uri(
        project, TrackingSettings(uri="sqlite:////there/m.db".replace("/there", str(project))), {}
    ) == (f"sqlite:///{project}/m.db")
    assert resolve_tracking_uri(project, TrackingSettings(uri="http://server"), {}) == "http://server"
    assert resolve_tracking_uri(project, TrackingSettings(), {"MLFLOW_TRACKING_URI": "http://other"}) == "http://other"


def test_a_servers_credentials_move_from_its_address_to_mlflows_variables(project: Path) -> None:
    """MLflow prints the address, and repeats it in each of its errors."""
    environ = {"MLFLOW_TRACKING_URI": "http://me:hun%40ter2@127.0.0.1:5000/prefix"}
    assert resolve_tracking_uri(project, TrackingSettings(), environ) == "http://127.0.0.1:5000/prefix"
    given = [environ[f"MLFLOW_TRACKING_{name}"] for name in ("USERNAME", "PASSWORD")]
    assert given == ["me", "hun@ter2"]


def test_an_address_with_a_user_alone_leaves_the_password_as_it_is(project: Path) -> None:
    environ = {"MLFLOW_TRACKING_URI": "http://me@host", "MLFLOW_TRACKING_PASSWORD": "hunter2"}
    assert resolve_tracking_uri(project, TrackingSettings(), environ) == "http://host"
    given = [environ[f"MLFLOW_TRACKING_{name}"] for name in ("USERNAME", "PASSWORD")]
    assert given == ["me", "hunter2"]


def test_an_address_that_is_none_is_named_without_its_password(project: Path) -> None:
    with pytest.raises(SettingsError, match=r"^MLFLOW_TRACKING_URI: is not a valid URL; percent-encode") as raised:
        resolve_tracking_uri(project, TrackingSettings(), {"MLFLOW_TRACKING_URI": "http://me:hunter2[@host"})
    assert "hunter2" not in str(raised.value)


def test_a_variable_in_a_url_is_replaced_where_it_is_used(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    assert resolve_url("postgresql://me:${DB_PASSWORD}@db/s", project) == "postgresql://me:hunter2@db/s"
    assert resolve_url("sqlite:///${NO_SUCH:-runs}/o.db", project) == f"sqlite:///{project}/runs/o.db"
    assert (project / "runs").is_dir()
    settings = replace_values(Settings(), {"tune.storage": "postgresql://me:${DB_PASSWORD}@db/s"})
    layout = prepare_experiment(project, settings, "a")
    assert "hunter2" not in layout.params.read_text(encoding="utf-8")
    assert load_settings(layout.params).tune.storage == settings.tune.storage


def test_a_second_process_is_told_who_works_in_the_experiment(project: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from oncoshift.layout import Layout\n"
        "from oncoshift.experiments import hold_experiment\n"
        "with hold_experiment(Layout(Path(sys.argv[1]))): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(project)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(ExperimentError, match=f"process {other.pid} is using this"),
            hold_experiment(Layout(project)),
        ):
            pass
        other.kill()
    with hold_experiment(Layout(project)):
        assert (project / "runs" / "experiment.lock").read_text() == str(os.getpid())
    with hold_experiment(Layout(project)):
        pass


def test_an_experiment_shares_the_runs_and_labels_of_its_project_and_of_no_other_folder(project: Path) -> None:
    layout = prepare_experiment(project, Settings(), "a")
    assert open_layout(layout.folder) == layout
    assert open_layout(layout.folder).jobs == Layout(project).jobs
    assert open_layout(layout.folder).labels == project / "data" / "labels"
    assert open_layout(project) == Layout(project)
    elsewhere = project.parent / "experiments" / "b"  # beside no project
    elsewhere.mkdir(parents=True)
    assert open_layout(elsewhere) == Layout(elsewhere)
