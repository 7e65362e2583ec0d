"""A batch is the same tiles whatever it comes as, and knows its groups only where all are named."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from support.tiny_tiles import tissue

from oncoshift.watching.batch import read_batch

if TYPE_CHECKING:
    from pathlib import Path


def write_tiles(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        Image.fromarray(tissue(seed)).save(folder / name)
    return folder


NAMES = [f"p{group}_{number}.png" for group in range(3) for number in range(group + 1)]


def test_groups_are_read_from_names(tmp_path: Path) -> None:
    batch = read_batch(write_tiles(tmp_path / "new", NAMES), 100)
    assert batch.groups_known
    assert np.bincount(batch.groups).tolist() == [1, 2, 3]


def test_one_tile_without_a_group_makes_the_batch_one_group(tmp_path: Path) -> None:
    batch = read_batch(write_tiles(tmp_path / "new", [*NAMES, "tile.png"]), 100)
    assert not batch.groups_known
    assert set(batch.groups) == {0}


def test_a_csv_names_groups(tmp_path: Path) -> None:
    folder = write_tiles(tmp_path / "new", ["a.png", "b.png", "c.png"])
    (folder / "list.csv").write_text("path,group\na.png,x\nb.png,x\nc.png,y\n")
    assert np.bincount(read_batch(folder / "list.csv", 100).groups).tolist() == [2, 1]


def test_the_tiles_are_spread_over_the_groups(tmp_path: Path) -> None:
    batch = read_batch(write_tiles(tmp_path / "new", NAMES), 4)
    assert (batch.total, len(batch.tiles)) == (6, 4)
    assert np.bincount(batch.groups).tolist() == [1, 2, 1] or np.bincount(batch.groups).tolist() == [1, 1, 2]


@pytest.mark.parametrize("most", [4, 100])
def test_a_folder_and_an_archive_of_it_are_one_batch(tmp_path: Path, most: int) -> None:
    folder = write_tiles(tmp_path / "new", NAMES)
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as file:
        for name in reversed(NAMES):
            file.write(folder / name, name)
    assert read_batch(folder, most).digest == read_batch(tmp_path / "new.zip", most).digest
    write_tiles(folder, [*reversed(NAMES)])
    assert read_batch(folder, most).digest != read_batch(tmp_path / "new.zip", most).digest
