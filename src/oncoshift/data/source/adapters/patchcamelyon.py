"""Adapter `patchcamelyon`: PatchCamelyon (PCam), lymph node tiles of 96×96 pixels in HDF5 files.

Any of the published splits, decompressed with `gunzip *.gz`, because HDF5 needs random access
(`<split>` is train, valid or test):

    camelyonpatch_level_2_split_<split>_x.h5      dataset x, uint8 [N, 96, 96, 3]
    camelyonpatch_level_2_split_<split>_y.h5      dataset y, uint8 [N, 1, 1, 1], 1 for tumour
    camelyonpatch_level_2_split_<split>_meta.csv  column wsi, such as camelyon16_train_tumor_001

Row 17 of the training split becomes the PNG `camelyonpatch_level_2_split_train/17.png` below
`unpacked`. Organ: lymph_node. A tile is malignant if its central 32×32 pixels contain metastasis of
breast cancer.

Groups: the slide, from the column `wsi`; without the CSV each tile is its own group.

Licence: CC0. Veeling et al., Rotation Equivariant CNNs for Digital Pathology, MICCAI 2018,
arXiv:1806.03962; from Camelyon16, Ehteshami Bejnordi et al., JAMA 318(22), 2017.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from oncoshift.data.names import is_hidden
from oncoshift.data.source.adapters.base import RawTile, build_nothing_fits_error
from oncoshift.data.source.csv_rows import read_rows
from oncoshift.data.source.folders import list_subfolders
from oncoshift.data.source.made_once import discard, fill_once
from oncoshift.errors import DataError
from oncoshift.files import sha256_file
from oncoshift.parallel import map_in_order

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from oncoshift.settings import IngestSettings

SIDE = 96
_X = re.compile(r"(?P<split>camelyonpatch_level_2_split_(?:train|valid|test))_x\.h5", re.IGNORECASE)
_EXPECTED = "camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5"
_ROWS = 1024
_DEPTH = 2


@dataclass(frozen=True)
class _Split:
    """One published split, its name and files; `meta` may be absent."""

    name: str
    x: Path
    y: Path
    meta: Path | None


class PatchCamelyonAdapter:
    """An adapter of the rows of HDF5 files, which it writes as PNG."""

    title = "PatchCamelyon: camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5 and _meta.csv; CC0"

    def fits(self, root: Path) -> bool:
        """See `Adapter.fits`."""
        return any(_X.fullmatch(path.name.lower().removesuffix(".gz")) for path in _find_files(root))

    def write_tiles(self, root: Path, unpacked: Path) -> None:
        """See `WritesTiles.write_tiles`. Tiles written of other splits are removed."""
        splits = _find_splits(root)
        for stale in list_subfolders(unpacked) if splits and unpacked.is_dir() else ():
            if stale.name not in {split.name for split in splits} and _X.fullmatch(f"{stale.name}_x.h5"):
                discard(stale)
        for split in splits:
            count = len(_read_rows(split))  # first, to fail before anything is written
            _write_once(split, count, unpacked / split.name)

    def scan(self, root: Path, settings: IngestSettings, unpacked: Path) -> list[RawTile]:
        """See `Adapter.scan`."""
        splits = _find_splits(root)
        if not splits:
            raise build_nothing_fits_error(root, _EXPECTED)
        tiles = [
            RawTile(unpacked / split.name / f"{row}.png", f"{split.name}/{row}.png", "lymph_node", label, group)
            for split in splits
            for row, (label, group) in enumerate(_read_rows(split))
        ]
        return sorted(tiles, key=lambda tile: tile.tile_id)


def _find_files(root: Path) -> list[Path]:
    level, found = [root] if root.is_dir() else [], []
    for _ in range(_DEPTH + 1):
        found += [path for folder in level for path in folder.iterdir() if path.is_file() and not is_hidden(path.name)]
        level = [inner for folder in level for inner in list_subfolders(folder)]
    return sorted(found)


def _find_splits(root: Path) -> list[_Split]:
    """Find the published splits below `root`, sorted by name."""
    files = _find_files(root)
    beside = {(path.parent, path.name.lower()): path for path in files}
    splits: dict[str, _Split] = {}
    for path in files:
        match = _X.fullmatch(path.name)
        if match is None:
            continue
        name = match["split"].lower()
        labels = beside.get((path.parent, f"{name}_y.h5"))
        if labels is None:
            raise DataError(f"{path}: the labels are missing; put {name}_y.h5 beside it")
        if name in splits:
            raise DataError(f"{path}: the split is there twice, also as {splits[name].x}; keep one")
        splits[name] = _Split(name, path, labels, beside.get((path.parent, f"{name}_meta.csv")))
    if not splits:
        packed = [path for path in files if _X.fullmatch(path.name.removesuffix(".gz"))]
        if packed:
            raise DataError(f"{packed[0]}: HDF5 is not read from .gz; run `gunzip {packed[0].parent}/*.gz` first")
    return [splits[name] for name in sorted(splits)]


def _read_rows(split: _Split) -> list[tuple[int, str]]:
    """Read label and group of each row."""
    labels = _read_labels(split)
    return list(zip(labels, _read_groups(split, len(labels)), strict=True))


def _write_once(split: _Split, count: int, folder: Path) -> None:
    fill_once(folder, {"x": sha256_file(split.x)}, lambda partial: _write_images(split.x, count, partial))


def _read_labels(split: _Split) -> list[int]:
    with _open(split.y) as file:
        labels = np.asarray(_get_dataset(split.y, file, "y")[...]).reshape(-1)
    if not np.isin(labels, (0, 1)).all():
        raise DataError(f"{split.y}: dataset y has other labels than 0 and 1; fetch the file again")
    return [int(label) for label in labels]


def _read_groups(split: _Split, count: int) -> list[str]:
    if split.meta is None:
        return [f"{split.name}-{row}" for row in range(count)]
    groups = [row["wsi"] for _, row in read_rows(split.meta, ("wsi",))]
    if len(groups) != count or not all(groups):
        raise DataError(
            f"{split.meta}: column wsi names {sum(map(bool, groups))} slides in {len(groups)} rows, and {split.y.name} "
            f"has {count}; fetch it again, or take it away to make each tile a group of its own"
        )
    return groups


def _write_images(path: Path, count: int, folder: Path) -> None:
    with _open(path) as file:
        rows = _get_dataset(path, file, "x")
        if rows.shape != (count, SIDE, SIDE, 3) or rows.dtype != np.uint8:
            raise DataError(
                f"{path}: dataset x is {rows.dtype} {list(rows.shape)}, expected uint8 [{count}, {SIDE}, {SIDE}, 3]"
            )
        for start in range(0, count, _ROWS):
            _write_chunk(rows[start : start + _ROWS], start, folder)


def _write_chunk(images: NDArray[np.uint8], start: int, folder: Path) -> None:
    def write(number: int) -> None:
        Image.fromarray(images[number]).save(folder / f"{start + number}.png", "PNG", compress_level=1)

    map_in_order(write, range(len(images)))


def _open(path: Path) -> Any:
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: no readable HDF5 file ({error}); fetch it again") from error


def _get_dataset(path: Path, file: Any, name: str) -> Any:
    if name not in file:
        raise DataError(f"{path}: has no dataset {name}, but {', '.join(sorted(file)) or 'nothing'}")
    return file[name]
