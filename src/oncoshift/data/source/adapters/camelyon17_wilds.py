"""Adapter `camelyon17_wilds`: Camelyon17-WILDS, lymph node tiles of 96×96 pixels, five hospitals.

As WILDS publishes it in `camelyon17_v1.0` (`<nnn>` is a patient's number, such as 004):

    metadata.csv  (row), patient, node, x_coord, y_coord, tumor, slide, center, split
    patches/patient_<nnn>_node_<node>/patch_patient_<nnn>_node_<node>_x_<x>_y_<y>.png

The domain of a tile is its hospital, `hospital-0` to `hospital-4`, from the column `center`. A tile
is malignant if its central 32×32 pixels contain metastasis of breast cancer (column `tumor`).

Groups: the patient, because tiles that overlap, and slides of one patient, must not be split. The
column `split` divides tiles at random, so its validation shows the slides that it trains on; it is
not followed. It only tells the tiles of WILDS' second download, `camelyon17_unlabeled_v1.0`, which
have no label and are read if that folder is below the root as well.

Licence: CC0. Koh et al., WILDS: A Benchmark of in-the-Wild Distribution Shifts, ICML 2021,
arXiv:2012.07421; Sagawa et al., ICLR 2022, arXiv:2112.05090; from Camelyon17, Bándi et al., IEEE
Transactions on Medical Imaging 38(2), 2019.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from oncoshift.data.source.adapters.base import BENIGN, MALIGNANT, RawTile, build_nothing_fits_error
from oncoshift.data.source.csv_rows import BadRows, read_rows
from oncoshift.data.source.folders import find_folders, list_subfolders
from oncoshift.data.tables import UNKNOWN
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from oncoshift.settings import IngestSettings

COLUMNS = ("patient", "node", "x_coord", "y_coord", "tumor", "center", "split")
NAME = "metadata.csv"
_HOSPITALS = ("0", "1", "2", "3", "4")
_LABELS = {"0": BENIGN, "1": MALIGNANT}
_LABELLED, _UNLABELLED = ("0", "1"), "10"
_SLIDE = re.compile(r"patient_\d+_node_\d+")
_EXPECTED = f"{NAME} and patches/patient_<nnn>_node_<node>/patch_patient_<nnn>_node_<node>_x_<x>_y_<y>.png"


class Camelyon17WildsAdapter:
    """An adapter of patches listed in a CSV, whose domains are hospitals."""

    title = f"Camelyon17-WILDS: {NAME} beside patches/patient_<nnn>_node_<node>/…; domains are hospitals; CC0"

    def fits(self, root: Path) -> bool:
        """See `Adapter.fits`."""
        return bool(_find_patches(root))

    def scan(self, root: Path, settings: IngestSettings, unpacked: Path) -> list[RawTile]:
        """See `Adapter.scan`. The file of a row may be missing."""
        folders = _find_patches(root)
        if not folders:
            raise build_nothing_fits_error(root, _EXPECTED)
        tiles = [tile for folder in folders for tile in _list_tiles(root, folder)]
        return sorted(tiles, key=lambda tile: tile.tile_id)


def _find_patches(root: Path) -> list[Path]:
    """Find the folders `patches` that have a folder for each slide."""
    return [
        folder
        for folder in find_folders(root, ("patches",))
        if any(_SLIDE.fullmatch(slide.name) for slide in list_subfolders(folder))
    ]


def _list_tiles(root: Path, patches: Path) -> list[RawTile]:
    metadata = patches.parent / NAME
    if not metadata.is_file():
        raise DataError(f"{metadata}: is missing; put the file of that name from WILDS' download beside {patches.name}")
    tiles: list[RawTile] = []
    hospitals: dict[str, str] = {}
    bad = BadRows(metadata)
    for line, row in read_rows(metadata, COLUMNS):
        try:
            tile = _parse_tile(row, root, patches)
            first = hospitals.setdefault(tile.group, tile.organ)
            if first != tile.organ:
                raise ValueError(f"column center: {tile.group} is of {tile.organ} here and of {first} above")
        except ValueError as error:
            bad.add(line, error)
        else:
            tiles.append(tile)
    bad.refuse()
    if not tiles:
        raise DataError(f"{metadata}: no rows below the header; fetch it again")
    if not any(tile.path.is_file() for tile in tiles):
        raise DataError(f"{metadata}: all {len(tiles)} patches are absent, for example {tiles[0].tile_id}")
    return tiles


def _parse_tile(row: dict[str, str], root: Path, patches: Path) -> RawTile:
    patient, node, x, y = (_parse_number(row, column) for column in ("patient", "node", "x_coord", "y_coord"))
    center = _parse_choice(row, "center", _HOSPITALS)
    unlabelled = _parse_choice(row, "split", (*_LABELLED, _UNLABELLED)) == _UNLABELLED
    label = UNKNOWN if unlabelled else _LABELS[_parse_choice(row, "tumor", tuple(_LABELS))]
    slide = f"patient_{patient:03}_node_{node}"  # a spreadsheet would have taken the zeros away
    path = patches / slide / f"patch_{slide}_x_{x}_y_{y}.png"
    return RawTile(path, path.relative_to(root).as_posix(), f"hospital-{center}", label, f"patient_{patient:03}")


def _parse_number(row: dict[str, str], column: str) -> int:
    if re.fullmatch("[0-9]+", row[column]) is None:
        raise ValueError(f"column {column}: {row[column]!r} is not a whole number")
    return int(row[column])


def _parse_choice(row: dict[str, str], column: str, allowed: tuple[str, ...]) -> str:
    if row[column] not in allowed:
        raise ValueError(f"column {column}: {row[column]!r} is not allowed; allowed: {', '.join(allowed)}")
    return row[column]
