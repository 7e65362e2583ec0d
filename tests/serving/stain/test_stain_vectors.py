"""Stain vectors and concentrations equal those of staintools, spams and a painted tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import spams
from staintools.miscellaneous.get_concentrations import get_concentrations
from staintools.stain_extraction.macenko_stain_extractor import MacenkoStainExtractor

from oncoshift.serving.images import decode
from oncoshift.serving.stain import macenko, vahadane
from oncoshift.serving.stain.concentrations import SPARSITY, concentrations, restain
from oncoshift.serving.stain.density import DENSITY, LUMINANCE, densities

if TYPE_CHECKING:
    from pathlib import Path

STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])


def painted(seed: int, side: int = 64) -> np.ndarray:
    """Paint a tile of two stains in known amounts, uint8 [side, side, 3].

    Most pixels hold little of one of the stains.
    """
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(2.0, 0.25, (2, side * side)) * np.where(rng.random((2, side * side)) < 0.4, 0.02, 1)
    vectors = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    return (255 * np.exp(-amounts.T @ vectors)).astype(np.uint8).reshape(side, side, 3)


def tissue_of(tile: np.ndarray) -> np.ndarray:
    return densities(tile.reshape(-1, 3), 1, DENSITY, LUMINANCE)[1]


def degrees(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute the angles between the rows of two matrices [2, 3]."""
    return np.degrees(np.arccos(np.clip((first * second).sum(axis=1), -1, 1)))


def real_tiles(shared: Path, count: int) -> list[np.ndarray]:
    files = sorted((shared / "data" / "tiles").rglob("*.jpg"))
    return [decode(file.read_bytes()) for file in files[:: len(files) // count][:count]]


def objective(tissue: np.ndarray, stains: np.ndarray) -> float:
    """Compute the mean of ½‖x − Dα‖² + λ‖α‖₁ with spams' best α."""
    x, atoms = np.asfortranarray(tissue, np.float64), np.asfortranarray(stains.T)
    found = spams.lasso(X=x, D=atoms, mode=2, lambda1=vahadane.SPARSITY, pos=True).toarray()
    return float((((x - atoms @ found) ** 2).sum(axis=0) / 2 + vahadane.SPARSITY * found.sum(axis=0)).mean())


def test_macenko_is_staintools(shared: Path) -> None:
    for tile in [*real_tiles(shared, 24), painted(0)]:
        ours = macenko.stain_vectors(tissue_of(tile))
        assert ours is not None
        np.testing.assert_allclose(ours, MacenkoStainExtractor.get_stain_matrix(tile.copy()), atol=1e-5)


def test_vahadane_is_where_spams_gets_to_with_time(shared: Path) -> None:
    """staintools stops spams after a second; 3,000 rounds from a fixed start reach the minimum."""
    for tile in real_tiles(shared, 3):
        tissue = tissue_of(tile)
        ours, start = vahadane.stain_vectors(tissue), macenko.stain_vectors(tissue)
        assert ours is not None
        assert start is not None
        atoms = spams.trainDL(
            X=np.asfortranarray(tissue, np.float64), D=np.asfortranarray(np.maximum(start, 0).T), K=2, iter=3000,
            lambda1=vahadane.SPARSITY, mode=2, modeD=0, posAlpha=True, posD=True, verbose=False, numThreads=1,
        ).T  # fmt: skip
        atoms = atoms[np.argsort(-atoms[:, 0])]
        theirs = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
        assert degrees(ours, theirs).max() < 0.1
        assert objective(tissue, ours) <= objective(tissue, theirs) + 1e-7
        assert objective(tissue, ours) < objective(tissue, start)


@pytest.mark.parametrize("seed", range(3))
def test_vahadane_finds_the_stains_that_a_tile_was_painted_with(seed: int) -> None:
    ours = vahadane.stain_vectors(tissue_of(painted(seed)))
    assert ours is not None
    assert degrees(ours, STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)).max() < 4


def test_tissue_of_one_colour_has_no_stain_vectors() -> None:
    grey = np.repeat(np.random.default_rng(0).integers(20, 190, (1, 500, 1)).astype(np.uint8), 3, axis=2)
    for tile in (grey, np.full((4, 4, 3), (120, 60, 140), np.uint8), np.full((1, 1, 3), 90, np.uint8)):
        assert macenko.stain_vectors(tissue_of(tile)) is None
        assert vahadane.stain_vectors(tissue_of(tile)) is None


def test_concentrations_are_those_of_spams() -> None:
    rng = np.random.default_rng(0)
    tile = rng.integers(0, 256, (64, 64, 3), np.uint8)
    everything, _ = densities(tile.reshape(-1, 3), 1, DENSITY, LUMINANCE)
    for _ in range(20):
        stains = rng.uniform(-0.1, 1, (2, 3))
        stains /= np.linalg.norm(stains, axis=1, keepdims=True)
        if stains[0] @ stains[1] > 0.995:
            continue
        ours = concentrations(everything, stains.astype(np.float32), SPARSITY)
        np.testing.assert_allclose(ours.T, get_concentrations(tile.copy(), stains), atol=2e-3)


def test_painting_with_a_given_stain_matrix_is_staintools(shared: Path) -> None:
    stains = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
    target = stains[::-1] * [[1.3], [0.8]]
    for tile in real_tiles(shared, 8):
        expected = (255 * np.exp(-get_concentrations(tile.copy(), stains) @ target)).astype(np.uint8)
        ours = restain(
            tile.reshape(-1, 3), stains.astype(np.float32), target.astype(np.float32), DENSITY, SPARSITY
        )  # fmt: skip
        assert np.abs(ours - expected.astype(int)).mean() < 0.001
        assert np.abs(ours - expected.astype(int)).max() <= 1
