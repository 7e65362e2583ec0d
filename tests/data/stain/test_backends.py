"""The two backends, compiled kernels and staintools, agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from support.tiny_tiles import tissue

from oncoshift.data.stain import build_normalizer, pick_backend
from oncoshift.data.stain.sheet import draw_stain_sheet
from oncoshift.errors import SettingsError
from oncoshift.serving.stain import LabStatistics, StainMethod, StainVectors, fit_reference
from oncoshift.settings import NormalizeSettings

if TYPE_CHECKING:
    from oncoshift.serving.stain import StainReference


@pytest.fixture(scope="module")
def tiles() -> np.ndarray:
    """Stained, white, black, grey and one-pixel tiles [9, 64, 64, 3]."""
    plain = [np.full((64, 64, 3), level, np.uint8) for level in (255, 0, 128, 255)]
    plain[3][5, 6] = (120, 40, 130)
    return np.stack([tissue(1, 64), plain[0], tissue(2, 64), *plain[1:], *(tissue(seed, 64) for seed in (3, 4, 5))])


def normalised(backend: str, reference: StainReference, tiles: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Normalise tiles [N, H, W, 3] without writing into them; return images and outcomes."""
    before = tiles.copy()
    images, outcomes = zip(*map(build_normalizer(reference, backend), tiles), strict=True)
    np.testing.assert_array_equal(tiles, before)
    return np.stack(images), list(outcomes)


@pytest.mark.parametrize("method", ["reinhard", "macenko"])
def test_staintools_as_a_backend_agrees(tiles: np.ndarray, method: StainMethod) -> None:
    reference = fit_reference(tissue(0, 64), method)
    ours, theirs = build_normalizer(reference, "numba"), build_normalizer(reference, "staintools")
    expected, outcomes = normalised("staintools", reference, tiles)
    images, own = normalised("numba", reference, tiles)
    assert own == outcomes
    assert {"normalised", "blank", "flat"} == set(outcomes)
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
    expected, _ = normalised("staintools", reference, tile[None])
    images, _ = normalised("numba", reference, tile[None])
    assert np.abs(images.astype(int) - expected).mean() < 1.5


def test_auto_is_numba_whatever_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_backend("auto") == "numba"


@pytest.mark.parametrize("name", ["cupy", "torch"])
def test_another_backend_is_an_error_that_names_those_there_are(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"normalize\.backend: '{name}' is not one of auto, numba, staintools"):
        pick_backend(name)
    with pytest.raises(ValidationError, match="should be 'auto', 'numba' or 'staintools'"):
        NormalizeSettings.model_validate({"backend": name})


def test_the_sheet_has_a_row_a_tile_and_a_column_a_variant(tiles: np.ndarray) -> None:
    stained, outcomes = normalised("numba", fit_reference(tissue(0, 64), "macenko"), tiles[:2])
    variants = {"none": list(tiles[:2]), "macenko": list(stained)}
    figure = draw_stain_sheet(variants, ["lung", "glass"], {"none": ["untouched"] * 2, "macenko": outcomes})
    assert len(figure.axes) == 4
    assert [axis.get_title() for axis in figure.axes[:2]] == ["none", "macenko"]
    assert [axis.get_xlabel() for axis in figure.axes] == ["", "", "", "blank"]
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), stained[0])
    with pytest.raises(ValueError, match="shorter"):
        draw_stain_sheet({"none": list(tiles[:1])}, ["lung", "glass"], {"none": ["untouched"]})
