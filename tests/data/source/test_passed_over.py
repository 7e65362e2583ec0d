"""Files that no adapter takes are counted, system files are not, and Unicode forms are equal."""

from __future__ import annotations

import errno
import os
import shutil
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.data_sets import open_and_scan

from oncoshift.settings import IngestSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from oncoshift.data.source.adapters.base import RawTile

    Found = Callable[..., list[RawTile]]

LEFT_BY_SYSTEMS = (
    "__MACOSX/lung/benign/._p1_1.png", "@eaDir/p1_1.png", "lost+found/x.png", ".ipynb_checkpoints/p1_1.png",
    "Thumbs.db", ".DS_Store", "desktop.ini",
)  # fmt: skip
PUBLISHED = {
    "breakhis": "BreaKHis_v1/histology_slides/breast/SOB_B_A-14-22549AB-200-001.png",
    "folder": "lung/benign/p1_1.png",
    "lc25000": "lung_image_sets/lung_n/lungn1.jpeg",
    "multi_cancer": "Breast Cancer/breast_benign/breast_benign_0001.jpg",
    "nct_crc": "NCT-CRC-HE-100K/TUM/TUM-AAAHNQNH.tif",
}


@pytest.mark.parametrize("adapter", sorted(PUBLISHED))
def test_what_systems_leave_is_no_part_of_any_layout(tmp_path: Path, put: Callable[..., None], adapter: str) -> None:
    name = PUBLISHED[adapter]
    put(tmp_path / "raw", name, *LEFT_BY_SYSTEMS, *(str(Path(name).parent / left) for left in LEFT_BY_SYSTEMS))
    found = open_and_scan(IngestSettings.model_validate({"adapter": adapter}), tmp_path / "raw", tmp_path / "unpacked")
    assert [tile.tile_id for tile in found.tiles] == [name]
    assert found.passed_over.counts == {}


@pytest.mark.parametrize("adapter", sorted(PUBLISHED))
def test_each_adapter_tells_of_what_it_does_not_take(tmp_path: Path, put: Callable[..., None], adapter: str) -> None:
    name = PUBLISHED[adapter]
    unread, elsewhere = str(Path(name).with_suffix(".gif")), f"{name.split('/')[0]}/elsewhere.png"
    put(tmp_path / "raw", name, unread, elsewhere, "more.zip")
    found = open_and_scan(IngestSettings.model_validate({"adapter": adapter}), tmp_path / "raw", tmp_path / "unpacked")
    assert [tile.tile_id for tile in found.tiles] == sorted([unread, name])
    assert found.passed_over.counts == {".png": 1, ".zip": 1}


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_members_that_are_not_unpacked_are_counted_by_kind_whenever_it_is_asked(
    tmp_path: Path, put: Callable[..., None], kind: str
) -> None:
    put(tmp_path / "raw", "lung/benign/p1_1.png", "lung/benign/p2_1.gif", *LEFT_BY_SYSTEMS)
    put(tmp_path / "raw", "lung/benign/more.zip", "lung.tar.gz", "read.me", "lung/Read.ME")
    archive = Path(shutil.make_archive(str(tmp_path / "set"), kind, tmp_path / "raw"))
    for _ in range(2):  # the second time, nothing is unpacked
        found = open_and_scan(IngestSettings(adapter="folder"), archive, tmp_path / "unpacked")
        assert [tile.tile_id for tile in found.tiles] == ["lung/benign/p1_1.png", "lung/benign/p2_1.gif"]
        assert found.passed_over.counts == {".gz": 1, ".me": 2, ".zip": 1}
        (warning,) = found.passed_over.warnings()
        assert warning.startswith("archives in the data set were not unpacked: 2, for example lung.tar.gz")


def test_a_manifest_tells_of_files_that_it_does_not_name(tmp_path: Path, put: Callable[..., None]) -> None:
    put(tmp_path / "raw", "tiles/a.png", "tiles/b.png")
    (tmp_path / "raw" / "tiles.csv").write_text("path,organ,label,group\na.png,lung,benign,g\n")
    found = open_and_scan(IngestSettings(adapter="manifest"), tmp_path / "raw", tmp_path / "unpacked")
    assert found.passed_over.counts == {".png": 1}
    assert found.passed_over.first == {".png": "tiles/b.png"}


def test_what_has_nothing_to_do_with_the_tiles_stops_nothing_and_is_told(
    tmp_path: Path, put: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "raw", "tiles/a.png", "private/b.png")
    put(tmp_path / "elsewhere", "deep/x.txt", "y.txt")
    (tmp_path / "raw" / "tiles.csv").write_text("path,organ,label,group\ntiles/a.png,lung,benign,g\n")
    (tmp_path / "raw" / "more").symlink_to(tmp_path / "elsewhere")
    listed = os.scandir

    def refuse(folder: Path) -> Any:
        if Path(folder).name == "private":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        return listed(folder)

    monkeypatch.setattr("os.scandir", refuse)
    found = open_and_scan(IngestSettings(adapter="manifest"), tmp_path / "raw", tmp_path / "unpacked").passed_over
    assert found.counts == {"folders that may not be opened": 1, "links to folders elsewhere": 1}
    assert found.warnings() == ["folders cannot be opened, for example private; change their permissions"]


def test_beside_tiles_behind_a_link_is_counted_as_well(tmp_path: Path, put: Callable[..., None]) -> None:
    put(tmp_path / "raw", "lung/benign/p1_1.png")
    put(tmp_path / "elsewhere", "benign/p2_1.png", "benign/more.zip", "notes.txt")
    (tmp_path / "raw" / "skin").symlink_to(tmp_path / "elsewhere")
    found = open_and_scan(IngestSettings(adapter="folder"), tmp_path / "raw", tmp_path / "unpacked")
    assert len(found.tiles) == 2
    assert found.passed_over.counts == {".txt": 1, ".zip": 1}


@pytest.mark.parametrize("adapter", ["folder", "manifest", "lc25000"])
def test_one_patient_in_two_forms_of_unicode_is_one_group(
    tmp_path: Path, put: Callable[..., None], found: Found, adapter: str
) -> None:
    names = [unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD")]
    folder = {"folder": "lung/benign", "manifest": "tiles", "lc25000": "lung_n"}[adapter]
    ends = ("_1.png", "_2.png") if adapter != "lc25000" else (".png", ".png")
    put(tmp_path / "raw", *(f"{folder}/{name}{end}" for name, end in zip(names, ends, strict=True)))
    if adapter == "manifest":
        rows = [f"{names[0]}{end},lung,benign,{name}" for name, end in zip(names, ends, strict=True)]
        (tmp_path / "raw" / "tiles.csv").write_text("\n".join(["path,organ,label,group", *rows]), encoding="utf-8")
    tiles = found(adapter, tmp_path / "raw")
    assert len(tiles) == 2
    assert {tile.group for tile in tiles} == {"Müller"}
    assert all(tile.path.is_file() for tile in tiles), "a manifest's path is found in the form that the disk has"
