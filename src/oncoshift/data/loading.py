"""Loading packs and splits from disk, as the types that training and evaluation receive.

Training reads source_train, source_val, target_train and a pack, none of which contains a target
label. Those are in audit, test and tiles.parquet, which only `load_evaluation_tiles` and
`load_masks` open.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from PIL import Image

from oncoshift.data.packs.pack import Pack, pack_digest
from oncoshift.data.parquet import read_table
from oncoshift.data.raw import find_tile_paths
from oncoshift.data.source.adapters.phantom import MASKS, to_mask_path
from oncoshift.data.split_checks import assert_disjoint
from oncoshift.data.tables import EvaluationTiles, SourceTiles, TargetTiles, TrainingData
from oncoshift.errors import DataError
from oncoshift.files import sha256_file
from oncoshift.parallel import map_in_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from oncoshift.layout import Layout

LabelledSplit = Literal["source_train", "source_val", "audit", "test"]
TRAINING_SPLITS = ("source_train", "source_val", "target_train")
_PLAIN = ("tile_id", "organ", "group")
_LABELLED = (*_PLAIN, "label")


def load_training_data(layout: Layout, variant: str, sources: Sequence[str]) -> TrainingData:
    """Load all that a training job may see.

    Args:
        layout: the experiment.
        variant: which pack.
        sources: the source organs; their order gives `SourceTiles.organs` its numbers.

    Raises:
        DataError: a stage has not run, the stages do not match, or the splits share a group.
    """
    pack = Pack.open(layout.packs / variant)
    train, val = (_read_split(layout, name) for name in ("source_train", "source_val"))
    target = _read_split(layout, "target_train")
    assert_disjoint({"source_train": train, "source_val": val, "target_train": target})
    return TrainingData(
        source=_build_source_tiles(pack, train, tuple(sources)),
        source_val=_build_source_tiles(pack, val, tuple(sources)),
        target=TargetTiles(pack.images, pack.rows(target["tile_id"].tolist())),
        tile_ids=pack.index["tile_id"].to_numpy(object),
        groups=pd.factorize(pack.index["group"])[0].astype(np.int64),
    )


def load_evaluation_tiles(layout: Layout, variant: str, split_names: Sequence[LabelledSplit]) -> EvaluationTiles:
    """Load the labelled tiles of some splits, one split after the other.

    Raises:
        DataError: a stage has not run, the stages do not match, or a split shares a group with the
            training tiles.
    """
    pack = Pack.open(layout.packs / variant)
    names = dict.fromkeys((*TRAINING_SPLITS, *split_names))
    frames = {name: _read_split(layout, name) for name in names}
    assert_disjoint(frames)
    tiles = pd.concat([frames[name] for name in split_names], ignore_index=True)
    return EvaluationTiles(
        images=pack.images,
        rows=pack.rows(tiles["tile_id"].tolist()),
        labels=tiles["label"].to_numpy(np.int64),
        organs=tiles["organ"].to_numpy(np.str_),
        groups=tiles["group"].to_numpy(np.str_),
        tile_ids=tiles["tile_id"].to_numpy(np.str_),
    )


def load_masks(layout: Layout, tile_ids: Sequence[str], side: int) -> NDArray[np.bool_] | None:
    """Load the true masks of nuclei if the data set has them.

    Args:
        layout: the experiment.
        tile_ids: which tiles.
        side: side of a packed tile in pixels; masks are resized to it by nearest neighbour.

    Returns:
        bool [N, side, side] in the order of `tile_ids`, or None for a data set without masks.

    Raises:
        DataError: a tile is unknown, or some of the masks are missing.
    """
    if not tile_ids:
        return None
    root = _find_root(find_tile_paths(layout, tile_ids)[0], tile_ids[0])
    if not (root / MASKS).is_dir():
        return None
    return np.stack(map_in_order(lambda tile_id: _read_mask(to_mask_path(root, tile_id), side), tile_ids))


def data_fingerprint(layout: Layout, variant: str) -> str:
    """Hash all that training reads, the pack and the three training splits, as hex SHA-256."""
    digest = hashlib.sha256(pack_digest(layout.packs / variant).encode())
    for name in TRAINING_SPLITS:
        digest.update(sha256_file(layout.splits / f"{name}.parquet").encode())
    return digest.hexdigest()


def _read_split(layout: Layout, name: str) -> pd.DataFrame:
    columns = _PLAIN if name == "target_train" else _LABELLED
    return read_table(layout.splits / f"{name}.parquet", columns, stage="split")


def _build_source_tiles(pack: Pack, tiles: pd.DataFrame, sources: tuple[str, ...]) -> SourceTiles:
    organs = pd.Index(sources).get_indexer(pd.Index(tiles["organ"]))
    if (organs < 0).any() or len(set(organs)) < len(sources):
        found = ", ".join(sorted(tiles["organ"].unique()))
        raise DataError(
            f"the splits were made for the sources {found}, not {', '.join(sources)}; run `dvc repro split`"
        )
    return SourceTiles(
        images=pack.images,
        rows=pack.rows(tiles["tile_id"].tolist()),
        labels=tiles["label"].to_numpy(np.int64),
        organs=organs.astype(np.int64),
        organ_names=sources,
    )


def _find_root(path: Path, tile_id: str) -> Path:
    """Find the data set's root: a tile's path without its tile_id."""
    return path.parents[len(PurePosixPath(tile_id).parts) - 1]


def _read_mask(path: Path, side: int) -> NDArray[np.bool_]:
    if not path.is_file():
        raise DataError(f"{path}: no such mask; write the data set again with `oncoshift phantom`")
    with Image.open(path) as image:
        return np.asarray(image.convert("L").resize((side, side), Image.Resampling.NEAREST)) > 0
