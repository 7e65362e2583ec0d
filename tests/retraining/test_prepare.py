"""A retraining works in the right experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from oncoshift.errors import DataError, SettingsError
from oncoshift.experiments import ExperimentError
from oncoshift.fingerprint import fingerprint_weights
from oncoshift.phantom import write_phantom
from oncoshift.retraining import prepare
from oncoshift.retraining.prepare import is_data_current, make_plan
from oncoshift.settings import Settings, dump_settings, replace_values
from oncoshift.versioning import DvcError

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.retraining.session import RetrainingPlan


@pytest.fixture
def project(tmp_path: Path) -> Path:
    settings = replace_values(Settings(), {"phantom.organs": ["lung", "colon", "breast", "kidney", "skin"]})
    (tmp_path / "params.yaml").write_text(dump_settings(settings), encoding="utf-8")
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "small.yaml").write_text("seed: 3\n", encoding="utf-8")
    return tmp_path


def plan(project: Path, *overrides: str, preset: str | None = None, name: str | None = None) -> RetrainingPlan:
    options: dict[str, Any] = {"force": False, "environ": {}, "say": print}
    return make_plan(project, preset=preset, overrides=overrides, name=name, **options)


def folder(project: Path, *overrides: str, **options: str | None) -> str:
    return plan(project, *overrides, **options).layout.folder.relative_to(project).as_posix()


def test_without_a_name_the_folder_says_preset_and_target_and_hashes_other_settings(project: Path) -> None:
    assert folder(project) == "."
    assert folder(project, preset="small") == "experiments/small-kidney"
    assert folder(project, "target=skin") == "experiments/custom-skin"
    assert folder(project, "seed=1").startswith("experiments/custom-kidney-")


@pytest.mark.parametrize("overrides", [(), ("seed=1",), ("seed=1", "target=skin")])
def test_a_named_experiment_lies_in_the_folder_of_that_name(project: Path, overrides: tuple[str, ...]) -> None:
    for name in ("night", "night.2"):
        found = plan(project, *overrides, preset="small", name=name)
        assert found.layout.folder == project / "experiments" / name
        assert found.layout.shared == project
        assert found.settings.seed == (1 if overrides else 3)


def test_relative_weights_are_those_of_the_project_wherever_the_command_runs(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "check_inputs", Mock())
    (project / "tiles").mkdir()
    monkeypatch.chdir(project / "tiles")
    (project / "trunk.safetensors").write_bytes(b"the project's")
    (project / "tiles" / "trunk.safetensors").write_bytes(b"another")
    found = plan(project, "model.weights=trunk.safetensors").settings.model.weights
    assert fingerprint_weights(found) == fingerprint_weights(str(project / "trunk.safetensors"))


def test_what_is_missing_is_told_before_anything_is_written(project: Path) -> None:
    with pytest.raises(DataError, match="no tiles of eye"):
        make_plan(project, preset=None, overrides=("target=eye",), force=True, environ={}, say=print)
    assert {path.name for path in project.iterdir()} == {"params.yaml", "presets"}


def test_a_split_that_leaks_is_not_retrained_on(project: Path) -> None:
    with pytest.raises(SettingsError, match=r"split\.by tile.*set it to group"):
        make_plan(project, preset=None, overrides=("split.by=tile",), force=False, environ={}, say=print)


def test_a_name_that_is_no_folders_is_told_before_anything_is_written(project: Path) -> None:
    with pytest.raises(ExperimentError, match=r"experiment '\.\./night': use letters"):
        plan(project, name="../night")
    assert not (project / "experiments").exists()


def test_data_are_current_only_where_the_stages_would_find_all_as_they_left_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"phantom.groups_per_class": 2, "phantom.tiles_per_group": 1, "phantom.tile_size": 32}
    (project / "params.yaml").write_text(dump_settings(replace_values(Settings(), small)), encoding="utf-8")
    made = plan(project)
    (project / "dvc.lock").touch()
    (project / "data").mkdir()
    pointer = project / "data" / "raw.dvc"
    pointer.touch()
    monkeypatch.setattr(prepare, "is_current", lambda *_: True)
    assert not is_data_current(made)  # there is no phantom
    write_phantom(made.settings.phantom, project / "data" / "raw")
    assert is_data_current(made)
    pointer.unlink()
    assert not is_data_current(made)
    pointer.touch()
    monkeypatch.setattr("oncoshift.phantom.write._EDITION", -1)
    assert not is_data_current(made)  # it would be drawn differently now
    monkeypatch.undo()
    monkeypatch.setattr(prepare, "is_current", Mock(side_effect=DvcError("dvc.lock: damaged")))
    assert not is_data_current(made)
