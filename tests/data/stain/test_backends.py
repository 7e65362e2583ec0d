"""Backends agree: torch with the compiled kernels on CPU and GPU, and staintools with both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from support.tiny_tiles import tissue

from oncoshift.data.stain import build, pick_backend
from oncoshift.data.stain.sheet import stain_sheet
from oncoshift.data.stain.torch_backend import TorchBackend
from oncoshift.errors import SettingsError
from oncoshift.serving.images import decode
from oncoshift.serving.stain import LabStatistics, StainVectors, fit_reference

if TYPE_CHECKING:
    from pathlib import Path

METHODS = ("reinhard", "macenko", "vahadane")
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    """Stained, white, black, grey and one-pixel tiles [9, 64, 64, 3]."""
    plain = [np.full((64, 64, 3), level, np.uint8) for level in (255, 0, 128, 255)]
    plain[3][5, 6] = (120, 40, 130)
    return np.stack([tissue(1, 64), plain[0], tissue(2, 64), *plain[1:], *(tissue(seed, 64) for seed in (3, 4, 5))])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=cuda)])
@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("precision", ["fast", "exact"])
@pytest.mark.parametrize("method", METHODS)
def test_torch_agrees_with_numba(
    tiles: np.ndarray, method: str, precision: str, standardize: bool, device: str
) -> None:
    reference = fit_reference(tissue(0, 64), method, standardize_luminosity=standardize, precision=precision)
    before = tiles.copy()
    expected, outcomes = build(reference, "numba").batch(tiles)
    images, theirs = TorchBackend(reference, device).batch(tiles)
    assert theirs == outcomes
    assert {"normalised", "blank", "flat"} == set(outcomes)
    apart = np.abs(images.astype(int) - expected)
    assert apart.max() <= (0 if method == "reinhard" else 1)
    assert apart.mean() < 0.01
    np.testing.assert_array_equal(tiles, before)
    empty, none = TorchBackend(reference, device).batch(tiles[:0])
    assert (empty.shape, none) == ((0, 64, 64, 3), [])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=cuda)])
@pytest.mark.parametrize("method", METHODS)
def test_torch_agrees_with_numba_on_real_tiles(shared: Path, method: str, device: str) -> None:
    files = sorted((shared / "data" / "tiles").rglob("*.jpg"))[:: 4006 // 6]
    real = np.stack([decode(file.read_bytes()) for file in files])
    reference = fit_reference(real[0], method)
    expected, outcomes = build(reference, "numba").batch(real)
    images, theirs = TorchBackend(reference, device).batch(real)
    assert theirs == outcomes
    assert np.abs(images.astype(int) - expected).mean() < 0.01


def test_what_else_is_in_a_batch_changes_nothing(tiles: np.ndarray) -> None:
    reference = fit_reference(tissue(0, 64), "vahadane")
    backend = TorchBackend(reference, "cpu")
    together, _ = backend.batch(tiles)
    alone = np.concatenate([backend.batch(tiles[row : row + 1])[0] for row in range(len(tiles))])
    assert np.abs(together.astype(int) - alone).max() <= 1


@pytest.mark.parametrize("method", ["reinhard", "macenko"])
def test_staintools_as_a_backend_agrees(tiles: np.ndarray, method: str) -> None:
    reference = fit_reference(tissue(0, 64), method)
    ours, theirs = build(reference, "numba"), build(reference, "staintools")
    expected, outcomes = theirs.batch(tiles)
    images, own = ours.batch(tiles)
    assert own == outcomes
    assert np.abs(images.astype(int) - expected).mean() < 0.1
    fit, peer = ours.fit_group(tiles), theirs.fit_group(tiles)
    assert not isinstance(fit, str)
    assert not isinstance(peer, str)
    assert isinstance(fit, LabStatistics if method == "reinhard" else StainVectors)
    for tile in tiles[[0, 1, 8]]:
        first, second = ours.apply(tile, fit), theirs.apply(tile, peer)
        assert first.outcome == second.outcome
        assert np.abs(first.image.astype(int) - second.image).mean() < 0.1
    assert theirs.fit_group(tiles[1:2]) == "blank"


def test_staintools_vahadane_is_close() -> None:
    tile = tissue(1, 64)
    reference = fit_reference(tissue(0, 64), "vahadane")
    expected, _ = build(reference, "staintools").batch(tile[None])
    images, _ = build(reference, "numba").batch(tile[None])
    assert np.abs(images.astype(int) - expected).mean() < 1.5


def test_auto_is_torch_on_a_gpu_and_numba_elsewhere() -> None:
    assert pick_backend("auto") == ("torch" if torch.cuda.is_available() else "numba")
    with pytest.raises(SettingsError, match=r"normalize\.backend: 'cupy' is not one of"):
        pick_backend("cupy")


def test_the_sheet_has_a_row_a_tile_and_a_column_a_variant(tiles: np.ndarray) -> None:
    stained, outcomes = build(fit_reference(tissue(0, 64), "macenko"), "numba").batch(tiles[:2])
    variants = {"none": tiles[:2], "macenko": stained}
    figure = stain_sheet(variants, ["lung", "glass"], {"none": ["untouched"] * 2, "macenko": outcomes})
    assert len(figure.axes) == 4
    assert [axis.get_title() for axis in figure.axes[:2]] == ["none", "macenko"]
    assert [axis.get_xlabel() for axis in figure.axes] == ["", "", "", "blank"]
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), stained[0])
    with pytest.raises(ValueError, match="shorter"):
        stain_sheet({"none": tiles[:1]}, ["lung", "glass"], {"none": ["untouched"]})
