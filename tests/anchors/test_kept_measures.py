"""Plain measures of a pack are taken group by group, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from oncoshift.anchors import kept, values
from oncoshift.anchors.kept import measure_once
from oncoshift.anchors.measures import MEASURES, measure_group

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

IMAGES = np.random.default_rng(0).integers(40, 250, (6, 32, 32, 3)).astype(np.uint8)
GROUPS = [np.array([1, 4]), np.array([0, 2, 5])]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the groups that are measured from now on."""
    sizes: list[int] = []

    def measure(tiles: NDArray[np.uint8]) -> pd.DataFrame:
        sizes.append(len(tiles))
        return measure_group(tiles)

    monkeypatch.setattr(kept, "measure_group", measure)
    return sizes


def measure(folder: Path, groups: list[NDArray[np.int64]] = GROUPS, digest: str = "pack") -> pd.DataFrame:
    return measure_once(IMAGES, groups, None, folder, digest, lambda *_: None)


def test_each_row_has_its_measures_as_one_of_its_group(tmp_path: Path) -> None:
    found = measure(tmp_path)
    assert found.index.tolist() == [1, 4, 0, 2, 5]
    assert found.columns.tolist() == list(MEASURES)
    np.testing.assert_array_equal(found.loc[[0, 2, 5]], measure_group(IMAGES[[0, 2, 5]]))


def test_what_was_measured_is_read(tmp_path: Path, measured: list[int]) -> None:
    pd.testing.assert_frame_equal(measure(tmp_path), measure(tmp_path))
    assert sorted(measured) == [2, 3]


@pytest.mark.parametrize(("groups", "digest"), [([GROUPS[0]], "pack"), (GROUPS, "another")])
def test_other_groups_and_another_pack_are_measured(
    tmp_path: Path, measured: list[int], groups: list[NDArray[np.int64]], digest: str
) -> None:
    measure(tmp_path)
    measured.clear()
    measure(tmp_path, groups, digest)
    assert len(measured) == len(groups)


def test_a_damaged_file_is_measured_again(tmp_path: Path, measured: list[int]) -> None:
    first = measure(tmp_path)
    (file,) = tmp_path.glob("*.npy")
    content = bytearray(file.read_bytes())
    content[-60] ^= 1
    file.write_bytes(bytes(content))
    pd.testing.assert_frame_equal(measure(tmp_path), first)
    assert sorted(measured) == [2, 2, 3, 3]


def test_a_large_group_is_measured_in_parts_of_all_of_it(
    tmp_path: Path, measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "LARGEST_GROUP", 2)
    found = measure(tmp_path, [np.array([0, 2, 5])])
    assert sorted(measured) == [1, 2]
    assert found.index.tolist() == [0, 2, 5]
    np.testing.assert_array_equal(found.loc[[0, 5]], measure_group(IMAGES[[0, 5]]))
    np.testing.assert_array_equal(found.loc[[2]], measure_group(IMAGES[[2]]))


def test_progress_is_that_of_all_groups_also_where_nothing_is_measured(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    for _ in range(2):
        measure_once(IMAGES, GROUPS, None, tmp_path, "pack", lambda *done: told.append(done))
    assert told == [(1, 2), (2, 2), (2, 2)]
