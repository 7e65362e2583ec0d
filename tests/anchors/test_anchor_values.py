"""Anchors are measured group by group, once, and described by name and digest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from oncoshift.anchors import values as module
from oncoshift.anchors.registry import ANCHORS
from oncoshift.anchors.values import combine, describe_anchor, identify_anchor, measure_anchor, standardise
from oncoshift.settings.training import AnchorSettings

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

IMAGES = np.random.default_rng(0).integers(40, 250, (6, 32, 32, 3)).astype(np.uint8)
GROUPS = np.array([4, 4, 1, 1, 4, 0])


def measure(folder: Path, groups: NDArray[np.int64] | None = GROUPS) -> NDArray[np.float64]:
    return measure_anchor("nuclei", IMAGES, groups, AnchorSettings(), folder, "pack")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the groups that are measured from now on, by a measure that names the group."""
    sizes: list[int] = []

    def name_group(tiles: NDArray[np.uint8], _settings: AnchorSettings) -> NDArray[np.float64]:
        sizes.append(len(tiles))
        return np.full(len(tiles), float(tiles.mean()))

    monkeypatch.setattr(module, "resolve_name", lambda _name: name_group)
    return sizes


def test_the_tiles_of_a_group_are_measured_together(tmp_path: Path, measured: list[int]) -> None:
    found = measure(tmp_path)
    assert sorted(measured) == [1, 2, 3]
    expected = {group: IMAGES[group == GROUPS].mean() for group in (0, 1, 4)}
    np.testing.assert_allclose(found, [expected[group] for group in GROUPS.tolist()])


def test_without_groups_each_tile_is_its_own(tmp_path: Path, measured: list[int]) -> None:
    measure(tmp_path, groups=None)
    assert measured == [1] * 6


def test_a_large_group_is_measured_in_parts(
    tmp_path: Path, measured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_GROUP", 2)
    measure(tmp_path)
    assert sorted(measured) == [1, 1, 2, 2]


def test_parts_of_a_group_mix_tiles_whose_paths_are_sorted_by_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_GROUP", 2)
    assert [rows.tolist() for rows in module._part(5, np.zeros(5, np.int64))] == [[0, 3], [1, 4], [2]]


def test_groups_of_no_tile_that_is_asked_for_are_not_measured(tmp_path: Path, measured: list[int]) -> None:
    rows = np.array([5, 0])
    settings = AnchorSettings()
    found = measure_anchor("nuclei", IMAGES, GROUPS, settings, tmp_path, "pack", rows)
    assert sorted(measured) == [1, 3]
    assert (found == measure(tmp_path)[rows]).all()
    assert (measure_anchor("nuclei", IMAGES, GROUPS, settings, tmp_path, "pack", rows) == found).all()
    assert len(measured) == 5, "what was measured for these rows is read"


def test_what_was_measured_is_read(tmp_path: Path, measured: list[int]) -> None:
    first = measure(tmp_path)
    assert (measure(tmp_path) == first).all()
    assert len(measured) == 3
    measure(tmp_path, groups=GROUPS * 0)
    assert measured[3:] == [6], "other groups are another measurement"


def test_a_damaged_file_is_measured_again(
    tmp_path: Path, measured: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    first = measure(tmp_path)
    (file,) = tmp_path.rglob("*.npy")
    data = bytearray(file.read_bytes())
    data[-60] ^= 1
    file.write_bytes(data)
    assert (measure(tmp_path) == first).all()
    assert len(measured) == 6
    assert "the anchor is measured again" in caplog.text


def test_values_are_standardised_and_a_constant_says_nothing() -> None:
    np.testing.assert_allclose(standardise(np.array([1.0, 3.0])), [-1, 1])
    assert (standardise(np.ones(3)) == 0).all()
    both = combine([np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0])])
    np.testing.assert_allclose(both, standardise(np.arange(3.0)))
    assert (combine([np.array([1.0, 2.0]), np.array([2.0, 1.0])]) == 0).all()


def test_a_file_of_the_users_is_named_by_its_content(tmp_path: Path) -> None:
    for name in ("one", "same", "other"):
        (tmp_path / f"{name}.onnx").write_bytes(b"other" if name == "other" else b"same")
    one, same, other = (
        AnchorSettings(use=("nuclei", "epithelium"), epithelium=str(tmp_path / f"{name}.onnx"))
        for name in ("one", "same", "other")
    )
    assert identify_anchor(one) == identify_anchor(same) != identify_anchor(other)
    assert describe_anchor(one).startswith("nuclei + epithelium (one.onnx, ")
    assert describe_anchor(AnchorSettings()) == "nuclei"


@pytest.mark.parametrize("name", ANCHORS)
def test_a_row_names_settings_that_there_are(name: str) -> None:
    assert set(ANCHORS[name].reads) <= AnchorSettings.model_fields.keys()
