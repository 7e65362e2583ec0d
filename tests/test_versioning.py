"""Real DVC on a tiny data set: what has not changed does not run, and what has, runs alone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tiny_tiles import write_tree

from oncoshift.data.loading import load_training_data
from oncoshift.experiments import prepare_experiment
from oncoshift.layout import Layout
from oncoshift.methods.factory import TERMS, method_settings
from oncoshift.settings import Settings, dump_settings, with_values
from oncoshift.versioning import (
    DvcError,
    ensure_local_remote,
    file_hash,
    push,
    repro,
    stage_outs,
    version_raw,
)

PROJECT = Path(__file__).resolve().parent.parent
TINY = {"target": "kidney", "sources": ["lung", "colon"], "ingest.adapter": "folder", "normalize.tile_size": 32}
DATA_STAGES = ["ingest", "split", "normalize"]


def write_params(folder: Path, **changes: object) -> Settings:
    settings = with_values(Settings(), TINY | {key.replace("__", "."): value for key, value in changes.items()})
    (folder / "params.yaml").write_text(dump_settings(settings), encoding="utf-8")
    return settings


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a tiny data set, outside any git checkout."""
    folder = tmp_path / "project"
    (folder / ".dvc").mkdir(parents=True)
    for name in ("dvc.yaml", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        shutil.copy(PROJECT / name, folder / name)
    write_tree(folder / "data" / "raw", groups=8, tiles=1)
    write_params(folder)
    return folder


def test_only_what_has_changed_runs(project: Path) -> None:
    lines: list[str] = []
    assert repro(project, "normalize", lines.append) == DATA_STAGES
    assert "normalize: none: 48 made, 0 kept; 48 untouched: data/packs/none" in lines
    outs = stage_outs(project)
    assert set(outs) == {"data/code", "data/tiles", "data/splits", "data/packs"}
    assert repro(project, "normalize") == []

    write_params(project, split__test_share=0.25)
    assert repro(project, "normalize") == ["split"]
    assert stage_outs(project)["data/packs"] == outs["data/packs"]

    write_params(project, split__seed=1)
    assert repro(project, "normalize") == ["split", "normalize"]
    assert stage_outs(project)["data/tiles"] == outs["data/tiles"]
    assert stage_outs(project)["data/splits"] != outs["data/splits"]

    write_params(project)
    assert repro(project, "normalize") == ["normalize"], "the first split comes back from DVC's cache"
    assert stage_outs(project) == outs


def test_raw_data_are_versioned_and_pushed(project: Path, tmp_path: Path) -> None:
    first = version_raw(project, project / "data" / "raw")
    assert first is not None
    assert first.endswith(".dir")
    assert version_raw(project, project / "data" / "raw") == first
    assert version_raw(project, tmp_path) is None
    (project / "data" / "raw" / "lung" / "benign" / "lung-b0_0.png").unlink()
    assert version_raw(project, project / "data" / "raw") != first

    with pytest.raises(DvcError, match="no remote"):
        push(project)
    ensure_local_remote(project)
    ensure_local_remote(project)
    push(project)
    assert any((project / ".dvc-remote").rglob("*.dir"))
    assert "remote" not in (project / ".dvc" / "config").read_text(), "the project's own configuration stays as it was"


def test_a_configured_remote_is_left_alone(project: Path) -> None:
    with (project / ".dvc" / "config").open("a") as file:
        file.write('[remote "team"]\n    url = s3://bucket/oncoshift\n')
    ensure_local_remote(project)
    assert "remote" not in (project / ".dvc" / "config.local").read_text()


def test_an_experiment_in_a_git_ignored_folder_stands_alone(project: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(project)], check=True)
    (project / ".gitignore").write_text("/experiments/\n")
    layouts = [prepare_experiment(project, write_params(project, split__seed=seed), f"seed-{seed}") for seed in (0, 1)]
    assert repro(layouts[0].folder, "normalize") == DATA_STAGES
    assert repro(layouts[0].folder, "normalize") == []
    assert repro(layouts[1].folder, "normalize") == ["split", "normalize"], "ingest comes from the shared cache"
    assert len(load_training_data(layouts[1], "none", ("lung", "colon")).target.rows) == 8
    assert not (project / "data" / "tiles").exists()
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=project, check=True, capture_output=True, text=True
    ).stdout
    assert "experiments" not in status


def test_a_failing_stage_ends_with_its_own_words(project: Path) -> None:
    write_params(project, sources=["liver", "colon"])
    with pytest.raises(
        DvcError, match=r"(?s)`dvc repro split` failed.*error: no tiles of liver.*has colon, kidney, lung"
    ):
        repro(project, "split")


def test_hash_of_a_file_is_the_one_that_dvc_keeps_it_under(tmp_path: Path) -> None:
    (tmp_path / "tile").write_bytes(b"hello\n")
    assert file_hash(tmp_path / "tile") == "b1946ac92492d2347c6235b4d2611184"
    assert stage_outs(tmp_path) == {}


def test_dvc_yaml_keeps_target_labels_from_training() -> None:
    import yaml

    stages = yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for dep in stages["train"]["deps"]:
        assert "audit" not in dep
        assert "test" not in dep
        assert dep not in {"data/splits", "data/tiles", "data/tiles/tiles.parquet"}
    assert {stage["cmd"] for stage in stages.values()} == {f"oncoshift {name}" for name in stages}
    assert stages["normalize"]["outs"] == [{Layout(Path()).packs.as_posix(): {"persist": True}}]


def test_dvc_trains_again_when_anything_changes_that_a_method_reads() -> None:
    import yaml

    params = set(yaml.safe_load((PROJECT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["train"]["params"])
    for method in TERMS:
        read = method_settings(with_values(Settings(), {"train.method": method}))
        assert {"model", "train", "seed", *read} <= params, method
