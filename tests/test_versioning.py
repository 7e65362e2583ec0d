"""Real DVC on a tiny data set runs only the stages that a change affects."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.tiny_tiles import write_tree

from oncoshift.data.loading import load_training_data
from oncoshift.experiments import prepare_experiment
from oncoshift.files import hold_lock
from oncoshift.fingerprint import fingerprint_stages
from oncoshift.layout import Layout
from oncoshift.methods.factory import select_method_settings
from oncoshift.methods.registry import METHODS
from oncoshift.settings import Settings, dump_settings, replace_values
from oncoshift.versioning import (
    DvcError,
    ensure_local_remote,
    hash_file,
    is_current,
    push,
    read_stage_outs,
    repro,
    version_raw,
)

PROJECT = Path(__file__).resolve().parent.parent
TINY = {"target": "kidney", "sources": ["lung", "colon"], "ingest.adapter": "folder", "normalize.tile_size": 32}
DATA_STAGES = ["ingest", "split", "normalize"]


def write_params(folder: Path, **changes: object) -> Settings:
    settings = replace_values(Settings(), TINY | {key.replace("__", "."): value for key, value in changes.items()})
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
    outs = read_stage_outs(project)
    assert set(outs) == {"data/code", "data/tiles", "data/splits", "data/packs"}
    assert repro(project, "normalize") == []
    assert is_current(project, "normalize", fingerprint_stages())
    assert not is_current(project, "normalize", fingerprint_stages() | {"split": "of other code"})
    (project / "data/code/split.txt").write_bytes(b"\xff")  # a doubt, which the stages settle
    assert not is_current(project, "normalize", fingerprint_stages())

    write_params(project, split__test_share=0.25)
    assert not is_current(project, "normalize", fingerprint_stages())
    assert repro(project, "normalize") == ["split"]
    assert read_stage_outs(project)["data/packs"] == outs["data/packs"]

    write_params(project, split__seed=1)
    assert repro(project, "normalize") == ["split", "normalize"]
    assert read_stage_outs(project)["data/tiles"] == outs["data/tiles"]
    assert read_stage_outs(project)["data/splits"] != outs["data/splits"]

    write_params(project)
    assert repro(project, "normalize") == ["normalize"], "the first split comes back from DVC's cache"
    assert read_stage_outs(project) == outs


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


def test_retrainings_that_begin_at_once_add_the_remote_once(project: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(ensure_local_remote, [project] * 3))
    assert (project / ".dvc" / "config.local").read_text().count("['remote") == 1


def test_a_configured_remote_is_left_alone(project: Path) -> None:
    with (project / ".dvc" / "config").open("a") as file:
        file.write('[remote "team"]\n    url = s3://bucket/oncoshift\n')
    ensure_local_remote(project)
    assert "remote" not in (project / ".dvc" / "config.local").read_text()


@pytest.mark.slow
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


def test_a_table_of_locks_that_a_crash_left_half_written_is_removed(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = project / ".dvc" / "tmp" / "rwlock"
    table.parent.mkdir()
    for name in ("lock", "rwlock.lock"):
        table.with_name(name).write_bytes(b"\xffbroken")  # which stops nothing
    table.write_bytes(b"")
    command = [sys.executable, "-m", "dvc", "add", "data/raw"]
    assert subprocess.run(command, cwd=project, capture_output=True, check=False).returncode, "DVC does not go on"
    for left in (b"", b'{"write": {"/tiles": {"pid": 7, "c', b'{"write": 3}', b"\xff\xfe"):
        table.write_bytes(left)
        caplog.clear()
        ensure_local_remote(project)
        assert "rwlock: removed" in caplog.text
    assert version_raw(project, project / "data" / "raw") is not None


def test_a_table_of_locks_is_left_to_who_holds_it(project: Path) -> None:
    """A process that is writing the table has emptied it first."""
    table = project / ".dvc" / "tmp" / "rwlock"
    table.parent.mkdir()
    table.write_bytes(b"")
    with ThreadPoolExecutor() as pool:
        with hold_lock(table.with_name("rwlock.lock")):
            added = pool.submit(version_raw, project, project / "data" / "raw")
            time.sleep(0.5)
            assert not added.done()
            assert table.exists()
            table.write_bytes(b"{}")
        assert added.result(timeout=60) is not None


@pytest.mark.parametrize("length", [0, 20, 60])
def test_a_damaged_dvc_lock_is_named_with_the_remedy(project: Path, length: int) -> None:
    lock = project / "dvc.lock"
    whole = b"schema: '2.0'\nstages:\n  code:\n    cmd: make it\n    outs:\n    - path: data/code\n      md5: a.dir\n"
    lock.write_bytes(whole[:length])
    for call in (lambda: repro(project, "ingest"), lambda: read_stage_outs(project)):
        with pytest.raises(DvcError, match=r"dvc\.lock: damaged, perhaps cut short; restore it from git, or remove it"):
            call()
    lock.write_bytes(whole)
    assert read_stage_outs(project) == {"data/code": "a.dir"}


def test_a_damaged_pointer_to_raw_data_is_named_with_the_remedy(project: Path) -> None:
    pointer = project / "data" / "raw.dvc"
    for left in ("outs:\n- md5: 45b1eb2ff8.dir\n", 'outs:\n- md5: "45b1', "outs:\n", "outs: []\n", ""):
        pointer.write_text(left)
        with pytest.raises(DvcError, match=r"raw\.dvc: damaged, perhaps cut short; .* or remove it"):
            version_raw(project, project / "data" / "raw")
    pointer.unlink()
    assert version_raw(project, project / "data" / "raw") is not None, "the remedy helps"


@pytest.mark.parametrize("left", [b"[core\n", b"\xff[core]\n", b"no_scm\n"])
def test_a_damaged_configuration_is_named(project: Path, left: bytes) -> None:
    (project / ".dvc" / "config.local").write_bytes(left)
    with pytest.raises(DvcError, match=r"config or config.local is damaged: .*; mend or remove it"):
        version_raw(project, project / "data" / "raw")


def test_a_damaged_index_of_dvc_is_told_with_the_remedy(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "index"))
    version_raw(project, project / "data" / "raw")
    for path in (tmp_path / "index").rglob("cache.db*"):
        path.write_bytes(b"garbage") if path.suffix == ".db" else path.unlink()
    with pytest.raises(DvcError, match="DVC's index is damaged; remove its folder"):
        version_raw(project, project / "data" / "raw")
    shutil.rmtree(tmp_path / "index")
    assert version_raw(project, project / "data" / "raw") is not None


def test_dvcs_index_which_it_unpickles_lies_where_nobody_else_can_write(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    version_raw(project, project / "data" / "raw")
    assert list((project / ".dvc" / "tmp" / "site").rglob("cache.db"))


def test_a_password_in_an_address_is_neither_said_nor_in_the_error(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages: {a: {cmd: 'true', deps: ['http://me:hunter2@127.0.0.1:9/tiles']}}\n")
    lines: list[str] = []
    with pytest.raises(DvcError) as caught:
        repro(project, "a", lines.append)
    assert "http://127.0.0.1:9/tiles" in str(caught.value)
    assert "hunter2" not in str(caught.value) + str(lines)


def test_hash_of_a_file_is_the_one_that_dvc_keeps_it_under(tmp_path: Path) -> None:
    (tmp_path / "tile").write_bytes(b"hello\n")
    assert hash_file(tmp_path / "tile") == "b1946ac92492d2347c6235b4d2611184"
    assert read_stage_outs(tmp_path) == {}


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
    for method in METHODS:
        read = select_method_settings(replace_values(Settings(), {"train.method": method}))
        assert {"model", "train", "seed", *read} <= params, method
