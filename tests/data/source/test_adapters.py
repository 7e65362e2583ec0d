"""All adapters are listed, told apart, and read folders and archives alike."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from support.data_sets import open_and_scan

from oncoshift.cli import main
from oncoshift.data.source.adapters.registry import ADAPTERS, load_adapter
from oncoshift.errors import DataError
from oncoshift.settings import IngestSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TREES = {
    "breakhis": "histology_slides/breast/benign/SOB/adenosis/SOB_B_A_14-22549AB/200X/SOB_B_A-14-22549AB-200-001.png",
    "camelyon17_wilds": "patches/patient_004_node_4/patch_patient_004_node_4_x_3328_y_21792.png",
    "folder": "lung/benign/p1_1.png",
    "lc25000": "lung_colon_image_set/lung_image_sets/lung_n/lungn1.jpeg",
    "manifest": "tiles.csv",
    "multi_cancer": "Multi Cancer/Breast Cancer/breast_benign/breast_benign_0001.jpg",
    "nct_crc": "NCT-CRC-HE-100K/TUM/TUM-AAAHNQNH.tif",
    "patchcamelyon": "camelyonpatch_level_2_split_valid_x.h5",
    "phantom": "PHANTOM.txt",
}  # fmt: skip


def test_the_settings_know_every_adapter() -> None:
    assert set(IngestSettings.model_json_schema()["properties"]["adapter"]["enum"]) == set(ADAPTERS) == set(TREES)


def test_ingest_lists_every_adapter_without_a_project(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ingest", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(ADAPTERS)
    assert all(load_adapter(name).title in line for name, line in zip(ADAPTERS, lines, strict=True))


@pytest.mark.parametrize("name", sorted(TREES))
def test_each_layout_is_recognised_by_its_adapter_alone(tmp_path: Path, put: Callable[..., None], name: str) -> None:
    put(tmp_path, TREES[name])
    assert [other for other in ADAPTERS if load_adapter(other).fits(tmp_path)] == [name]


@pytest.mark.parametrize("name", sorted(set(TREES) - {"manifest", "patchcamelyon", "phantom"}))
def test_the_wrong_adapter_is_told_which_one_would_fit(tmp_path: Path, put: Callable[..., None], name: str) -> None:
    put(tmp_path / "raw", TREES[name])
    for other in set(ADAPTERS) - {name}:
        with pytest.raises(DataError, match=f"looks like ingest.adapter: {name}$"):
            open_and_scan(IngestSettings.model_validate({"adapter": other}), tmp_path / "raw", tmp_path / "unpacked")


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_an_absent_or_empty_root_is_refused(tmp_path: Path, name: str) -> None:
    settings = IngestSettings.model_validate({"adapter": name})
    with pytest.raises(DataError, match="no such folder or file"):
        open_and_scan(settings, tmp_path / "raw", tmp_path / "unpacked")
    (tmp_path / "raw").mkdir()
    with pytest.raises(DataError, match=r"ingest\.root"):
        open_and_scan(settings, tmp_path / "raw", tmp_path / "unpacked")


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tiles.rar").write_bytes(b"Rar!")
    with pytest.raises(DataError, match=r"tiles.rar: is a file; .*\.zip, \.tar"):
        open_and_scan(IngestSettings(adapter="folder"), tmp_path / "tiles.rar", tmp_path / "unpacked")


def test_what_an_earlier_archive_left_goes(tmp_path: Path, put: Callable[..., None]) -> None:
    put(tmp_path / "raw", TREES["folder"])
    archive = shutil.make_archive(str(tmp_path / "tiles"), "zip", tmp_path / "raw")
    settings, unpacked = IngestSettings(adapter="folder"), tmp_path / "unpacked"
    open_and_scan(settings, tmp_path / archive, unpacked)
    assert unpacked.is_dir()
    open_and_scan(settings, tmp_path / "raw", unpacked)
    assert not unpacked.exists()


def test_unpacking_says_how_far_it_is(tmp_path: Path, put: Callable[..., None]) -> None:
    put(tmp_path / "raw", *(f"lung/benign/p{number}_1.png" for number in range(20)))
    archive = tmp_path / shutil.make_archive(str(tmp_path / "tiles"), "tar", tmp_path / "raw")
    steps: list[tuple[int, int]] = []
    open_and_scan(
        IngestSettings(adapter="folder"),
        archive,
        tmp_path / "unpacked",
        lambda done, total: steps.append((done, total)),
    )
    assert steps == sorted(steps)
    assert all(0 < done <= total == archive.stat().st_size for done, total in steps)
