"""Which experiment a retraining works in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from oncoshift.experiments import ExperimentError
from oncoshift.retraining.prepare import make_plan
from oncoshift.settings import Settings, dump_settings

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.retraining.session import Plan


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text(dump_settings(Settings()), encoding="utf-8")
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "small.yaml").write_text("seed: 3\n", encoding="utf-8")
    return tmp_path


def plan(project: Path, *overrides: str, preset: str | None = None, name: str | None = None) -> Plan:
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


def test_a_name_that_is_no_folders_is_told_before_anything_is_written(project: Path) -> None:
    with pytest.raises(ExperimentError, match=r"experiment '\.\./night': use letters"):
        plan(project, name="../night")
    assert not (project / "experiments").exists()
