"""A retraining checks everything it needs before it starts."""

from __future__ import annotations

import shutil
from functools import partial
from typing import TYPE_CHECKING

import pytest
from support.tiny_tiles import write_tree

from oncoshift.errors import DataError, SettingsError, WeightsError
from oncoshift.retraining.inputs import check_inputs, count_tiles_by_organ
from oncoshift.settings import Settings, replace_values

if TYPE_CHECKING:
    from pathlib import Path

MINE = {"ingest.adapter": "folder", "sources": ["lung", "colon"]}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    write_tree(tmp_path / "data" / "raw", groups=1, tiles=1)
    return tmp_path


def test_data_of_all_organs_and_no_weights_are_enough(project: Path) -> None:
    check_inputs(project, replace_values(Settings(), MINE))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (MINE | {"target": "skin"}, "no tiles of skin, which target or sources names; of .* has colon, kidney"),
        (MINE | {"sources": ["lung", "breast"]}, "no tiles of breast"),
        (MINE | {"ingest.root": "elsewhere"}, "elsewhere: no such folder"),
        ({"target": "skin"}, "no tiles of skin, which .* has breast, colon, kidney, lung"),  # of the phantom to be made
    ],
)
def test_an_organ_without_tiles_is_told_with_those_that_there_are(
    project: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        check_inputs(project, replace_values(Settings(), changes))


def test_an_archive_is_not_unpacked_to_look(project: Path) -> None:
    raw = project / "data" / "raw"
    archive = shutil.make_archive(str(project / "tiles"), "zip", raw)
    settings = replace_values(Settings(), MINE)
    assert count_tiles_by_organ(settings.ingest, project / archive) is None
    assert count_tiles_by_organ(settings.ingest, raw) == {"lung": 2, "colon": 2, "kidney": 2}


@pytest.mark.parametrize("content", [None, b"no weights"])
def test_weights_are_found_from_the_projects_root_or_told(
    project: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    monkeypatch.chdir("/")
    if content is not None:
        (project / "a.safetensors").write_bytes(content)
    words = "no such file" if content is None else "not a safetensors file"
    with pytest.raises(WeightsError, match=f"model.weights {project}/a.safetensors: {words}"):
        check_inputs(project, replace_values(Settings(), MINE | {"model.weights": "a.safetensors"}))


@pytest.mark.parametrize("cached", [None, b"cut sho"])
def test_imagenet_weights_that_cannot_be_had_are_told(
    project: Path, monkeypatch: pytest.MonkeyPatch, cached: bytes | None
) -> None:
    """The weights are missing and there is no network, or their cached file is truncated."""
    monkeypatch.setenv("TORCH_HOME", str(project))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    folder = project / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    if cached is not None:
        (folder / "resnet18-f37072fd.pth").write_bytes(cached)
    words = "could not be downloaded" if cached is None else "cannot be read .*; delete it"
    with pytest.raises(WeightsError, match=f"model.weights imagenet: .*{words}"):
        check_inputs(project, replace_values(Settings(), MINE | {"model.weights": "imagenet"}))


def test_what_timm_itself_asserts_of_a_trunk_is_told_as_a_fault_of_the_settings(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")
    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, global_pool="catavgmax"))
    settings = replace_values(Settings(), MINE | {"model.backbone": "timm/convnext_atto"})
    with pytest.raises(SettingsError, match="timm cannot build it: Pooling that changes the pooled width"):
        check_inputs(project, settings)
