"""Folders, manifests and the phantom give the same tiles every time, and errors name the place."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Literal

import pytest
from support.data_sets import open_and_scan

from oncoshift.data.source.adapters.folder import MARKER, parse_group
from oncoshift.data.source.adapters.phantom import to_mask_path
from oncoshift.data.source.adapters.registry import load_adapter
from oncoshift.errors import DataError
from oncoshift.settings import IngestSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oncoshift.data.source.adapters.base import RawTile

    Found = Callable[..., list[RawTile]]


def scan(adapter: Literal["folder", "manifest", "phantom"], root: Path) -> list[RawTile]:
    return load_adapter(adapter).scan(root, IngestSettings(adapter=adapter), root / "unpacked")


HEADER = "path,organ,label,group,sha256\n"


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_folder_lists_every_image_sorted_with_group_and_label(tmp_path: Path) -> None:
    touch(tmp_path, "lung/malignant/p2_10.PNG", "lung/benign/p1_1.jpg", "lung/unlabelled/scan.Tiff")
    touch(tmp_path, "lung/benign/notes.txt", "lung/benign/.hidden.png", ".cache/x/y.png")
    tiles = scan("folder", tmp_path)
    assert [(tile.tile_id, tile.organ, tile.label, tile.group) for tile in tiles] == [
        ("lung/benign/p1_1.jpg", "lung", 0, "p1"),
        ("lung/malignant/p2_10.PNG", "lung", 1, "p2"),
        ("lung/unlabelled/scan.Tiff", "lung", -1, "scan"),
    ]


@pytest.mark.parametrize(
    ("stem", "group"), [("p1_3", "p1"), ("a_b_12", "a_b"), ("p1_x", "p1_x"), ("_3", "_3"), ("tile7", "tile7")]
)
def test_group_is_what_stands_before_the_number(stem: str, group: str) -> None:
    assert parse_group(stem) == group


def test_folder_refuses_a_label_that_it_does_not_know(tmp_path: Path) -> None:
    touch(tmp_path, "lung/tumour/p1_1.png")
    with pytest.raises(DataError, match=r"'tumour' is not a label.*benign, malignant, unknown"):
        scan("folder", tmp_path)


def test_folder_refuses_tiles_hidden_one_level_deeper(tmp_path: Path) -> None:
    touch(tmp_path, "lung/benign/patient/1.png")
    with pytest.raises(DataError, match="a folder inside a label"):
        scan("folder", tmp_path)


@pytest.mark.parametrize("make", [False, True])
def test_folder_says_that_there_is_nothing(tmp_path: Path, make: bool) -> None:
    root = tmp_path / "raw"
    if make:
        root.mkdir()
    with pytest.raises(DataError, match=r"ingest\.root .*no (such folder|images)"):
        scan("folder", root)


def test_phantom_needs_its_marker_and_passes_over_masks(tmp_path: Path) -> None:
    touch(tmp_path, "lung/benign/g1_0.png", "masks/lung/benign/g1_0.png")
    with pytest.raises(DataError, match=r"no PHANTOM\.txt"):
        scan("phantom", tmp_path)
    touch(tmp_path, MARKER)
    (tile,) = scan("phantom", tmp_path)
    assert tile.tile_id == "lung/benign/g1_0.png"
    assert to_mask_path(tmp_path, tile.tile_id).is_file()


@pytest.mark.parametrize("place", ["", "tiles/"])
@pytest.mark.parametrize("give_csv", [True, False])
def test_manifest_finds_files_beside_it_or_in_tiles(tmp_path: Path, place: str, give_csv: bool) -> None:
    touch(tmp_path, f"{place}b/2.jpg", f"{place}a/1.jpg")
    manifest = tmp_path / "tiles.csv"
    manifest.write_text(f"{HEADER}b/2.jpg,lung,malignant,g2,ABC\na/1.jpg,colon,,g1,\n")
    first, second = scan("manifest", manifest if give_csv else tmp_path)
    assert (first.tile_id, first.label, first.sha256_expected) == ("a/1.jpg", -1, None)
    assert (second.tile_id, second.label, second.sha256_expected) == ("b/2.jpg", 1, "abc")
    assert first.path.is_file()
    assert second.path.is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,organ\na.jpg,lung\n", "line 1 lacks the columns label, group; it has path, organ"),
        (HEADER, "no rows"),
        (HEADER + "a.jpg,lung,tumour,g,\n", r"line 2, column label: 'tumour' is not a label; allowed: benign"),
        (HEADER + "a.jpg,lung,benign,g,\na.jpg,,benign,g,\n", "line 3, column organ: is empty"),
        (HEADER + "../a.jpg,lung,benign,g,\n", "line 2, column path: '../a.jpg' must stay below"),
        (HEADER + "/a.jpg,lung,benign,g,\n", "line 2, column path"),
        (HEADER + "no.jpg,lung,benign,g,\n", "all 1 files are absent, for example no.jpg"),
        (HEADER + ",lung,benign,g,\n" * 9, r"9 bad rows(.|\n)*and 4 more"),
    ],
)
def test_manifest_errors_name_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "tiles.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        scan("manifest", tmp_path)


def test_manifest_reads_the_real_tiles(shared: Path) -> None:
    tiles = scan("manifest", shared / "data")
    assert len(tiles) == 4006
    assert {tile.organ for tile in tiles} == {"lung", "colon", "breast", "kidney"}
    assert all(tile.sha256_expected for tile in tiles)


def test_made_up_tiles_are_never_taken_for_a_users_own(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    touch(root, "lung/benign/lung-b000_00.png", "lung/malignant/lung-m000_00.png", MARKER)
    with pytest.raises(DataError, match="holds the made-up data set"):
        scan("folder", root)
    assert len(scan("phantom", root)) == 2


def test_the_case_of_organs_and_labels_does_not_matter(tmp_path: Path) -> None:
    touch(tmp_path, "Lung/Benign/p1_1.png", "LUNG2/MALIGNANT/p2_1.png")
    assert [(tile.organ, tile.label) for tile in scan("folder", tmp_path)] == [("lung2", 1), ("lung", 0)]


def test_the_case_of_a_manifests_organs_and_labels_does_not_matter(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "tiles.csv").write_text(f"{HEADER}a.jpg, Kidney ,Benign,g1,\nb.jpg,KIDNEY,MALIGNANT,G2,\n")
    tiles = scan("manifest", tmp_path)
    assert [(tile.organ, tile.label, tile.group) for tile in tiles] == [("kidney", 0, "g1"), ("kidney", 1, "G2")]


def test_folders_that_are_no_organs_names_are_refused_by_name(tmp_path: Path, found: Found) -> None:
    touch(tmp_path / "raw", "Lymph Node/benign/p1_1.png", "Lymph Node/malignant/p2_1.png", "lung/benign/p3_1.png")
    touch(tmp_path / "raw", "2/benign/p4_1.png")
    with pytest.raises(DataError, match=r"2 organs have names that are not allowed; a name matches \^\[a-z\]") as error:
        found("folder", tmp_path / "raw")
    assert str(error.value).splitlines()[1:] == [
        "'2': 1 tiles, the first is 2/benign/p4_1.png; rename the folder",
        "'lymph node': 2 tiles, the first is Lymph Node/benign/p1_1.png; rename the folder, for example to lymph_node",
    ]


def test_a_manifests_bad_organs_are_named_and_counted_and_the_rest_is_summed_up(tmp_path: Path, found: Found) -> None:
    touch(tmp_path / "raw", "a.jpg")
    rows = "".join(f"{row}.jpg,Niere (rechts) {row % 7},benign,g,\n" for row in range(14))
    (tmp_path / "raw" / "tiles.csv").write_text(f"{HEADER}a.jpg,lung,benign,g,\n{rows}")
    with pytest.raises(DataError, match=r"7 organs have names(.|\n)*and 2 more$") as error:
        found("manifest", tmp_path / "raw")
    assert (
        "'niere (rechts) 0': 2 tiles, the first is 0.jpg; correct column organ, for example to niere_rechts_0"
        in str(error.value)
    )


@pytest.mark.parametrize("wrapper", ["delivery", "delivery/tiles"])
def test_one_folder_around_the_organs_does_not_matter(tmp_path: Path, wrapper: str) -> None:
    touch(tmp_path / wrapper, "lung/benign/p1_1.png", "colon/malignant/p2_1.png")
    assert [tile.tile_id for tile in scan("folder", tmp_path)] == ["colon/malignant/p2_1.png", "lung/benign/p1_1.png"]


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "xztar"])
@pytest.mark.parametrize("wrapper", ["", "delivery"])
def test_an_archive_gives_the_tiles_of_the_folder(tmp_path: Path, found: Found, kind: str, wrapper: str) -> None:
    touch(tmp_path / "raw" / wrapper, "lung/benign/p1_1.png", "colon/malignant/p2_1.JPG", "lung/benign/notes.doc")
    archive = shutil.make_archive(str(tmp_path / "tiles"), kind, tmp_path / "raw")
    tiles = found("folder", tmp_path / archive)
    assert [(tile.tile_id, tile.organ, tile.label) for tile in tiles] == [
        ("colon/malignant/p2_1.JPG", "colon", 1),
        ("lung/benign/p1_1.png", "lung", 0),
    ]
    assert all(tile.path.read_bytes() == b"x" for tile in tiles)


def test_a_manifest_in_an_archive_finds_its_tiles(tmp_path: Path, found: Found) -> None:
    touch(tmp_path / "raw" / "set", "tiles/a/1.jpg")
    (tmp_path / "raw" / "set" / "tiles.csv").write_text(f"{HEADER}a/1.jpg,lung,benign,g,\n")
    archive = shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path / "raw")
    (tile,) = found("manifest", tmp_path / archive)
    assert tile.path.read_bytes() == b"x"


def test_a_phantom_in_an_archive_stays_made_up_and_keeps_its_masks(tmp_path: Path) -> None:
    touch(tmp_path / "raw" / "phantom", "lung/benign/g1_0.png", "masks/lung/benign/g1_0.png", MARKER)
    archive = shutil.make_archive(str(tmp_path / "phantom"), "zip", tmp_path / "raw")
    found = open_and_scan(IngestSettings(adapter="phantom"), tmp_path / archive, tmp_path / "unpacked")
    (tile,) = found.tiles
    assert found.made_up
    root = tile.path.parents[2]
    assert to_mask_path(root, tile.tile_id).is_file()
    with pytest.raises(DataError, match="holds the made-up data set"):
        open_and_scan(IngestSettings(adapter="folder"), tmp_path / archive, tmp_path / "unpacked")
